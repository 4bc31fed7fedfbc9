"""The one searcher, and the marks of its hits: page, REST API and commands are renderings of its response.

Hits are marked as strong, weak or none, beside the same query's scores on a sample of the index; those of a
composed question are not. The vectors of words that were asked before are remembered.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from es_config.documents import MODE_FIELDS, IndexMeta, SearchResult, one_line
from es_config.errors import EngineError
from es_config.index import ImageIndex
from es_config.relevance import MARKS, NONE, WEAK, oriented, read_calibration, scores_of
from es_config.requests import (
    MAX_CANDIDATES,
    exact_body,
    knn_body,
    listing_body,
    query_words,
    typed_words,
    words_body,
    written_body,
)
from es_config.transport import accepting_partial_answers
from models.encoders import ImageEncoder, Lazy, TextEncoder, plain_text
from models.pixels import FILES, REQUESTS
from models.profiles import Profile
from search_app.core.compose import VectorSample, combined, strength
from search_app.core.films import one_hit_each
from search_app.core.hybrid import (
    EVEN,
    VECTOR_PARTS,
    WEIGHTS,
    WORDS,
    WRITTEN,
    fuse_results,
    named_by,
    window,
)
from search_app.core.logs import QueryLog
from search_app.core.parts import Part
from search_app.core.pictures import cut_out, opened_picture
from search_app.core.places import Gazetteer, PlaceWords
from search_app.core.query import Query, SearchHit, SearchResponse, default_candidates, doubled, search_hit
from search_app.errors import NotFoundError, PlacesError, QueryError


@dataclass(frozen=True)
class Evidence:
    """Facts about the hits of a search beside their similarity."""

    captions: Mapping[str, float] = field(default_factory=dict)
    """similarity of the caption by image id, in mode hybrid"""
    full_matches: Collection[str] = ()
    """ids of pictures whose caption holds every word of the query, in mode hybrid"""


class Marks:
    """Judges the hits of queries in words. Thread-safe. An index without calibration gets no marks."""

    def __init__(self, sample: VectorSample) -> None:
        """Take the sample of the index whose hits are judged."""
        self._index = sample.index
        self._sample = sample

    def marked(
        self,
        query: Query,
        hits: Sequence[SearchHit],
        *,
        vector_of: Callable[[str], np.ndarray],
        evidence: Evidence,
    ) -> tuple[SearchHit, ...]:
        """Return the hits with their marks. `vector_of` gives the query's vector, float32 `[dims]`, by mode.

        A hit of a hybrid search gets the higher of the marks of picture and caption, and is never `none`
        when its caption holds all words. Raises `EngineError` when the sample cannot be read.
        """
        similarities = {hit.image_id: hit.similarity for hit in hits if hit.similarity is not None}
        known = {query.mode: similarities}
        if query.mode == "hybrid":
            captions = evidence.captions
            shown = {hit.image_id: captions[hit.image_id] for hit in hits if hit.image_id in captions}
            known = {"image": similarities, "caption": shown}
        judged = [self._judge(mode, values, vector_of) for mode, values in known.items()]
        if all(found is None for found in judged):
            return tuple(hits)
        return tuple(
            replace(hit, relevance=_highest(hit.image_id, judged, hit.image_id in evidence.full_matches))
            for hit in hits
        )

    def _judge(
        self, mode: str, similarities: Mapping[str, float], vector_of: Callable[[str], np.ndarray]
    ) -> dict[str, str] | None:
        """Return marks by image id, or None when the mode is not calibrated."""
        meta = self._index.meta()
        bars = read_calibration(meta.relevance, mode) if mode in meta.relevance else None
        if bars is None:
            return None
        sample = self._sample.of(MODE_FIELDS[mode], bars.sample)
        own = scores_of(vector_of(mode)[None, :], sample, meta.similarity)[0]
        scores = [oriented(meta.similarity, value) for value in similarities.values()]
        marks = bars.marks(scores, float(own.mean()), float(own.std()))
        return dict(zip(similarities, marks, strict=True))


def _highest(image_id: str, judged: Sequence[dict[str, str] | None], is_full_match: bool) -> str:
    marks = [found[image_id] for found in judged if found and image_id in found]
    return max([*marks, WEAK if is_full_match else MARKS[0]], key=MARKS.index)


def at_least(hits: Sequence[SearchHit], least: str) -> tuple[SearchHit, ...]:
    """Return the hits that are marked `least` or higher. Raises `QueryError` when they have no marks."""
    if any(hit.relevance is None for hit in hits):
        raise QueryError(
            "This index is not calibrated for these searches, so min_relevance cannot be answered:"
            " run `glimpse calibrate`."
        )
    return tuple(hit for hit in hits if MARKS.index(hit.relevance) >= MARKS.index(least))


MAX_ID = 512
"""Elasticsearch's own limit for an `_id`, in bytes"""
SOURCE = ["relative_path", "caption", "film", "cut_short", "width", "height", "favourite"]
T = TypeVar("T")


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
        with self._lock:
            self._kept[text, encoder.revision, lane] = vector
            self._kept.move_to_end((text, encoder.revision, lane))
            if len(self._kept) > self._size:
                self._kept.popitem(last=False)
        return vector, lane


def operating_point(
    points: Mapping[str, Any], *, field: str, k: int, asked: int | None = None
) -> dict[str, Any]:
    """Return `num_candidates`, and `oversample` where rescoring was tuned, for the `k` nearest.

    Candidates that were `asked` for are taken as they are. Otherwise the tuned point of this `k` counts, else
    that of the next larger one, which finds these neighbours too, else that of the largest one with its
    candidates doubled as often as `k` needs: pages within one doubling are cut from one and the same list.
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
    """Return the key of a field's point for `k` in `operating_points`: `10`, or `other_field:10`."""
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


@dataclass(frozen=True)
class Request:
    """A request to Elasticsearch, and the facts about it that the answer repeats."""

    body: dict[str, Any]
    num_candidates: int | None
    """None when the search is exact"""
    lane: str | None = None


def build_request(
    query: Query,
    subject: Mapping[str, Any],
    *,
    mode: str,
    points: Mapping[str, Any],
    count: Callable[[], int],
    first: int | None = None,
) -> Request:
    """Return the kNN request for a query's page in `mode`, or for its `first` neighbours.

    `subject` is the `query_vector`, or `like_id` and `index`; `points` are the tuned `operating_points`; only
    an exact search asks for the `count` of pictures. Raises `EngineError`.
    """
    k, size = first or query.depth, first or query.k
    asked = {**subject, "field": MODE_FIELDS[mode], "k": k, "filters": query.filters, "size": size}
    if query.exact:
        body, candidates = exact_body(**asked, from_=k - size, documents=count()), None
    else:
        point = operating_point(points, field=MODE_FIELDS[mode], k=k, asked=query.num_candidates)
        body, candidates = knn_body(**asked, from_=k - size, **point), point["num_candidates"]
    return Request({**body, "_source": SOURCE}, candidates)


@dataclass(frozen=True)
class _UnjudgedPage:
    """The page of a query in any mode, before its hits are judged."""

    hits: tuple[SearchHit, ...]
    total: int
    request: Request
    evidence: Evidence = field(default_factory=Evidence)
    shards: int = 1
    shards_failed: int = 0


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
        sample: VectorSample | None = None,
        gazetteer: Gazetteer | None = None,
    ) -> None:
        """Take the parts. Without `caption_text_encoder`, `text_encoder` reads queries for captions too.

        Without `marks`, no hit is judged; without a `gazetteer` places are known by their own names alone.
        Without a `sample`, the searcher makes its own.
        """
        self._sample = sample or VectorSample(index)
        self.index, self.profile, self.image_encoder = index, profile, image_encoder
        self.texts = TextVectors(text_encoder)
        self.caption_texts = TextVectors(caption_text_encoder) if caption_text_encoder else self.texts
        self._marks = marks
        self.gazetteer = gazetteer
        self._checked: IndexMeta | None = None
        """what was read of the index when its profile was last found to be this one"""

    def search(self, query: Query) -> SearchResponse:
        """Answer one query.

        Raises `QueryError` for what cannot be asked, `NotFoundError` when `like` names no picture of the
        index, `EngineError` when Elasticsearch does not answer or the index belongs to another profile.
        """
        started = time.perf_counter()
        query = self.resolved(query)
        found = self._found(query)
        hits = self._judged(query, found)
        total = found.total - len(found.hits) + len(hits)
        if not query.is_listing and query.order != "relevance":
            # Sorted by date, pictures that fit no better than chance would stand among those that fit.
            hits = tuple(hit for hit in hits if hit.relevance != NONE) or hits
            total = len(hits)
            hits = self._sorted(query, hits)[query.depth - query.k : query.depth]
        return SearchResponse(
            query=query.label,
            mode=query.mode,
            lane=found.request.lane,
            k=query.k,
            num_candidates=found.request.num_candidates,
            took_ms=round((time.perf_counter() - started) * 1000, 1),
            total=total,
            hits=one_hit_each(hits),
            partial=found.shards_failed > 0,
            shards=found.shards,
            shards_failed=found.shards_failed,
            sort=query.order,
        )

    def resolved(self, query: Query, *, wait: bool = True) -> Query:
        """Return the query with the other names of the place that it filters by: `Munich` for `München`.

        Without `wait`, only if the list of places is ready: making it takes seconds.
        """
        place = query.filters.place
        if self.gazetteer is None or not isinstance(place, str) or not (wait or self.gazetteer.is_ready):
            return query
        try:
            others = self.gazetteer.other_names(place)
        except PlacesError:  # its own name can still be found
            return query
        return replace(query, filters=replace(query.filters, other_places=others))

    def _place_words(self, query: Query) -> PlaceWords:
        if self.gazetteer is None:
            return PlaceWords()
        try:
            return self.gazetteer.read_words((*query.texts, *query.unwanted_texts))
        except PlacesError:  # places are still known by their own names
            return PlaceWords()

    def load_models_for(self, query: Query) -> None:
        """Load the models that a query needs, so that `took_ms` tells the time of the search alone.

        Raises `ModelError`.
        """
        asked = query.asked
        if any(part.image is not None for part in asked):
            self.image_encoder.get()
        has_text = any(part.text is not None for part in asked)
        if has_text and query.mode != "caption":
            self.texts.embed("a picture")
        if has_text and query.mode != "image":
            self.caption_texts.embed("a picture")

    def prepare(self, query: Query) -> Request:
        """Return the request that `search` sends in the modes image and caption. Raises as `search` does."""
        self._check(query)
        return self._request(query, mode=query.mode)

    def requests(self, query: Query) -> dict[str, dict[str, Any]]:
        """Return the bodies that `search` sends, by a name for each: several in mode hybrid.

        Of a question in another order they are those that find its hits. Raises as `search` does.
        """
        query = self.resolved(query)
        if query.is_listing:
            return {"list": self._listing(query)}
        asked = query if query.order == "relevance" else query.nearest()
        if asked.mode == "hybrid":
            return {name: request.body for name, request in self._fused(asked).items()}
        return {asked.mode: self._words(asked) if asked.mode == "words" else self.prepare(asked).body}

    def send(self, query: Query, *bodies: dict[str, Any]) -> list[SearchResult]:
        """Send a query's requests together. Raises `NotFoundError` and `EngineError` as `search` does."""
        try:
            return self.index.search_many(list(bodies)) if len(bodies) > 1 else [self.index.search(bodies[0])]
        except EngineError:
            if query.like is not None:
                self.picture(query.like)  # the lookup of an unknown id is an error: say it as one
            raise

    def embed_picture(
        self, picture: bytes | Path, *, part: tuple[float, float, float, float] | None = None
    ) -> np.ndarray:
        """Return float32 `[dims]`, unit length, for a picture file's content or path, or for a `part` of it.

        The part is (left, top, width, height), each from 0 to 1 of the upright picture's width or height.
        Raises `QueryError`, and `BusyError` when too many pictures are being decoded.
        """
        if isinstance(picture, Path):  # of the person at the keyboard, not of a visitor
            data, limits = picture.read_bytes(), FILES
        else:
            data, limits = picture, REQUESTS
        with opened_picture(data, limits=limits) as image:
            seen = cut_out(image, part) if part else image
            vector: np.ndarray = self.image_encoder.get().embed_images([seen])[0]
        return vector

    def picture(self, image_id: str) -> dict[str, Any]:
        """Return a picture's `_source`. Raises `NotFoundError`."""
        source = self.index.get(image_id) if len(image_id) <= MAX_ID else None
        return _existing(source, image_id)

    def sample(self, size: int) -> tuple[SearchHit, ...]:
        """Return up to `size` random pictures of the index, to start from. Raises `EngineError`."""
        anything: dict[str, Any] = {"function_score": {"random_score": {}}}
        result = self.index.search({"query": anything, "size": size, "_source": SOURCE})
        return tuple(search_hit(hit) for hit in result.hits)

    def check_profile(self) -> None:
        """Raise `EngineError` when there is no index, or one of another profile than this searcher's.

        That is looked up as often as the `_meta` is read, since the weights may be downloaded meanwhile.
        """
        meta = self.index.meta()
        if meta is self._checked:
            return
        weights = self.profile.weights("text")
        self.index.check_profile(
            self.profile.name, self.profile.dims, text_revision=weights.revision, matches=weights.matches
        )
        self._checked = meta

    def _check(self, query: Query) -> None:
        """Raise `EngineError` or `QueryError` when this index cannot answer the query."""
        asked = query.asked
        if any(part.vector is None for part in asked):
            self.check_profile()
        is_picture = any(part.image is not None or part.like is not None for part in asked)
        if is_picture and query.mode != "image" and not self.profile.caption_shares_space:
            raise QueryError(
                f"Profile {self.profile.name} embeds captions with another model than pictures, so a picture"
                " cannot be compared with captions: use words, or mode image."
            )

    def _found(self, query: Query) -> _UnjudgedPage:
        """Return the page of a query, or all the hits that it sorts."""
        if query.is_listing:
            return self._listed(query)
        asked = query if query.order == "relevance" else query.nearest()
        find = {"hybrid": self._hybrid, "words": self._written}.get(query.mode, self._nearest)
        return find(asked)

    def _listing(self, query: Query) -> dict[str, Any]:
        body = listing_body(
            sort=query.order, size=query.k, from_=query.depth - query.k, filters=query.filters
        )
        return {**body, "_source": SOURCE}

    def _listed(self, query: Query) -> _UnjudgedPage:
        body = self._listing(query)
        (result,) = self.send(query, body)
        return _UnjudgedPage(
            tuple(search_hit(hit, score=None, similarity=None) for hit in result.hits),
            result.total,
            Request(body, None),
            shards=result.shards,
            shards_failed=result.shards_failed,
        )

    def _sorted(self, query: Query, hits: Sequence[SearchHit]) -> tuple[SearchHit, ...]:
        """Return the hits in the query's order. Those on shards that do not answer stay at the end."""
        if not hits:
            return ()
        ids = [hit.image_id for hit in hits]
        listed = self.index.search(
            {**listing_body(sort=query.order, size=len(ids), ids=ids), "_source": False}
        )
        places = {hit.image_id: place for place, hit in enumerate(listed.hits)}
        return tuple(sorted(hits, key=lambda hit: places.get(hit.image_id, len(places))))

    def _nearest(self, query: Query) -> _UnjudgedPage:
        request = self.prepare(query)
        (result,) = self.send(query, request.body)
        return _UnjudgedPage(
            tuple(search_hit(hit) for hit in result.hits),
            result.total,
            request,
            shards=result.shards,
            shards_failed=result.shards_failed,
        )

    def _words(self, query: Query) -> dict[str, Any]:
        self.check_profile()
        said = self._place_words(query)
        body = written_body(
            *query.texts,
            size=query.k,
            from_=query.depth - query.k,
            filters=query.filters,
            alone=True,
            without=query.unwanted_texts,
            places=said.names,
            ordinary=said.ordinary,
        )
        return {**body, "_source": SOURCE}

    def _written(self, query: Query) -> _UnjudgedPage:
        """Find pictures in which the words of all texts are written, or which are named by them."""
        body = self._words(query)
        (result,) = self.send(query, body)
        words = typed_words(" ".join(query.texts))
        hits = tuple(
            search_hit(hit, similarity=None, why="; ".join(named_by(words, hit.matched)))
            for hit in result.hits
        )
        return _UnjudgedPage(
            hits,
            min(result.total, query.depth),
            Request(body, None),
            shards=result.shards,
            shards_failed=result.shards_failed,
        )

    def _fused(self, query: Query) -> dict[str, Request]:
        """Return the requests whose rankings are fused, by name."""
        self._check(query)
        size = window(query.depth)
        requests = {name: self._request(query, mode=mode, first=size) for name, mode in VECTOR_PARTS.items()}
        if query.texts:
            narrowed = self._narrowed(query).filters
            said = self._place_words(query)
            written = partial(written_body, places=said.names, ordinary=said.ordinary)
            for name, body_of in ((WORDS, words_body), (WRITTEN, written)):
                body = body_of(*query.texts, size=size, filters=narrowed, without=query.unwanted_texts)
                requests[name] = Request({**body, "_source": SOURCE}, None)
        return requests

    def _hybrid(self, query: Query) -> _UnjudgedPage:
        requests = self._fused(query)
        bodies = [request.body for request in requests.values()]
        results = dict(zip(requests, self.send(query, *bodies), strict=True))
        said = " ".join(query.texts)
        words = query_words(said)
        weights = WEIGHTS.get(self.profile.name, EVEN)
        hits = fuse_results(results, weights=weights, words=typed_words(said))[: query.depth]
        by_words = [hit for name in (WORDS, WRITTEN) if name in results for hit in results[name].hits]
        evidence = Evidence(
            captions={hit.image_id: hit.similarity for hit in results["meaning"].hits},
            full_matches={hit.image_id for hit in by_words if words and set(words) <= set(hit.matched)},
        )
        return _UnjudgedPage(
            tuple(hits[query.depth - query.k :]),
            len(hits),
            requests["visual"],
            evidence,
            shards=max(each.shards for each in results.values()),
            shards_failed=max(each.shards_failed for each in results.values()),
        )

    def _judged(self, query: Query, found: _UnjudgedPage) -> tuple[SearchHit, ...]:
        hits = found.hits
        if query.text is not None and self._marks is not None and hits and query.mode != "words":
            hits = self._marks.marked(
                query,
                hits,
                vector_of=lambda mode: self._subject(query, mode)[0]["query_vector"],
                evidence=found.evidence,
            )
        return at_least(hits, query.min_relevance) if query.min_relevance else hits

    def _request(self, query: Query, *, mode: str, first: int | None = None) -> Request:
        subject, lane = self._composed(query, mode) if query.parts else self._subject(query, mode)
        points = self.index.meta().operating_points
        request = build_request(
            self._narrowed(query), subject, mode=mode, points=points, count=self.index.count, first=first
        )
        return replace(request, lane=lane)

    def _narrowed(self, query: Query) -> Query:
        """Return a composed query without the pictures that it asks with: whoever names them has them."""
        named = tuple(dict.fromkeys(part.like for part in query.parts if part.like is not None))
        return replace(query, filters=replace(query.filters, without=named)) if named else query

    def _composed(self, query: Query, mode: str) -> tuple[dict[str, Any], str | None]:
        """Return the one vector of a composed query in `mode`, and the lane that embedded its texts."""
        ids = [part.like for part in query.parts if part.like is not None]
        stored = self.index.vectors(ids) if ids else {}
        vectors, weights, lane = [], [], None
        for part in query.parts:
            if part.like is not None:
                vectors.append(_existing(stored.get(part.like), part.like))
            else:
                vector, own_lane = self._vector(part, mode)
                vectors.append(vector)
                lane = own_lane or lane
            weights.append(strength(part.weight, is_text=part.text is not None, wanted=part.wanted))
        sample = self._sample.of(MODE_FIELDS[mode])
        whole = combined(vectors, weights, sample=sample, similarity=self.index.meta().similarity)
        return {"query_vector": whole}, lane

    def _subject(self, query: Query, mode: str) -> tuple[dict[str, Any], str | None]:
        """Return the vector or the id to search with in `mode`, and the lane that embedded a text.

        Raises `QueryError` for a text of which a model reads nothing and for a vector of other dims,
        `NotFoundError` for an unknown id.
        """
        if query.like is None:
            vector, lane = self._vector(query, mode)
            return {"query_vector": vector}, lane
        if mode == "caption":
            return {"query_vector": _existing(self.index.vector(query.like), query.like)}, None
        return {"like_id": query.like, "index": self.index.name()}, None

    def _vector(self, asked: Query | Part, mode: str) -> tuple[np.ndarray, str | None]:
        """Return the vector, float32 `[dims]`, of a text, a picture or a vector, and the lane of a text."""
        if asked.text is not None:
            if not plain_text(asked.text):
                raise QueryError(
                    "The models read no emoji and no control characters, and the query has nothing else: ask"
                    " in words."
                )
            return (self.caption_texts if mode == "caption" else self.texts).embed(asked.text)
        if asked.vector is not None:
            meta = self.index.meta()
            dims = meta.caption_dims if mode == "caption" else meta.dims
            if (given := len(asked.vector)) != dims:
                raise QueryError(
                    f"The vector has {given} dims, and {MODE_FIELDS[mode]} of the index has {dims}."
                )
            return np.asarray(asked.vector, np.float32), None
        assert asked.image is not None  # what else a question without an id has
        return self.embed_picture(asked.image), None


def _existing(found: T | None, image_id: str) -> T:
    if found is None:
        raise NotFoundError(f"The index holds no picture with the id '{one_line(image_id[:70])}'.")
    return found


class SearchService:
    """The searcher that answers now, and the log of its queries.

    `searcher` is replaced as a whole when another index takes over: a request that asks several things of one
    index reads it once.
    """

    def __init__(self, searcher: Searcher, *, log: QueryLog | None = None) -> None:
        self.searcher = searcher
        self._log = log

    def search(self, query: Query) -> SearchResponse:
        """Answer one query as `Searcher.search` does, also when shards are away, and log it."""
        with accepting_partial_answers():
            response = self.searcher.search(query)
        if self._log is not None:
            self._log.write(query, response)
        return response
