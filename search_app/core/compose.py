"""Combine the parts of a question into one vector, by the scores of each part on a sample of the index.

Texts and pictures lie in different regions of the space, and the similarities of two pictures spread much
farther than those of a text and a picture: added as they are, the picture drowns the words. So each vector is
divided by the deviation of its own scores on the sample, and a part counts as much as its weight says. A
constant, as the gap between texts and pictures adds to each score, does not change an order.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

from es_config.index import ImageIndex
from es_config.relevance import SAMPLE_SIZE, comparable, scores_of
from search_app.errors import QueryError

SAMPLE_SECONDS = 300.0
"""after this time an index is sampled again, since pictures are added and removed"""
LEAST_SAMPLED = 8
"""of fewer pictures a deviation says nothing"""
SMALLEST_DEVIATION = 1e-6
TEXT = 1.25
"""weight of a text beside a picture: it names a fact or two, which the many of the picture must not drown"""
UNWANTED_TEXT, UNWANTED_PICTURE = 0.5, 0.8
"""weight of parts that are not wanted, beside wanted ones: enough to push away, and not so much that what is
wanted is lost (`python -m benchmarks compose`)"""
SMALLEST_SUM = 1e-6


def strength(weight: float, *, is_text: bool, wanted: bool) -> float:
    """Return how much a part counts beside the others, below 0 where it is not wanted."""
    own = weight * (TEXT if is_text else 1.0)
    return own if wanted else -own * (UNWANTED_TEXT if is_text else UNWANTED_PICTURE)


class VectorSample:
    """Vectors of a fixed sample of an index, remembered for five minutes. Thread-safe."""

    def __init__(self, index: ImageIndex, *, read: Callable[[str, int], np.ndarray] | None = None) -> None:
        """Take the index. `read` reads n vectors of a field, float32 `[n, dims]`, instead of the index."""
        self.index = index
        self._read = read
        self._kept: dict[tuple[str, str], tuple[float, np.ndarray]] = {}
        self._lock = threading.Lock()

    def of(self, field: str, size: int = SAMPLE_SIZE) -> np.ndarray:
        """Return up to `size` vectors of a field, ready for `scores_of`. Raises `EngineError`."""
        key = (self.index.name(), field)
        with self._lock:
            read_at, vectors = self._kept.get(key, (0.0, None))
            if vectors is None or time.monotonic() - read_at > SAMPLE_SECONDS:
                read = self._read or self.index.sample_vectors
                vectors = comparable(read(field, size), self.index.meta().similarity)
                # Samples of indices that were replaced go.
                same = {each: kept for each, kept in self._kept.items() if each[0] == key[0]}
                self._kept = {**same, key: (time.monotonic(), vectors)}
            return vectors


def combined(
    vectors: Sequence[np.ndarray], weights: Sequence[float], *, sample: np.ndarray, similarity: str
) -> np.ndarray:
    """Return the vector, float32 `[dims]`, unit length, whose neighbours answer all parts together.

    `vectors` are float32 `[dims]`, `weights` below 0 are those of parts that are not wanted. Raises
    `QueryError` when the parts cancel each other.
    """
    rows = np.stack(vectors).astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    deviations = np.ones(len(rows))
    if len(sample) >= LEAST_SAMPLED:
        deviations = scores_of(rows.astype(np.float32), sample, similarity).std(axis=1)
    if deviations.min() < SMALLEST_DEVIATION:  # all of the sample is the same picture
        deviations = np.ones(len(rows))
    strengths = np.asarray(weights) / deviations
    whole: np.ndarray = strengths @ rows
    length = float(np.linalg.norm(whole))
    if length < SMALLEST_SUM * np.abs(strengths).sum():
        raise QueryError("The parts of the question cancel each other: leave one out, or change a weight.")
    return (whole / length).astype(np.float32)
