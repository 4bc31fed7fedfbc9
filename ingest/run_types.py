"""What is handed to a run of ingest, and what comes back."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from ingest.caption_types import CaptionSummary
from ingest.parts import Part
from ingest.pictures import MAX_PIXELS
from ingest.prune_types import PruneOptions, PruneSummary

if TYPE_CHECKING:
    from pathlib import Path

    from ingest.walk import Candidate, Failure

BATCH_SIZE = 32
SKIPPED, UNCAPTIONED = "Skipped", "No caption for"


@dataclass(frozen=True)
class IngestOptions:
    """How a run goes about its work."""

    batch_size: int = BATCH_SIZE
    """pictures that are embedded and written together"""
    exclude: tuple[str, ...] = ()
    """globs for names or whole relative paths"""
    limit: int | None = None
    """files to look at"""
    dry_run: bool = False
    """read and check everything, embed and write nothing"""
    max_pixels: int = MAX_PIXELS
    no_gps: bool = False
    """leave out of the index where pictures were taken"""
    originals: str = "none"
    """what the store keeps beside the thumbnail: `none`, a `webp` copy or the `original`"""
    part: Part = field(default_factory=Part)
    """which of the files belong to this run"""
    prune: PruneOptions = field(default_factory=PruneOptions)
    threads: int = field(default_factory=lambda: min(16, max(2, os.cpu_count() or 2)))
    """threads that read and decode"""


@dataclass(frozen=True)
class Changes:
    """What a watch saw: a run that is handed it looks at nothing else."""

    files: tuple[Candidate, ...]
    """new and changed, as a walk would name them"""
    gone: tuple[Path, ...]
    """files and folders that are no longer there"""


@dataclass(frozen=True)
class IngestSummary:
    """What a run did: `files` = `indexed` + `skipped` + `failed_before` + failed files.

    `failures` has failed folders too.
    """

    files: int
    """files looked at"""
    indexed: int
    """new documents; in a dry run, those there would be"""
    skipped: int
    """files whose content the index had already"""
    paths_added: int
    """skipped files whose path was new"""
    embedded: int
    """vectors made of pictures"""
    failures: tuple[Failure, ...]
    seconds: float
    interrupted: bool = False
    dry_run: bool = False
    failed_before: int = 0
    """files that failed in an earlier run, have not changed since and were not tried again"""
    pruned: PruneSummary = field(default_factory=PruneSummary)
    captions: CaptionSummary = field(default_factory=CaptionSummary)
    """captions that were written with the pictures or after them"""

    @property
    def failed(self) -> int:
        """Files and folders that could not be used."""
        return len(self.failures)

    def as_dict(self) -> dict[str, object]:
        """Return the summary as the JSON object of `glimpse ingest --json`."""
        return {
            "files": self.files,
            "indexed": self.indexed,
            "skipped": self.skipped,
            "paths_added": self.paths_added,
            "embedded": self.embedded,
            "failed": self.failed,
            "failed_before": self.failed_before,
            "seconds": round(self.seconds, 3),
            "interrupted": self.interrupted,
            "dry_run": self.dry_run,
            "failures": [{"path": failure.path, "reason": failure.reason} for failure in self.failures],
            "pruned": self.pruned.as_dict(),
            "captions": self.captions.as_dict(),
        }


class Progress(Protocol):
    """Watches a run. Calls come from several threads, one at a time."""

    def start(self, total: int) -> None:
        """Learn how many files there are."""

    def advance(self) -> None:
        """One more file is done."""

    def failed(self, failure: Failure, *, what: str = SKIPPED) -> None:
        """A file or a folder could not be used, or a picture gets no caption; `what` says which."""


class NoProgress:
    """Watches nothing."""

    def start(self, total: int) -> None:
        """Ignore it."""

    def advance(self) -> None:
        """Ignore it."""

    def failed(self, failure: Failure, *, what: str = SKIPPED) -> None:
        """Ignore it."""
