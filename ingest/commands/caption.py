"""`glimpse caption`, and the captions that follow `glimpse ingest`."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import click

from es_config.commands.options import AS_JSON, INDEX, MODELS, say, store_option

if TYPE_CHECKING:
    from ingest.options import CaptionOptions, CaptionSummary
    from ingest.wiring import Parts

INTERRUPTED = 130


@click.command()
@click.option(
    "--missing/--all",
    default=True,
    show_default="--missing",
    help="Caption pictures that have no caption, or also those anew that a model captioned.",
)
@click.option("--limit", type=click.IntRange(min=0), help="Look at this many pictures.")
@click.option(
    "--batch-size",
    type=click.IntRange(1, 1024),
    default=16,
    show_default=True,
    help="Pictures captioned together.",
)
@MODELS
@INDEX
@store_option("Where the thumbnails are.")
@AS_JSON
def caption(*, missing, limit, batch_size, profile, model_dir, alias, store, as_json) -> None:
    """Give every picture of the index a caption, the newest first.

    Pictures are looked at as their thumbnails of 512 pixels show them, so the originals may be away. Searches
    go on meanwhile and find what is written. Ctrl-C is safe: the same command goes on from there. What a
    person wrote, and what the file itself says, is never replaced, not even with --all. A picture that gets
    no caption is named with its reason, the exit code is then 1, and the next run tries it again.

    \b
    Example:
      glimpse caption --limit 1000
    """
    from ingest.options import CaptionOptions
    from ingest.report import captions_in_words, captions_stopped
    from ingest.wiring import IngestSettings, open_parts

    parts = open_parts(IngestSettings(profile, model_dir, alias, store), os.environ, create=False)
    summary = run_pass(parts, CaptionOptions(every=not missing, limit=limit, batch_size=batch_size))
    if summary.error:
        say(captions_stopped(summary))
    click.echo(json.dumps(summary.as_dict(), indent=2) if as_json else captions_in_words(summary))
    if summary.interrupted or summary.failed or summary.error:
        raise SystemExit(INTERRUPTED if summary.interrupted else 1)


def run_pass(parts: Parts, options: CaptionOptions) -> CaptionSummary:
    """Run a pass with its progress on stderr. Raises as `caption_pictures` does."""
    from ingest.pipeline.captions import caption_pictures
    from ingest.report import open_progress

    with open_progress(doing="Captioning", noun="pictures") as progress:
        return caption_pictures(parts, options=options, progress=progress)


def caption_later(parts: Parts) -> CaptionSummary:
    """Caption what an ingest left without captions; whatever goes wrong is said in the summary's `error`."""
    from es_config.errors import EngineError
    from ingest.errors import IngestError
    from ingest.options import CaptionOptions, CaptionSummary
    from models.errors import ModelError

    try:
        waiting = parts.index.captions().count_missing(every=False)
        if not waiting:
            return CaptionSummary()
        say(
            f"The pictures are searchable now; {waiting} captions follow. Ctrl-C is safe: `glimpse caption`"
            " goes on from there."
        )
        return run_pass(parts, CaptionOptions())
    except (EngineError, IngestError, ModelError) as error:
        return CaptionSummary(error=str(error))
