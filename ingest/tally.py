"""Counting what becomes of every file and every caption: each one ends in exactly one place."""

from __future__ import annotations

import threading

from ingest.names import printable
from ingest.run_types import UNCAPTIONED, CaptionSummary, IngestSummary, Progress
from ingest.walk import Candidate, Failure


class Tally:
    """The counts of one run, kept by all of its threads, and the reasons of the contents that failed."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._lock = threading.Lock()
        self._files = self._indexed = self._skipped = self._paths_added = self._embedded = 0
        self._captioned = self._failed_before = 0
        self._failures: list[Failure] = []
        self._caption_failures: list[Failure] = []
        self.caption_error: str | None = None
        """why no captions are written in this run, or no more"""
        self.reasons: dict[str, str] = {}
        """image id -> why a picture with this content cannot be indexed"""

    @property
    def indexed(self) -> int:
        """Documents written so far."""
        return self._indexed

    def add_indexed(self, *, captioned: bool = False) -> None:
        """A file became a new document; `captioned` when the captioner wrote its caption."""
        with self._lock:
            self._indexed += 1
            self._captioned += captioned
            self._done()

    def add_skipped(self, *, path_added: bool = False) -> None:
        """A file's content was in the index already."""
        with self._lock:
            self._skipped += 1
            self._paths_added += path_added
            self._done()

    def add_failed_before(self) -> None:
        """A file failed in an earlier run and was not tried."""
        with self._lock:
            self._failed_before += 1
            self._done()

    def add_embedded(self, number: int) -> None:
        """Vectors were made."""
        with self._lock:
            self._embedded += number

    def add_failure(self, candidate: Candidate, reason: str) -> None:
        """A file cannot be used."""
        with self._lock:
            self._fail(Failure(printable(str(candidate.path)), reason))
            self._done()

    def add_caption_failure(self, candidate: Candidate, reason: str) -> None:
        """A picture gets no caption; what becomes of the picture itself is counted apart."""
        with self._lock:
            self._caption_failures.append(Failure(printable(str(candidate.path)), reason))
            self._progress.failed(self._caption_failures[-1], what=UNCAPTIONED)

    def add_folder_failure(self, failure: Failure) -> None:
        """A folder, or a link in the place of one, cannot be used; it is no file, so `files` stays."""
        with self._lock:
            self._fail(failure)

    def summary(self, seconds: float, *, interrupted: bool, dry_run: bool) -> IngestSummary:
        """Return the counts as they are now."""
        with self._lock:
            return IngestSummary(
                files=self._files,
                indexed=self._indexed,
                skipped=self._skipped,
                paths_added=self._paths_added,
                embedded=self._embedded,
                failures=tuple(self._failures),
                failed_before=self._failed_before,
                seconds=seconds,
                interrupted=interrupted,
                dry_run=dry_run,
                captions=CaptionSummary(
                    written=self._captioned,
                    failures=tuple(self._caption_failures),
                    error=self.caption_error,
                ),
            )

    def _fail(self, failure: Failure) -> None:
        self._failures.append(failure)
        self._progress.failed(failure)

    def _done(self) -> None:
        self._files += 1
        self._progress.advance()


class CaptionTally:
    """The counts of one pass, kept by all of its threads."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._lock = threading.Lock()
        self._written = self._changed = 0
        self._failures: list[Failure] = []

    def add_written(self) -> None:
        """A picture got its caption."""
        with self._lock:
            self._written += 1
            self._progress.advance()

    def add_changed(self) -> None:
        """A picture was left alone, since its document changed or went meanwhile."""
        with self._lock:
            self._changed += 1
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
            failures = tuple(self._failures)
            return CaptionSummary(self._written, self._changed, seconds, interrupted, error, failures)
