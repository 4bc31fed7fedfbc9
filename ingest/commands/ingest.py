"""`glimpse ingest`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from es_config.commands.options import (
    BACKEND,
    INDEX,
    MODELS,
    ON,
    complete_remedies,
    exit_with,
    open_workers,
    say,
    setting,
    store_option,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from datetime import tzinfo

    from click.shell_completion import CompletionItem

    from ingest.files.walk import Shard
    from ingest.pipeline.run import IngestJob
    from ingest.report import IngestSummary
    from ingest.sources.places import NamedPlaces
    from ingest.sources.web import WebLimits
    from ingest.workers.driver import SharedWork

SOURCE = re.compile(r"@|[a-z][a-z0-9+.-]*://", re.IGNORECASE)
"""beginning of a place that is no path"""


def _read_shard(_context: click.Context, _parameter: click.Parameter, text: str | None) -> Shard | None:
    from ingest.errors import IngestError
    from ingest.files.walk import parse_shard

    try:
        return parse_shard(text) if text else None
    except IngestError as error:
        raise click.BadParameter(str(error)) from error


def _read_zone(_context: click.Context, _parameter: click.Parameter, name: str | None) -> tzinfo | None:
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(name) if name else None
    except (ValueError, OSError, KeyError) as error:  # not a name, a folder of names, an unknown one
        raise click.BadParameter(
            f"There is no time zone '{name}': give a name such as Europe/Zurich or America/New_York."
        ) from error


class Place(click.ParamType[str]):
    """A path that exists, or another source of pictures."""

    name = "place"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the word. A path that does not exist is refused as click refuses it."""
        if SOURCE.match(value) is None:
            click.Path(exists=True, readable=False).convert(value, param, ctx)
        return value

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Complete files."""
        return click.Path().shell_complete(ctx, param, incomplete)


@click.command()
@click.argument("places", nargs=-1, required=True, metavar="PLACE...", type=Place())
@click.option("--dry-run", is_flag=True, help="Read everything, write nothing.")
@click.option("--limit", type=click.IntRange(min=0), help="Stop after this many files.")
@click.option(
    "--exclude",
    multiple=True,
    metavar="PATTERN",
    help="Leave out files and folders that this pattern of gitignore fits; may be repeated.",
)
@click.option(
    "--no-default-excludes",
    is_flag=True,
    help="Take in hidden names, and what other programs leave behind, such as @eaDir and #recycle.",
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
@setting(
    "--films",
    "GLIMPSE_FILMS",
    type=click.Choice(["off", "first", "moments"]),
    default="first",
    help="Leave films out, take the first good picture of each, or one every few seconds so that moments are"
    " found.",
)
@setting(
    "--timezone",
    "GLIMPSE_TIMEZONE",
    metavar="NAME",
    callback=_read_zone,
    help="Time zone of cameras that say none, such as Europe/Zurich.  [default: unknown]",
)
@setting("--no-gps", "GLIMPSE_NO_GPS", is_flag=True, help="Leave out where pictures were taken.")
@click.option(
    "--captions",
    type=click.Choice(["now", "later", "off"]),
    default="later",
    show_default=True,
    help="Caption pictures as they are indexed, once all are searchable, or not at all.",
)
@click.option(
    "--words",
    type=click.Choice(["now", "later", "off"]),
    default="off",
    show_default=True,
    help="Read the text in pictures as they are indexed, once all are searchable, or leave it to"
    " `glimpse words`: it takes many times as long as indexing.",
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
@click.option(
    "--part",
    metavar="3/16",
    callback=_read_shard,
    help="Take the third of sixteen parts of the files, the same on every machine.",
)
@ON
@click.option(
    "--fetch-mb",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="Refuse larger files of the web, in MiB.",
)
@click.option(
    "--fetch-seconds",
    type=click.FloatRange(min=0.1),
    default=60.0,
    show_default=True,
    help="Give up on a file of the web after this time.",
)
@click.option("--retry-failed", is_flag=True, help="Retry files that failed before and have not changed.")
@click.option("--prune", is_flag=True, help="Remove pictures from the index if their files are gone.")
@click.option("--prune-anyway", is_flag=True, help="Prune even if more than a fifth of the files are gone.")
@click.option(
    "--moved-from",
    multiple=True,
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="With --prune, a folder that was ingested and is now elsewhere; may be repeated.",
)
@click.option(
    "--watch",
    is_flag=True,
    help="Keep running and index new and changed files within seconds. Ctrl-C ends it with exit code 0.",
)
@click.option(
    "--metrics-port",
    type=click.IntRange(1, 65535),
    metavar="PORT",
    help="Publish how the run goes for Prometheus, at http://127.0.0.1:PORT/metrics.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; with --watch one line a round.")
def ingest(
    *,
    places: tuple[str, ...],
    dry_run: bool,
    limit: int | None,
    exclude: tuple[str, ...],
    no_default_excludes: bool,
    profile: str | None,
    model_dir: Path | None,
    alias: str,
    store: str | None,
    originals: str,
    films: str,
    timezone: tzinfo | None,
    no_gps: bool,
    captions: str,
    words: str,
    precision: str,
    backend: str,
    batch_size: int,
    max_pixels: int,
    threads: int | None,
    part: Shard | None,
    on: str | None,
    fetch_mb: int,
    fetch_seconds: float,
    retry_failed: bool,
    prune: bool,
    prune_anyway: bool,
    moved_from: tuple[Path, ...],
    watch: bool,
    metrics_port: int | None,
    as_json: bool,
) -> None:
    """Make the pictures of folders and files searchable.

    A PLACE is a folder or file, a .tar or .zip archive or WebDataset shard, s3://bucket/prefix (or gs://, or
    az://), an https:// address, or @FILE: a list of paths and addresses, of a CSV or Parquet file as
    @FILE:COLUMN.

    The same content is one picture with every path that holds it; pictures that the index holds already are
    not embedded again. A file that cannot be used is skipped with its reason, and the exit code is then 1; it
    is tried again when it changes. Captions follow once all pictures are searchable; Ctrl-C is safe then too,
    and `glimpse caption` goes on.

    \b
    Example:
      glimpse ingest ~/Pictures --exclude "*.gif" --exclude thumbnails
      glimpse ingest ~/Pictures --prune --dry-run
      glimpse ingest ~/Pictures --watch
      glimpse ingest s3://bucket/photos shard-{000..015}.tar @addresses.txt
    """
    from contextlib import nullcontext

    from ingest.files.walk import EVERYTHING, Exclusions
    from ingest.metrics import published
    from ingest.options import IngestOptions, PruneOptions
    from ingest.pipeline.run import IngestJob
    from ingest.sources.web import WebLimits
    from ingest.wiring import EncoderOptions, IngestSettings, open_dependencies, sample_pictures
    from models.fast.choose import Requested
    from models.pixels import give_memory_back

    if watch:
        _check_watch(dry_run=dry_run, limit=limit, words=words)
    if on and (watch or dry_run):
        other = "--watch" if watch else "--dry-run"
        raise click.UsageError(f"--on does not go with {other}, which one process does: leave one out.")
    give_memory_back()
    limits = WebLimits(fetch_mb << 20, fetch_seconds)
    crew = open_workers(on)
    exclusions = Exclusions(exclude, defaults=not no_default_excludes, films=films == "off")
    opened = _open(places, limits, watch=watch)
    options = IngestOptions(
        batch_size=batch_size,
        exclude=exclusions,
        limit=limit,
        dry_run=dry_run,
        max_pixels=max_pixels,
        timezone=timezone,
        no_gps=no_gps,
        originals=originals,
        films=films,
        caption=captions == "now",
        words=words == "now",
        shard=part or EVERYTHING,
        prune=PruneOptions(prune or prune_anyway, prune_anyway, moved_from),
    )
    encoder = EncoderOptions(
        requested=Requested(backend, precision),
        sample=partial(
            sample_pictures, opened.paths, exclude=exclusions, max_pixels=max_pixels, sources=opened.sources
        ),
        say=say,
    )
    settings = IngestSettings(profile, model_dir, alias, store, encoder)
    dependencies = open_dependencies(settings, os.environ, dry_run=dry_run)
    if captions == "now" and not dry_run:
        dependencies.fetch_captioner(say)

    def calibrate() -> None:
        from evaluation.commands.calibrate import calibrate_by_itself

        calibrate_by_itself(alias, model_dir)

    job = IngestJob(
        paths=opened.paths,
        sources=opened.sources,
        dependencies=dependencies,
        options=replace(options, threads=threads) if threads else options,
        environ=os.environ,
        captions_later=captions == "later",
        after_captions=calibrate,
        words_later=words == "later",
        retry_failed=retry_failed,
    )
    work: AbstractContextManager[SharedWork | None] = nullcontext()
    if crew:
        from ingest.workers.wiring import shared_ingest

        work = shared_ingest(
            crew,
            dependencies=dependencies,
            settings=settings,
            options=options,
            environ=os.environ,
            paths=opened.paths,
            limits=limits,
            threads=threads,
            say=say,
        )
    with published(job.meter, metrics_port), work as shared:
        if watch:
            prepare_searches(job, alias, model_dir)
            from ingest.watch import WatchReport, watch_folders

            summary = watch_folders(job, WatchReport(as_json=as_json, say=say, write=click.echo))
            if not summary.interrupted:
                return
        else:
            summary = replace(job, work=shared).run_all()
    if not (summary.interrupted or summary.dry_run):
        prepare_searches(job, alias, model_dir)
    _conclude(job, summary, calibrate=None if captions == "off" or dry_run else calibrate, as_json=as_json)


def prepare_searches(job: IngestJob, alias: str, model_dir: Path | None) -> None:
    """Start a process of low priority that makes the quick form of the models, for a person at a terminal.

    The first search would wait for it otherwise. It goes on when this one ends. Nobody waits for the
    searches of a script.
    """
    index = job.dependencies.index
    if not (sys.stdin.isatty() and sys.stderr.isatty() and index.exists()):
        return
    from es_config.client import cache_folder
    from models.fast.standalone import QuickTowers
    from models.profiles import get_profile

    name = index.meta().profile
    if QuickTowers(get_profile(name, model_dir=model_dir), cache_folder(os.environ)).are_kept():
        return
    words = [sys.executable, "-m", "glimpse", "model", "prepare", "--low-priority", "--index", alias]
    words += ["--model-dir", str(model_dir.absolute())] if model_dir else []
    process = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    process.returncode = 0  # nobody waits for it


def _conclude(
    job: IngestJob, summary: IngestSummary, *, calibrate: Callable[[], None] | None, as_json: bool
) -> None:
    """Say how a run went, let captions and text follow, and end with the exit code of all of it."""
    from ingest.report import (
        captions_in_words,
        captions_stopped,
        in_words,
        passed_over_in_words,
        pruned_in_words,
        words_in_words,
        words_stopped,
    )

    for sentence in pruned_in_words(summary.pruned, dry_run=summary.dry_run):
        say(sentence)
    if not as_json:
        click.echo(in_words(summary))
        for sentence in passed_over_in_words(summary):
            say(sentence)
    summary = job.with_captions(summary, say=say)
    captions_done = summary.captions
    if captions_done.error:
        say(captions_stopped(captions_done))
    if not as_json and (captions_done.pictures or captions_done.interrupted):
        click.echo(complete_remedies(captions_in_words(captions_done)))
    summary = job.with_words(summary, say=say, hint=sys.stderr.isatty())
    words_done = summary.words
    if words_done.error:
        say(words_stopped(words_done))
    read = complete_remedies(words_in_words(words_done))
    is_news = words_done.pictures or words_done.interrupted
    last = json.dumps(summary.as_dict(), indent=2) if as_json else read if is_news else ""
    click.echo(last, nl=bool(last))
    if calibrate and not (summary.interrupted or captions_done.interrupted):
        calibrate()
    exit_with(
        interrupted=summary.interrupted or captions_done.interrupted or words_done.interrupted,
        failed=any(
            (
                summary.failed,
                summary.pruned.failed,
                captions_done.failed or captions_done.error,
                words_done.failed or words_done.error,
            )
        ),
    )


def _open(places: tuple[str, ...], limits: WebLimits, *, watch: bool) -> NamedPlaces:
    """Open the places, until the end of the command."""
    from ingest.sources.places import open_places

    opened = open_places(places, limits=limits)
    for source in opened.sources:
        click.get_current_context().call_on_close(source.close)
    if watch and opened.sources:
        raise click.UsageError("--watch sees folders alone: run the command for other places again instead.")
    return opened


def _check_watch(*, dry_run: bool, limit: int | None, words: str) -> None:
    if dry_run or limit is not None:
        other = "--dry-run" if dry_run else "--limit"
        raise click.UsageError(f"--watch writes each change to the index, so it does not go with {other}.")
    if words == "later":
        raise click.UsageError("With --watch use --words now, or run `glimpse words` at any time.")
