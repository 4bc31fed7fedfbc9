"""Indices of copied vectors for the time of a trial: made, weighed, and gone however the trial ends."""

from __future__ import annotations

import time
import uuid
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from es_config.client import engine_errors
from es_config.errors import EngineError
from es_config.vector_field import read_vector_field

if TYPE_CHECKING:
    import numpy as np
    from elasticsearch import Elasticsearch

    from es_config.vector_field import VectorField

PREFIX = "glimpse-advise-"
FIELD = "vector"
BULK = 500
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
        self.prefix = f"{PREFIX}{uuid.uuid4()}-"

    def add(
        self, candidate: Candidate, ids: Sequence[str], vectors: np.ndarray, *, similarity: str
    ) -> tuple[VectorField, Weight]:
        """Make an index, copy float32 `[n, dims]` into it, merge it, and weigh it. Raises EngineError."""
        slug = str(candidate).replace(", ", "-").replace(" ", "").replace("_", "-")
        name = f"{self.prefix}{slug}"
        mapping = self._mapping(candidate, vectors.shape[1], similarity)
        settings = {"number_of_shards": 1, "number_of_replicas": 0, "refresh_interval": "-1"}
        started = time.perf_counter()
        with engine_errors():
            self._client.indices.create(
                index=name,
                settings=settings,
                mappings={"dynamic": "strict", "properties": {FIELD: mapping}},
            )
        self._fill(name, ids, vectors)
        with engine_errors():
            self._client.indices.refresh(index=name)
            self._client.indices.forcemerge(index=name, max_num_segments=1)
        seconds = time.perf_counter() - started
        return read_vector_field(self._client, name, FIELD), self._weight(name, candidate, vectors, seconds)

    def delete(self) -> None:
        """Delete every index of this trial."""
        delete_trials(self._client, trial_names(self._client, self.prefix))

    def _mapping(self, candidate: Candidate, dims: int, similarity: str) -> dict:
        options = {
            "type": candidate.index_type,
            "m": candidate.m,
            "ef_construction": candidate.ef_construction,
        }
        given = {name: value for name, value in options.items() if value is not None}
        return {"type": "dense_vector", "dims": dims, "similarity": similarity, "index_options": given}

    def _fill(self, name: str, ids: Sequence[str], vectors: np.ndarray) -> None:
        from elasticsearch.helpers import pack_dense_vector

        for start in range(0, len(ids), BULK):
            rows = range(start, min(start + BULK, len(ids)))
            pairs = (({"index": {"_id": ids[row]}}, {FIELD: pack_dense_vector(vectors[row])}) for row in rows)
            with engine_errors():
                answer = self._client.bulk(index=name, operations=[part for pair in pairs for part in pair])
            if answer["errors"]:
                errors = (item["index"]["error"] for item in answer["items"] if "error" in item["index"])
                raise EngineError(f"The trial index {name} refused vectors: {next(errors)['reason']}")

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
    try:
        yield ours
    finally:
        ours.delete()


def trial_names(client: Elasticsearch, prefix: str = PREFIX) -> list[str]:
    """Return the names of trial indices, of this run or left over from others."""
    with engine_errors():
        return sorted(client.indices.get(index=f"{prefix}*", features="aliases").body)


def delete_trials(client: Elasticsearch, names: Sequence[str]) -> None:
    """Delete trial indices by name; one that is gone already is no error."""
    for name in names:
        with engine_errors():
            client.options(ignore_status=404).indices.delete(index=name)
