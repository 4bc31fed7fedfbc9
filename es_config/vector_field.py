"""Any `dense_vector` field: what its mapping says, nearest documents, and temporary copies to measure on."""

from __future__ import annotations

import time
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from elasticsearch import Elasticsearch
from elasticsearch.helpers import bulk, pack_dense_vector

from es_config.client import engine_errors
from es_config.errors import EngineError, afterwards
from es_config.mapping import IndexOptions
from es_config.meta import change_meta
from es_config.requests import exact_by_sequence, knn_body
from es_config.scan import PAGE

QUANTISED = ("int8", "int4", "bbq")


@dataclass(frozen=True)
class VectorField:
    """One field that kNN can search."""

    index: str
    """the name of the index itself, not of an alias"""
    name: str
    dims: int
    similarity: str
    index_type: str
    m: int | None
    ef_construction: int | None
    oversample: float | None
    """what Elasticsearch rescores by when a search does not say; None: it does not rescore"""
    shards: int
    meta: Mapping[str, Any]
    """the mapping's `_meta`"""

    @property
    def is_quantised(self) -> bool:
        """Whether rescoring can raise recall: the graph is walked with coarser vectors than are stored."""
        return self.index_type.startswith(QUANTISED)

    @property
    def is_exact(self) -> bool:
        """Whether a kNN search looks at every stored vector anyway."""
        return self.index_type == "flat"

    @property
    def has_graph(self) -> bool:
        """Whether a search walks a graph, and `num_candidates` means something."""
        return self.index_type.endswith("hnsw")

    @property
    def is_ours(self) -> bool:
        """Whether the index was made by Glimpse."""
        return "profile" in self.meta and "revisions" in self.meta


@dataclass(frozen=True)
class Extent:
    """How much an index holds; two that differ mean that it changed in between."""

    documents: int
    last_sequence: int
    """highest sequence number of any shard; -1 when nothing was ever written"""


def read_vector_field(client: Elasticsearch, index: str, field: str) -> VectorField:
    """Return the field. Raises EngineError when `index` is not one index, or `field` cannot be searched."""
    with engine_errors():
        answer = client.options(ignore_status=404).indices.get(index=index)
    if answer.meta.status == 404:
        raise EngineError(f"There is no index '{index}': run `glimpse ingest`, or name another with --index.")
    if len(answer.body) != 1:
        raise EngineError(f"'{index}' names {len(answer.body)} indices: name one of them with --index.")
    ((name, found),) = answer.body.items()
    mappings = found["mappings"]
    properties = mappings.get("properties", {})
    mapping = _checked(name, field, properties)
    options = mapping.get("index_options", {})
    return VectorField(
        index=name,
        name=field,
        dims=mapping["dims"],
        similarity=mapping.get("similarity", "cosine"),
        index_type=options.get("type", "hnsw"),
        m=options.get("m"),
        ef_construction=options.get("ef_construction"),
        oversample=options.get("rescore_vector", {}).get("oversample"),
        shards=int(found["settings"]["index"]["number_of_shards"]),
        meta=mappings.get("_meta", {}),
    )


def read_extent(client: Elasticsearch, index: str) -> Extent:
    """Return how many documents are searchable and how far writing has come. Raises EngineError."""
    last = max((each["max_seq_no"] for each in sequence_numbers(client, index)), default=-1)
    with engine_errors():
        return Extent(int(client.count(index=index)["count"]), last)


def sequence_numbers(client: Elasticsearch, index: str) -> list[dict[str, int]]:
    """Return `seq_no` of the index's statistics for each primary shard. Raises EngineError."""
    with engine_errors():
        answer = client.indices.stats(index=index, metric="docs", level="shards")
    shards = (copies for each in answer["indices"].values() for copies in each["shards"].values())
    return [copy["seq_no"] for copies in shards for copy in copies if copy["routing"]["primary"]]


def note_meta(client: Elasticsearch, field: VectorField, section: str, entries: Mapping[str, Any]) -> None:
    """Merge `entries` into one section of the `_meta` of any index; the rest stays. Raises EngineError."""
    change_meta(client, field.index, lambda meta: {**meta, section: {**meta.get(section, {}), **entries}})


def _at(properties: Mapping[str, Any], field: str) -> dict[str, Any] | None:
    found: Any = {"properties": properties}
    for part in field.split("."):
        found = (found.get("properties") or {}).get(part) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else None


def _vector_fields(properties: Mapping[str, Any], prefix: str = "") -> list[str]:
    names = []
    for name, mapping in properties.items():
        if mapping.get("type") == "dense_vector":
            names.append(prefix + name)
        names += _vector_fields(mapping.get("properties", {}), f"{prefix}{name}.")
    return names


def _checked(index: str, field: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return the field's mapping. Raises EngineError unless the field holds numbers that kNN searches."""
    mapping = _at(properties, field)
    others = _vector_fields(properties)
    way_out = (
        f"name one with --field: {', '.join(others)}" if others else "the index has no dense_vector at all"
    )
    if mapping is None:
        raise EngineError(f"The index {index} has no field '{field}'; {way_out}.")
    if mapping.get("type") != "dense_vector":
        kind = mapping.get("type", "object")
        raise EngineError(f"The field '{field}' of {index} is of type {kind}, not dense_vector; {way_out}.")
    if not mapping.get("index", True):
        raise EngineError(f"The field '{field}' of {index} is not indexed, so kNN cannot search it.")
    if "dims" not in mapping:
        raise EngineError(f"The field '{field}' of {index} has no dims yet: no document has a vector.")
    if mapping.get("element_type", "float") in ("byte", "bit"):
        raise EngineError(
            f"The field '{field}' of {index} holds {mapping['element_type']} vectors: only float is measured."
        )
    return mapping


class PlainIndex:
    """Documents by their vectors. Every method raises EngineError when Elasticsearch cannot do it."""

    def __init__(self, client: Elasticsearch, *, index: str, field: str) -> None:
        """Take the index and the field; raises EngineError when kNN cannot search it."""
        self._client = client
        self.field: VectorField = read_vector_field(client, index, field)

    def nearest(self, vector: np.ndarray, *, k: int, num_candidates: int, exact: bool) -> list[str]:
        """Return the ids of the `k` nearest documents of a float32 `[dims]` vector, nearest first."""
        if len(vector) != self.field.dims:
            raise EngineError(
                f"A vector has {len(vector)} dims, and {self.field.name} of {self.field.index} has"
                f" {self.field.dims}: use queries of the model that made the index."
            )
        name = self.field.name
        if exact:
            body = exact_by_sequence(field=name, query_vector=vector, k=k, last_sequence=self._last_sequence)
        else:
            body = knn_body(field=name, query_vector=vector, k=k, num_candidates=num_candidates)
        with engine_errors():
            answer = self._client.search(index=self.field.index, body={**body, "_source": False})
        return [hit["_id"] for hit in answer["hits"]["hits"]]

    def known(self, ids: Sequence[str]) -> set[str]:
        """Return those of `ids` that exist."""
        found: set[str] = set()
        for start in range(0, len(ids), PAGE):
            some = list(ids[start : start + PAGE])
            with engine_errors():
                answer = self._client.mget(index=self.field.index, ids=some, source=False)
            found |= {document["_id"] for document in answer["docs"] if document.get("found")}
        return found

    @cached_property
    def _last_sequence(self) -> int:
        return read_extent(self._client, self.field.index).last_sequence


FIELD = "vector"
TEMPORARY_PREFIX = "glimpse-compare"


class TemporaryIndex:
    """Vectors under ids. Every method raises EngineError when Elasticsearch cannot do it."""

    def __init__(self, client: Elasticsearch, name: str) -> None:
        self._client = client
        self.name = name

    def create(self, *, dims: int, similarity: str, index_options: Mapping[str, Any]) -> None:
        """Create the index, empty, with one shard; it is refreshed only by `add`."""
        field = {"type": "dense_vector", "dims": dims, "similarity": similarity}
        properties = {FIELD: {**field, "index_options": dict(index_options)}}
        settings = {"number_of_shards": 1, "number_of_replicas": 0, "refresh_interval": "-1"}
        with engine_errors():
            self._client.indices.create(
                index=self.name, settings=settings, mappings={"dynamic": "strict", "properties": properties}
            )

    def add(self, ids: Sequence[str], vectors: np.ndarray) -> None:
        """Write float32 `[n, dims]` vectors and make them searchable, as one segment."""
        documents = (
            {"_index": self.name, "_id": each, FIELD: pack_dense_vector(vector)}
            for each, vector in zip(ids, vectors, strict=True)
        )
        with engine_errors():
            _, refused = bulk(self._client, documents, raise_on_error=False)
            if isinstance(refused, list) and refused:
                reason = refused[0]["index"]["error"]["reason"]
                raise EngineError(f"The index {self.name} refused vectors: {reason}")
            self._client.indices.refresh(index=self.name)
            self._client.indices.forcemerge(index=self.name, max_num_segments=1)

    def nearest(self, vector: np.ndarray, *, k: int, num_candidates: int) -> list[str]:
        """Return the ids of the `k` nearest vectors, nearest first."""
        body = knn_body(field=FIELD, query_vector=vector, k=k, num_candidates=num_candidates)
        with engine_errors():
            answer = self._client.search(index=self.name, body={**body, "_source": False})
        return [hit["_id"] for hit in answer["hits"]["hits"]]

    def size_bytes(self) -> int:
        """Return the bytes that the index takes on disk."""
        with engine_errors():
            self._client.indices.flush(index=self.name)
            stats = self._client.indices.stats(index=self.name, metric="store")
        return int(stats["_all"]["primaries"]["store"]["size_in_bytes"])


@contextmanager
def temporary_index(
    client: Elasticsearch, *, label: str, dims: int, similarity: str, options: IndexOptions | None = None
) -> Iterator[TemporaryIndex]:
    """Give an empty index `glimpse-compare-<uuid>-<label>`, gone after the `with` statement."""
    name = f"{TEMPORARY_PREFIX}-{uuid.uuid4()}-{_safe(label)}"
    index = TemporaryIndex(client, name)

    def delete() -> None:
        # By name, whether or not the request to create it was answered before the interruption.
        with engine_errors():
            client.options(ignore_status=404).indices.delete(index=name)

    with afterwards(delete):
        index.create(dims=dims, similarity=similarity, index_options=(options or IndexOptions()).graph)
        yield index


def _safe(label: str) -> str:
    """Return a label as an index name may hold it."""
    kept = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in label.lower())
    return kept[:40] or "profile"


TRIAL_PREFIX = "glimpse-advise-"
BITS = {"int8": 8, "int4": 4, "bbq": 1}
FEWEST_DIMS_OF_BBQ = 64
"""Elasticsearch refuses one-bit vectors of fewer dims"""


@dataclass(frozen=True)
class Candidate:
    """One way to keep vectors."""

    index_type: str
    m: int | None = None
    """None for the types without a graph"""
    ef_construction: int | None = None

    def __str__(self) -> str:
        """Return it as people write it."""
        graph = f", m {self.m}, ef_construction {self.ef_construction}" if self.m else ""
        return f"{self.index_type}{graph}"

    @property
    def options(self) -> dict[str, Any]:
        """The field's `index_options`."""
        given = {"type": self.index_type, "m": self.m, "ef_construction": self.ef_construction}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class Weight:
    """What an index costs."""

    index_seconds: float
    """writing, refresh and merging into one segment"""
    disk_bytes: int
    memory_bytes: int
    """what a search walks through, and so belongs into the page cache: (quantised) vectors and the graph"""
    memory_source: str
    """`measured` by Elasticsearch (`index/_stats`), or `computed` here from dims and bits"""


class Trials:
    """The indices of one trial; their names begin with `glimpse-advise-<uuid>-`."""

    def __init__(self, client: Elasticsearch) -> None:
        self._client = client
        self.prefix = f"{TRIAL_PREFIX}{uuid.uuid4()}-"

    def add(
        self, candidate: Candidate, ids: Sequence[str], vectors: np.ndarray, *, similarity: str
    ) -> tuple[VectorField, Weight]:
        """Make an index, copy float32 `[n, dims]` into it, merge it, and weigh it. Raises EngineError."""
        slug = str(candidate).replace(", ", "-").replace(" ", "").replace("_", "-")
        index = TemporaryIndex(self._client, f"{self.prefix}{slug}")
        started = time.perf_counter()
        index.create(dims=vectors.shape[1], similarity=similarity, index_options=candidate.options)
        index.add(ids, vectors)
        seconds = time.perf_counter() - started
        field = read_vector_field(self._client, index.name, FIELD)
        return field, self._weight(index.name, candidate, vectors, seconds)

    def delete(self) -> None:
        """Delete every index of this trial."""
        delete_trials(self._client, trial_names(self._client, self.prefix))

    def _weight(self, name: str, candidate: Candidate, vectors: np.ndarray, seconds: float) -> Weight:
        with engine_errors(), warnings.catch_warnings():
            # The only exact answer: the size in `_stats` is up to ten seconds old.
            warnings.filterwarnings("ignore", message="This API is in technical preview")
            usage = self._client.indices.disk_usage(index=name, run_expensive_tasks=True, flush=True)
            stats = self._client.indices.stats(index=name, metric="dense_vector")
        off_heap = stats["_all"]["primaries"].get("dense_vector", {}).get("off_heap")
        memory = walked_bytes(off_heap) if off_heap else computed_bytes(candidate, *vectors.shape)
        source = "measured" if off_heap else "computed"
        return Weight(seconds, int(usage[name]["store_size_in_bytes"]), memory, source)


def walked_bytes(off_heap: dict[str, int]) -> int:
    """Return the bytes that a search walks through: all, but for the full vectors beside quantised ones.

    Those are read only to rescore the few best.
    """
    total = off_heap["total_size_bytes"]
    quantised = off_heap.get("total_veq_size_bytes", 0) + off_heap.get("total_veb_size_bytes", 0)
    return total - off_heap.get("total_vec_size_bytes", 0) if quantised else total


def computed_bytes(candidate: Candidate, count: int, dims: int) -> int:
    """Return about how many bytes a search walks through: each number in its bits, and a byte for a link."""
    bits = next((bits for kind, bits in BITS.items() if candidate.index_type.startswith(kind)), 32)
    return count * (dims * bits // 8 + 2 * (candidate.m or 0))


@contextmanager
def trials(client: Elasticsearch) -> Iterator[Trials]:
    """Give trial indices for the body of a `with` statement, and delete them at its end, whatever happens."""
    ours = Trials(client)
    with afterwards(ours.delete):
        yield ours


def trial_names(client: Elasticsearch, prefix: str = TRIAL_PREFIX) -> list[str]:
    """Return the names of trial indices, of this run or left over from others."""
    with engine_errors():
        return sorted(client.indices.get(index=f"{prefix}*", features="aliases").body)


def delete_trials(client: Elasticsearch, names: Sequence[str]) -> None:
    """Delete trial indices by name; one that is gone already is no error."""
    for name in names:
        with engine_errors():
            client.options(ignore_status=404).indices.delete(index=name)
