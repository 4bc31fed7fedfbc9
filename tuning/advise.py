"""A sample of the user's own vectors in every type of index, side by side, and a recommendation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from es_config.scan import PointInTime, point_in_time
from tuning.points import Point, finalists
from tuning.queries import Queries
from tuning.report import cells
from tuning.run import FINALS, MOST_TIMED, Goal, halves, latencies
from tuning.sweep import Sample, Subject, measure, search_body, sweep
from tuning.trials import FEWEST_DIMS_OF_BBQ, Candidate, Trials, Weight
from tuning.truth import scanned_truth

if TYPE_CHECKING:
    import numpy as np
    from elasticsearch import Elasticsearch
    from rich.table import Table

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
    """The copied sample: ids and float32 `[n, dims]`, with the queries that are asked."""

    ids: Sequence[str]
    vectors: np.ndarray
    queries: Queries
    similarity: str


def candidates(
    types: Sequence[str], graphs: Sequence[tuple[int, int]] = GRAPHS, *, dims: int
) -> list[Candidate]:
    """Return the candidates: each flat type once, each graph type with each `m` and `ef_construction`."""
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
    """Make an index of each candidate, measure it, and return the results. Raises EngineError."""
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


NEARLY_AS_FAST = 1.25
NEARLY_AS_SMALL = 1.05


@dataclass(frozen=True)
class Recommendation:
    """The chosen one, if any, and why."""

    advice: Advice | None
    sentence: str


def expected_ms(advice: Advice, *, sample: int, documents: int) -> float:
    """Return the p50 to expect for all documents: without a graph it grows with their number."""
    p50 = advice.point.latency.p50_ms
    return p50 if advice.candidate.m else p50 * max(1.0, documents / sample)


def recommend(found: Sequence[Advice], *, target: float, sample: int, documents: int) -> Recommendation:
    """Return the smallest in memory of those that meet the target and are within 25 % of the fastest.

    Of those of equal size the one that is built sooner.
    """
    able = {
        number: expected_ms(advice, sample=sample, documents=documents)
        for number, advice in enumerate(found)
        if advice.meets
    }
    if not able:
        best = max(found, key=lambda advice: advice.point.recall_low)
        return Recommendation(None, _none(best, target))
    fastest = min(able, key=able.__getitem__)
    near = [found[number] for number, ms in able.items() if ms <= NEARLY_AS_FAST * able[fastest]]
    smallest = min(advice.weight.memory_bytes for advice in near)
    small = [advice for advice in near if advice.weight.memory_bytes <= NEARLY_AS_SMALL * smallest]
    chosen = min(small, key=lambda advice: advice.weight.index_seconds)
    ms = expected_ms(chosen, sample=sample, documents=documents)
    return Recommendation(chosen, _why(chosen, ms, found[fastest], able[fastest]))


def _none(best: Advice, target: float) -> str:
    return (
        f"No type meets recall {target:g} on this sample; the best is {best.candidate} with "
        f"{best.point.setting}: {best.point.recall:.4f} (at least {best.point.recall_low:.4f}). Try larger "
        "m and ef_construction, or a lower target."
    )


def _why(chosen: Advice, ms: float, fastest: Advice, fastest_ms: float) -> str:
    setting = chosen.point.setting
    start = (
        f"Take {chosen.candidate}, and search with {setting}: recall {chosen.point.recall:.4f} in {ms:.2f} "
        f"ms with {megabytes(chosen.weight.memory_bytes)} of memory."
    )
    if chosen is fastest:
        return f"{start} It is the fastest that meets the target, and none as fast is smaller."
    share = chosen.weight.memory_bytes / fastest.weight.memory_bytes
    return (
        f"{start} The fastest, {fastest.candidate}, takes {fastest_ms:.2f} ms; this one is within 25 % of it "
        f"and needs {share:.0%} of its memory."
    )


def megabytes(count: int) -> str:
    """Return bytes as people read them."""
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.2f} GB"


def advice_table(found: Sequence[Advice], chosen: Advice | None) -> Table:
    """Return a table, the recommended row in bold, those that miss the target dim."""
    from rich import box
    from rich.table import Table

    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    shown.add_column("index", no_wrap=True)
    computed = any(advice.weight.memory_source == "computed" for advice in found)
    memory = "memory (computed)" if computed else "memory"
    for name in ("candidates", "oversample", "recall", "at least", "p50 ms", "index s", "disk", memory):
        shown.add_column(name, justify="right", no_wrap=True)
    for advice in found:
        style = "bold" if advice is chosen else None if advice.meets else "dim"
        tried, weight = advice.candidate, advice.weight
        graph = f", m {tried.m}, ef {tried.ef_construction}" if tried.m else ""
        sizes = megabytes(weight.disk_bytes), megabytes(weight.memory_bytes)
        row = (f"{tried.index_type}{graph}", *cells(advice.point), f"{weight.index_seconds:.1f}", *sizes)
        shown.add_row(*row, style=style)
    return shown
