"""Count and show the progress of a run: a bar on a terminal, lines elsewhere, one line for each failure."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Self, TextIO

from es_config.documents import one_line
from ingest.files.walk import Candidate, Failure, valid_unicode
from ingest.options import SKIPPED, UNCAPTIONED, CaptionSummary, IngestSummary, Progress

if TYPE_CHECKING:
    from ingest.errors import Fault
    from ingest.files.walk import Failure
    from ingest.options import CaptionSummary, IngestSummary, PruneSummary

LINE_EVERY_S = 10.0


class LineProgress(Progress):
    """Writes a line every ten seconds: what a log file can take."""

    def __init__(self, stream: TextIO, *, noun: str = "files", every_s: float = LINE_EVERY_S) -> None:
        self._stream = stream
        self._noun = noun
        self._every_s = every_s
        self._total = self._done = 0
        self._so_far = False
        self._begin = self._last = 0.0

    def start(self, total: int, *, so_far: bool = False) -> None:
        """Learn how many files there are, or are known so far."""
        self._total, self._so_far = total, so_far

    def advance(self) -> None:
        """Count one file; the clock starts with the first, when the models are loaded."""
        now = time.monotonic()
        if not self._done:
            self._begin = self._last = now
        self._done += 1
        if now - self._last >= self._every_s:
            self._last = now
            rate = self._done / max(now - self._begin, 1e-3)
            left = max(0, self._total - self._done) / rate
            total = f"{self._total} or more" if self._so_far else str(self._total)
            time_left = f"{left:.0f} s or more left" if self._so_far else f"{left:.0f} s left"
            self._write(f"{self._done} of {total} {self._noun}, {rate:.1f}/s, {time_left}")

    def failed(self, failure: Failure, *, what: str = SKIPPED) -> None:
        """Say what cannot be used."""
        self._write(_sentence(failure, what))

    def _write(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


class BarProgress(Progress):
    """A bar with the count, the rate and the time left; failures scroll above it."""

    def __init__(self, *, doing: str = "Ingesting") -> None:
        from rich import progress
        from rich.console import Console

        self._bar = progress.Progress(
            progress.TextColumn("[progress.description]{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[rate]:.1f}/s"),
            progress.TimeRemainingColumn(),
            console=Console(stderr=True),
            refresh_per_second=4,
        )
        self._task = self._bar.add_task("Looking for pictures", total=None, rate=0.0)
        self._doing = doing
        self._begin = 0.0
        self._done = 0

    def __enter__(self) -> Self:
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the bar as it is."""
        self._bar.stop()

    def start(self, total: int, *, so_far: bool = False) -> None:
        """Learn how many files there are, or are known so far: the bar then grows."""
        is_known = total or not so_far
        self._bar.update(self._task, description=self._doing, total=total if is_known else None)

    def advance(self) -> None:
        """Count one file; the clock starts with the first, when the models are loaded."""
        if not self._done:
            self._begin = time.monotonic()
        self._done += 1
        rate = self._done / max(time.monotonic() - self._begin, 1e-3) if self._done > 1 else 0.0
        self._bar.update(self._task, advance=1, rate=rate)

    def failed(self, failure: Failure, *, what: str = SKIPPED) -> None:
        """Say what cannot be used, above the bar."""
        self._bar.console.print(_sentence(failure, what), markup=False, highlight=False, soft_wrap=True)


def open_progress(*, doing: str = "Ingesting", noun: str = "files") -> BarProgress | LineProgress:
    """Return a bar when stderr is a terminal, lines otherwise."""
    return BarProgress(doing=doing) if sys.stderr.isatty() else LineProgress(sys.stderr, noun=noun)


def in_words(summary: IngestSummary) -> str:
    """Return the summary as a person reads it."""
    if not summary.files and not summary.failures and not summary.interrupted:
        return "There are no pictures there."
    would = "would be " if summary.dry_run else ""
    moved = f" ({summary.paths_added} under a new path)" if summary.paths_added else ""
    rate = summary.files / summary.seconds if summary.seconds else 0.0
    before = f" and {summary.failed_before} failed before" if summary.failed_before else ""
    text = (
        f"{summary.files} files: {summary.indexed} {would}indexed, {summary.skipped} known already{moved},"
        f" {summary.failed} failed{before}, in {summary.seconds:.1f} s ({rate:.1f}/s)."
    )
    again = " The same command goes on from there."
    return f"Interrupted. {text}{again}" if summary.interrupted else text


def pruned_in_words(pruned: PruneSummary, *, dry_run: bool) -> list[str]:
    """Return sentences about what left the index; none when nothing did and nothing was to."""
    sentences = [one_line(f"Would remove {path}") for path in pruned.gone] if dry_run else []
    sentences += [f"Error: {pruned.refused}"] if pruned.refused else []
    if dry_run and pruned.gone and not pruned.refused:
        sentences.append(f"Without --dry-run, {_counted(len(pruned.gone), 'file')} would leave the index.")
    if pruned.documents:
        pictures = _counted(pruned.documents, "picture")
        sentences.append(f"{pictures} left the index: gone or changed on the disk.")
    if pruned.human_captions:
        captions = _counted(pruned.human_captions, "caption")
        sentences.append(f"{captions} that people had written went too, into removed-captions.jsonl.")
    return sentences + [one_line(f"Error: The index refused to change {each}") for each in pruned.failures]


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def captions_in_words(summary: CaptionSummary) -> str:
    """Return what became of the captions as a person reads it."""
    if not (summary.pictures or summary.interrupted or summary.error):
        return "No picture waits for a caption."
    took = (
        f", in {summary.seconds:.1f} s ({summary.pictures / summary.seconds:.1f}/s)"
        if summary.seconds
        else ""
    )
    changed = f", {summary.changed} changed meanwhile and left alone" if summary.changed else ""
    text = f"{summary.written} captions written, {summary.failed} failed{changed}{took}."
    return f"Interrupted. {text} `glimpse caption` goes on from there." if summary.interrupted else text


def captions_stopped(summary: CaptionSummary) -> str:
    """Say why captions are not written, or no more of them, and what to do."""
    return (
        f"Error: The pictures are searchable, but not all have captions: {summary.error}"
        " Once that is mended, `glimpse caption` goes on from there."
    )


def _sentence(failure: Failure, what: str) -> str:
    return one_line(f"{what} {failure.path}: {failure.reason}")


class Tally:
    """The counts of one run, kept by all of its threads, and the faults of the contents that failed."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._failures: list[Failure] = []
        self._caption_failures: list[Failure] = []
        self.caption_error: str | None = None
        """why no captions are written in this run, or no more"""
        self.faults: dict[str, Fault] = {}
        """image id -> why a picture with this content cannot be indexed"""

    @property
    def indexed(self) -> int:
        """Documents written so far."""
        return self._counts["indexed"]

    def found(self, files: int, *, so_far: bool) -> None:
        """There are so many files, or are so far."""
        with self._lock:
            self._progress.start(files, so_far=so_far)

    def add(self, **counts: int) -> None:
        """A file has ended; `counts` says how, in the words of `IngestSummary`, or `captioned`."""
        with self._lock:
            self._counts += Counter(counts, files=1)
            self._progress.advance()

    def add_embedded(self, number: int) -> None:
        """Vectors were made."""
        with self._lock:
            self._counts["embedded"] += number

    def add_failure(self, candidate: Candidate, fault: Fault) -> None:
        """A file cannot be used."""
        self.add_folder_failure(Failure(valid_unicode(str(candidate.path)), fault.reason))
        self.add()

    def add_folder_failure(self, failure: Failure) -> None:
        """A folder, or a link in the place of one, cannot be used; it is no file, so `files` stays."""
        with self._lock:
            self._failures.append(failure)
            self._progress.failed(failure)

    def add_caption_failure(self, candidate: Candidate, fault: Fault) -> None:
        """A picture gets no caption; what becomes of the picture itself is counted apart."""
        with self._lock:
            self._caption_failures.append(Failure(valid_unicode(str(candidate.path)), fault.reason))
            self._progress.failed(self._caption_failures[-1], what=UNCAPTIONED)

    def summary(self, seconds: float, *, interrupted: bool, dry_run: bool) -> IngestSummary:
        """Return the counts as they are now."""
        with self._lock:
            counts, failures = dict(self._counts), tuple(self._caption_failures)
            written = counts.pop("captioned", 0)
            return IngestSummary(
                **counts,
                failures=tuple(self._failures),
                seconds=seconds,
                interrupted=interrupted,
                dry_run=dry_run,
                captions=CaptionSummary(written, failures=failures, error=self.caption_error),
            )


class CaptionTally:
    """The counts of one pass, kept by all of its threads."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._failures: list[Failure] = []

    def add(self, **counts: int) -> None:
        """A picture got its caption, `written=1`, or was left alone as its document had `changed=1`."""
        with self._lock:
            self._counts += Counter(counts)
            self._progress.advance()

    def add_failure(self, path: str, reason: str) -> None:
        """A picture gets no caption."""
        with self._lock:
            self._failures.append(Failure(path, reason))
            self._progress.failed(self._failures[-1], what=UNCAPTIONED)
            self._progress.advance()

    def summary(self, seconds: float, *, interrupted: bool, error: str | None) -> CaptionSummary:
        """Return the counts as they are now."""
        with self._lock:
            more = {"seconds": seconds, "interrupted": interrupted, "error": error}
            return CaptionSummary(**self._counts, **more, failures=tuple(self._failures))
