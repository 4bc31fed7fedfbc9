"""A sample of the user's own vectors in every type of index, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from es_config.scan import PointInTime, point_in_time
from es_config.trial_index import FEWEST_DIMS_OF_BBQ, Candidate, Trials, Weight
from tuning.latency import latencies
from tuning.pick import finalists
from tuning.points import Point
from tuning.queries import Queries
from tuning.run import FINALS, MOST_TIMED, Goal, halves
from tuning.sweep import Sample, Subject, measure, search_body, sweep
from tuning.truth import scanned_truth

if TYPE_CHECKING:
    import numpy as np
    from elasticsearch import Elasticsearch

    from es_config.vector_field import VectorField

GRAPHS = ((16, 100), (32, 200))
"""`m` and `ef_construction` that are tried"""


@dataclass(frozen=True)
class Advice:
    """One type of index, at its own cheapest setting that meets the target, or at its best one."""

    candidate: Candidate
    weight: Weight
    point: Point
    meets: bool

    def to_json(self) -> dict[str, Any]:
        """Return one flat object."""
        weight = {**vars(self.weight), "index_seconds": round(self.weight.index_seconds, 2)}
        return {**vars(self.candidate), "meets": self.meets, **self.point.to_json(), **weight}


@dataclass(frozen=True)
class Material:
    """What is copied: ids and float32 `[n, dims]`, with the queries that are asked."""

    ids: Sequence[str]
    vectors: np.ndarray
    queries: Queries
    similarity: str


def candidates(
    types: Sequence[str], graphs: Sequence[tuple[int, int]] = GRAPHS, *, dims: int
) -> list[Candidate]:
    """Return what is tried: each flat type once, each graph type with each `m` and `ef_construction`."""
    possible = [each for each in types if dims >= FEWEST_DIMS_OF_BBQ or not each.startswith("bbq")]
    return [
        candidate
        for each in possible
        for candidate in (
            [Candidate(each, *graph) for graph in graphs] if each.endswith("hnsw") else [Candidate(each)]
        )
    ]


def advise(
    client: Elasticsearch,
    trials: Trials,
    material: Material,
    tried: Sequence[Candidate],
    *,
    k: int,
    goal: Goal,
    say: Callable[[str], None],
) -> list[Advice]:
    """Make an index of each candidate, measure it, and return what each gives. Raises EngineError."""
    truth = scanned_truth(
        [(material.ids, material.vectors)], material.queries.vectors, k=k, similarity=material.similarity
    )
    chosen, _ = halves(Sample(material.queries.vectors, truth), goal.target)
    found: list[tuple[VectorField, Advice]] = []
    for number, candidate in enumerate(tried, 1):
        say(f"{number} of {len(tried)}: {candidate} …")
        field, weight = trials.add(candidate, material.ids, material.vectors, similarity=material.similarity)
        with point_in_time(client, field.index) as view:
            point = settled(view, field, chosen, k=k, target=goal.target)
        found.append((field, Advice(candidate, weight, point, point.meets(goal.target))))
    say(f"Latency of {len(found)} indices, in turn …")
    return _timed(client, found, chosen, k=k, rounds=FINALS * goal.rounds)


def settled(view: PointInTime, field: VectorField, sample: Sample, *, k: int, target: float) -> Point:
    """Return the setting of an index that meets the target with the fewest vectors compared, or the best."""
    subject = Subject(view, field, k)
    points = sweep(lambda setting: measure(subject, sample, setting), field=field, k=k, target=target)
    able = [point for point in finalists(points, target) if point.meets(target)]
    if able:
        return min(able, key=lambda point: (point.operations, point.rescored))
    return max(points, key=lambda point: (point.recall_low, -point.operations))


def _timed(
    client: Elasticsearch, found: list[tuple[VectorField, Advice]], sample: Sample, *, k: int, rounds: int
) -> list[Advice]:
    some = sample.queries[:MOST_TIMED]
    searches = {
        number: [(field.index, search_body(field, query, advice.point.setting, k=k)) for query in some]
        for number, (field, advice) in enumerate(found)
    }
    taken = latencies(client, searches, rounds=rounds)
    return [
        replace(advice, point=advice.point.timed(taken[number])) for number, (_, advice) in enumerate(found)
    ]
