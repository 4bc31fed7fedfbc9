"""`--watch` of `glimpse ingest`: its option, and what is said on the way."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from es_config.commands.options import say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from ingest.options import Changes, IngestOptions, IngestSummary
    from ingest.wiring import Parts

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
        from ingest.survival_cli import say_pruned

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
    from ingest.idle_captions import IdleCaptions
    from ingest.report import LineProgress
    from ingest.watch.watch import Watch

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
