"""Vectors in any number that lie as those of photographs do, and queries beside them as sentences lie.

Fitted on 8 091 photographs and 5 000 sentences. A picture is drawn between a real one and some of its
nearest neighbours, with some of the difference that any two pictures have, so that the clusters of the real
ones stay. A query is a picture that is not in the index, plus what separates a real sentence from the picture
it was written about: the gap between the modalities, and more. `likeness` says how true that is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SHARED = Path(os.environ.get("GLIMPSE_SHARED", Path(__file__).parents[2] / "shared"))
DIMS = 512
BLOCK = 20_000
NEAREST = 32
MIXED = 4
NOISE = 0.4
"""with it, queries have neighbours a little farther than real ones, pictures a little nearer"""


@dataclass(frozen=True)
class Geometry:
    """Real vectors, turned into `DIMS` dims without changing an angle."""

    real: np.ndarray
    """float32 `[pictures, dims of the real ones]`, unit length"""
    nearest: np.ndarray
    """int64 `[pictures, NEAREST + 1]`: the rows of each picture's neighbours, itself among them"""
    apart: np.ndarray
    """float32 `[sentences, dims of the real ones]`: a sentence minus its picture"""
    turn: np.ndarray
    """float32 `[dims of the real ones, DIMS]`, orthonormal rows"""

    def pictures(self, count: int, *, seed: int) -> Iterator[np.ndarray]:
        """Give unit vectors, float32 `[n, DIMS]`, in blocks of at most 20 000."""
        random = np.random.default_rng(seed)
        for start in range(0, count, BLOCK):
            yield self._drawn(min(BLOCK, count - start), random) @ self.turn

    def queries(self, count: int, *, seed: int) -> np.ndarray:
        """Return unit vectors, float32 `[count, DIMS]`."""
        random = np.random.default_rng(seed)
        asked = self._drawn(count, random) + self.apart[random.integers(0, len(self.apart), count)]
        return unit(asked @ self.turn)

    def _drawn(self, count: int, random: np.random.Generator) -> np.ndarray:
        rows = self.nearest[random.integers(0, len(self.real), count)]
        some = np.take_along_axis(rows, random.integers(0, rows.shape[1], (count, MIXED)), axis=1)
        shares = random.dirichlet(np.full(MIXED, 0.5), count).astype(np.float32)
        between = np.einsum("nm,nmd->nd", shares, self.real[some])
        anything = self.real[random.integers(0, len(self.real), count)] - self.real.mean(axis=0)
        return unit(between + np.float32(NOISE) * anything)


def real_vectors() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return unit vectors of pictures and of sentences, and the row of each sentence's picture."""
    stored = np.load(SHARED / "data" / "flickr8k" / "vectors.npz")
    pictures, sentences = (
        unit(stored[name].astype(np.float32)) for name in ("image_vectors", "query_vectors")
    )
    return pictures, sentences, stored["query_image_rows"]


def fitted() -> Geometry:
    """Find the neighbours of the real vectors, and how sentences differ from their pictures."""
    pictures, sentences, rows = real_vectors()
    nearest = np.argpartition(-(pictures @ pictures.T), NEAREST, axis=1)[:, : NEAREST + 1]
    turn, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((DIMS, pictures.shape[1])))
    return Geometry(pictures, nearest, sentences - pictures[rows], turn.T.astype(np.float32))


def likeness(vectors: np.ndarray, queries: np.ndarray) -> list[float]:
    """Return the median cosine of queries with their 1st, 10th and 1 000th neighbour."""
    near = -np.sort(-(queries @ vectors.T), axis=1)
    return [float(np.median(near[:, n - 1])) for n in (1, 10, 1000)]


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return rows of unit length, float32."""
    made: np.ndarray = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return made
