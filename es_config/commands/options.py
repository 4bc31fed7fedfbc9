"""Options that commands of several packages share, with their environment variables, and words on stderr."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

Decorator = Callable[[Any], Any]
"""an option as click makes it: takes a function or a command, and returns it with the option"""
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def together(*options: Decorator) -> Decorator:
    """Return one decorator that adds all of `options`, in their order."""
    return lambda command: reduce(lambda done, add: add(done), reversed(options), command)


def setting(names: str, variable: str, **more: Any) -> Decorator:
    """Return an option that has a short environment variable of its own, and says so in its help.

    Every other option has click's automatic one, see docs/settings.md.
    """
    shown = {"show_default": "default" in more and not more.get("is_flag"), **more}
    return click.option(*names.split(), envvar=variable, show_envvar=True, **shown)


def store_option(use: str) -> Decorator:
    """Return `--store`, whose help begins with the command's `use` of the store."""
    return setting("--store", "GLIMPSE_STORE", help=f"{use}  [default: a folder of GLIMPSE_HOME]")


AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
INDEX = setting("--index alias", "GLIMPSE_INDEX", default="images", help="Alias or name of the index.")
MODEL_DIR = setting(
    "--model-dir", "GLIMPSE_MODEL_DIR", type=FOLDER, help="Take the profile's models from this folder."
)
MODELS = together(
    setting("--profile", "GLIMPSE_PROFILE", default="pocket", help="Which models; see `glimpse model list`."),
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
        default="auto",
        help="Where texts are embedded: in Elasticsearch (infer), here (local), or what works (auto).",
    ),
    INDEX,
)
VOICE_MODEL = setting(
    "--voice-model",
    "GLIMPSE_VOICE_MODEL",
    metavar="SIZE|PATH|off",
    help="Whisper model: tiny, base, small (downloaded), a folder, or off.  [default: the profile's]",
)
FILTERS = together(
    click.option("--date-from", metavar="YYYY-MM-DD", help="Taken on this day or later."),
    click.option("--date-to", metavar="YYYY-MM-DD", help="Taken on this day or earlier."),
    click.option("--place", metavar="LAT,LON,DISTANCE", help="Taken near here: 48.85,2.35,10km"),
    click.option("--camera", help="Taken with this camera."),
    click.option("--tag", help="Having this keyword."),
    click.option("--path", help="Start of the relative path, or a pattern with *."),
)


def open_client(**more: Any) -> Elasticsearch:
    """Return a client as the environment says. Raises EngineError. `more` goes to `connect`."""
    from es_config.client import connect, engine_settings, glimpse_home

    return connect(engine_settings(os.environ, glimpse_home(os.environ)), **more)


def exit_with(*, interrupted: bool, failed: bool) -> None:
    """End the command with exit code 130 or 1 if it was interrupted or something failed."""
    if interrupted or failed:
        raise SystemExit(130 if interrupted else 1)


def say(text: str) -> None:
    """Write one line to stderr."""
    from es_config.documents import one_line

    click.echo(one_line(text), err=True)


def warn(sentence: str) -> None:
    """Write a warning to stderr."""
    say(f"Warning: {sentence}")
