"""What is handed to a run of ingest or a pass of captions, and what comes back."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Self

from ingest.files.walk import Part
from models.pixels import MAX_PIXELS

if TYPE_CHECKING:
    from pathlib import Path

    from ingest.files.walk import Candidate, Failure

SKIPPED, UNCAPTIONED = "Skipped", "No caption for"


@dataclass(frozen=True)
class PruneOptions:
    """Whether what is gone leaves the index."""

    prune: bool = False
    anyway: bool = False
    """also when more than a fifth would go"""
    moved_from: tuple[Path, ...] = ()
    """folders that were ingested and are no more: their files count as those of this run's folders"""


@dataclass(frozen=True)
class IngestOptions:
    """How a run goes about its work."""

    batch_size: int = 32
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
class CaptionOptions:
    """How a pass of captions goes about its work."""

    every: bool = False
    """also write those captions anew that a model wrote"""
    limit: int | None = None
    """pictures to look at"""
    batch_size: int = 16
    """pictures that the captioner sees together"""
    threads: int = field(default_factory=lambda: min(4, max(2, os.cpu_count() or 2)))
    """threads that read thumbnails"""


@dataclass(frozen=True)
class Changes:
    """What a watch saw: a run that is handed it looks at nothing else."""

    files: tuple[Candidate, ...]
    """new and changed, as a walk would name them"""
    gone: tuple[Path, ...]
    """files and folders that are no longer there"""


@dataclass(frozen=True)
class PruneSummary:
    """What left the index; in a dry run, what would leave it with its last path."""

    gone: tuple[str, ...] = ()
    """files that are gone with no copy left; in a dry run and after a refusal they are still in the index"""
    documents: int = 0
    """documents that were deleted, with what the store kept: of files that are gone or have changed"""
    human_captions: int = 0
    """deleted documents whose caption a person had written; the captions are in removed-captions.jsonl"""
    failures: tuple[str, ...] = ()
    """what the index refused to change"""
    refused: str | None = None
    """why nothing was pruned"""

    @property
    def failed(self) -> bool:
        """Whether something was asked and not done."""
        return bool(self.refused or self.failures)


@dataclass(frozen=True)
class CaptionSummary:
    """What became of captions: each picture is in exactly one of `written`, `changed` and `failures`."""

    written: int = 0
    changed: int = 0
    """pictures left alone, since their document changed or went while they were looked at"""
    seconds: float = 0.0
    interrupted: bool = False
    error: str | None = None
    """why there are no captions at all, or no more"""
    failures: tuple[Failure, ...] = ()

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
        counted = {"pictures": self.pictures, "failed": self.failed, "seconds": round(self.seconds, 3)}
        return asdict(self) | counted


@dataclass(frozen=True)
class IngestSummary:
    """What a run did: `files` = `indexed` + `skipped` + `failed_before` + failed files.

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
    embedded: int = 0
    """vectors made of pictures"""
    seconds: float = 0.0
    interrupted: bool = False
    dry_run: bool = False
    failed_before: int = 0
    """files that failed in an earlier run, have not changed since and were not tried again"""
    failures: tuple[Failure, ...] = ()
    pruned: PruneSummary = field(default_factory=PruneSummary)
    captions: CaptionSummary = field(default_factory=CaptionSummary)
    """captions that were written with the pictures or after them"""

    @property
    def failed(self) -> int:
        """Files and folders that could not be used."""
        return len(self.failures)

    def as_dict(self) -> dict[str, object]:
        """Return the summary as the JSON object of `glimpse ingest --json`."""
        counted = {"failed": self.failed, "seconds": round(self.seconds, 3)}
        return asdict(self) | counted | {"captions": self.captions.as_dict()}


class Progress:
    """Watches a run; this one shows nothing. Calls come from several threads, one at a time."""

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """End."""

    def start(self, total: int, *, so_far: bool = False) -> None:
        """Learn how many files there are; `so_far` says that more may be found, and told by another call."""

    def advance(self) -> None:
        """One more file is done."""

    def failed(self, failure: Failure, *, what: str = SKIPPED) -> None:
        """A file or a folder could not be used, or a picture gets no caption; `what` says which."""
