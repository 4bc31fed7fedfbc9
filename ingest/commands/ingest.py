"""`glimpse ingest`."""

from __future__ import annotations

import json
import os
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from es_config.commands.options import BACKEND, INDEX, MODELS, say, setting, store_option
from ingest.survival_cli import say_pruned, survival_options
from ingest.watch_cli import WatchReport, check_watch, watch_folders, watch_option

if TYPE_CHECKING:
    from ingest.options import IngestSummary

INTERRUPTED = 130


@click.command()
@click.argument(
    "paths",
    nargs=-1,
    required=True,
    metavar="PATH...",
    type=click.Path(exists=True, readable=False, path_type=Path),
)
@click.option("--dry-run", is_flag=True, help="Read everything, write nothing.")
@click.option("--limit", type=click.IntRange(min=0), help="Look at this many files.")
@click.option(
    "--exclude",
    multiple=True,
    metavar="GLOB",
    help="Leave out files and folders with this name or relative path; may be repeated.",
)
@MODELS
@INDEX
@store_option("Keep thumbnails here: a folder or s3://bucket/prefix.")
@setting(
    "--originals",
    "GLIMPSE_ORIGINALS",
    type=click.Choice(["none", "webp", "original"]),
    default="none",
    help="Keep whole pictures in the store too: as WebP, which takes half the space, or as they are.",
)
@setting("--no-gps", "GLIMPSE_NO_GPS", is_flag=True, help="Leave out where pictures were taken.")
@click.option(
    "--captions",
    type=click.Choice(["now", "later", "off"]),
    default="later",
    show_default=True,
    help="Caption pictures as they are indexed, once all are searchable, or not at all.",
)
@BACKEND
@click.option(
    "--batch-size",
    type=click.IntRange(1, 4096),
    default=32,
    show_default=True,
    help="Pictures embedded together.",
)
@setting(
    "--max-pixels",
    "GLIMPSE_MAX_PIXELS",
    type=click.IntRange(min=1),
    default=200_000_000,
    help="Refuse larger pictures.",
)
@click.option(
    "--threads",
    type=click.IntRange(1, 64),
    help="Threads that decode.  [default: one for each processor]",
)
@survival_options
@watch_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; with --watch one line a round.")
def ingest(
    paths,
    *,
    as_json,
    dry_run,
    captions,
    profile,
    model_dir,
    alias,
    store,
    precision,
    backend,
    part,
    retry_failed,
    prune,
    prune_anyway,
    moved_from,
    watch,
    **options,
):
    """Make the pictures of folders and files searchable.

    The same content is one picture with every path that holds it; what the index knows is not embedded again.
    A file that cannot be used is skipped with its reason, and the exit code is then 1; it is tried again when
    it changes. Captions follow once all pictures are searchable; Ctrl-C is safe then too, and `glimpse
    caption` goes on.

    \b
    Example:
      glimpse ingest ~/Pictures --exclude "*.gif" --exclude thumbnails
      glimpse ingest ~/Pictures --prune --dry-run
      glimpse ingest ~/Pictures --watch
    """
    from ingest.commands.caption import caption_later
    from ingest.parts import Part
    from ingest.report import in_words, open_progress
    from ingest.pipeline.run import ingest_paths
    from ingest.options import IngestOptions, PruneOptions
    from ingest.sample import sample_pictures
    from ingest.tower import TowerChoice
    from ingest.wiring import IngestSettings, open_memory, open_parts
    from models.fast.execution import Wish

    check_watch(watch=watch, dry_run=dry_run, limit=options["limit"])
    given = {name: value for name, value in options.items() if value is not None}
    tower = TowerChoice(
        wish=Wish(backend, precision),
        sample=lambda: sample_pictures(paths, exclude=given["exclude"], max_pixels=given["max_pixels"]),
        say=say,
    )
    run_options = IngestOptions(
        dry_run=dry_run,
        part=part or Part(),
        prune=PruneOptions(prune or prune_anyway, prune_anyway, moved_from),
        **given,
    )
    parts = open_parts(IngestSettings(profile, model_dir, alias, store, tower), os.environ, dry_run=dry_run)

    def run(folders, changes=None, *, progress, retry=False) -> IngestSummary:
        ours = parts if captions == "now" and not dry_run else replace(parts, captioner=None)
        with closing(open_memory(ours.index, os.environ, options=run_options, retry_failed=retry)) as memory:
            return ingest_paths(
                folders,
                parts=ours,
                options=run_options,
                progress=progress,
                memory=memory,
                changes=changes,
            )

    def whole() -> IngestSummary:
        with open_progress() as progress:
            summary = run(paths, progress=progress, retry=retry_failed)
        say_pruned(summary.pruned, dry_run=dry_run)
        if not as_json:
            click.echo(in_words(summary))
        return summary

    if watch:
        report = WatchReport(as_json=as_json)
        summary = watch_folders(
            paths,
            parts=parts,
            options=run_options,
            first=whole,
            run=run,
            captions=captions == "later",
            report=report,
        )
        if not summary.interrupted:
            return
    else:
        summary = whole()
    if captions == "later" and not (dry_run or summary.interrupted):
        summary = replace(summary, captions=caption_later(parts))
    _finish(summary, as_json=as_json)


def _finish(summary: IngestSummary, *, as_json: bool) -> None:
    """Print what is not printed yet and end with the exit code."""
    from ingest.report import captions_in_words, captions_stopped

    captions = summary.captions
    if captions.error:
        say(captions_stopped(captions))
    if as_json:
        click.echo(json.dumps(summary.as_dict(), indent=2))
    elif captions.pictures or captions.interrupted:
        click.echo(captions_in_words(captions))
    if summary.interrupted or captions.interrupted:
        raise SystemExit(INTERRUPTED)
    if summary.failed or summary.pruned.failed or captions.failed or captions.error:
        raise SystemExit(1)
