"""Read a whole index in blocks from one frozen view: vectors, a fixed sample, perceptual hashes."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np
from elasticsearch import Elasticsearch

from es_config.client import afterwards, engine_errors
from es_config.documents import StoredDocument

PAGE = 1000
"""documents that one request reads or names"""
KEEP_ALIVE = "10m"
"""for how long the frozen view outlives the last request"""


class PointInTime:
    """A frozen view of an index, without later writes."""

    def __init__(self, client: Elasticsearch, index: str) -> None:
        """Open the view. Raises EngineError when there is no such index."""
        self._client = client
        with engine_errors():
            self._id = client.open_point_in_time(index=index, keep_alive=KEEP_ALIVE)["id"]

    def search(self, body: dict[str, Any]) -> dict[str, Any]:
        """Send one search. Raises EngineError."""
        with engine_errors():
            answer: dict[str, Any] = self._client.search(body=self._viewed(body)).body
        self._id = answer.get("pit_id", self._id)
        return answer

    def pages(self, body: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
        """Yield the hits of a sorted search, page by page. Raises EngineError."""
        while hits := self.search(body)["hits"]["hits"]:
            yield hits
            body = {**body, "search_after": hits[-1]["sort"]}

    def msearch(
        self, bodies: Sequence[dict[str, Any]], *, filter_path: Sequence[str]
    ) -> list[dict[str, Any]]:
        """Send searches together, and return the parts `filter_path` of each answer. Raises EngineError."""
        lines = [line for body in bodies for line in ({}, self._viewed(body))]
        paths = [f"responses.{path}" for path in (*filter_path, "_shards", "timed_out", "error", "status")]
        with engine_errors():
            answered = self._client.msearch(searches=lines, filter_path=paths)
        answers: list[dict[str, Any]] = answered.body["responses"]
        for body, answer in zip(bodies, answers, strict=True):
            if "error" in answer:
                self.search(body)  # alone, its error becomes a sentence
        return answers

    def close(self) -> None:
        """Close the view, unless it has expired. Raises EngineError."""
        with engine_errors():
            self._client.options(ignore_status=404).close_point_in_time(id=self._id)

    def _viewed(self, body: dict[str, Any]) -> dict[str, Any]:
        return {**body, "pit": {"id": self._id, "keep_alive": KEEP_ALIVE}}


def pages(client: Elasticsearch, index: str, body: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    """Yield the hits of a sorted search of an index as it is when their turn comes. Raises EngineError.

    Pages follow each other by position, not by a frozen view, which could not be held open for days: what is
    written to the hits of one page does not move the next.
    """
    while True:
        with engine_errors():
            hits = client.search(index=index, body={**body, "track_total_hits": False})["hits"]["hits"]
        if not hits:
            return
        yield hits
        body = {**body, "search_after": hits[-1]["sort"]}


@contextmanager
def point_in_time(client: Elasticsearch, index: str) -> Iterator[PointInTime]:
    """Open a frozen view for the body of a `with` statement. Raises EngineError."""
    view = PointInTime(client, index)
    with afterwards(view.close):
        yield view


def scan_view(
    view: PointInTime,
    *,
    field: str,
    filters: Sequence[dict[str, Any]] = (),
    size: int = PAGE,
    drawn: tuple[int, float] | None = None,
) -> Iterator[tuple[list[str], np.ndarray]]:
    """Yield ids and vectors, float32 `[n, dims]`, of documents that have the field and pass `filters`.

    At most `size` come at a time, so the memory is that of one block. With `drawn`, a seed and a number from
    0 to 1, only the documents whose throw is at least that number. Raises EngineError.
    """
    body: dict[str, Any] = {
        "query": {"bool": {"filter": [{"exists": {"field": field}}, *filters]}},
        "size": size,
        "sort": ["_shard_doc"],
        "track_total_hits": False,
        "_source": False,
        "docvalue_fields": [{"field": field, "format": "binary"}],  # a tenth of the time of numbers in JSON
    }
    if drawn:
        body |= {"query": random_body(body["query"], seed=drawn[0]), "min_score": drawn[1]}
    for hits in view.pages(body):
        yield [hit["_id"] for hit in hits], read_vectors(hits, field)


def count_view(view: PointInTime, *, field: str) -> int:
    """Return how many documents of a frozen view have a field. Raises EngineError."""
    body = {"query": {"exists": {"field": field}}, "size": 0, "track_total_hits": True}
    return int(view.search(body)["hits"]["total"]["value"])


def scan_documents(
    view: PointInTime, *, fields: Sequence[str], size: int = PAGE
) -> Iterator[list[StoredDocument]]:
    """Yield whole documents with the vectors of `fields`, in the order of their ids, `size` at a time.

    Only documents that have the first of the fields come. Raises EngineError.
    """
    body = {
        "query": {"exists": {"field": fields[0]}},
        "size": size,
        "sort": [{"image_id": "asc"}],
        "track_total_hits": False,
        "_source": {"excludes": list(fields)},
        "docvalue_fields": [{"field": field, "format": "binary"} for field in fields],
    }
    for hits in view.pages(body):
        yield [_stored(hit, fields) for hit in hits]


def _stored(hit: dict[str, Any], fields: Sequence[str]) -> StoredDocument:
    there = [field for field in fields if field in hit.get("fields", {})]
    vectors = {field: read_vectors([hit], field)[0] for field in there}
    # Only updates leave nulls: a document that says nothing and one that says null are the same.
    source = {name: each for name, each in hit["_source"].items() if each is not None}
    return StoredDocument(hit["_id"], source, vectors)


def vectors_of(view: PointInTime, ids: Sequence[str], *, field: str) -> dict[str, np.ndarray]:
    """Return the vectors, float32 `[dims]`, of those of `ids` that have one."""
    found: dict[str, np.ndarray] = {}
    for start in range(0, len(ids), PAGE):
        named = {"ids": {"values": list(ids[start : start + PAGE])}}
        for some, vectors in scan_view(view, field=field, filters=[named]):
            found.update(zip(some, vectors, strict=True))
    return found


def vectors_body(ids: Sequence[str], *, field: str) -> dict[str, Any]:
    """Return the search for the vectors of a few documents, for `read_vectors`."""
    return {
        "query": {"bool": {"filter": [{"ids": {"values": list(ids)}}, {"exists": {"field": field}}]}},
        "size": len(ids),
        "track_total_hits": False,
        "_source": False,
        "docvalue_fields": [{"field": field, "format": "binary"}],
    }


def read_vectors(hits: Sequence[dict[str, Any]], field: str) -> np.ndarray:
    """Return the vectors of hits that have them as `docvalue_fields`, float32 `[n, dims]`."""
    packed = b"".join(base64.b64decode(hit["fields"][field][0]) for hit in hits)
    return np.frombuffer(packed, dtype=">f4").astype(np.float32).reshape(len(hits), -1 if hits else 0)


def sample_view(
    view: PointInTime, *, field: str, size: int, documents: int, seed: int = 0, dims: int = 512
) -> tuple[list[str], np.ndarray]:
    """Return ids and vectors, float32 `[n, dims]`, of up to `size` documents drawn by chance.

    Elasticsearch draws them: of an index of millions, only the sample is read.
    """
    ids: list[str] = []
    parts: list[np.ndarray] = []
    # A tenth more than wanted, as each document is in or out by a throw of its own.
    least = 1 - min(1.0, (1.1 * size + 50) / max(1, documents))
    for some, vectors in scan_view(view, field=field, drawn=(seed, least)):
        ids.extend(some)
        parts.append(vectors)
    found = np.concatenate(parts) if parts else np.zeros((0, dims), np.float32)
    order = np.random.default_rng(seed).permutation(len(ids))[:size]
    return [ids[place] for place in order], found[order]


def random_body(query: dict[str, Any], *, seed: int) -> dict[str, Any]:
    """Return a query that scores matches of `query` randomly from 0 to 1, repeatably by seed."""
    score = {"seed": seed, "field": "_seq_no"}
    return {"function_score": {"query": query, "random_score": score, "boost_mode": "replace"}}


@dataclass(frozen=True)
class Sample:
    """Pictures with their vectors."""

    ids: tuple[str, ...]
    sources: tuple[Mapping[str, Any], ...]
    """each document's `_source`, as far as it was asked for"""
    vectors: dict[str, np.ndarray]
    """float32 `[n, dims]` by field"""


def read_sample(
    client: Elasticsearch, index: str, *, fields: Sequence[str], size: int, source: Sequence[str] = ()
) -> Sample:
    """Return up to `size` pictures that have all of the vector `fields`. Raises EngineError.

    They are the first in the order of their ids. An id is the hash of the content, so this is a sample by
    chance that needs no seed, is equal on every machine, and changes little when pictures are added.
    """
    body = {
        "query": {"bool": {"filter": [{"exists": {"field": field}} for field in fields]}},
        "size": min(PAGE, size),
        "sort": [{"image_id": "asc"}],
        "track_total_hits": False,
        "_source": list(source) or False,
        "docvalue_fields": [{"field": field, "format": "binary"} for field in fields],
    }
    with point_in_time(client, index) as view:
        found = chain.from_iterable(view.pages(body))
        hits = list(islice(found, size))
    return Sample(
        tuple(hit["_id"] for hit in hits),
        tuple(hit.get("_source", {}) for hit in hits),
        {field: read_vectors(hits, field) for field in fields},
    )


HASHES_BLOCK = 5000


@dataclass(frozen=True)
class HashedImage:
    """One picture: `phash` is None where the index has none that is 16 hexadecimal digits."""

    image_id: str
    phash: int | None
    paths: tuple[str, ...]
    """every relative path that holds it, in the order of names"""


def scan_hashes(
    client: Elasticsearch, index: str, *, size: int = HASHES_BLOCK
) -> Iterator[list[HashedImage]]:
    """Yield all pictures of an index, at most `size` at a time. Raises EngineError."""
    with point_in_time(client, index) as view:
        for hits in view.pages(hashes_body(size=size)):
            yield [_read(hit) for hit in hits]


def hashes_body(*, size: int) -> dict[str, Any]:
    """Return the search for one block, without moments of films, which reads columns and no documents."""
    return {
        "query": {"bool": {"must_not": [{"term": {"film.is_moment": True}}]}},
        "size": size,
        "sort": ["_shard_doc"],
        "track_total_hits": False,
        "_source": False,
        "docvalue_fields": ["phash", "relative_path", "film.id"],
    }


def _read(hit: dict[str, Any]) -> HashedImage:
    fields = hit.get("fields", {})
    try:
        phash = int(fields["phash"][0], 16)
    except (KeyError, ValueError):
        phash = None
    # A film is no copy of a picture that looks like its first one.
    fits = phash is not None and 0 <= phash < 1 << 64 and "film.id" not in fields
    return HashedImage(hit["_id"], phash if fits else None, tuple(fields.get("relative_path", ())))
