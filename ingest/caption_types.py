"""What is handed to a pass of captions, and what comes back."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ingest.walk import Failure

BATCH_SIZE = 16


@dataclass(frozen=True)
class CaptionOptions:
    """How a pass goes about its work."""

    every: bool = False
    """also write those captions anew that a model wrote"""
    limit: int | None = None
    """pictures to look at"""
    batch_size: int = BATCH_SIZE
    """pictures that the captioner sees together"""
    threads: int = field(default_factory=lambda: min(4, max(2, os.cpu_count() or 2)))
    """threads that read thumbnails"""


@dataclass(frozen=True)
class CaptionSummary:
    """What became of captions: each picture is in exactly one of `written`, `changed` and `failures`."""

    written: int = 0
    changed: int = 0
    """pictures left alone, since their document changed or went while they were looked at"""
    failures: tuple[Failure, ...] = ()
    seconds: float = 0.0
    interrupted: bool = False
    error: str | None = None
    """why there are no captions at all, or no more"""

    @property
    def failed(self) -> int:
        """Pictures that got no caption; the next pass tries them again."""
        return len(self.failures)

    @property
    def pictures(self) -> int:
        """Pictures looked at."""
        return self.written + self.changed + self.failed

    def as_dict(self) -> dict[str, object]:
        """Return the summary as the JSON object of `glimpse caption --json`."""
        return {
            "pictures": self.pictures,
            "written": self.written,
            "changed": self.changed,
            "failed": self.failed,
            "seconds": round(self.seconds, 3),
            "interrupted": self.interrupted,
            "error": self.error,
            "failures": [{"path": failure.path, "reason": failure.reason} for failure in self.failures],
        }
