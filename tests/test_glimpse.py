"""The umbrella command."""

import importlib

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

import glimpse


@pytest.fixture
def runner():
    return CliRunner()


def test_help_lists_every_command_in_the_order_of_use(runner):
    result = runner.invoke(glimpse.main, ["--help"])
    assert result.exit_code == 0
    positions = [result.output.index(f"\n  {name} ") for name in glimpse.COMMANDS]
    assert positions == sorted(positions)


@pytest.mark.parametrize("name", glimpse.COMMANDS)
def test_every_command_of_the_table_exists_and_shows_an_example(runner, name):
    result = runner.invoke(glimpse.main, [name, "--help"])
    assert result.exit_code == 0
    assert "Example" in result.output


@pytest.mark.parametrize("name", glimpse.COMMANDS)
def test_the_table_names_a_command_where_it_is(name):
    module, attribute = glimpse.COMMANDS[name][0].split(":")
    command = getattr(importlib.import_module(module), attribute)
    assert command.name == name


def test_an_unknown_command_is_wrong_usage(runner):
    result = runner.invoke(glimpse.main, ["serch"])
    assert result.exit_code == 2
    assert "No such command 'serch'. (Did you mean one of: 'search'" in result.output


def test_help_and_version_are_words_too(runner):
    assert (
        runner.invoke(glimpse.main, ["help", "search"]).output
        == runner.invoke(glimpse.main, ["search", "--help"]).output
    )
    assert runner.invoke(glimpse.main, ["help"]).output == runner.invoke(glimpse.main, ["--help"]).output
    assert runner.invoke(glimpse.main, ["version"]).output.startswith("glimpse, version ")


def test_a_shell_completes_commands_files_profiles_and_modes():
    def completed(*words: str) -> list[str]:
        return [
            each.value
            for each in ShellComplete(glimpse.main, {}, "glimpse", "_X").get_completions(
                list(words[:-1]), words[-1]
            )
        ]

    assert completed("se") == ["search", "serve"]
    assert completed("search", "--profile", "po") == ["pocket"]
    assert completed("search", "--mode", "") == ["image", "caption", "words", "hybrid"]
    assert completed("search", "--text-lane", "l") == ["local"]
    (files,) = ShellComplete(glimpse.main, {}, "glimpse", "_X").get_completions(["search"], "ph")
    assert files.type == "file"


def test_an_expected_error_is_one_line_on_stderr(runner, monkeypatch, tmp_path):
    for name in ("ELASTICSEARCH_URL", "ES_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GLIMPSE_HOME", str(tmp_path))
    result = runner.invoke(glimpse.main, ["search", "a red boat"])
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("Error: No Elasticsearch")
    assert "glimpse up" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_query_that_is_not_valid_is_wrong_usage(runner):
    result = runner.invoke(glimpse.main, ["search", "  "])
    assert result.exit_code == 2
    assert "empty" in result.stderr
