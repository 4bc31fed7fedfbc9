"""The umbrella command: `glimpse` gathers every group and loads each one only when it is called."""

from __future__ import annotations

import importlib
import os
import sys

import click

from es_config.commands.options import complete_remedies
from es_config.documents import one_line
from es_config.errors import EngineError
from evaluation.errors import EvaluationError, LabelError
from ingest.errors import IngestError
from models.errors import ModelError
from search_app.errors import QueryError, ServeError, UserError
from storage.errors import StorageError
from tuning.errors import TuneError

COMMANDS = {
    "start": (
        "search_app.commands.start:start",
        "Make your pictures searchable, and serve the page meanwhile.",
    ),
    "up": ("es_config.commands.engine:up", "Start the local Elasticsearch node."),
    "down": ("es_config.commands.engine:down", "Stop the local Elasticsearch node."),
    "status": (
        "es_config.commands.engine:status",
        "Say where Elasticsearch is and how many pictures it holds.",
    ),
    "doctor": (
        "es_config.commands.engine:doctor",
        "Check everything, and say how to mend each fault.",
    ),
    "keys": ("es_config.commands.engine:keys", "Print requests for API keys with few privileges."),
    "index": ("es_config.commands.engine:index", "Create, show or delete the index."),
    "ingest": ("ingest.commands.ingest:ingest", "Make the pictures of folders searchable."),
    "import": (
        "ingest.commands.exchange:import_vectors",
        "Make vectors from elsewhere searchable, without embedding.",
    ),
    "export": ("ingest.commands.exchange:export", "Write pictures with their vectors as Parquet and NumPy."),
    "reindex": (
        "ingest.commands.reindex:reindex",
        "Change the models: build a new index, then switch to it.",
    ),
    "duplicates": ("ingest.commands.duplicates:duplicates", "List pictures that are there several times."),
    "remove": ("ingest.commands.remove:remove", "Put pictures away, so that no search finds them."),
    "restore": ("ingest.commands.remove:restore", "Take back pictures that were put away."),
    "hidden": ("ingest.commands.remove:hidden", "List the pictures that were put away."),
    "caption": ("ingest.commands.caption:caption", "Give pictures captions, the newest first."),
    "words": ("ingest.commands.words:words", "Read the text that is written in pictures."),
    "search": (
        "search_app.commands.search:search",
        "Search by words, by a picture or by a picture of the index.",
    ),
    "knn": ("search_app.commands.search:knn", "Send a raw vector as a kNN search."),
    "describe": ("search_app.commands.describe:describe", "Say in words what a picture shows."),
    "serve": ("search_app.commands.serve:serve", "Serve the page and the REST API."),
    "user": ("search_app.commands.user:user", "Say who may sign in to `glimpse serve`, and with which role."),
    "token": ("search_app.commands.user:token", "Make and revoke tokens of programs for `glimpse serve`."),
    "evaluate": (
        "evaluation.commands.evaluate:evaluate",
        "Measure what queries find; compare models.",
    ),
    "tune": ("tuning.commands.tune:tune", "Find the cheapest search setting that meets a target recall."),
    "advise": ("tuning.commands.tune:advise", "Try every type of index on a sample of your vectors."),
    "calibrate": (
        "evaluation.commands.calibrate:calibrate",
        "Learn which hits are good ones, for this index.",
    ),
    "model": ("models.commands.model:model", "Show the profiles and their models."),
    "bundle": ("es_config.commands.bundle:bundle", "Write one archive for a machine without a network."),
    "demo": ("demo.commands.demo:demo", "Draw pictures, make them searchable and serve the page."),
}
EXPECTED_ERRORS = (
    EngineError,
    EvaluationError,
    IngestError,
    ModelError,
    QueryError,
    ServeError,
    StorageError,
    TuneError,
    UserError,
)
USAGE_ERRORS = (QueryError, LabelError)


HELP, VERSION = "help", "version"
"""words that people type for `--help` and `--version`"""


class UsageSentence(click.ClickException):
    """An error of the person who typed: one sentence, exit code 2, without the usage lines of click."""

    exit_code = 2


class LazyGroup(click.Group):
    """A click group that imports a command's module only when that command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table, which is the order of use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command, or None when it is unknown."""
        if cmd_name in (HELP, VERSION):
            return _help if cmd_name == HELP else _version
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name][0].split(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command of a line. Raises click's error for an unknown one, with those that are near."""
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand as error:
            raise click.exceptions.NoSuchCommand(
                error.command_name, possibilities=COMMANDS, ctx=ctx
            ) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table, without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> object:
        """Run a command and turn an expected error into one line."""
        # Read when torch loads: its threads otherwise spin while they wait, on cores that others could use.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        try:
            return super().invoke(ctx)
        except EXPECTED_ERRORS as error:
            sentence = complete_remedies(one_line(" ".join([str(error), *_notes(error)])), ctx)
            if isinstance(error, USAGE_ERRORS):
                raise UsageSentence(sentence) from error
            raise click.ClickException(sentence) from error


@click.command(HELP, hidden=True)
@click.argument("words", nargs=-1, metavar="[COMMAND]...")
@click.pass_context
def _help(ctx: click.Context, words: tuple[str, ...]) -> None:
    """Show the help of a command."""
    main.main([*words, "--help"], prog_name=ctx.find_root().info_name)


@click.command(VERSION, hidden=True)
@click.pass_context
def _version(ctx: click.Context) -> None:
    """Show the version."""
    main.main(["--version"], prog_name=ctx.find_root().info_name)


def _notes(error: BaseException | None) -> list[str]:
    """Return the notes that clean-ups added to an error, or to one of its causes."""
    return [*getattr(error, "__notes__", ()), *_notes(error.__cause__)] if error else []


# Every option is an environment variable too: `glimpse search --exact` is GLIMPSE_SEARCH_EXACT, and
# options that several commands share have short names of their own, such as GLIMPSE_PROFILE.
CONTEXT = {"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "GLIMPSE", "max_content_width": 100}


@click.group(cls=LazyGroup, context_settings=CONTEXT)
@click.version_option(package_name="glimpse-search", prog_name="glimpse")
def main() -> None:
    """Search a folder of pictures by typing, by speaking and by showing a picture.

    \b
    Example:
      glimpse up
      glimpse ingest ~/Pictures
      glimpse search "a red boat"
      glimpse serve
    """


if __name__ == "__main__":
    sys.exit(main(prog_name="glimpse"))
