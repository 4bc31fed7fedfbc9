"""The exact neighbours of queries, and how certain a mean recall is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from es_config.documents import unit_rows

TOLERANCE = 1e-6
"""closeness that differs by less is a tie, for float32 says no more"""
MARGIN = 20
"""neighbours kept beyond `k`, to see where a tie ends"""
BLOCK = 4_000
"""vectors compared at a time"""
CONFIDENCE = 0.95
ONE_MISS = 4.75
"""trials times the 95 % bound of the share of misses, after one miss"""
REACHED = 0.9
"""recall that a single query must reach to count as well served"""


def closeness(queries: np.ndarray, vectors: np.ndarray, similarity: str) -> np.ndarray:
    """Return float32 or float64 `[queries, vectors]` from float32 `[n, dims]` of both.

    The cosine for `cosine`, the dot product for `dot_product` and `max_inner_product`, and the negative
    squared distance for `l2_norm`, in float64 since large squares are subtracted.
    """
    close: np.ndarray
    if similarity == "cosine":
        close = unit_rows(queries) @ unit_rows(vectors).T
    elif similarity == "l2_norm":
        wide, many = queries.astype(np.float64), vectors.astype(np.float64)
        squares = (wide**2).sum(axis=1)[:, None] + (many**2).sum(axis=1)[None, :]
        close = np.minimum(2 * wide @ many.T - squares, 0)
    else:
        close = queries @ vectors.T
    return close


@dataclass(frozen=True)
class Truth:
    """The `k` nearest of each query, with those that tie with the last of them."""

    k: int
    documents: int
    """that could be found"""
    limits: np.ndarray
    """float64 `[n]`: a document at least so close is a right answer"""
    right: tuple[frozenset[str], ...]
    """ids of the right answers of each query"""
    open_ties: np.ndarray
    """bool `[n]`: more documents tie than were kept, so an id that is not in `right` may be right, too"""

    @property
    def wanted(self) -> int:
        """The most neighbours that a search can give."""
        return min(self.k, self.documents)

    def part(self, rows: slice) -> Truth:
        """Return the truth of some of the queries."""
        return Truth(self.k, self.documents, self.limits[rows], self.right[rows], self.open_ties[rows])


def scanned_truth(
    blocks: Iterable[tuple[Sequence[str], np.ndarray]], queries: np.ndarray, *, k: int, similarity: str
) -> Truth:
    """Return the truth from blocks of ids and vectors, as `scan_view` gives them.

    One block of 4 000 vectors is in memory at a time.
    """
    documents, depth = 0, k + MARGIN
    close = np.full((len(queries), depth), -np.inf)
    ids = np.full((len(queries), depth), None, dtype=object)
    for some, vectors in _larger(blocks):
        documents += len(some)
        everything = np.hstack([close, closeness(queries, vectors, similarity)])
        best = np.argpartition(-everything, depth - 1, axis=1)[:, :depth]
        fresh = np.array(some, dtype=object)[np.maximum(best - depth, 0)]
        kept = np.take_along_axis(ids, np.minimum(best, depth - 1), axis=1)
        ids = np.where(best < depth, kept, fresh)
        close = np.take_along_axis(everything, best, axis=1)
    order = np.argsort(-close, axis=1)
    ids, close = (np.take_along_axis(each, order, axis=1) for each in (ids, close))
    return as_truth(ids, close, k=k, documents=documents, similarity=similarity)


def _larger(blocks: Iterable[tuple[Sequence[str], np.ndarray]]) -> Iterable[tuple[list[str], np.ndarray]]:
    """Join small blocks, as one large product is faster than many small ones."""
    ids: list[str] = []
    parts: list[np.ndarray] = []
    for some, vectors in blocks:
        ids.extend(some)
        parts.append(vectors)
        if len(ids) >= BLOCK:
            yield ids, np.concatenate(parts)
            ids, parts = [], []
    if ids:
        yield ids, np.concatenate(parts)


def as_truth(ids: np.ndarray, close: np.ndarray, *, k: int, documents: int, similarity: str) -> Truth:
    """Return the truth from ids and closeness, `[n, depth]`, nearest first, -inf for missing ones.

    Between unit vectors float32 errs by about 1e-7 whatever the angle; between others, by that share of the
    numbers. What lies within the error of the last neighbour ties with it.
    """
    wanted = min(k, documents)
    largest = np.abs(np.where(np.isfinite(close), close, 0)).max(axis=1)
    width = TOLERANCE * (np.maximum(largest, 1) if similarity in ("cosine", "dot_product") else largest)
    limits = close[:, wanted - 1] - width if wanted else np.zeros(len(close))
    is_right = np.isfinite(close) & (close >= limits[:, None])
    right = tuple(frozenset(row[chosen]) for row, chosen in zip(ids, is_right, strict=True))
    return Truth(k, documents, limits, right, is_right[:, -1] & (documents > close.shape[1]))


def lower_bound(recalls: np.ndarray, *, k: int) -> float:
    """Return the one-sided lower bound of the mean recall of queries with `k` neighbours each.

    This is the interval of Korn and Graubard (1998) for clustered proportions near 1: the exact binomial
    bound of Clopper and Pearson, with the sample of `n * k` neighbours made smaller by the design effect,
    since misses come together in hard queries. Near 1 recalls are so skewed that a t bound or a bootstrap
    promises too much: a sample without a miss has no variance, and both would say 1. Here such a sample
    counts as if one neighbour had been missed.
    """
    from scipy.stats import beta

    trials = len(recalls) * k
    mean = min(float(np.mean(recalls)), 1 - 1 / trials)
    size = trials / design_effect(recalls, k=k)
    return float(beta.ppf(1 - CONFIDENCE, mean * size, (1 - mean) * size + 1))


def design_effect(recalls: np.ndarray, *, k: int) -> float:
    """Return by how much the variance exceeds that of `n * k` independent neighbours, at least 1."""
    mean = float(np.mean(recalls))
    if len(recalls) < 2 or mean in (0.0, 1.0):
        return 1.0
    independent = mean * (1 - mean) / (len(recalls) * k)
    observed = float(np.var(recalls, ddof=1)) / len(recalls)
    return max(1.0, observed / independent)


def best_bound(queries: int, *, k: int) -> float:
    """Return the highest bound that a sample can give, that of a perfect one."""
    return lower_bound(np.ones(queries), k=k)


def needed_queries(target: float, *, k: int) -> int:
    """Return the number of queries that show a target when none has a miss, by the rule for one miss."""
    return math.ceil(ONE_MISS / (k * (1 - target)))


def share_reached(recalls: np.ndarray) -> float:
    """Return the share of queries whose own recall is at least 0.9."""
    return float(np.mean(recalls >= REACHED - 1e-9))
