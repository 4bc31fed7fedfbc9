"""The one searcher: page, REST API and commands are renderings of what it answers."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from es_config.errors import EngineError
from es_config.knn import exact_body, knn_body
from search_app.errors import NotFoundError, QueryError
from search_app.pictures import open_picture
from search_app.query import default_candidates
from search_app.response import SearchHit, SearchResponse, search_hit
from search_app.vector_cache import TextVectors

if TYPE_CHECKING:
    import numpy as np

    from es_config.documents import SearchResult
    from es_config.index import ImageIndex
    from models.encoders import ImageEncoder, TextEncoder
    from models.profiles import Profile
    from search_app.query import Query

FIELDS = {"image": "image_embedding", "caption": "caption_embedding"}
MAX_ID = 512
"""Elasticsearch's own limit for an `_id`, in bytes"""
SOURCE = ["relative_path", "caption"]


@dataclass(frozen=True)
class Request:
    """What Elasticsearch is sent, and what the answer says about it."""

    body: dict[str, Any]
    lane: str | None
    num_candidates: int | None


class Searcher:
    """Embeds a query, asks the index and returns hits. Thread-safe once built."""

    def __init__(
        self,
        *,
        index: ImageIndex,
        profile: Profile,
        text_encoder: TextEncoder,
        image_encoder: ImageEncoder,
        caption_text_encoder: TextEncoder | None = None,
    ) -> None:
        """Take the parts; without `caption_text_encoder`, `text_encoder` reads queries for captions too."""
        self.index = index
        self.profile = profile
        self.texts = TextVectors(text_encoder)
        self._caption_texts = TextVectors(caption_text_encoder) if caption_text_encoder else self.texts
        self.image_encoder = image_encoder

    def search(self, query: Query) -> SearchResponse:
        """Answer one query.

        Raises `QueryError` for what cannot be asked, `NotFoundError` when `like` names no picture of the
        index, `EngineError` when Elasticsearch does not answer or the index belongs to another profile.
        """
        started = time.perf_counter()
        request = self.prepare(query)
        result = self._send(query, request.body)
        return SearchResponse(
            query=query.label,
            mode=query.mode,
            lane=request.lane,
            k=query.k,
            num_candidates=request.num_candidates,
            took_ms=round((time.perf_counter() - started) * 1000, 1),
            total=result.total,
            hits=tuple(search_hit(hit) for hit in result.hits),
        )

    def prepare(self, query: Query) -> Request:
        """Return the request that `search` sends. Raises as `search` does."""
        if query.vector is None:
            self.check_profile()
        subject, lane = self._subject(query)
        common = {
            "field": FIELDS[query.mode],
            "k": query.depth,
            "filters": query.filters,
            "size": query.k,
            "from_": query.depth - query.k,
        }
        if query.exact:
            body = exact_body(**subject, **common, documents=self.index.count())
            return Request({**body, "_source": SOURCE}, lane, None)
        point = self._operating_point(query)
        body = knn_body(**subject, **common, **point)
        return Request({**body, "_source": SOURCE}, lane, point["num_candidates"])

    def embed_picture(self, picture: bytes | Path) -> np.ndarray:
        """Return float32 `[dims]`, unit length, for a picture file's content or path. Raises `QueryError`."""
        image = open_picture(picture.read_bytes() if isinstance(picture, Path) else picture)
        return self.image_encoder.embed_images([image])[0]

    def picture(self, image_id: str) -> dict[str, Any]:
        """Return a picture's `_source`. Raises `NotFoundError`."""
        source = self.index.get(image_id) if len(image_id) <= MAX_ID else None
        if source is None:
            raise _no_picture(image_id)
        return source

    def sample(self, size: int) -> tuple[SearchHit, ...]:
        """Return up to `size` pictures of the index by chance, to start from. Raises `EngineError`."""
        anything = {"function_score": {"random_score": {}}}
        result = self.index.search({"query": anything, "size": size, "_source": SOURCE})
        return tuple(search_hit(hit) for hit in result.hits)

    def holds(self, image_id: str) -> bool:
        """Say whether the index holds a picture with this content hash."""
        return bool(self.index.known([image_id]))

    def check_profile(self) -> None:
        """Raise `EngineError` when there is no index, or one of another profile than this searcher's."""
        self.index.check_profile(self.profile.name, self.profile.dims, text_revision=self._text_revision)

    @cached_property
    def _text_revision(self) -> str:
        return self.profile.text_revision()

    def _subject(self, query: Query) -> tuple[dict[str, Any], str | None]:
        """Return what is looked for, as `knn_body` takes it, and the lane that embedded a text."""
        if query.text is not None:
            texts = self._caption_texts if query.mode == "caption" else self.texts
            vector, lane = texts.embed(query.text)
            return {"query_vector": vector}, lane
        if query.vector is not None:
            return {"query_vector": self._raw_vector(query)}, None
        if query.mode == "caption":
            self._check_shared_space()
        if query.image is not None:
            return {"query_vector": self.embed_picture(query.image)}, None
        if query.mode == "caption":
            return {"query_vector": self._stored_vector(query.like)}, None
        return {"like_id": query.like, "index": self.index.name()}, None

    def _raw_vector(self, query: Query) -> np.ndarray:
        import numpy as np

        meta = self.index.meta()
        dims = meta.caption_dims if query.mode == "caption" else meta.dims
        if len(query.vector) != dims:
            raise QueryError(
                f"The vector has {len(query.vector)} dims, and {FIELDS[query.mode]} of the index has {dims}."
            )
        return np.asarray(query.vector, np.float32)

    def _stored_vector(self, image_id: str) -> np.ndarray:
        vector = self.index.vector(image_id)
        if vector is None:
            raise _no_picture(image_id)
        return vector

    def _check_shared_space(self) -> None:
        if not self.profile.caption_shares_space:
            raise QueryError(
                f"Profile {self.profile.name} embeds captions with another model than pictures, so a picture"
                " cannot be compared with captions: use words, or mode image."
            )

    def _operating_point(self, query: Query) -> dict[str, Any]:
        tuned = self.index.meta().operating_points.get(str(query.depth)) or {}
        chosen = query.num_candidates or tuned.get("num_candidates") or default_candidates(query.depth)
        point = {"num_candidates": max(chosen, query.depth)}
        if tuned.get("oversample") and query.num_candidates is None:
            point["oversample"] = tuned["oversample"]
        return point

    def _send(self, query: Query, body: dict[str, Any]) -> SearchResult:
        try:
            return self.index.search(body)
        except EngineError:
            if query.like is not None:
                self.picture(query.like)  # the lookup of an unknown id is an error: say it as one
            raise


def _no_picture(image_id: str) -> NotFoundError:
    return NotFoundError(f"The index holds no picture with the id '{image_id[:70]}'.")
