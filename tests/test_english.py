"""Docstrings begin in plain English: a named subject, one idea, no question words as nouns, no chains."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PLACES = (
    "glimpse.py",
    "benchmarks",
    "demo",
    "es_config",
    "evaluation",
    "ingest",
    "models",
    "scripts",
    "search_app",
    "storage",
    "tests",
    "training",
    "tuning",
)
CODE = re.compile(r"`[^`]*`")
UNPLAIN = re.compile(r"\bwhat\b|;", re.IGNORECASE)


def first_lines(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield each docstring's line number and first line, code in backticks left out."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            if docstring:
                yield node.body[0].lineno, CODE.sub("", docstring.split("\n")[0])


def unplain(source: str) -> list[tuple[int, str]]:
    """Return the first lines of docstrings that break the rule, with their line numbers."""
    return [found for found in first_lines(ast.parse(source)) if UNPLAIN.search(found[1])]


@pytest.mark.parametrize("place", PLACES)
def test_docstrings_begin_in_plain_english(place):
    paths = [ROOT / place] if place.endswith(".py") else sorted((ROOT / place).rglob("*.py"))
    assert paths
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line}"
        for path in paths
        for number, line in unplain(path.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


def test_unplain_first_lines_are_found():
    source = '''
def noun():
    """Return what a camera writes."""

def chain():
    """Stop the model; it stays uploaded."""

class Plain:
    """Shown as `what; why`.

    What follows is free; it explains.
    """
'''
    assert [number for number, _ in unplain(source)] == [3, 6]
