# Two commands do everything: `make demo` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c '$(SUPPORTED)' 2>/dev/null && echo $$p && break; done)

.PHONY: help install demo test bench lint docs translations lock wheel

help:
	@echo "make demo     install, start Elasticsearch, draw 300 pictures, make them searchable, serve the page"
	@echo "make test     install, run every test against a real Elasticsearch node"
	@echo "make bench    measure every figure that the documentation names"
	@echo "make lint     check style, formatting, spelling and types"
	@echo "make docs     write docs/commands.md from the commands' help"
	@echo "make translations  write marked strings of the page into its catalogues"
	@echo "make install  create .venv with the locked libraries"
	@echo "make lock     pin what pyproject.toml asks for; UPGRADE=--upgrade for new versions"
	@echo "make wheel    build dist/glimpse_search-*.whl"

install: $(VENV)/.installed

$(VENV)/.installed: requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Glimpse needs Python 3.11, 3.12 or 3.13; install one, or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@echo "Installing into $(VENV): about two minutes and 6 GB the first time."
	@$(PYTHON) -m venv $(VENV) || { echo "Python's venv module is missing; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: install
	@$(BIN)/glimpse demo

test: install
	@scripts/test-requirements
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

bench: install
	$(BIN)/python -m benchmarks

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/python -m mypy

docs: install
	$(BIN)/python scripts/command_docs.py > docs/commands.md

translations: install
	$(BIN)/python scripts/translations.py

# Pins that are in the file and fit stay.
UPGRADE ?=
COMPILE := $(BIN)/uv pip compile --quiet --universal --fork-strategy fewest --python-version 3.11 --generate-hashes --no-header
lock: install
	$(BIN)/python -m pip install --quiet uv
	$(COMPILE) $(UPGRADE) --extra dev pyproject.toml -o requirements.lock
	$(COMPILE) --constraints requirements.lock pyproject.toml -o requirements-app.lock

# setuptools takes in whatever an earlier build left in build/.
wheel: install
	rm -rf build
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
