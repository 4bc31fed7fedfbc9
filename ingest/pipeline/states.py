"""The states that a file passes through during a run."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from es_config.documents import ImageDocument
from ingest.errors import Fault
from ingest.files.walk import Candidate

EMPTY = np.empty(0, np.float32)


@dataclass(frozen=True)
class Skipped:
    """A file that is not read, because it has not changed since it was indexed or since it failed."""

    candidate: Candidate
    failed_before: bool = False


@dataclass(frozen=True)
class BadFile:
    """A file that cannot be used."""

    candidate: Candidate
    fault: Fault
    image_id: str | None = None
    """None if the file could not be read, or another file with this content failed before it"""


@dataclass(frozen=True)
class KnownPicture:
    """A file whose content the index has, or will have when the new picture before it is written."""

    candidate: Candidate
    image_id: str
    new_path: bool
    """whether the index lacks the path of this file"""
    thumbnail: bytes = b""
    """WebP, if the store had lost it"""


@dataclass(frozen=True)
class NewPicture:
    """A picture that the index lacks."""

    candidate: Candidate
    document: ImageDocument
    """its vectors are empty until it is embedded"""
    thumbnail: bytes
    pixels: np.ndarray = field(default_factory=lambda: EMPTY)
    """the encoder's input, float32 `[3, height, width]`; empty in a dry run and after embedding"""

    @property
    def image_id(self) -> str:
        """Return the SHA-256 of the file's content."""
        return self.document.image_id


PictureState = KnownPicture | NewPicture
FileState = Skipped | BadFile | PictureState
