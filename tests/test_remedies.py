"""The commands that sentences name exist, and those that they tell to run can be pasted."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from glimpse import main

ROOT = Path(__file__).parent.parent
PACKAGES = ("demo", "es_config", "evaluation", "ingest", "models", "search_app", "storage", "tuning")
NAMED = re.compile(r"(run |with |which |or )?`(glimpse [^`]+)`")


def texts() -> list[tuple[str, str]]:
    """Return the place and text of every string of the product except docstrings, with `1` for values."""
    found = []
    for path in [ROOT / "glimpse.py", *(p for name in PACKAGES for p in (ROOT / name).rglob("*.py"))]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docs = {id(each.value) for each in ast.walk(tree) if isinstance(each, ast.Expr)}
        parts = {
            id(part) for each in ast.walk(tree) if isinstance(each, ast.JoinedStr) for part in each.values
        }
        for node in ast.walk(tree):
            if id(node) in docs or id(node) in parts:
                continue
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = node.value
            elif isinstance(node, ast.JoinedStr):
                text = "".join(part.value if isinstance(part, ast.Constant) else "1" for part in node.values)
            else:
                continue
            found.append((f"{path.relative_to(ROOT)}:{node.lineno}", text))
    return found


REMEDIES = sorted(
    {
        (place, (found[1] or "").strip(), found[2])
        for place, text in texts()
        for found in NAMED.finditer(text)
        if found[2] not in ("glimpse …", "glimpse 1")
    }
)


def reached(words: list[str]) -> tuple[click.Command, list[str]]:
    """Return the command that words name, and the words that are left for it."""
    command: click.Command = main
    context = click.Context(main)
    left = list(words)
    while isinstance(command, click.Group) and left and not left[0].startswith("-"):
        named = command.get_command(context, left.pop(0))
        assert named is not None, f"there is no command `glimpse {' '.join(words)}`"
        command = named
    return command, left


@pytest.mark.parametrize(("place", "tells", "remedy"), REMEDIES, ids=[f"{r[0]} {r[2]}" for r in REMEDIES])
def test_a_command_that_a_sentence_names_can_be_pasted(place, tells, remedy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("FOLDER").mkdir()
    words = shlex.split(remedy.replace("--target-recall 1", "--target-recall 0.9"))  # a share
    command, left = reached(words[1:])
    is_told = tells == "run"
    # A command that is only spoken of needs no arguments; its options must exist all the same.
    with command.make_context(command.name, left, resilient_parsing=not is_told) as context:
        assert not (is_told and isinstance(command, click.Group)), f"{place}: a group runs nothing"
        taken = {name for parameter in command.params for name in parameter.opts + parameter.secondary_opts}
        assert {word for word in left if word.startswith("-")} <= taken | {"-h", "--help"}, context.info_name


def test_the_remedies_are_found():
    assert len(REMEDIES) > 40
    assert sum(tells == "run" for _, tells, _ in REMEDIES) > 15


def test_the_options_that_were_typed_are_in_the_remedy_and_it_works(node, index_name, tmp_path):
    environ = {"ELASTICSEARCH_URL": node.url, "GLIMPSE_HOME": str(tmp_path)}
    store = tmp_path / "my store"

    def typed(*words: str):
        return CliRunner(env=environ).invoke(main, list(words))

    absent = typed("caption", "--index", index_name, "--store", str(store), "--profile", "pocket")
    assert absent.exit_code == 1
    create, ingest = re.findall(r"`(glimpse [^`]+)`", absent.stderr)
    assert sorted(shlex.split(create)) == sorted(
        ["glimpse", "index", "create", "--profile", "pocket", "--index", index_name]
    )
    words = shlex.split(ingest)
    assert words[:3] == ["glimpse", "ingest", "FOLDER"]
    pairs = dict(zip(words[3::2], words[4::2], strict=True))
    assert pairs == {"--profile": "pocket", "--index": index_name, "--store": str(store)}
    assert typed(*shlex.split(create)[1:]).exit_code == 0
    assert typed("caption", "--index", index_name, "--store", str(store)).exit_code == 0


def test_the_model_of_an_index_is_uploaded_as_its_search_says(node, index_name, tiny_pair, tmp_path):
    environ = {
        "ELASTICSEARCH_URL": node.url,
        "ELASTICSEARCH_API_KEY": node.key,
        "GLIMPSE_HOME": str(tmp_path),
    }
    mine = ("--index", index_name, "--model-dir", str(tiny_pair))

    def typed(*words: str):
        return CliRunner(env=environ).invoke(main, list(words))

    assert typed("index", "create", "--profile", "clip", *mine).exit_code == 0
    refused = typed("search", "a boat", "--text-lane", "infer", *mine)
    assert refused.exit_code == 1
    (remedy,) = re.findall(r"`(glimpse model upload[^`]*)`", refused.stderr)
    words = shlex.split(remedy)[1:]
    assert set(mine) <= set(words)
    assert typed(*words).exit_code == 0
    try:
        again = typed("search", "a boat", "--text-lane", "infer", *mine)
        assert "Nothing was found" in again.stderr
    finally:
        typed("model", "delete", "--force", *mine)
