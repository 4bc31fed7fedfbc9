"""What goes into the index and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime

    import numpy as np


@dataclass(frozen=True)
class ImageDocument:
    """One picture as the index keeps it; `image_id` is the SHA-256 of the file's content, in hex."""

    image_id: str
    image_name: str
    relative_path: tuple[str, ...]
    image_embedding: np.ndarray
    """float32 `[dims]`, unit length"""
    width: int
    """pixels, after orientation"""
    height: int
    size_bytes: int
    indexed_at: datetime
    phash: str | None = None
    caption: str | None = None
    caption_source: str | None = None
    """who wrote the caption: `model`, `description` (the file itself says it) or `human`"""
    caption_embedding: np.ndarray | None = None
    """float32 `[caption_dims]`, unit length"""
    exif_date: datetime | None = None
    exif_location: tuple[float, float] | None = None
    """(latitude, longitude) in degrees, WGS 84"""
    exif_camera: str | None = None
    tags: tuple[str, ...] = ()


def paths_of(source: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the relative paths of a document's `_source`.

    Elasticsearch keeps a document as its writer sent it: a single path may be a plain string.
    """
    paths = source.get("relative_path") or ()
    return (paths,) if isinstance(paths, str) else tuple(paths)


def shown_path(source: Mapping[str, Any], image_id: str) -> str:
    """Return the path by which people are told of a picture; its id where it has none."""
    return (paths_of(source) or (image_id,))[0]


def one_line(text: str) -> str:
    """Return text for a terminal: line breaks and control characters are spelled out, never obeyed.

    Every command prints paths and other words of strangers in this form, so that they can be compared.
    """
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


@dataclass(frozen=True)
class Hit:
    """One neighbour that Elasticsearch returned."""

    image_id: str
    score: float
    """Elasticsearch's `_score`"""
    similarity: float
    """the field's raw similarity, recovered from the score: the cosine for `cosine`"""
    source: dict[str, Any]
    """the document's `_source`, which never holds vectors"""
    matched: tuple[str, ...] = ()
    """the names of the named queries that it satisfies"""


@dataclass(frozen=True)
class SearchResult:
    """The hits of one request, with the time that Elasticsearch reported."""

    hits: tuple[Hit, ...]
    total: int
    took_ms: int


@dataclass(frozen=True)
class AddResult:
    """What became of one bulk request: `failed` maps an image id to the reason."""

    added: int
    failed: dict[str, str]
