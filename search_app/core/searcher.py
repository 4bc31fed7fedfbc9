"""The one searcher: page, REST API and commands are renderings of what it answers."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from es_config.errors import EngineError
from es_config.requests import exact_body, knn_body
from es_config.words import query_words, words_body
from search_app.core.hybrid import VECTOR_PARTS, WORDS, fuse_results, weights_of, window
from search_app.operating_point import operating_point
from search_app.core.marks import Evidence, Marks, at_least
from search_app.core.response import SearchHit, SearchResponse, search_hit
from search_app.subjects import FIELDS, Subjects, TextVectors, no_picture

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np

    from es_config.documents import SearchResult
    from es_config.index import ImageIndex
    from models.encoders import ImageEncoder, TextEncoder
    from models.profiles import Profile
    from search_app.core.query import Query

MAX_ID = 512
"""Elasticsearch's own limit for an `_id`, in bytes"""
SOURCE = ["relative_path", "caption"]


@dataclass(frozen=True)
class Request:
    """What Elasticsearch is sent, and what the answer says about it."""

    body: dict[str, Any]
    lane: str | None
    num_candidates: int | None


@dataclass(frozen=True)
class _Answered:
    """What became of a query, whatever its mode."""

    hits: tuple[SearchHit, ...]
    total: int
    lane: str | None
    num_candidates: int | None
    evidence: Evidence = field(default_factory=Evidence)


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
        marks: Marks | None = None,
    ) -> None:
        """Take the parts; without `caption_text_encoder`, `text_encoder` reads queries for captions too.

        Without `marks`, no hit is judged.
        """
        self.index, self.profile, self.image_encoder = index, profile, image_encoder
        self.texts = TextVectors(text_encoder)
        self.caption_texts = TextVectors(caption_text_encoder) if caption_text_encoder else self.texts
        self._subjects = Subjects(index, profile, self.texts, self.caption_texts, image_encoder)
        self._marks = marks

    @property
    def itself(self) -> Searcher:
        """The searcher, for what asks several things of one: behind a name, another may take its place."""
        return self

    def search(self, query: Query) -> SearchResponse:
        """Answer one query.

        Raises `QueryError` for what cannot be asked, `NotFoundError` when `like` names no picture of the
        index, `EngineError` when Elasticsearch does not answer or the index belongs to another profile.
        """
        started = time.perf_counter()
        answered = self._answered(query)
        hits = self._judged(query, answered)
        return SearchResponse(
            query=query.label,
            mode=query.mode,
            lane=answered.lane,
            k=query.k,
            num_candidates=answered.num_candidates,
            took_ms=round((time.perf_counter() - started) * 1000, 1),
            total=answered.total - len(answered.hits) + len(hits),
            hits=hits,
        )

    def prepare(self, query: Query) -> Request:
        """Return the request that `search` sends in the modes image and caption. Raises as `search` does."""
        if query.vector is None:
            self.check_profile()
        return self._request(query, mode=query.mode, k=query.depth, size=query.k, from_=query.depth - query.k)

    def send(self, query: Query, *bodies: dict[str, Any]) -> list[SearchResult]:
        """Send a query's requests together. Raises `NotFoundError` and `EngineError` as `search` does."""
        try:
            return self.index.search_many(list(bodies)) if len(bodies) > 1 else [self.index.search(bodies[0])]
        except EngineError:
            if query.like is not None:
                self.picture(query.like)  # the lookup of an unknown id is an error: say it as one
            raise

    def embed_picture(self, picture: bytes | Path) -> np.ndarray:
        """Return float32 `[dims]`, unit length, for a picture file's content or path. Raises `QueryError`."""
        return self._subjects.embed_picture(picture)

    def picture(self, image_id: str) -> dict[str, Any]:
        """Return a picture's `_source`. Raises `NotFoundError`."""
        source = self.index.get(image_id) if len(image_id) <= MAX_ID else None
        if source is None:
            raise no_picture(image_id)
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

    def _answered(self, query: Query) -> _Answered:
        if query.mode == "hybrid":
            self.check_profile()
            return self._hybrid(query)
        request = self.prepare(query)
        (result,) = self.send(query, request.body)
        hits = tuple(search_hit(hit) for hit in result.hits)
        return _Answered(hits, result.total, request.lane, request.num_candidates)

    def _hybrid(self, query: Query) -> _Answered:
        if query.text is None:
            self._subjects.check_shared_space()
        size = window(query.depth)
        requests = {
            name: self._request(query, mode=mode, k=size, size=size) for name, mode in VECTOR_PARTS.items()
        }
        bodies = {name: request.body for name, request in requests.items()}
        if query.text is not None:
            bodies[WORDS] = {**words_body(query.text, size=size, filters=query.filters), "_source": SOURCE}
        results = dict(zip(bodies, self.send(query, *bodies.values()), strict=True))
        words = query_words(query.text or "")
        hits = fuse_results(results, weights=weights_of(self.profile.name), words=words)[: query.depth]
        visual = requests["visual"]
        page = tuple(hits[query.depth - query.k :])
        captions = {hit.image_id: hit.similarity for hit in results["meaning"].hits}
        said = results[WORDS].hits if WORDS in results else ()
        told = {hit.image_id for hit in said if words and set(words) <= set(hit.matched)}
        return _Answered(page, len(hits), visual.lane, visual.num_candidates, Evidence(captions, told))

    def _judged(self, query: Query, answered: _Answered) -> tuple[SearchHit, ...]:
        hits = answered.hits
        if query.text is not None and self._marks is not None and hits:
            hits = self._marks.marked(
                query,
                hits,
                vector_of=lambda mode: self._subjects.of(query, mode)[0]["query_vector"],
                evidence=answered.evidence,
            )
        return at_least(hits, query.min_relevance) if query.min_relevance else hits

    def _request(self, query: Query, *, mode: str, k: int, size: int, from_: int = 0) -> Request:
        """Return one kNN request for the `k` nearest, of which `size` are shown from `from_` on."""
        subject, lane = self._subjects.of(query, mode)
        common = {"field": FIELDS[mode], "k": k, "filters": query.filters, "size": size, "from_": from_}
        tuned = {} if query.exact else self.index.meta().operating_points
        body, candidates = _body(query, {**subject, **common}, tuned=tuned, count=self.index.count)
        return Request(body, lane, candidates)


def vector_request(query: Query, *, count: Callable[[], int]) -> dict[str, Any]:
    """Return the body of a search with a query's vector; only an exact one asks the `count` of pictures."""
    import numpy as np

    knn = {
        "field": FIELDS[query.mode],
        "query_vector": np.asarray(query.vector, np.float32),
        "k": query.depth,
        "filters": query.filters,
        "size": query.k,
        "from_": query.depth - query.k,
    }
    return _body(query, knn, tuned={}, count=count)[0]


def _body(
    query: Query, knn: dict[str, Any], *, tuned: Mapping[str, Any], count: Callable[[], int]
) -> tuple[dict[str, Any], int | None]:
    """Return the body of a kNN search and its `num_candidates`, None when it is exact."""
    if query.exact:
        return {**exact_body(**knn, documents=count()), "_source": SOURCE}, None
    point = operating_point(tuned, field=knn["field"], k=knn["k"], asked=query.num_candidates)
    return {**knn_body(**knn, **point), "_source": SOURCE}, point["num_candidates"]
