"""`glimpse calibrate`: learns from the index's own captions which hits are good, and notes it in `_meta`."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from es_config.commands.options import AS_JSON, FILE, INDEX, MODELS, open_client, own_profile, say


@dataclass(frozen=True, kw_only=True)
class CalibrateOptions:
    """The options of `glimpse calibrate`."""

    rate: float
    miss_rate: float
    queries: Path | None
    pictures: int
    dry_run: bool
    profile: str | None
    model_dir: Path | None
    alias: str
    as_json: bool


@click.command()
@click.option(
    "--false-positive-rate", "rate", type=click.FloatRange(0.001, 0.06), default=0.01, show_default=True,
    help="Share of queries that nothing answers which may still get a strong hit.",
)  # fmt: skip
@click.option(
    "--miss-rate", type=click.FloatRange(0.001, 0.5), default=0.05, show_default=True,
    help="Share of answered queries that may be told that nothing good was found.",
)  # fmt: skip
@click.option("--queries", type=FILE, help="Labelled queries to learn from, too: JSONL.")
@click.option(
    "--pictures", type=click.IntRange(50, 100_000), default=20_000, show_default=True,
    help="Pictures to learn from, at most.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Measure, and write nothing.")
@MODELS
@INDEX
@AS_JSON
def calibrate(**options: Any) -> None:
    """Learn from the captions which hits are good ones: strong, weak or none.

    Pieces of captions are asked, once with the pictures that answer them and once without. A hit is then
    judged beside what its own query scores on a sample of the index. Repeat it when the index has grown much.

    \b
    Example:
      glimpse calibrate
      glimpse calibrate --false-positive-rate 0.02 --dry-run
    """
    from es_config.index import ImageIndex
    from evaluation.calibrate import calibrate_index, calibration_lines
    from evaluation.labels import read_labels
    from models.profiles import get_profile

    given = CalibrateOptions(**options)
    client = open_client()
    name = own_profile(client, given.alias, asked=given.profile)
    profile = get_profile(name, model_dir=given.model_dir)
    weights = profile.weights("text")
    index = ImageIndex(client, alias=given.alias).pinned()  # noted is what was measured
    index.check_profile(profile.name, profile.dims, text_revision=weights.revision, matches=weights.matches)
    labels = read_labels(given.queries) if given.queries else None
    found = calibrate_index(
        client, index, profile, rate=given.rate, miss_rate=given.miss_rate, size=given.pictures,
        labels=labels, say=say,
    )  # fmt: skip
    shown = {mode: each.as_dict() for mode, each in found.items()}
    if not given.dry_run:
        index.note("relevance", shown)
    if given.as_json:
        click.echo(json.dumps({"written": not given.dry_run, "modes": shown}, indent=2))
        return
    for mode, each in found.items():
        click.echo("\n".join(calibration_lines(mode, each)))
    say("Nothing was written." if given.dry_run else f"Noted in {index.name()}.")


def calibrate_by_itself(alias: str, model_dir: Path | None) -> None:
    """Calibrate an index that has captions enough, for the first time or since it has doubled.

    What goes wrong is said, and ends nothing: the pictures are searchable.
    """
    from es_config.client import glimpse_home
    from es_config.errors import EngineError
    from es_config.index import ImageIndex
    from es_config.runs import RunFile
    from evaluation.calibrate import calibrate_if_due, is_due
    from models.errors import ModelError
    from models.profiles import get_profile

    try:
        client = open_client()
        index = ImageIndex(client, alias=alias).pinned()
        if not is_due(index):
            return
        profile = get_profile(index.meta().profile, model_dir=model_dir)
        with RunFile(glimpse_home(os.environ), alias) as file:
            file.write("Learning which hits are good ones")
            if calibrate_if_due(client, index, profile, say=say):
                say("The page can say now when nothing good is found.")
    except (EngineError, ModelError) as error:
        say(f"Which hits are good ones is not known yet. {error}")
