"""`glimpse words`."""

from __future__ import annotations

import json
import os
from contextlib import closing
from pathlib import Path

import click

from es_config.commands.options import (
    AS_JSON,
    INDEX,
    MODELS,
    ON,
    exit_with,
    open_workers,
    say,
    setting,
    store_option,
)


@click.command()
@click.option(
    "--missing/--all",
    default=True,
    show_default="--missing",
    help="Read pictures that nobody has read, or all of them again.",
)
@click.option("--retry-failed", is_flag=True, help="Retry pictures whose content failed before.")
@click.option("--limit", type=click.IntRange(min=0), help="Stop after this many pictures.")
@setting(
    "--max-pixels",
    "GLIMPSE_MAX_PIXELS",
    type=click.IntRange(min=1),
    default=200_000_000,
    help="Refuse larger pictures.",
)
@ON
@MODELS
@INDEX
@store_option("Read whole pictures from here, if their files are away.")
@AS_JSON
def words(
    *,
    missing: bool,
    retry_failed: bool,
    limit: int | None,
    max_pixels: int,
    on: str | None,
    profile: str,
    model_dir: Path | None,
    alias: str,
    store: str | None,
    as_json: bool,
) -> None:
    """Read the text that is written in the pictures of the index, the newest first.

    Signs, labels, letters and screenshots are found by their words afterwards, with `--mode words` and
    `--mode hybrid`. A picture is read where its file was ingested, else from the whole picture that the
    store keeps: a thumbnail is too small. Searches go on meanwhile. Ctrl-C is safe: the same command goes on
    from there. A picture that fails is named with its reason, and the exit code is then 1.

    \b
    Example:
      glimpse words --limit 1000
    """
    from es_config.client import glimpse_home
    from es_config.runs import RunFile
    from ingest.options import IngestOptions, WordsOptions
    from ingest.pipeline.words import read_words
    from ingest.report import open_progress, words_in_words, words_stopped
    from ingest.wiring import IngestSettings, open_dependencies, open_history
    from ingest.workers.wiring import shared_pass
    from ingest.workers.worker import WordsTask
    from models.pixels import give_memory_back

    give_memory_back()
    crew = open_workers(on)
    settings = IngestSettings(profile, model_dir, alias, store)
    dependencies = open_dependencies(settings, os.environ, create=False)
    file = RunFile(glimpse_home(os.environ), alias)
    options = WordsOptions(every=not missing, again=retry_failed, limit=limit, max_pixels=max_pixels)
    with (
        closing(open_history(dependencies.index, os.environ, options=IngestOptions())) as history,
        shared_pass(
            crew,
            WordsTask(options),
            dependencies=dependencies,
            settings=settings,
            environ=os.environ,
            say=say,
        ) as work,
        open_progress(doing="Reading text", noun="pictures", file=file) as progress,
    ):
        summary = read_words(dependencies, options=options, history=history, progress=progress, work=work)
    if summary.error:
        say(words_stopped(summary))
    click.echo(json.dumps(summary.as_dict(), indent=2) if as_json else words_in_words(summary))
    exit_with(interrupted=summary.interrupted, failed=bool(summary.failed or summary.error))
