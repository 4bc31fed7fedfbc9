"""`glimpse reindex`."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from es_config.commands.options import AS_JSON, BACKEND, FILE, FOLDER, INDEX, open_client, say, store_option
from ingest.reindex_compare_cli import compare
from ingest.reindex_words_cli import GO_ON, not_switched, say_outcome

if TYPE_CHECKING:
    from ingest.reindex_types import Outcome
    from ingest.reindex.wiring import ReindexParts

INTERRUPTED = 130


@click.command()
@click.option("--profile", help="Whose vectors the new index is to hold.")
@click.option("--model-dir", type=FOLDER, help="Take that profile's models from this folder.")
@INDEX
@store_option("Where originals may be kept.")
@click.option(
    "--originals-from",
    "folders",
    multiple=True,
    type=FOLDER,
    help="Look for pictures below this folder, which was ingested elsewhere; may be repeated.",
)
@BACKEND
@click.option("--query", "asked", multiple=True, help="Compare the top ten of this; may be repeated.")
@click.option(
    "--queries",
    "labelled",
    type=FILE,
    help='Compare those of this file: {"query": "words"} a line.  [default: the log, or captions]',
)
@click.option("--no-switch", is_flag=True, help="Only build and compare; the same command then switches.")
@click.option("--allow-missing", is_flag=True, help="Switch even if pictures could not be found.")
@click.option(
    "--back", is_flag=True, help="Put the former index behind the alias again, and do nothing else."
)
@AS_JSON
def reindex(
    *, profile, model_dir, alias, store, folders, precision, backend, back, as_json, **options
) -> None:
    """Build a new index with other models beside the old one, then put it behind the alias at once.

    Searches go on all the time, in the old index until the switch. Pictures are read from where they were
    ingested, or else from the store. Captions, keywords, paths and whatever else is not a vector stay.
    Ctrl-C is safe, and so is a crash: the same command goes on from there. The old index is kept.

    \b
    Example:
      glimpse reindex --profile clip --no-switch
      glimpse reindex --profile clip
      glimpse reindex --back
    """
    from ingest.report import open_progress
    from ingest.reindex_types import SameModelsError
    from ingest.reindex.wiring import open_reindex
    from ingest.tower import TowerChoice
    from ingest.wiring import IngestSettings
    from models.fast.execution import Wish

    if back == bool(profile):
        raise click.UsageError("Give either --profile or --back.")
    if back:
        _go_back(alias, as_json=as_json)
        return
    tower = TowerChoice(wish=Wish(backend, precision), say=say)
    settings = IngestSettings(profile, model_dir, alias, store, tower)
    progress = open_progress(doing="Reindexing", noun="pictures")
    try:
        with open_reindex(settings, os.environ, folders=folders, progress=progress) as parts:
            outcome = _outcome(parts, **options)
            _finish(parts, outcome, as_json=as_json, allow_missing=options["allow_missing"])
    except SameModelsError as error:
        raise click.UsageError(str(error)) from error
    except KeyboardInterrupt:
        say(GO_ON)
        raise SystemExit(INTERRUPTED) from None


def _outcome(parts: ReindexParts, *, asked, labelled, no_switch: bool, allow_missing: bool) -> Outcome:
    """Fill the next index, compare, and switch where nothing speaks against it."""
    from ingest.reindex_types import Outcome

    with parts.progress:
        filled = parts.work.fill()
    if filled.interrupted:
        return Outcome(filled)
    comparison = compare(parts, asked=asked, labelled=labelled)
    if no_switch or (filled.missing and not allow_missing):
        return Outcome(filled, comparison)
    filled, switched = parts.work.switch(allow_missing=allow_missing)
    return Outcome(filled, comparison, switched)


def _finish(parts: ReindexParts, outcome: Outcome, *, as_json: bool, allow_missing: bool) -> None:
    """Print what was done and end with the exit code."""
    if as_json:
        click.echo(json.dumps(outcome.as_dict(), indent=2))
    else:
        click.echo("\n\n".join(say_outcome(parts, outcome)))
    if outcome.filled.interrupted:
        say(GO_ON)
        raise SystemExit(INTERRUPTED)
    if outcome.filled.missing and not allow_missing:
        say(not_switched(parts, outcome.filled))
        raise SystemExit(1)


def _go_back(alias: str, *, as_json: bool) -> None:
    from es_config.aliases import Alias

    aliases = Alias(open_client(), alias=alias)
    switched = aliases.back()
    profile = aliases.current().meta().profile
    text = (
        f"'{alias}' is {switched.now} again, in place of {switched.former}.\n"
        f"Commands need --profile {profile} again. What came in since the switch is in {switched.former}"
        " only; `glimpse reindex --back` returns to it."
    )
    click.echo(json.dumps({"switched": asdict(switched)}, indent=2) if as_json else text)
