"""Options of a run of ingest, and of the passes that add captions and the text in pictures."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import tzinfo
from pathlib import Path

from ingest.files.walk import EVERYTHING, NO_PATTERNS, Candidate, Exclusions, Shard
from models.pixels import MAX_PIXELS

OFF, FIRST, MOMENTS = FILMS = ("off", "first", "moments")
"""pictures of films: none, the first good one, and also later ones in which something else is seen"""
PROCESSORS = max(2, os.cpu_count() or 2)


@dataclass(frozen=True)
class PruneOptions:
    """Whether files that are gone leave the index."""

    prune: bool = False
    anyway: bool = False
    """also when more than a fifth would go"""
    moved_from: tuple[Path, ...] = ()
    """folders that were ingested and are elsewhere now: their files count as those of this run's folders"""


@dataclass(frozen=True)
class IngestOptions:
    """Options of a run."""

    batch_size: int = 32
    """pictures that are embedded and written together"""
    exclude: Exclusions = NO_PATTERNS
    """files and folders that are left out"""
    limit: int | None = None
    """files to look at"""
    dry_run: bool = False
    """read and check everything, embed and write nothing"""
    max_pixels: int = MAX_PIXELS
    timezone: tzinfo | None = None
    """of cameras that say none"""
    no_gps: bool = False
    """leave places out of the index"""
    films: str = FIRST
    """one of `FILMS`"""
    originals: str = "none"
    """form of whole pictures in the store: `none`, a `webp` copy or the `original`"""
    caption: bool = False
    """caption new pictures before they are written"""
    words: bool = False
    """read the text in new pictures before they are written"""
    shard: Shard = EVERYTHING
    """share of the files that belongs to this run"""
    prune: PruneOptions = field(default_factory=PruneOptions)
    threads: int = min(16, PROCESSORS)
    """threads that read and decode"""


@dataclass(frozen=True)
class CaptionOptions:
    """Options of a pass of captions."""

    every: bool = False
    """also replace captions that a model wrote"""
    limit: int | None = None
    """pictures to look at"""
    batch_size: int = 16
    """pictures that the captioner sees together"""
    threads: int = min(4, PROCESSORS)
    """threads that read thumbnails"""


@dataclass(frozen=True)
class WordsOptions:
    """Options of a pass that reads the text in pictures."""

    every: bool = False
    """also read pictures again that were read"""
    again: bool = False
    """also try pictures again that failed"""
    limit: int | None = None
    """pictures to look at"""
    max_pixels: int = MAX_PIXELS
    batch_size: int = 8
    """pictures that are written together: a kill loses the text of no more"""
    threads: int = min(2, PROCESSORS)
    """threads that read and decode"""


@dataclass(frozen=True)
class Changes:
    """Changes that a watch saw: a run that gets them looks at nothing else."""

    files: tuple[Candidate, ...]
    """new and changed files, as a walk would name them"""
    gone: tuple[Path, ...]
    """files and folders that no longer exist"""
