"""Counting what becomes of captions: each picture ends in exactly one place."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from ingest.caption_types import CaptionSummary
from ingest.run_types import UNCAPTIONED
from ingest.walk import Failure

if TYPE_CHECKING:
    from ingest.run_types import Progress


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
            return CaptionSummary(self._written, self._changed, failures, seconds, interrupted, error)
