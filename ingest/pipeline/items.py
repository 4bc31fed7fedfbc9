"""What becomes of the files of a run, one item for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ingest.files.walk import Candidate, Failure

if TYPE_CHECKING:
    import numpy as np

    from es_config.documents import ImageDocument
    from ingest.errors import Fault
    from ingest.files.picture import ImageFile


@dataclass(frozen=True)
class BadFile:
    """A file that cannot be used; `image_id` where it could at least be hashed."""

    candidate: Candidate
    fault: Fault
    image_id: str | None = None


@dataclass(frozen=True)
class Unchanged:
    """A file that the index knows under its path; `image_id` where it was read to find out."""

    candidate: Candidate
    image_id: str | None = None


@dataclass(frozen=True)
class FailedBefore:
    """A file that could not be used in an earlier run and has not changed since."""

    candidate: Candidate


@dataclass(frozen=True)
class NewPath:
    """A file whose content the index has, or will have once the picture before it is written."""

    candidate: Candidate
    image_id: str


@dataclass(frozen=True)
class Prepared:
    """A new picture with what becomes of it: the input of its encoder and its thumbnail travel with it."""

    candidate: Candidate
    file: ImageFile
    pixels: np.ndarray | None
    """float32 `[3, height, width]` as the image encoder wants it; None in a dry run"""
    thumbnail: bytes


@dataclass(frozen=True)
class LostThumbnail:
    """A thumbnail made again for a picture that the index knows."""

    candidate: Candidate
    image_id: str
    thumbnail: bytes
    new_path: bool
    """whether the file's path is one that the index does not have yet"""


@dataclass(frozen=True)
class Embedded:
    """A new picture as it will be in the index, with its thumbnail."""

    candidate: Candidate
    document: ImageDocument
    thumbnail: bytes


ToEmbed = Prepared | NewPath | LostThumbnail
ToWrite = Embedded | NewPath | LostThumbnail
Item = Failure | BadFile | FailedBefore | Unchanged | ToEmbed
