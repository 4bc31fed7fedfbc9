"""Every import is declared, and every dependency is pinned within its range, the same on each Python."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PACKAGES = ("demo", "es_config", "evaluation", "ingest", "models", "search_app", "storage", "tuning")
TYPES_ONLY = {"_typeshed"}  # exists for type checkers alone
AIDS = ("benchmarks", "scripts", "tests", "training")
NOT_INSTALLED = {"faiss": "faiss-cpu", "hnswlib": "hnswlib"}
"""the libraries of the extra `graphs`, which `make install` leaves out, by the name that is imported"""


def requirements(lines: list[str]) -> dict[str, Requirement]:
    """Return requirements by the name of their library."""
    return {canonicalize_name(each.name): each for each in map(Requirement, lines)}


def python_files(folders: tuple[str, ...]) -> Iterator[Path]:
    """Yield the Python files below folders, of which some may not exist."""
    for folder in folders:
        yield from (ROOT / folder).rglob("*.py")


def libraries(files: list[Path]) -> set[str]:
    """Return the top-level names of other projects that files import."""
    imported = set()
    for node in (node for path in files for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imported.add(node.module.split(".")[0])
    ours = {"glimpse", *PACKAGES, *AIDS, *(path.stem for path in python_files(("tests",)))}
    return imported - {*sys.stdlib_module_names, *ours, *TYPES_ONLY}


def undeclared(imported: set[str], declared: set[str]) -> set[str]:
    """Return the imported names that come from no declared library."""
    distributions = packages_distributions()
    return {
        name
        for name in imported
        if not {canonicalize_name(each) for each in distributions.get(name, [NOT_INSTALLED.get(name, name)])}
        & declared
    }


@pytest.fixture(scope="module")
def project() -> dict:
    with (ROOT / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)["project"]


@pytest.fixture(scope="module")
def locked() -> dict[str, str]:
    return pinned("requirements.lock")


def pinned(lock: str) -> dict[str, str]:
    """Return the version of each library of a lock file."""
    text = (ROOT / lock).read_text(encoding="utf-8")
    lines = re.findall(r"(?m)^([\w.-]+)(?:\[[^]]*\])?==([^ \\;]+)", text)
    versions = {canonicalize_name(name): version for name, version in lines}
    assert len(versions) == len(lines), "run `make lock`: a library is there in several versions"
    return versions


def test_every_library_that_the_product_imports_is_a_dependency(project):
    extras = project["optional-dependencies"]
    optional = [each for extra, needs in extras.items() if extra != "dev" for each in needs]
    declared = requirements(project["dependencies"]) | requirements(optional)
    imported = libraries([ROOT / "glimpse.py", *python_files(PACKAGES)])
    assert {"numpy", "torch"} <= imported
    assert not undeclared(imported, set(declared))


def test_every_library_that_tests_and_benchmarks_import_is_a_dependency_of_developers(project):
    extras = project["optional-dependencies"]
    declared = requirements([*project["dependencies"], *extras["dev"], *extras["graphs"]])
    imported = libraries(list(python_files(AIDS)))
    assert {"hypothesis", "pytest"} <= imported
    assert not undeclared(imported, set(declared))


def test_every_dependency_has_a_lower_bound_and_is_pinned_within_its_range(project, locked):
    extras = project["optional-dependencies"]
    for name, wanted in requirements([*project["dependencies"], *extras["raw"], *extras["dev"]]).items():
        operators = [each.operator for each in wanted.specifier]
        assert ">=" in operators, f"{name} has no lower bound"
        assert "==" not in operators, f"{name} is pinned, which is the lock's work"
        assert wanted.specifier.contains(locked[name]), f"run `make lock`: {name} is at {locked[name]}"


def test_the_image_gets_the_same_versions_without_what_developers_need(project, locked):
    versions = pinned("requirements-app.lock")
    assert versions.items() <= locked.items(), "run `make lock`"
    named = {
        extra: {canonicalize_name(Requirement(each).name) for each in needs}
        for extra, needs in project["optional-dependencies"].items()
    }
    wanted = {canonicalize_name(Requirement(each).name) for each in project["dependencies"]}
    assert wanted <= versions.keys()
    assert not (named["dev"] - wanted) & versions.keys() - {
        "packaging",
        "pyyaml",
        "setuptools",
    }  # others need these
