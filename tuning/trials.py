"""Temporary indices of each type, with their costs, for `glimpse advise`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from es_config.client import engine_errors
from es_config.vector_field import FIELD, TRIAL_PREFIX, VectorField, read_vector_field, temporary_index

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

BITS = {"int8": 8, "int4": 4, "bbq": 1}
FEWEST_DIMS_OF_BBQ = 64
"""Elasticsearch refuses one-bit vectors of fewer dims"""


@dataclass(frozen=True)
class IndexVariant:
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
    """The costs of an index."""

    index_seconds: float
    """writing, refresh and merging into one segment"""
    disk_bytes: int
    memory_bytes: int
    """bytes that a search walks through, so that belong into the page cache: (quantised) vectors and graph"""
    memory_source: str
    """`measured` by Elasticsearch (`index/_stats`), or `computed` here from dims and bits"""


class Trials:
    """The indices of one trial, deleted when its context ends."""

    def __init__(self, client: Elasticsearch, opened: ExitStack) -> None:
        self._client = client
        self._opened = opened

    def add(
        self, variant: IndexVariant, ids: Sequence[str], vectors: np.ndarray, *, similarity: str
    ) -> tuple[VectorField, Weight]:
        """Make an index, copy float32 `[n, dims]` into it, merge it, and weigh it. Raises EngineError."""
        started = time.perf_counter()
        index = self._opened.enter_context(
            temporary_index(
                self._client,
                label=str(variant),
                dims=vectors.shape[1],
                similarity=similarity,
                index_options=variant.options,
                prefix=TRIAL_PREFIX,
            )
        )
        index.add(ids, vectors)
        seconds = time.perf_counter() - started
        disk = index.size_bytes()
        with engine_errors():
            stats = self._client.indices.stats(index=index.name, metric="dense_vector")
        off_heap = stats["_all"]["primaries"].get("dense_vector", {}).get("off_heap")
        memory = walked_bytes(off_heap) if off_heap else computed_bytes(variant, *vectors.shape)
        source = "measured" if off_heap else "computed"
        field = read_vector_field(self._client, index.name, FIELD)
        return field, Weight(seconds, disk, memory, source)


@contextmanager
def trials(client: Elasticsearch) -> Iterator[Trials]:
    """Give trial indices for the body of a `with` statement, and delete them at its end."""
    with ExitStack() as opened:
        yield Trials(client, opened)


def trial_names(client: Elasticsearch) -> list[str]:
    """Return the names of trial indices, of this run or left over from others. Raises EngineError."""
    with engine_errors():
        return sorted(client.indices.get(index=f"{TRIAL_PREFIX}-*", features="aliases").body)


def walked_bytes(off_heap: dict[str, int]) -> int:
    """Return the bytes that a search walks through: all except the full vectors beside quantised ones.

    Those are read only to rescore the few best.
    """
    total = off_heap["total_size_bytes"]
    quantised = off_heap.get("total_veq_size_bytes", 0) + off_heap.get("total_veb_size_bytes", 0)
    return total - off_heap.get("total_vec_size_bytes", 0) if quantised else total


def computed_bytes(variant: IndexVariant, count: int, dims: int) -> int:
    """Return about how many bytes a search walks through: each number in its bits, and a byte for a link."""
    bits = next((bits for kind, bits in BITS.items() if variant.index_type.startswith(kind)), 32)
    return count * (dims * bits // 8 + 2 * (variant.m or 0))
