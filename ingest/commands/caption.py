"""`glimpse caption`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from es_config.commands.options import (
    AS_JSON,
    INDEX,
    MODELS,
    ON,
    complete_remedies,
    exit_with,
    open_workers,
    say,
    store_option,
)


@click.command()
@click.option(
    "--missing/--all",
    default=True,
    show_default="--missing",
    help="Caption pictures that have no caption, or also replace captions that a model wrote.",
)
@click.option("--limit", type=click.IntRange(min=0), help="Stop after this many pictures.")
@click.option(
    "--batch-size",
    type=click.IntRange(1, 1024),
    default=16,
    show_default=True,
    help="Pictures captioned together.",
)
@ON
@MODELS
@INDEX
@store_option("Read thumbnails from here.")
@AS_JSON
def caption(
    *,
    missing: bool,
    limit: int | None,
    batch_size: int,
    on: str | None,
    profile: str | None,
    model_dir: Path | None,
    alias: str,
    store: str | None,
    as_json: bool,
) -> None:
    """Give every picture of the index a caption, the newest first.

    The captioner sees thumbnails of 512 pixels, so the originals may be away. Searches go on meanwhile and
    find new captions. Ctrl-C is safe: the same command goes on from there. Captions that a person wrote or
    that the file itself contains are never replaced, not even with --all. A picture that gets no caption is
    named with its reason, the exit code is then 1, and the next run tries it again.

    \b
    Example:
      glimpse caption --limit 1000
    """
    from es_config.client import glimpse_home
    from es_config.runs import RunFile
    from evaluation.commands.calibrate import calibrate_by_itself
    from ingest.options import CaptionOptions
    from ingest.pipeline.captions import caption_pictures
    from ingest.report import captions_in_words, captions_stopped, open_progress
    from ingest.wiring import IngestSettings, open_dependencies
    from ingest.workers.wiring import shared_pass
    from ingest.workers.worker import CaptionTask

    crew = open_workers(on)
    settings = IngestSettings(profile, model_dir, alias, store)
    dependencies = open_dependencies(settings, os.environ, create=False)
    options = CaptionOptions(every=not missing, limit=limit, batch_size=batch_size)
    if dependencies.index.captions().count_missing(every=options.every) and limit != 0:
        dependencies.fetch_captioner(say)
    file = RunFile(glimpse_home(os.environ), alias)
    with (
        shared_pass(
            crew,
            CaptionTask(options),
            dependencies=dependencies,
            settings=settings,
            environ=os.environ,
            say=say,
        ) as work,
        open_progress(doing="Captioning", noun="pictures", file=file) as progress,
    ):
        summary = caption_pictures(dependencies, options=options, progress=progress, work=work)
    if summary.error:
        say(captions_stopped(summary))
    click.echo(
        json.dumps(summary.as_dict(), indent=2) if as_json else complete_remedies(captions_in_words(summary))
    )
    if not (summary.interrupted or summary.error):
        calibrate_by_itself(alias, model_dir)
    exit_with(interrupted=summary.interrupted, failed=bool(summary.failed or summary.error))
