"""The answer to a query: the one object that the CLI, the REST API and the page show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from es_config.documents import Hit

API_PREFIX = "/api/v1"


@dataclass(frozen=True)
class SearchHit:
    """One picture that was found."""

    image_id: str
    score: float
    """Elasticsearch's `_score`: (1 + cosine) / 2 for `cosine`"""
    similarity: float
    """the cosine itself (or what the index's similarity measures)"""
    path: str
    """the first of the relative paths that hold this content"""
    caption: str | None
    thumbnail_url: str
    """a path on the server of the page"""


@dataclass(frozen=True)
class SearchResponse:
    """What one search gave; the fields' order is the order of the JSON."""

    query: str
    mode: str
    lane: str | None
    """where the text model ran; None when no text was embedded"""
    k: int
    num_candidates: int | None
    """None for an exact search, which looks at every vector"""
    took_ms: float
    """milliseconds for the whole search, embedding included"""
    total: int
    """neighbours that were found up to this page, at most `page * k`: fewer when the filters leave no more"""
    hits: tuple[SearchHit, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the object as `glimpse search --json` and the REST API send it."""
        return {**vars(self), "hits": [vars(hit) for hit in self.hits]}  # asdict copies every value


def search_hit(hit: Hit) -> SearchHit:
    """Turn an index hit into what people see."""
    paths = hit.source.get("relative_path") or hit.image_id
    return SearchHit(
        image_id=hit.image_id,
        score=hit.score,
        similarity=round(hit.similarity, 6),
        path=paths if isinstance(paths, str) else paths[0],
        caption=hit.source.get("caption"),
        thumbnail_url=thumbnail_url(hit.image_id),
    )


def thumbnail_url(image_id: str) -> str:
    """Return where the server of the page has the thumbnail."""
    return f"{API_PREFIX}/images/{image_id}/thumbnail"
