"""Count a run, show its progress, and sum it up in words."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Self, TextIO

from es_config.documents import one_line
from es_config.runs import RunFile
from ingest.errors import Fault
from ingest.files.walk import (
    DEFAULT_EXCLUDES,
    HIDING_MARK,
    IGNORE_FILES,
    Candidate,
    Failure,
    PassedOver,
)
from ingest.metrics import RunMeter

SKIPPED, UNCAPTIONED, UNREAD = "Skipped", "No caption for", "No words of"
LINE_EVERY_S = 10.0


@dataclass(frozen=True)
class PruneSummary:
    """The pictures that left the index, or in a dry run would leave it with their last path."""

    gone: tuple[str, ...] = ()
    """files that are gone with no copy left, or that rules now leave out; in a dry run and after a refusal
    they are still in the index"""
    documents: int = 0
    """documents that were deleted, with what the store kept: of files gone, changed or left out"""
    human_captions: int = 0
    """deleted documents whose caption a person had written; the captions are in removed-captions.jsonl"""
    failures: tuple[str, ...] = ()
    """what the index refused to change"""
    refused: str | None = None
    """why missing files stay in the index, with the way out"""

    @property
    def failed(self) -> bool:
        """Whether something was asked and not done."""
        return bool(self.refused or self.failures)


@dataclass(frozen=True)
class PassSummary:
    """The results of a pass: each picture is in one of `written`, `changed` and `failures`."""

    written: int = 0
    changed: int = 0
    """pictures left alone, since their document changed or went while they were looked at"""
    seconds: float = 0.0
    interrupted: bool = False
    error: str | None = None
    """why nothing was written at all, or no more"""
    failures: tuple[Failure, ...] = ()

    @property
    def failed(self) -> int:
        """Pictures that failed."""
        return len(self.failures)

    @property
    def pictures(self) -> int:
        """Pictures looked at."""
        return self.written + self.changed + self.failed

    def as_dict(self) -> dict[str, object]:
        """Return the summary as the JSON object of `glimpse caption --json` and `glimpse words --json`."""
        counted = {"pictures": self.pictures, "failed": self.failed, "seconds": round(self.seconds, 3)}
        return asdict(self) | counted


@dataclass(frozen=True)
class WordsSummary(PassSummary):
    """The results of reading the text in pictures: `written` are those that were read."""

    with_text: int = 0
    """pictures in which there is text"""


@dataclass(frozen=True)
class IngestSummary:
    """The counts of a run: `files` = `indexed` + `skipped` + `failed_before` + failed files.

    `failures` has failed folders too.
    """

    files: int = 0
    """files looked at"""
    indexed: int = 0
    """new documents; in a dry run, those there would be"""
    skipped: int = 0
    """files whose content the index had already"""
    paths_added: int = 0
    """skipped files whose path was new"""
    updated: int = 0
    """skipped files of which a sidecar had come, changed or gone: their documents say so now"""
    embedded: int = 0
    """vectors made of pictures"""
    completed: int = 0
    """documents of an earlier version that got the fields for names and local dates"""
    seconds: float = 0.0
    interrupted: bool = False
    dry_run: bool = False
    failed_before: int = 0
    """files that failed in an earlier run, have not changed since and were not tried again"""
    moments: int = 0
    """later pictures of films, whose first ones are among `indexed`"""
    cut_short: tuple[str, ...] = ()
    """new pictures whose end is missing in their files, by path"""
    failures: tuple[Failure, ...] = ()
    passed_over: PassedOver = field(default_factory=PassedOver)
    """files and folders that were left out"""
    unused_patterns: tuple[str, ...] = ()
    """patterns of --exclude that left nothing out"""
    pruned: PruneSummary = field(default_factory=PruneSummary)
    captions: PassSummary = field(default_factory=PassSummary)
    """captions that were written with the pictures or after them"""
    words: WordsSummary = field(default_factory=WordsSummary)
    """text that was read in the pictures, as they were indexed or after them"""

    @property
    def failed(self) -> int:
        """Files and folders that could not be used."""
        return len(self.failures)

    def as_dict(self) -> dict[str, object]:
        """Return the summary as the JSON object of `glimpse ingest --json`."""
        counted = {"failed": self.failed, "seconds": round(self.seconds, 3)}
        return (
            asdict(self)
            | counted
            | {
                "captions": self.captions.as_dict(),
                "words": self.words.as_dict(),
            }
        )


class Progress:
    """Progress of a run, shown nowhere. Calls come from several threads, one at a time."""

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """End."""

    def start(self, total: int, *, so_far: bool = False) -> None:
        """Learn how many files there are. With `so_far`, more may be found and told by another call."""

    def advance(self) -> None:
        """One more file is done."""

    def failed(self, failure: Failure, *, what: str = SKIPPED) -> None:
        """A file or a folder could not be used, or a picture gets no caption, according to `what`."""


class LineProgress(Progress):
    """Writes a line every ten seconds, for log files."""

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
        """Count one file. The clock starts with the first, when the models are loaded."""
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
        """Report a file that cannot be used."""
        self._write(_sentence(failure, what))

    def _write(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


class BarProgress(Progress):
    """A bar with the count, the rate and the time left. Failures scroll above it."""

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
        """Count one file. The clock starts with the first, when the models are loaded."""
        if not self._done:
            self._begin = time.monotonic()
        self._done += 1
        rate = self._done / max(time.monotonic() - self._begin, 1e-3) if self._done > 1 else 0.0
        self._bar.update(self._task, advance=1, rate=rate)

    def failed(self, failure: Failure, *, what: str = SKIPPED) -> None:
        """Report a file that cannot be used, above the bar."""
        self._bar.console.print(_sentence(failure, what), markup=False, highlight=False, soft_wrap=True)


STATE_EVERY_S = 0.5


class StatedProgress(Progress):
    """A progress that other processes see too, in the file of the run."""

    def __init__(self, shown: Progress, file: RunFile, *, doing: str, noun: str) -> None:
        self._shown, self._file, self._doing, self._noun = shown, file, doing, noun
        self._done, self._total, self._written = 0, 0, 0.0
        self._failures = 0

    def __enter__(self) -> Self:
        """Show the progress."""
        self._shown.__enter__()
        self._write()
        return self

    def __exit__(self, *error: object) -> None:
        """End the shown progress, and keep how the run ended in place of the file."""
        self._write()
        self._file.__exit__(*error)
        self._shown.__exit__(*error)

    def start(self, total: int, *, so_far: bool = False) -> None:
        """Learn how many files there are."""
        self._total = total
        self._write()
        self._shown.start(total, so_far=so_far)

    def advance(self) -> None:
        """Count one file."""
        self._done += 1
        if time.monotonic() - self._written > STATE_EVERY_S:
            self._write()
        self._shown.advance()

    def failed(self, failure: Failure, *, what: str = SKIPPED) -> None:
        """Report a file that cannot be used."""
        self._failures += 1
        self._shown.failed(failure, what=what)

    def _write(self) -> None:
        self._written = time.monotonic()
        self._file.write(
            self._doing,
            noun=self._noun,
            done=self._done,
            total=self._total or None,
            failed=self._failures,
        )


def open_progress(
    *, doing: str = "Ingesting", noun: str = "files", file: RunFile | None = None
) -> BarProgress | LineProgress | StatedProgress:
    """Return a bar when stderr is a terminal, lines otherwise. With a `file`, others see it too."""
    shown = BarProgress(doing=doing) if sys.stderr.isatty() else LineProgress(sys.stderr, noun=noun)
    return StatedProgress(shown, file, doing=doing, noun=noun) if file else shown


def in_words(summary: IngestSummary) -> str:
    """Return the summary as a person reads it."""
    if not summary.files and not summary.failures and not summary.interrupted:
        return "No pictures found."
    would = "would be " if summary.dry_run else ""
    news = [f"{summary.paths_added} under a new path"] if summary.paths_added else []
    news += [f"{summary.updated} with news from sidecars"] if summary.updated else []
    moved = f" ({', '.join(news)})" if news else ""
    rate = summary.files / summary.seconds if summary.seconds else 0.0
    before = f" and {summary.failed_before} failed before" if summary.failed_before else ""
    text = (
        f"{summary.files} files: {summary.indexed} {would}indexed, {summary.skipped} known already{moved},"
        f" {summary.failed} failed{before}, in {summary.seconds:.1f} s ({rate:.1f}/s)."
    )
    again = " The same command goes on from there."
    return f"Interrupted. {text}{again}" if summary.interrupted else text


OWN_RULES = {*DEFAULT_EXCLUDES, HIDING_MARK, *IGNORE_FILES}
"""rules that nobody gave to this run"""
NAMED_FILES = 3
"""files that a sentence names"""
NAMED_KINDS = 6
"""kinds of files that a sentence names; the rest are counted together"""


def passed_over_in_words(summary: IngestSummary) -> list[str]:
    """Return sentences about films, cut pictures, completed documents, and files that were left out."""
    kinds, rules = Counter(summary.passed_over.kinds), summary.passed_over.rules
    sentences = []
    if summary.moments:
        sentences.append(f"{_counted(summary.moments, 'moment')} of films can be found, too.")
    if parts := summary.passed_over.film_parts:
        belong = (
            "film of a live photo belongs to its picture"
            if parts == 1
            else ("films of live photos belong to their pictures")
        )
        sentences.append(f"{parts} {belong}.")
    if cut := summary.cut_short:
        more = f" and {len(cut) - NAMED_FILES} more" if len(cut) > NAMED_FILES else ""
        were = "1 picture is cut short" if len(cut) == 1 else f"{len(cut)} pictures are cut short"
        sentences.append(f"{were}, the end of the file is missing: {', '.join(cut[:NAMED_FILES])}{more}.")
    if summary.completed:
        pictures = _counted(summary.completed, "picture")
        sentences.append(f"{pictures} of an earlier version can be found by name and by local day now.")
    if kinds:
        named = [f"{number} {kind}" for kind, number in kinds.most_common(NAMED_KINDS)]
        rest = kinds.total() - sum(number for _, number in kinds.most_common(NAMED_KINDS))
        listed = ", ".join(named + ([f"{rest} more"] if rest else []))
        were = "file of another kind was" if kinds.total() == 1 else "files of other kinds were"
        sentences.append(f"{kinds.total()} {were} left out: {listed}.")
    told = [f"{rule.rstrip('/')} ({number})" for rule, number in sorted(rules.items()) if rule in OWN_RULES]
    if told:
        sentences.append(f"Left out by default or by a mark: {', '.join(told)}.")
    sentences += [f"--exclude '{each}' fitted nothing." for each in summary.unused_patterns]
    return [one_line(sentence) for sentence in sentences]


def pruned_in_words(pruned: PruneSummary, *, dry_run: bool) -> list[str]:
    """Return sentences about the pictures that left the index, or were to leave it."""
    sentences = [one_line(f"Would remove {path}") for path in pruned.gone] if dry_run else []
    sentences += [f"Error: {pruned.refused}"] if pruned.refused else []
    if dry_run and pruned.gone and not pruned.refused:
        sentences.append(f"Without --dry-run, {_counted(len(pruned.gone), 'file')} would leave the index.")
    if pruned.documents:
        pictures = _counted(pruned.documents, "picture")
        sentences.append(f"{pictures} left the index: gone, changed or left out.")
    if pruned.human_captions:
        captions = _counted(pruned.human_captions, "caption")
        sentences.append(f"{captions} that people had written went too, into removed-captions.jsonl.")
    return sentences + [one_line(f"Error: The index refused to change {each}") for each in pruned.failures]


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def captions_in_words(summary: PassSummary) -> str:
    """Return the results of captioning in a sentence."""
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


def captions_stopped(summary: PassSummary) -> str:
    """Say why captions are not written, or no more of them, with the way out."""
    return (
        f"Error: The pictures are searchable, but not all have captions: {summary.error}"
        " Once that is mended, `glimpse caption` goes on from there."
    )


def words_in_words(summary: WordsSummary) -> str:
    """Return the results of reading text in a sentence."""
    if not (summary.pictures or summary.interrupted or summary.error):
        return "The text of every picture has been read."
    took = (
        f", in {summary.seconds:.1f} s ({summary.pictures / summary.seconds:.1f}/s)"
        if summary.seconds
        else ""
    )
    changed = f", {summary.changed} changed meanwhile and left alone" if summary.changed else ""
    text = f"{summary.written} pictures read, {summary.with_text} with text, {summary.failed} failed"
    text += f"{changed}{took}."
    return f"Interrupted. {text} `glimpse words` goes on from there." if summary.interrupted else text


def words_stopped(summary: WordsSummary) -> str:
    """Say why no text is read, or no more, with the way out."""
    return (
        f"Error: The pictures are searchable, but not by the text in all of them: {summary.error}"
        " Once that is mended, `glimpse words` goes on from there."
    )


def _sentence(failure: Failure, what: str) -> str:
    return one_line(f"{what} {failure.path}: {failure.reason}")


@dataclass(frozen=True)
class PartCounts:
    """The counts of a part of a run, which another process did."""

    counts: dict[str, int]
    """by the names of `IngestSummary`"""
    failures: tuple[Failure, ...]
    cut_short: tuple[str, ...]
    caption_failures: tuple[Failure, ...]
    caption_error: str | None
    words_failures: tuple[Failure, ...]
    words_error: str | None
    meter: tuple[dict[str, int], dict[str, float]]
    """totals, and seconds by stage"""


class RunCounts:
    """The counts of one run, kept by all of its threads, and the faults of contents that failed."""

    def __init__(self, progress: Progress, meter: RunMeter | None = None) -> None:
        self._progress = progress
        self.meter = meter or RunMeter()
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._failures: list[Failure] = []
        self._cut_short: list[str] = []
        self._caption_failures: list[Failure] = []
        self.caption_error: str | None = None
        """why no captions are written in this run, or no more"""
        self._words_failures: list[Failure] = []
        self.words_error: str | None = None
        """why no text is read in this run, or no more"""
        self.faults: dict[str, Fault] = {}
        """image id -> why a picture with this content cannot be indexed"""

    @property
    def indexed(self) -> int:
        """Documents written so far."""
        return self._counts["indexed"]

    def found(self, files: int, *, so_far: bool) -> None:
        """Show how many files there are, or are so far."""
        with self._lock:
            self._progress.start(files, so_far=so_far)

    def add(self, **counts: int) -> None:
        """Count a file that has ended, under the names of `IngestSummary`, or as `captioned`."""
        self.meter.add(counts)
        with self._lock:
            self._counts.update(counts, files=1)
            self._progress.advance()

    def add_embedded(self, number: int) -> None:
        """Count vectors of pictures."""
        self.meter.add({"embedded": number})
        with self._lock:
            self._counts["embedded"] += number

    def add_completed(self, number: int) -> None:
        """Count documents of an earlier version that got new fields."""
        with self._lock:
            self._counts["completed"] += number

    def add_moment(self, candidate: Candidate, fault: Fault | None) -> None:
        """Count a later picture of a film, or show why it is missing. The film is counted apart."""
        if fault:
            reason = f"a moment of this film is missing: {fault.reason}"
            self.add_folder_failure(Failure(candidate.shown, reason))
            return
        with self._lock:
            self._counts["moments"] += 1

    def add_cut_short(self, candidate: Candidate) -> None:
        """Remember a new picture whose end is missing. The picture itself is counted apart."""
        with self._lock:
            self._cut_short.append(candidate.shown)

    def add_failure(self, candidate: Candidate, fault: Fault) -> None:
        """Count and show a file that cannot be used."""
        self.meter.add({"failed": 1})
        self.add_folder_failure(Failure(candidate.shown, fault.reason))
        self.add()

    def add_folder_failure(self, failure: Failure) -> None:
        """Show a folder, or a link to one, that cannot be used. It is not a file, so `files` stays."""
        with self._lock:
            self._failures.append(failure)
            self._progress.failed(failure)

    def add_caption_failure(self, candidate: Candidate, fault: Fault) -> None:
        """Show a picture that gets no caption. The picture itself is counted apart."""
        with self._lock:
            self._caption_failures.append(Failure(candidate.shown, fault.reason))
            self._progress.failed(self._caption_failures[-1], what=UNCAPTIONED)

    def add_words(self, *, text: bool) -> None:
        """Count a new picture whose text was read. The picture itself is counted apart."""
        with self._lock:
            self._counts.update(read=1, with_text=text)

    def add_words_failure(self, candidate: Candidate, fault: Fault) -> None:
        """Show a picture whose text cannot be read. The picture itself is counted apart."""
        with self._lock:
            self._words_failures.append(Failure(candidate.shown, fault.reason))
            self._progress.failed(self._words_failures[-1], what=UNREAD)

    def part(self) -> PartCounts:
        """Return the counts as they are now, for the run that this is a part of."""
        with self._lock:
            return PartCounts(
                dict(self._counts),
                tuple(self._failures),
                tuple(self._cut_short),
                tuple(self._caption_failures),
                self.caption_error,
                tuple(self._words_failures),
                self.words_error,
                self.meter.totals(),
            )

    def merge(self, part: PartCounts) -> None:
        """Add the counts of a part of this run, and show its files and failures."""
        self.meter.merge(*part.meter)
        with self._lock:
            self._counts.update(part.counts)
            self._failures += part.failures
            self._cut_short += part.cut_short
            self._caption_failures += part.caption_failures
            self._words_failures += part.words_failures
            self.caption_error = self.caption_error or part.caption_error
            self.words_error = self.words_error or part.words_error
            for what, failures in (
                (SKIPPED, part.failures),
                (UNCAPTIONED, part.caption_failures),
                (UNREAD, part.words_failures),
            ):
                for each in failures:
                    self._progress.failed(each, what=what)
            for _ in range(part.counts.get("files", 0)):
                self._progress.advance()

    def summary(self, seconds: float, *, interrupted: bool, dry_run: bool) -> IngestSummary:
        """Return the counts as they are now."""
        with self._lock:
            counts, failures = self._counts, tuple(self._caption_failures)
            return IngestSummary(
                files=counts["files"],
                indexed=counts["indexed"],
                skipped=counts["skipped"],
                paths_added=counts["paths_added"],
                updated=counts["updated"],
                embedded=counts["embedded"],
                completed=counts["completed"],
                failed_before=counts["failed_before"],
                moments=counts["moments"],
                cut_short=tuple(self._cut_short),
                failures=tuple(self._failures),
                seconds=seconds,
                interrupted=interrupted,
                dry_run=dry_run,
                captions=PassSummary(counts["captioned"], failures=failures, error=self.caption_error),
                words=WordsSummary(
                    counts["read"],
                    failures=tuple(self._words_failures),
                    error=self.words_error,
                    with_text=counts["with_text"],
                ),
            )


@dataclass(frozen=True)
class PassPart:
    """The counts of a part of a pass, which another process did."""

    counts: dict[str, int] = field(default_factory=dict)
    with_text: int = 0
    failures: tuple[Failure, ...] = ()


class PassCounts:
    """The counts of one pass, kept by all of its threads. `what` begins the line of a failure."""

    def __init__(self, progress: Progress, *, what: str) -> None:
        self._progress, self.what = progress, what
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._failures: list[Failure] = []
        self._with_text = 0

    def add(self, **counts: int) -> None:
        """Count a picture: `written=1` if it got its update, `changed=1` if its document had changed."""
        with self._lock:
            self._counts.update(counts)
            self._progress.advance()

    def add_failure(self, path: str, reason: str) -> None:
        """Count and show a picture that fails."""
        with self._lock:
            self._failures.append(Failure(path, reason))
            self._progress.failed(self._failures[-1], what=self.what)
            self._progress.advance()

    def part(self) -> PassPart:
        """Return the counts as they are now, for the pass that this is a part of."""
        with self._lock:
            return PassPart(dict(self._counts), self._with_text, tuple(self._failures))

    def merge(self, part: PassPart) -> None:
        """Add the counts of a part of this pass, and show its pictures and failures."""
        with self._lock:
            self._counts.update(part.counts)
            self._with_text += part.with_text
            for _ in range(sum(part.counts.values())):
                self._progress.advance()
        for each in part.failures:
            self.add_failure(each.path, each.reason)

    def summary(self, seconds: float, *, interrupted: bool, error: str | None) -> PassSummary:
        """Return the counts as they are now."""
        with self._lock:
            return PassSummary(
                self._counts["written"],
                self._counts["changed"],
                seconds=seconds,
                interrupted=interrupted,
                error=error,
                failures=tuple(self._failures),
            )

    def words_summary(self, seconds: float, *, interrupted: bool, error: str | None) -> WordsSummary:
        """Return the counts of a pass that reads text, as they are now."""
        done = self.summary(seconds, interrupted=interrupted, error=error)
        with self._lock:
            return WordsSummary(**vars(done), with_text=self._with_text)

    def add_text(self) -> None:
        """Count a picture in which there is text. It is counted as `written` apart."""
        with self._lock:
            self._with_text += 1
