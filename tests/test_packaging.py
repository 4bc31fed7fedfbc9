"""What is installed is what is imported, and the same on every Python."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from setuptools import find_packages

ROOT = Path(__file__).parent.parent
PACKAGES = ("demo", "es_config", "evaluation", "ingest", "models", "search_app", "storage", "tuning")
OPTIONAL = {"rawpy"}


def normal(name: str) -> str:
    """Return a library's name as package registries spell it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned(lines: list[str]) -> dict[str, str]:
    """Return the version of each library of `name==version` lines."""
    return {normal(name): version for name, version in (line.split("==") for line in lines)}


@pytest.fixture(scope="module")
def project() -> dict:
    with (ROOT / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)["project"]


def test_every_library_that_is_imported_is_a_pinned_dependency(project):
    declared = pinned(project["dependencies"])
    files = [ROOT / "glimpse.py", *(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))]
    imported = set()
    for node in (node for path in files for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module.split(".")[0])
    imported -= {*sys.stdlib_module_names, *PACKAGES, *OPTIONAL}
    distributions = packages_distributions()
    missing = {name for name in imported if not set(map(normal, distributions[name])) & set(declared)}
    assert {"numpy", "torch"} <= imported
    assert not missing


def test_only_the_product_is_installed_and_with_its_weights():
    with (ROOT / "pyproject.toml").open("rb") as file:
        settings = tomllib.load(file)["tool"]["setuptools"]
    found = set(find_packages(str(ROOT), **settings["packages"]["find"]))
    assert {name.split(".")[0] for name in found} == set(PACKAGES)
    folders = {path.parent for name in PACKAGES for path in (ROOT / name).rglob("*.py")}
    assert {".".join(folder.relative_to(ROOT).parts) for folder in folders} == found
    (pattern,) = settings["package-data"]["models"]
    weights = {path.name for path in (ROOT / "models").glob(pattern)}
    assert {"calibration.png", "model.safetensors", "model.bin", "MODEL_CARD.md"} <= weights


def test_the_lock_gives_every_python_the_same_versions(project):
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    lines = re.findall(r"(?m)^([\w.-]+)(?:\[[^]]*\])?==([^ \\;]+)", text)
    locked = {normal(name): version for name, version in lines}
    assert len(locked) == len(lines), "run `make lock`: a library is there in several versions"
    wanted = pinned([re.sub(r"\[.*?\]", "", each) for each in project["dependencies"]])
    assert wanted.items() <= locked.items(), "run `make lock`"
