"""Options that commands of several packages share, with their environment variables, and words on stderr."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from difflib import get_close_matches
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

    from ingest.workers.driver import Crew

Decorator = Callable[[Any], Any]
"""an option as click makes it: takes a function or a command, and returns it with the option"""
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


IN_FORCE = "glimpse.options_in_force"
REMEDY = re.compile(r"`(glimpse [^`]+)`")


def keep_option(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
    """Keep an option that was typed, for the commands that sentences name."""
    if context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE:
        context.meta.setdefault(IN_FORCE, {})[parameter.opts[0]] = str(value)
    return value


def complete_remedies(text: str, context: click.Context | None = None) -> str:
    """Return a text whose `glimpse …` commands have the options that were typed, as far as they take them.

    So a command that is copied from it looks at the same index, models and store. The variables of the
    environment need no words: they are still there when it is pasted.
    """
    context = context or click.get_current_context(silent=True)
    if context is None or not (typed := context.meta.get(IN_FORCE)):
        return text
    root = context.find_root()
    return REMEDY.sub(lambda found: f"`{_completed(found[1], typed, root)}`", text)


def _completed(remedy: str, typed: Mapping[str, str], root: click.Context) -> str:
    command: click.Command | None = root.command
    words = remedy.split()
    for word in words[1:]:
        if not isinstance(command, click.Group):
            break
        command = command.get_command(root, word)
    if command is None:
        return remedy
    taken = {name for parameter in command.params for name in parameter.opts}
    more = [(name, value) for name, value in typed.items() if name in taken and name not in words]
    return " ".join([remedy, *(f"{name} {shlex.quote(value)}" for name, value in more)])


def together(*options: Decorator) -> Decorator:
    """Return one decorator that adds all of `options`, in their order."""
    return lambda command: reduce(lambda done, add: add(done), reversed(options), command)


def section(title: str, *options: Decorator) -> Decorator:
    """Return a decorator that adds `options` under a heading in the help of a `SectionedCommand`."""

    def add(command: Any) -> Any:
        before = len(getattr(command, "__click_params__", ()))
        together(*options)(command)
        for parameter in command.__click_params__[before:]:
            parameter.section = title
        return command

    return add


class SectionedCommand(click.Command):
    """A command whose help lists its options under the headings that `section` gave them."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, those without a heading first."""
        sections: dict[str, list[tuple[str, str]]] = {"Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record:
                sections.setdefault(getattr(parameter, "section", "Options"), []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


class OneOf(click.Choice[str]):
    """A choice whose refusal names the nearest word."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """Return click's sentence, with a suggestion if a choice is near."""
        message = super().get_invalid_choice_message(value, ctx)
        near = get_close_matches(str(value), list(self.choices), 1)
        return f"{message} Did you mean '{near[0]}'?" if near else message


class Day(click.ParamType[str]):
    """A day as ISO 8601 writes it."""

    name = "day"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text of a day that exists."""
        try:
            date.fromisoformat(value)
        except ValueError:
            self.fail(f"'{value}' is not a day: write it as YYYY-MM-DD, such as 2023-07-31.", param, ctx)
        return str(value)


def _profile_names(_context: click.Context, _parameter: click.Parameter, begun: str) -> Sequence[str]:
    """Complete the names of profiles in a shell."""
    from models.profiles import PROFILES

    return [name for name in PROFILES if name.startswith(begun)]


def setting(names: str, variable: str, **more: Any) -> Decorator:
    """Return an option that has a short environment variable of its own, and says so in its help.

    Every other option has click's automatic one, see docs/settings.md.
    """
    shown = {"show_default": "default" in more and not more.get("is_flag"), **more}
    return click.option(*names.split(), envvar=variable, show_envvar=True, **shown)


def store_option(use: str) -> Decorator:
    """Return `--store`, whose help begins with the command's `use` of the store."""
    return setting(
        "--store", "GLIMPSE_STORE", callback=keep_option, help=f"{use}  [default: a folder of GLIMPSE_HOME]"
    )


AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
INDEX = setting(
    "--index alias",
    "GLIMPSE_INDEX",
    callback=keep_option,
    default="images",
    help="Alias or name of the index.",
)
MODEL_DIR = setting(
    "--model-dir",
    "GLIMPSE_MODEL_DIR",
    type=FOLDER,
    callback=keep_option,
    help="Take the profile's models from this folder.",
)
MODELS = together(
    click.option(
        "--profile",
        metavar="NAME",
        callback=keep_option,
        shell_complete=_profile_names,
        help="Models, see `glimpse model list`.  [default: the index's own; of a new one GLIMPSE_PROFILE,"
        " else clip]",
    ),
    MODEL_DIR,
)
BACKEND = together(
    setting(
        "--precision",
        "GLIMPSE_PRECISION",
        type=click.Choice(["auto", "fp32", "bf16", "int8"]),
        default="auto",
        help="How the image model computes; auto: the fastest that agrees with fp32 on your pictures.",
    ),
    setting(
        "--backend",
        "GLIMPSE_BACKEND",
        type=click.Choice(["auto", "torch", "onnx"]),
        default="auto",
        help="What runs the image model.",
    ),
)
SEARCHER = together(
    MODELS,
    setting(
        "--text-lane",
        "GLIMPSE_TEXT_LANE",
        type=OneOf(["auto", "infer", "local"]),
        default="auto",
        help="Where texts are embedded: in Elasticsearch (infer), here (local), or what works (auto).",
    ),
    INDEX,
)
VOICE_MODEL = setting(
    "--voice-model",
    "GLIMPSE_VOICE_MODEL",
    metavar="SIZE|PATH|off",
    help="Whisper model: a size such as small or turbo (downloaded), a folder, or off."
    "  [default: the profile's]",
)
FILTERS = together(
    click.option("--date-from", type=Day(), metavar="YYYY-MM-DD", help="Taken on this day or later."),
    click.option("--date-to", type=Day(), metavar="YYYY-MM-DD", help="Taken on this day or earlier."),
    click.option(
        "--taken", metavar="YYYY[-MM[-DD]]", help="Taken in this year, month or day; unknown: without a date."
    ),
    click.option(
        "--place", metavar="NAME|LAT,LON,DISTANCE", help="Taken in Lisbon, or near here: 48.85,2.35,10km"
    ),
    click.option("--camera", help="Taken with this camera."),
    click.option("--tag", help="Having this keyword, or showing this person."),
    click.option("--person", help="Showing this person."),
    click.option("--path", help="Start of a path, or of a folder or file in it, or a pattern with *."),
    click.option("--folder", metavar="PATH", help="In this folder, as the index has it, at any depth."),
    click.option("--format", metavar="NAME", help="Of this format, such as jpeg or heic."),
    click.option("--has-text", is_flag=True, help="Having text that was read."),
    click.option("--film", is_flag=True, help="Of a film."),
    click.option("--favourite", is_flag=True, help="Marked as a favourite."),
)


ON = click.option(
    "--on",
    metavar="WORKERS",
    help="Share the work out to local[4], which are four processes of this machine, or to the nodes of a Ray"
    " cluster at ray://HEAD:10001.",
)


def open_workers(on: str | None) -> Crew | None:
    """Open the workers of `--on`, if it is given, until the end of the command. Raises `IngestError`."""
    from ingest.workers.wiring import open_crew

    if on is None:
        return None
    crew = open_crew(on)
    click.get_current_context().call_on_close(crew.close)
    return crew


def open_client(**more: Any) -> Elasticsearch:
    """Return a client as the environment says. Raises EngineError. `more` goes to `connect`."""
    from es_config.client import connect, engine_settings, glimpse_home

    return connect(engine_settings(os.environ, glimpse_home(os.environ)), **more)


def own_profile(client: Elasticsearch, alias: str, *, asked: str | None = None) -> str:
    """Return the name of the profile of an index, or of a new one without it.

    Raises EngineError when another one is `asked`.
    """
    from es_config.errors import NotAllowedError
    from es_config.index import ImageIndex
    from models.profiles import default_profile

    try:
        return ImageIndex(client, alias=alias).choose_profile(asked, default=default_profile(os.environ))
    except NotAllowedError as error:
        raise NotAllowedError(f"{error} Or name its models with --profile.") from error


def exit_with(*, interrupted: bool, failed: bool) -> None:
    """End the command with exit code 130 or 1 if it was interrupted or something failed."""
    if interrupted or failed:
        raise SystemExit(130 if interrupted else 1)


def say(text: str, context: click.Context | None = None) -> None:
    """Write one line to stderr. Threads name the `context` of their command."""
    from es_config.documents import one_line

    click.echo(one_line(complete_remedies(text, context)), err=True)


def warn(sentence: str, context: click.Context | None = None) -> None:
    """Write a warning to stderr. Threads name the `context` of their command."""
    say(f"Warning: {sentence}", context)
