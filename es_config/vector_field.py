"""Any `dense_vector` field: its mapping, its nearest documents, and temporary indices to measure on."""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from elasticsearch import Elasticsearch
from elasticsearch.helpers import pack_dense_vector

from es_config.bulk import send_bulk
from es_config.client import afterwards, engine_errors
from es_config.errors import EngineError
from es_config.index import read_documents
from es_config.requests import exact_by_sequence, knn_body

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
    """default of a search; None: Elasticsearch does not rescore"""
    shards: int
    meta: Mapping[str, Any]
    """the mapping's `_meta`"""

    @property
    def is_quantised(self) -> bool:
        """True if a search walks coarser vectors than are stored, so that rescoring raises recall."""
        return self.index_type.startswith(QUANTISED)

    @property
    def is_exact(self) -> bool:
        """True if a kNN search compares every stored vector anyway."""
        return self.index_type == "flat"

    @property
    def has_graph(self) -> bool:
        """True if a search walks a graph, so that `num_candidates` matters."""
        return self.index_type.endswith("hnsw")

    @property
    def is_ours(self) -> bool:
        """True if Glimpse made the index."""
        return "profile" in self.meta and "revisions" in self.meta


@dataclass(frozen=True)
class Extent:
    """The extent of an index, which differs after a change."""

    documents: int
    last_sequence: int
    """highest sequence number of any shard; -1 when nothing was ever written"""


def read_vector_field(client: Elasticsearch, index: str, field: str) -> VectorField:
    """Return the field. Raises EngineError when `index` is not one index, or `field` cannot be searched."""
    with engine_errors():
        answer = client.options(ignore_status=404).indices.get(index=index)
    if answer.meta.status == 404:
        raise EngineError(
            f"There is no index '{index}': run `glimpse ingest FOLDER`, or name another with --index."
        )
    if len(answer.body) != 1:
        raise EngineError(f"'{index}' names {len(answer.body)} indices: name one of them with --index.")
    ((name, found),) = answer.body.items()
    mappings = found["mappings"]
    mapping = _checked(name, field, mappings.get("properties", {}))
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


def _flat(properties: Mapping[str, Any], prefix: str = "") -> dict[str, dict[str, Any]]:
    """Return the mappings of all fields by their full names, objects included."""
    found = {}
    for name, mapping in properties.items():
        found[prefix + name] = mapping
        found |= _flat(mapping.get("properties", {}), f"{prefix}{name}.")
    return found


def _checked(index: str, field: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return the field's mapping. Raises EngineError unless the field holds numbers that kNN searches."""
    fields = _flat(properties)
    mapping = fields.get(field)
    others = [name for name, each in fields.items() if each.get("type") == "dense_vector"]
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
        """Take the index and the field. Raises EngineError when kNN cannot search it."""
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
        return _found(self._client, self.field.index, body)

    def known(self, ids: Sequence[str]) -> set[str]:
        """Return those of `ids` that exist."""
        return set(read_documents(self._client, self.field.index, ids, fields=["image_id"]))

    @cached_property
    def _last_sequence(self) -> int:
        return read_extent(self._client, self.field.index).last_sequence


def _found(client: Elasticsearch, index: str, body: Mapping[str, Any]) -> list[str]:
    with engine_errors():
        answer = client.search(index=index, body={**body, "_source": False})
    return [hit["_id"] for hit in answer["hits"]["hits"]]


FIELD = "vector"
WRITTEN_AT_ONCE = 2000
COMPARE_PREFIX = "glimpse-compare"
TRIAL_PREFIX = "glimpse-advise"


class TemporaryIndex:
    """Vectors under ids. Every method raises EngineError when Elasticsearch cannot do it."""

    def __init__(self, client: Elasticsearch, name: str) -> None:
        self._client = client
        self.name = name

    def add(self, ids: Sequence[str], vectors: np.ndarray) -> None:
        """Write float32 `[n, dims]` vectors and make them searchable, as one segment."""
        for start in range(0, len(ids), WRITTEN_AT_ONCE):
            some = slice(start, start + WRITTEN_AT_ONCE)
            actions = (
                {"_op_type": "index", "_id": each, "_source": {FIELD: pack_dense_vector(vector)}}
                for each, vector in zip(ids[some], vectors[some], strict=True)
            )
            refused = send_bulk(self._client, self.name, actions, require_alias=False)
            if refused:
                raise EngineError(f"The index {self.name} refused vectors: {next(iter(refused.values()))}")
        with engine_errors():
            self._client.indices.refresh(index=self.name)
            self._client.indices.forcemerge(index=self.name, max_num_segments=1)

    def nearest(self, vector: np.ndarray, *, k: int, num_candidates: int) -> list[str]:
        """Return the ids of the `k` nearest vectors, nearest first."""
        body = knn_body(field=FIELD, query_vector=vector, k=k, num_candidates=num_candidates)
        return _found(self._client, self.name, body)

    def size_bytes(self) -> int:
        """Return the bytes that the index takes on disk."""
        with engine_errors(), warnings.catch_warnings():
            # The only exact answer: the size in `_stats` is up to ten seconds old.
            warnings.filterwarnings("ignore", message="This API is in technical preview")
            usage = self._client.indices.disk_usage(index=self.name, run_expensive_tasks=True, flush=True)
        return int(usage[self.name]["store_size_in_bytes"])


@contextmanager
def temporary_index(
    client: Elasticsearch,
    *,
    label: str,
    dims: int,
    similarity: str,
    index_options: Mapping[str, Any],
    prefix: str = COMPARE_PREFIX,
) -> Iterator[TemporaryIndex]:
    """Give an empty index `<prefix>-<uuid>-<label>` of one shard, gone after the `with` statement."""
    safe = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in label.lower())
    name = f"{prefix}-{uuid.uuid4()}-{safe[:40]}"
    field = {"type": "dense_vector", "dims": dims, "similarity": similarity, "index_options": index_options}
    settings = {"number_of_shards": 1, "number_of_replicas": 0, "refresh_interval": "-1"}
    mappings = {"dynamic": "strict", "properties": {FIELD: field}}
    # Deleted by name, whether or not the request to create it was answered before an interruption.
    with afterwards(lambda: delete_indices(client, [name])):
        with engine_errors():
            client.indices.create(index=name, settings=settings, mappings=mappings)
        yield TemporaryIndex(client, name)


def delete_indices(client: Elasticsearch, names: Sequence[str]) -> None:
    """Delete indices by name, if they exist. Raises EngineError."""
    for name in names:
        with engine_errors():
            client.options(ignore_status=404).indices.delete(index=name)
