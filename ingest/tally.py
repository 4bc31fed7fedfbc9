"""Counting what becomes of every file and every caption: each one ends in exactly one place."""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING

from ingest.names import valid_unicode
from ingest.options import UNCAPTIONED, CaptionSummary, IngestSummary, Progress
from ingest.files.walk import Candidate, Failure

if TYPE_CHECKING:
    from ingest.errors import Fault


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
