"""`glimpse ingest`."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import Counter
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from es_config.commands.options import BACKEND, INDEX, MODELS, say, setting, store_option, together

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ingest.files.walk import Part
    from ingest.options import Changes, IngestOptions, IngestSummary, PruneSummary
    from ingest.wiring import Parts


def _read_part(_context: click.Context, _parameter: click.Parameter, text: str | None) -> Part | None:
    """Turn `3/16` into a part; what is none is a wrong use of the command."""
    from ingest.errors import IngestError
    from ingest.files.walk import parse_part

    try:
        return parse_part(text) if text else None
    except IngestError as error:
        raise click.BadParameter(str(error)) from error


survival_options = together(
    click.option(
        "--part",
        metavar="3/16",
        callback=_read_part,
        help="Take the third of sixteen parts of the files, the same on every machine.",
    ),
    click.option("--retry-failed", is_flag=True, help="Try again what failed before and has not changed."),
    click.option("--prune", is_flag=True, help="Take pictures out of the index whose files are gone."),
    click.option(
        "--prune-anyway", is_flag=True, help="Do so even if more than a fifth of the files are gone."
    ),
    click.option(
        "--moved-from",
        multiple=True,
        metavar="FOLDER",
        type=click.Path(path_type=Path),
        help="With --prune, a folder that was ingested and is now elsewhere; may be repeated.",
    ),
)


def say_pruned(pruned: PruneSummary, *, dry_run: bool) -> None:
    """Say on stderr what left the index, or would leave it, and why nothing did."""
    from ingest.report import pruned_in_words

    for sentence in pruned_in_words(pruned, dry_run=dry_run):
        say(sentence)


COUNTED = (
    ("{} picture added", "{} pictures added"),
    ("{} path changed", "{} paths changed"),
    ("{} picture left", "{} pictures left"),
    ("{} failed", "{} failed"),
    ("{} caption written", "{} captions written"),
)

watch_option = click.option(
    "--watch",
    is_flag=True,
    help="Then go on: new and changed files are found seconds later. Ctrl-C ends it, exit code 0.",
)


def check_watch(*, watch: bool, dry_run: bool, limit: int | None) -> None:
    """Refuse what does not go with a watch."""
    if watch and (dry_run or limit is not None):
        other = "--dry-run" if dry_run else "--limit"
        raise click.UsageError(f"--watch writes whatever comes, so it does not go with {other}.")


class WatchReport:
    """One line for each round that changed something; with JSON one object for each round."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._begin = time.monotonic()
        self._totals: Counter[int] = Counter()

    def say(self, sentence: str) -> None:
        """Say on stderr what is to be known."""
        say(sentence)

    def first(self, summary: IngestSummary) -> None:
        """The full run is done, and has said so in words."""
        if self._as_json:
            click.echo(json.dumps(summary.as_dict()))

    def round(self, summary: IngestSummary) -> None:
        """Count a round and print its line."""
        from ingest.options import PruneSummary

        pruned, captions = summary.pruned, summary.captions
        say_pruned(replace(pruned, documents=0), dry_run=False)
        numbers = (summary.indexed, summary.paths_added, pruned.documents, summary.failed, captions.written)
        if summary.files or summary.failed or pruned != PruneSummary():
            self._print(Counter(dict(enumerate(numbers))), summary)

    def captions(self, written: int) -> None:
        """Count captions that were written between rounds, and print their line."""
        from ingest.options import CaptionSummary, IngestSummary

        self._print(Counter({4: written}), IngestSummary(captions=CaptionSummary(written)))

    def ended(self) -> None:
        """Say what the whole watch did."""
        took = timedelta(seconds=round(time.monotonic() - self._begin))
        words = _in_words(self._totals) or "nothing changed"
        sentence = f"Watched for {took}: {words}. The same command goes on from there."
        click.echo(sentence, err=self._as_json)

    def _print(self, numbers: Counter[int], summary: IngestSummary) -> None:
        self._totals += numbers
        if self._as_json:
            click.echo(json.dumps(summary.as_dict()))
        elif words := _in_words(numbers):
            click.echo(f"{words}, {time.strftime('%H:%M:%S')}")


def _in_words(numbers: Counter[int]) -> str:
    texts = ((number, COUNTED[which][number != 1]) for which, number in sorted(numbers.items()) if number)
    return ", ".join(text.format(number) for number, text in texts)


def watch_folders(
    paths: Sequence[Path],
    *,
    parts: Parts,
    options: IngestOptions,
    first: Callable[[], IngestSummary],
    run: Callable[..., IngestSummary],
    captions: bool,
    report: WatchReport,
) -> IngestSummary:
    """Observe, make the `first` run and then rounds until Ctrl-C or SIGTERM; return what the first run did.

    `run` takes folders, changes and a progress. With `captions`, pictures without one get one whenever there
    is nothing else to do. An interrupted first run is all there is.
    """
    from es_config.errors import EngineError
    from ingest.report import LineProgress
    from ingest.watch.watch import IdleCaptions, Watch

    meta = parts.index.meta()
    idle = IdleCaptions(parts, say=report.say, written=report.captions)

    def round_of(folders: Sequence[Path], changes: Changes | None) -> IngestSummary:
        # The alias may stand for another index by now, whose vectors are of another model.
        parts.index.write_target()
        parts.index.check_profile(meta.profile, meta.dims, text_revision=meta.revisions.get("text"))
        summary = run(folders, changes, progress=LineProgress(sys.stderr))
        if summary.indexed:
            idle.wake()
        return summary

    watch = Watch(
        paths, options=options, run=round_of, idle=idle if captions else lambda: False, report=report
    )
    with _interrupted_by_sigterm(), watch:
        summary = first()
        if not summary.interrupted:
            try:
                report.first(summary)
                with suppress(EngineError):  # it went away: the first round waits for it, and loads
                    if summary.files:
                        _ = parts.image_encoder.preprocess  # the first new picture need not wait for it
                report.say("Watching. Ctrl-C ends it.")
                watch.forever()
            except KeyboardInterrupt:
                report.ended()
    return summary


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


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
    from ingest.files.walk import Part
    from ingest.options import IngestOptions, PruneOptions
    from ingest.pipeline.run import ingest_paths
    from ingest.report import in_words, open_progress
    from ingest.wiring import IngestSettings, TowerChoice, open_memory, open_parts, sample_pictures
    from models.fast.execution import Requested

    check_watch(watch=watch, dry_run=dry_run, limit=options["limit"])
    given = {name: value for name, value in options.items() if value is not None}
    tower = TowerChoice(
        requested=Requested(backend, precision),
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
