"""The recall pass: the exact neighbours of queries, then every setting in a climb to the target recall."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from es_config.documents import unit_rows
from es_config.requests import MAX_CANDIDATES, knn_body
from es_config.scan import PointInTime, vectors_of
from es_config.vector_field import VectorField
from search_app.core.query import CANDIDATE_STEPS
from tuning.points import HeldOut, Point, Setting

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


FINE = 1.06
"""settings nearer to each other than this factor differ by less than latency can be measured"""
NEXT = (1.08, 1.17, 1.27)
BEYOND = 2
"""steps beyond the first that meets the target"""
SAME = 0.001
"""a smaller difference of mean recall does not count"""
FLAT_STEPS = 4
FLAT = 0.0005
"""a smaller rise of mean recall over that many steps does not count"""
TOGETHER = 50
"""searches of one request"""
ANSWER = ["hits.hits._id", "profile.shards.dfs.knn.vector_operations_count"]


def oversamples(field: VectorField) -> tuple[float | None, ...]:
    """Return the oversamplings that make a difference for a field, rising. None is the index's default."""
    if not field.is_quantised:
        return (None,)
    own = field.oversample or 1.0
    usual = (2.0, 3.0, 5.0, 10.0) if field.index_type.startswith("bbq") else (1.5, 2.0, 3.0, 5.0)
    return tuple(None if each == own else each for each in sorted({own, *usual}))


def steps(k: int, *, least: int, most: int) -> Iterator[int]:
    """Give rising numbers of candidates from `least` to `most`, both included."""
    yield least
    scale, last = 1, least
    while last < most:
        for factor in CANDIDATE_STEPS:
            step = min(math.ceil(factor * scale * k), most)
            if step > last:
                yield (last := step)
        scale *= 10


def climb(
    look: Callable[[Setting], Point],
    *,
    k: int,
    oversample: float | None,
    target: float,
    least: int = 1,
    most: int,
) -> list[Point]:
    """Measure rising `num_candidates` until two more than needed have met the target, or nothing rises.

    Two more even where the first of them misses nothing: it may not hold on other queries.
    """
    least = max(k, least, math.ceil(k * (oversample or 1)))
    curve: list[Point] = []
    for step in steps(k, least=least, most=max(most, least)):
        curve.append(look(Setting(step, oversample)))
        met = sum(point.meets(target) for point in curve)
        risen = curve[-1].recall - curve[-1 - FLAT_STEPS].recall if len(curve) > FLAT_STEPS else FLAT
        if met > BEYOND or (met == 0 and risen < FLAT):
            break
    return curve


def is_same(before: list[Point], curve: list[Point]) -> bool:
    """Whether a curve is no better than the one before it, so that still more rescoring gains nothing."""
    recalls = {point.setting.num_candidates: point.recall for point in before}
    common = [point for point in curve if point.setting.num_candidates in recalls]
    return bool(common) and all(
        point.recall - recalls[point.setting.num_candidates] < SAME for point in common
    )


def bisect(look: Callable[[Setting], Point], curve: list[Point], *, target: float) -> None:
    """Measure between the last point that fails and the first that meets the target, until they are near.

    A few small steps beyond are measured as well: the next choices, should the first not be confirmed.
    """
    for below, above in pairwise(curve):
        if above.meets(target) and not below.meets(target):
            low, high = below.setting.num_candidates, above.setting.num_candidates
            while high > FINE * low + 1:
                middle = round(math.sqrt(low * high))
                if look(Setting(middle, above.setting.oversample)).meets(target):
                    high = middle
                else:
                    low = middle
            for factor in NEXT:
                if (step := math.ceil(factor * high)) < above.setting.num_candidates:
                    look(Setting(step, above.setting.oversample))
            return


@dataclass(frozen=True)
class Subject:
    """The searches that are measured: one field of one frozen view, with or without filters."""

    view: PointInTime
    field: VectorField
    k: int
    filters: tuple[dict[str, Any], ...] = ()

    def body(self, query: np.ndarray, setting: Setting) -> dict[str, Any]:
        """Return the search for one query, float32 `[dims]`, which returns ids only."""
        return search_body(self.field, query, setting, k=self.k, filters=self.filters)


def search_body(
    field: VectorField,
    query: np.ndarray,
    setting: Setting,
    *,
    k: int,
    filters: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """Return the kNN search for one query, float32 `[dims]`, which returns ids only."""
    body = knn_body(
        field=field.name,
        query_vector=query,
        k=k,
        num_candidates=setting.num_candidates,
        oversample=setting.oversample,
    )
    if filters:
        body["knn"]["filter"] = list(filters)
    return {**body, "_source": False}


@dataclass(frozen=True)
class JudgedQueries:
    """Queries, float32 `[n, dims]`, with their exact neighbours."""

    queries: np.ndarray
    truth: Truth

    def part(self, rows: slice) -> JudgedQueries:
        """Return some of the queries."""
        return JudgedQueries(self.queries[rows], self.truth.part(rows))


def measure_recall(subject: Subject, judged: JudgedQueries, setting: Setting) -> tuple[np.ndarray, float]:
    """Return recall@k of each query, float64 `[n]`, and the mean of the vectors compared.

    An id whose vector is as near as the k-th neighbour's is right, whatever its id.
    """
    bodies = [{**subject.body(query, setting), "profile": True} for query in judged.queries]
    answers: list[dict[str, Any]] = []
    for start in range(0, len(bodies), TOGETHER):
        answers += subject.view.msearch(bodies[start : start + TOGETHER], filter_path=ANSWER)
    found = [[hit["_id"] for hit in answer.get("hits", {}).get("hits", [])] for answer in answers]
    right = [sum(each in truth for each in ids) for ids, truth in zip(found, judged.truth.right, strict=True)]
    for row in np.flatnonzero(judged.truth.open_ties):
        right[row] += _tied(subject, judged, int(row), set(found[row]) - judged.truth.right[row])
    operations = [_operations(answer) for answer in answers]
    return np.array(right) / max(1, judged.truth.wanted), float(np.mean(operations))


def _tied(subject: Subject, judged: JudgedQueries, row: int, ids: set[str]) -> int:
    """Return how many of `ids` are as near as the k-th neighbour, by their vectors."""
    vectors = vectors_of(subject.view, sorted(ids), field=subject.field.name)
    if not vectors:
        return 0
    query, others = judged.queries[row : row + 1], np.stack(list(vectors.values()))
    near = closeness(query, others, subject.field.similarity)
    return int((near[0] >= judged.truth.limits[row]).sum())


def _operations(answer: dict[str, Any]) -> int:
    shards = answer.get("profile", {}).get("shards", [])
    sections = [section for shard in shards for section in shard.get("dfs", {}).get("knn", [])]
    return sum(int(section.get("vector_operations_count", 0)) for section in sections)


def measure(subject: Subject, judged: JudgedQueries, setting: Setting) -> Point:
    """Return a setting with everything but its latency."""
    recalls, operations = measure_recall(subject, judged, setting)
    if not subject.field.has_graph:
        operations = judged.truth.documents
    return as_point(recalls, operations, setting, field=subject.field, k=max(1, judged.truth.wanted))


def as_point(
    recalls: np.ndarray, operations: float, setting: Setting, *, field: VectorField, k: int
) -> Point:
    """Return a setting with the recall of each query, `[n]`, summed up."""
    return Point(
        setting=setting,
        index_type=field.index_type,
        recall=float(recalls.mean()),
        recall_low=lower_bound(recalls, k=k),
        served=share_reached(recalls),
        operations=operations,
        rescored=setting.oversample or field.oversample or 1.0,
    )


def measure_again(subject: Subject, judged: JudgedQueries, setting: Setting) -> HeldOut:
    """Return the recall of a chosen setting on other queries."""
    point = measure(subject, judged, setting)
    return HeldOut(point.recall, point.recall_low, point.served, len(judged.queries))


def sweep(
    look: Callable[[Setting], Point],
    *,
    field: VectorField,
    k: int,
    target: float,
    least: int = 1,
    known: Mapping[Setting, Point] | None = None,
) -> list[Point]:
    """Look at settings until each oversampling has met `target` or stopped rising, then close in on it.

    `look` measures one setting; none is measured twice, and none of those that are `known`, which are
    returned as well. No setting has fewer than `least` candidates.
    """
    points = dict(known or {})

    def once(setting: Setting) -> Point:
        if setting not in points:
            points[setting] = look(setting)
        return points[setting]

    most = MAX_CANDIDATES if field.has_graph else k
    before: list[Point] = []
    for oversample in oversamples(field):
        curve = climb(once, k=k, oversample=oversample, target=target, least=least, most=most)
        bisect(once, curve, target=target)
        if before and is_same(before, curve):
            break
        before = curve
    return list(points.values())
