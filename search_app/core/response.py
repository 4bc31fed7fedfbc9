"""The answer to a query: the one object that the CLI, the REST API and the page show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from es_config.documents import shown_path

if TYPE_CHECKING:
    from es_config.documents import Hit

API_PREFIX = "/api/v1"


@dataclass(frozen=True)
class SearchHit:
    """One picture that was found."""

    image_id: str
    score: float
    """Elasticsearch's `_score`: (1 + cosine) / 2 for `cosine`; in mode hybrid the score of the fusion"""
    similarity: float | None
    """the cosine itself (or what the index's similarity measures); in mode hybrid the picture's, None when
    its caption alone was found"""
    path: str
    """the first of the relative paths that hold this content"""
    caption: str | None
    thumbnail_url: str
    """a path on the server of the page"""
    why: str | None = None
    """in mode hybrid: the ranks and the words that brought it here"""
    relevance: str | None = None
    """`strong`, `weak` or `none` beside what the query scores on other pictures; None: nothing is known"""


@dataclass(frozen=True)
class SearchResponse:
    """The answer to one search. The order of the fields is the order of the JSON."""

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
    """neighbours that were found up to this page, at most `page * k`: fewer when the filters leave no more,
    and without those of this page that `min_relevance` left out"""
    hits: tuple[SearchHit, ...]

    @property
    def nothing_good(self) -> bool:
        """Whether there are hits, and none of them is marked as good."""
        return bool(self.hits) and all(hit.relevance == "none" for hit in self.hits)

    def to_json(self) -> dict[str, Any]:
        """Return the object as `glimpse search --json` and the REST API send it."""
        return {**vars(self), "hits": [vars(hit) for hit in self.hits]}  # asdict copies every value


def search_hit(hit: Hit, **fused: Any) -> SearchHit:
    """Turn a hit of the index into one for people. A fusion has its own `score`, `similarity` and `why`."""
    own = {"score": hit.score, "similarity": hit.similarity, **fused}
    similarity = own.pop("similarity")
    return SearchHit(
        image_id=hit.image_id,
        similarity=None if similarity is None else round(similarity, 6),
        path=shown_path(hit.source, hit.image_id),
        caption=hit.source.get("caption"),
        thumbnail_url=thumbnail_url(hit.image_id),
        **own,
    )


def thumbnail_url(image_id: str) -> str:
    """Return where the server of the page has the thumbnail."""
    return f"{API_PREFIX}/images/{image_id}/thumbnail"
