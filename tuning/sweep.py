"""The recall pass: every setting against the exact neighbours, in a climb towards the target."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from es_config.requests import MAX_CANDIDATES, knn_body
from es_config.scan import PointInTime, vectors_of
from es_config.vector_field import VectorField
from search_app.core.query import CANDIDATE_STEPS
from tuning.points import HeldOut, Point, Setting
from tuning.truth import Truth, closeness, lower_bound, share_reached

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
