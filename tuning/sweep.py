"""The recall pass: every setting against the exact neighbours, with the vectors compared as its cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from es_config.requests import MAX_CANDIDATES, knn_body
from es_config.scan import vectors_of
from tuning.bounds import lower_bound, share_reached
from tuning.closeness import closeness
from tuning.ladder import bisect, climb, is_same, oversamples
from tuning.points import HeldOut, Point, Setting

if TYPE_CHECKING:
    import numpy as np

    from es_config.scan import PointInTime
    from es_config.vector_field import VectorField
    from tuning.truth import Truth

TOGETHER = 50
ANSWER = ["hits.hits._id", "profile.shards.dfs.knn.vector_operations_count"]


@dataclass(frozen=True)
class Subject:
    """The searches that are measured: one field of one frozen view, with or without filters."""

    view: PointInTime
    field: VectorField
    k: int
    filters: tuple[dict[str, Any], ...] = ()

    def body(self, query: np.ndarray, setting: Setting) -> dict[str, Any]:
        """Return the search for one query, float32 `[dims]`; nothing but ids comes back."""
        return search_body(self.field, query, setting, k=self.k, filters=self.filters)


def search_body(
    field: VectorField,
    query: np.ndarray,
    setting: Setting,
    *,
    k: int,
    filters: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """Return the kNN search for one query, float32 `[dims]`; nothing but ids comes back."""
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
class Sample:
    """Queries, float32 `[n, dims]`, with their exact neighbours."""

    queries: np.ndarray
    truth: Truth

    def part(self, rows: slice) -> Sample:
        """Return some of the queries."""
        return Sample(self.queries[rows], self.truth.part(rows))


def measure_recall(subject: Subject, sample: Sample, setting: Setting) -> tuple[np.ndarray, float]:
    """Return recall@k of each query, float64 `[n]`, and the mean of the vectors compared.

    An id whose vector is as near as the k-th neighbour's is right, whatever its id.
    """
    import numpy as np

    bodies = [{**subject.body(query, setting), "profile": True} for query in sample.queries]
    answers: list[dict[str, Any]] = []
    for start in range(0, len(bodies), TOGETHER):
        answers += subject.view.msearch(bodies[start : start + TOGETHER], filter_path=ANSWER)
    found = [[hit["_id"] for hit in answer.get("hits", {}).get("hits", [])] for answer in answers]
    right = [sum(each in truth for each in ids) for ids, truth in zip(found, sample.truth.right, strict=True)]
    for row in np.flatnonzero(sample.truth.open_ties):
        right[row] += _tied(subject, sample, int(row), set(found[row]) - sample.truth.right[row])
    operations = [_operations(answer) for answer in answers]
    return np.array(right) / max(1, sample.truth.wanted), float(np.mean(operations))


def _tied(subject: Subject, sample: Sample, row: int, ids: set[str]) -> int:
    """Return how many of `ids` are as near as the k-th neighbour, by their vectors."""
    import numpy as np

    vectors = vectors_of(subject.view, sorted(ids), field=subject.field.name)
    if not vectors:
        return 0
    near = closeness(
        sample.queries[row : row + 1], np.stack(list(vectors.values())), subject.field.similarity
    )
    return int((near[0] >= sample.truth.limits[row]).sum())


def _operations(answer: dict[str, Any]) -> float:
    shards = answer.get("profile", {}).get("shards", [])
    sections = [section for shard in shards for section in shard.get("dfs", {}).get("knn", [])]
    return sum(section.get("vector_operations_count", 0) for section in sections)


def measure(subject: Subject, sample: Sample, setting: Setting) -> Point:
    """Return a setting with everything but its latency."""
    recalls, operations = measure_recall(subject, sample, setting)
    if not subject.field.has_graph:
        operations = sample.truth.documents
    return as_point(recalls, operations, setting, field=subject.field, k=max(1, sample.truth.wanted))


def as_point(
    recalls: np.ndarray, operations: float, setting: Setting, *, field: VectorField, k: int
) -> Point:
    """Return what the recall of each query, `[n]`, says of a setting."""
    return Point(
        setting=setting,
        index_type=field.index_type,
        recall=float(recalls.mean()),
        recall_low=lower_bound(recalls, k=k),
        served=share_reached(recalls),
        operations=operations,
        rescored=setting.oversample or field.oversample or 1.0,
    )


def measure_again(subject: Subject, sample: Sample, setting: Setting) -> HeldOut:
    """Return what a chosen setting gives on other queries."""
    point = measure(subject, sample, setting)
    return HeldOut(point.recall, point.recall_low, point.served, len(sample.queries))


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
