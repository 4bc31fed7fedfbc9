"""The answer to a query: the one object that the CLI, the REST API and the page show.

The text in a field's `Annotated` type is its description in the OpenAPI document.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from es_config.documents import Hit, shown_path

API_PREFIX = "/api/v1"


@dataclass(frozen=True)
class SearchHit:
    """One picture that was found."""

    image_id: Annotated[str, "SHA-256 of the file's content"]
    score: Annotated[float, "Elasticsearch's _score; in mode hybrid the fusion's"]
    similarity: Annotated[
        float | None,
        "the cosine, or the similarity that the index measures; in mode hybrid the picture's, null when its"
        " caption alone was found",
    ]
    path: Annotated[str, "the first of the relative paths that hold this content"]
    caption: str | None
    thumbnail_url: Annotated[str, "a path on the server of the page"]
    why: Annotated[
        str | None,
        "in mode hybrid, the ranks and the words that brought it here",
        {"example": "visual 2nd; caption meaning 1st; caption words: boat, red"},
    ] = None
    relevance: Annotated[
        str | None,
        "how good a hit of a query in words is; null when the index is not calibrated",
        {"enum": ["strong", "weak", "none", None]},
    ] = None


@dataclass(frozen=True)
class SearchResponse:
    """The answer to one search. The order of the fields is the order of the JSON."""

    query: str
    mode: str
    lane: Annotated[str | None, "where the text model ran; null when no text was embedded"]
    k: int
    num_candidates: Annotated[int | None, "null for an exact search, which looks at every vector"]
    took_ms: Annotated[float, "milliseconds for the whole search, embedding included"]
    total: Annotated[
        int,
        "neighbours that were found up to this page, at most page * k: fewer when the filters leave no more,"
        " and without those of this page that min_relevance left out",
    ]
    hits: tuple[SearchHit, ...]
    partial: Annotated[bool, "whether shards did not answer, so that pictures may be missing"] = False
    shards: Annotated[int, "shards that were asked"] = 1
    shards_failed: Annotated[int, "those of them that did not answer"] = 0

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
    """Return the path of a picture's thumbnail on the server of the page."""
    return f"{API_PREFIX}/images/{image_id}/thumbnail"
