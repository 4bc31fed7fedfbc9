"""The manual is complete and true: commands, settings, routes, links."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PRODUCT = ("es_config", "models", "storage", "ingest", "search_app", "demo", "evaluation", "tuning")
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "training/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "models" / "weights").rglob("*.md")),
]


def read(*parts: str) -> str:
    """Return a file of the repository as text."""
    return ROOT.joinpath(*parts).read_text(encoding="utf-8")


def sources() -> str:
    """Return the product's Python code, joined."""
    return "\n".join(path.read_text() for name in PRODUCT for path in sorted((ROOT / name).rglob("*.py")))


def test_the_page_of_commands_is_what_their_help_says():
    spec = importlib.util.spec_from_file_location("command_docs", ROOT / "scripts" / "command_docs.py")
    command_docs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(command_docs)
    assert read("docs", "commands.md") == command_docs.page(), "run `make docs`"


def test_every_environment_variable_is_explained():
    named = set(re.findall(r"\b(?:GLIMPSE|ELASTICSEARCH|ES)_[A-Z][A-Z_]*[A-Z]\b", sources()))
    page = read("docs", "settings.md")
    assert {"GLIMPSE_HOME", "ELASTICSEARCH_URL"} <= named
    missing = {name for name in named if f"`{name}`" not in page}
    assert not missing


def test_every_route_is_explained():
    routes = set(re.findall(r'"(/(?:api|healthz|readyz|metrics|openapi)[^"\s]*)"', sources()))
    page = read("docs", "api.md")
    missing = {route for route in routes if re.sub(r"<(?:\w+:)?(\w+)>", r"<\1>", route) not in page}
    assert routes
    assert not missing


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), f"{path.name} links to {target}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_files_named_in_backticks_exist(path):
    for name in re.findall(
        r"`((?:\w+/)+[\w.-]+\.(?:py|md|json|yml|html))`", path.read_text(encoding="utf-8")
    ):
        assert (ROOT / name).exists(), f"{path.name} names {name}"


def test_the_changelog_speaks_of_this_version():
    version = re.search(r'^version = "(.+)"$', read("pyproject.toml"), re.MULTILINE).group(1)
    assert f"## {version}" in read("CHANGELOG.md")


@pytest.mark.parametrize("command", ["train", "train_captions", "train_voice"])
def test_the_training_manual_names_every_command_and_option(command, capsys):
    with pytest.raises(SystemExit):
        importlib.import_module(f"training.pocket.{command}").main(["--help"])
    page = read("training", "README.md")
    (row,) = (line for line in page.splitlines() if line.startswith(f"| `{command}` |"))
    assert f"`python -m training.pocket.{command}`" in page
    options = set(re.findall(r"--[a-z]+", capsys.readouterr().out)) - {"--help"}
    assert options == set(re.findall(r"`(--[a-z]+)`", row))
