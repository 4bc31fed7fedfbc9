"""The one searcher: page, REST API and commands are renderings of its response.

The vectors of words that were asked before are remembered.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from es_config.errors import EngineError
from es_config.mapping import MODE_FIELDS
from es_config.requests import MAX_CANDIDATES, exact_body, knn_body, query_words, words_body
from search_app.core.hybrid import VECTOR_PARTS, WORDS, fuse_results, weights_of, window
from search_app.core.marks import Evidence, Marks, at_least
from search_app.core.pictures import open_picture
from search_app.core.query import default_candidates, doubled
from search_app.core.response import SearchHit, SearchResponse, search_hit
from search_app.errors import NotFoundError, QueryError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np

    from es_config.documents import SearchResult
    from es_config.index import ImageIndex
    from models.encoders import ImageEncoder, Lazy, TextEncoder
    from models.profiles import Profile
    from search_app.core.query import Query
    from search_app.core.query_log import QueryLog


@dataclass(frozen=True)
class Subjects:
    """Turns queries into vectors of the space that is searched."""

    index: ImageIndex
    profile: Profile
    texts: TextVectors
    caption_texts: TextVectors
    image_encoder: Lazy[ImageEncoder]

    def of(self, query: Query, mode: str) -> tuple[dict[str, Any], str | None]:
        """Return the vector or the id to search with in `mode`, and the lane that embedded a text.

        Raises `QueryError` for what has no place in that space, `NotFoundError` for an unknown id.
        """
        if query.text is not None:
            texts = self.caption_texts if mode == "caption" else self.texts
            vector, lane = texts.embed(query.text)
            return {"query_vector": vector}, lane
        if query.vector is not None:
            return {"query_vector": self._raw_vector(query.vector, mode)}, None
        if mode == "caption":
            self.check_shared_space()
        if query.image is not None:
            return {"query_vector": self.embed_picture(query.image)}, None
        if mode == "caption":
            assert query.like is not None  # a query has exactly one subject
            return {"query_vector": self._stored_vector(query.like)}, None
        return {"like_id": query.like, "index": self.index.name()}, None

    def embed_picture(self, picture: bytes | Path) -> np.ndarray:
        """Return float32 `[dims]`, unit length, for a picture file's content or path. Raises `QueryError`."""
        image = open_picture(picture.read_bytes() if isinstance(picture, Path) else picture)
        vector: np.ndarray = self.image_encoder.get().embed_images([image])[0]
        return vector

    def _raw_vector(self, vector: tuple[float, ...], mode: str) -> np.ndarray:
        import numpy as np

        meta = self.index.meta()
        dims = meta.caption_dims if mode == "caption" else meta.dims
        if len(vector) != dims:
            raise QueryError(
                f"The vector has {len(vector)} dims, and {MODE_FIELDS[mode]} of the index has {dims}."
            )
        return np.asarray(vector, np.float32)

    def _stored_vector(self, image_id: str) -> np.ndarray:
        vector = self.index.vector(image_id)
        if vector is None:
            raise no_picture(image_id)
        return vector

    def check_shared_space(self) -> None:
        """Raise `QueryError` unless a picture can be compared with captions."""
        if not self.profile.caption_shares_space:
            raise QueryError(
                f"Profile {self.profile.name} embeds captions with another model than pictures, so a picture"
                " cannot be compared with captions: use words, or mode image."
            )


def no_picture(image_id: str) -> NotFoundError:
    """Return the error that says that the index holds no picture with this id."""
    return NotFoundError(f"The index holds no picture with the id '{image_id[:70]}'.")


def lane_of(encoder: TextEncoder) -> str:
    """Return where `encoder` runs its model: its `lane`, or `local` when it does not say."""
    return getattr(encoder, "lane", "local")


class TextVectors:
    """Embeds one text at a time and caches `size` vectors by text, model and lane. Thread-safe."""

    def __init__(self, encoder: Lazy[TextEncoder], *, size: int = 1024) -> None:
        self.encoder = encoder
        self._size = size
        self._kept: OrderedDict[tuple[str, str, str], np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def embed(self, text: str) -> tuple[np.ndarray, str]:
        """Return the vector float32 `[dims]` and the lane that made it."""
        encoder = self.encoder.get()
        lane = lane_of(encoder)
        with self._lock:
            vector = self._kept.get((text, encoder.revision, lane))
        if vector is None:
            if hasattr(encoder, "embed"):  # an encoder of several lanes says which one answered
                vectors, lane = encoder.embed([text])
            else:
                vectors = encoder.embed_texts([text])
            vector = vectors[0]
        self._keep((text, encoder.revision, lane), vector)
        return vector, lane

    def _keep(self, key: tuple[str, str, str], vector: np.ndarray) -> None:
        with self._lock:
            self._kept[key] = vector
            self._kept.move_to_end(key)
            if len(self._kept) > self._size:
                self._kept.popitem(last=False)


def operating_point(
    points: Mapping[str, Any], *, field: str, k: int, asked: int | None = None
) -> dict[str, Any]:
    """Return `num_candidates`, and `oversample` where rescoring was tuned, for the `k` nearest.

    What was `asked` for is done, without more. Otherwise the point of this `k` is used; else that of the next
    larger one, which finds these neighbours too; else that of the largest one, its candidates doubled as
    often as `k` asks for: pages within one doubling are cut from one and the same list.
    """
    if asked is not None:
        return {"num_candidates": max(asked, k)}
    tuned = tuned_points(points, field)
    if not tuned:
        return {"num_candidates": default_candidates(k)}
    near = min((each for each in tuned if each >= k), default=max(tuned))
    candidates = tuned[near]["num_candidates"] * doubled(near, k) // near
    point = {"num_candidates": max(k, min(MAX_CANDIDATES, candidates))}
    oversample = tuned[near].get("oversample")
    # The first k of more neighbours need more oversampling, so that as many are rescored.
    return {**point, "oversample": round(oversample * max(1, near / k), 2)} if oversample else point


def point_key(field: str, k: int | str) -> str:
    """Return under which key of `operating_points` a field's point for `k` stands: `10`, `other_field:10`."""
    return str(k) if field == "image_embedding" else f"{field}:{k}"


def tuned_points(points: Mapping[str, Any], field: str) -> dict[int, Mapping[str, Any]]:
    """Return the points of one field by `k`, rising."""
    own = point_key(field, "")
    found = {
        int(key.removeprefix(own)): point
        for key, point in points.items()
        if key.startswith(own) and key.removeprefix(own).isdecimal() and isinstance(point, Mapping)
    }
    return dict(sorted(found.items()))


MAX_ID = 512
"""Elasticsearch's own limit for an `_id`, in bytes"""
SOURCE = ["relative_path", "caption"]


@dataclass(frozen=True)
class Request:
    """A request to Elasticsearch, and the facts about it that the answer repeats."""

    body: dict[str, Any]
    lane: str | None
    num_candidates: int | None


@dataclass(frozen=True)
class _Answered:
    """The result of a query in any mode."""

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
        text_encoder: Lazy[TextEncoder],
        image_encoder: Lazy[ImageEncoder],
        caption_text_encoder: Lazy[TextEncoder] | None = None,
        marks: Marks | None = None,
    ) -> None:
        """Take the parts. Without `caption_text_encoder`, `text_encoder` reads queries for captions too.

        Without `marks`, no hit is judged.
        """
        self.index, self.profile, self.image_encoder = index, profile, image_encoder
        self.texts = TextVectors(text_encoder)
        self.caption_texts = TextVectors(caption_text_encoder) if caption_text_encoder else self.texts
        self._subjects = Subjects(index, profile, self.texts, self.caption_texts, image_encoder)
        self._marks = marks

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
        anything: dict[str, Any] = {"function_score": {"random_score": {}}}
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
        common = {"field": MODE_FIELDS[mode], "k": k, "filters": query.filters, "size": size, "from_": from_}
        tuned = {} if query.exact else self.index.meta().operating_points
        body, candidates = _body(query, {**subject, **common}, tuned=tuned, count=self.index.count)
        return Request(body, lane, candidates)


class SearchService:
    """The searcher that answers now, and the log of its queries.

    `searcher` is replaced as a whole when another index takes over: a request that asks several things of one
    index reads it once.
    """

    def __init__(self, searcher: Searcher, *, log: QueryLog | None = None) -> None:
        self.searcher = searcher
        self._log = log

    def search(self, query: Query) -> SearchResponse:
        """Answer one query as `Searcher.search` does, and log it."""
        response = self.searcher.search(query)
        if self._log is not None:
            self._log.write(query, response)
        return response


def vector_request(query: Query, *, count: Callable[[], int]) -> dict[str, Any]:
    """Return the body of a search with a query's vector. Only an exact one asks the `count` of pictures."""
    import numpy as np

    knn = {
        "field": MODE_FIELDS[query.mode],
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
