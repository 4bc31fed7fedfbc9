"""A sample of the user's own vectors in every type of index, side by side, and a recommendation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from es_config.client import engine_errors
from es_config.scan import PointInTime, point_in_time, sample_view
from es_config.vector_field import FIELD, TRIAL_PREFIX, VectorField, read_vector_field, temporary_index
from tuning.points import Point, finalists
from tuning.queries import Corpus, Queries
from tuning.report import cells
from tuning.run import FINALS, MOST_TIMED, Goal, halves, latencies
from tuning.sweep import JudgedQueries, Subject, measure, scanned_truth, search_body, sweep

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch
    from rich.table import Table

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


NEARLY_AS_FAST = 1.25
NEARLY_AS_SMALL = 1.05


@dataclass(frozen=True)
class Advice:
    """One type of index, at its own cheapest setting that meets the target, or at its best one."""

    variant: IndexVariant
    weight: Weight
    point: Point
    meets: bool

    def to_json(self) -> dict[str, Any]:
        """Return one flat object."""
        weight = {**vars(self.weight), "index_seconds": round(self.weight.index_seconds, 2)}
        return {**vars(self.variant), "meets": self.meets, **self.point.to_json(), **weight}


def variants(types: Sequence[str], graphs: Sequence[tuple[int, int]], *, dims: int) -> list[IndexVariant]:
    """Return each flat type once, and each graph type with each `m` and `ef_construction`."""
    possible = [each for each in types if dims >= FEWEST_DIMS_OF_BBQ or not each.startswith("bbq")]
    return [
        IndexVariant(each, *graph)
        for each in possible
        for graph in (graphs if each.endswith("hnsw") else [(None, None)])
    ]


def settled(view: PointInTime, field: VectorField, judged: JudgedQueries, *, k: int, target: float) -> Point:
    """Return the setting of an index that meets the target with the fewest vectors compared, or the best."""
    subject = Subject(view, field, k)
    points = sweep(lambda setting: measure(subject, judged, setting), field=field, k=k, target=target)
    able = [point for point in finalists(points, target) if point.meets(target)]
    if able:
        return min(able, key=lambda point: (point.operations, point.rescored))
    return max(points, key=lambda point: (point.recall_low, -point.operations))


@dataclass(frozen=True)
class Recommendation:
    """The chosen one, if any, and why."""

    advice: Advice | None
    sentence: str


def expected_ms(advice: Advice, *, sample: int, documents: int) -> float:
    """Return the p50 to expect for all documents: without a graph it grows with their number."""
    p50 = advice.point.p50_ms
    return p50 if advice.variant.m else p50 * max(1.0, documents / sample)


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
        f"No type meets recall {target:g} on this sample; the best is {best.variant} with "
        f"{best.point.setting}: {best.point.recall:.4f} (at least {best.point.recall_low:.4f}). Try larger "
        "m and ef_construction, or a lower target."
    )


def _why(chosen: Advice, ms: float, fastest: Advice, fastest_ms: float) -> str:
    setting = chosen.point.setting
    start = (
        f"Take {chosen.variant}, and search with {setting}: recall {chosen.point.recall:.4f} in {ms:.2f} "
        f"ms with {megabytes(chosen.weight.memory_bytes)} of memory."
    )
    if chosen is fastest:
        return f"{start} It is the fastest that meets the target, and none as fast is smaller."
    share = chosen.weight.memory_bytes / fastest.weight.memory_bytes
    return (
        f"{start} The fastest, {fastest.variant}, takes {fastest_ms:.2f} ms; this one is within 25 % of it "
        f"and needs {share:.0%} of its memory."
    )


@dataclass(frozen=True)
class Trial:
    """The advice on each type of index, measured on a sample."""

    found: tuple[Advice, ...]
    recommendation: Recommendation
    sample: int
    documents: int

    def to_json(self) -> dict[str, Any]:
        """Return the object that `glimpse advise --json` prints."""
        chosen = self.recommendation.advice
        return {
            "sample": self.sample,
            "documents": self.documents,
            "types": [advice.to_json() for advice in self.found],
            "recommended": chosen.to_json() if chosen else None,
            "why": self.recommendation.sentence,
        }

    @property
    def size(self) -> str:
        """How many vectors were measured, in one sentence."""
        of = "all" if self.sample == self.documents else f"{self.sample} of {self.documents}"
        return f"Measured on {of} vectors."


def run_trial(
    client: Elasticsearch,
    corpus: Corpus,
    queries: Queries,
    *,
    types: Sequence[str],
    graphs: Sequence[tuple[int, int]],
    size: int,
    k: int,
    goal: Goal,
    say: Callable[[str], None],
) -> Trial:
    """Copy a sample into an index of each type, measure, and delete the indices. Raises EngineError."""
    field, asked = corpus.field, queries.vectors
    ids, vectors = sample_view(
        corpus.view, field=field.name, size=size, documents=corpus.documents, seed=goal.seed, dims=field.dims
    )
    truth = scanned_truth([(ids, vectors)], asked, k=k, similarity=field.similarity)
    chosen, _ = halves(JudgedQueries(asked, truth), goal.target)
    found: list[Advice] = []
    searches: dict[int, list[tuple[str, dict[str, Any]]]] = {}
    with trials(client) as ours:
        tried = variants(types, graphs, dims=field.dims)
        for number, variant in enumerate(tried):
            say(f"{number + 1} of {len(tried)}: {variant} …")
            copy, weight = ours.add(variant, ids, vectors, similarity=field.similarity)
            with point_in_time(client, copy.index) as view:
                point = settled(view, copy, chosen, k=k, target=goal.target)
            found.append(Advice(variant, weight, point, point.meets(goal.target)))
            searches[number] = [
                (copy.index, search_body(copy, query, point.setting, k=k))
                for query in chosen.queries[:MOST_TIMED]
            ]
        say(f"Latency of {len(found)} indices, in turn …")
        taken = latencies(client, searches, rounds=FINALS * goal.rounds)
    found = [replace(each, point=each.point.timed(taken[number])) for number, each in enumerate(found)]
    documents = max(corpus.documents, len(ids)) if len(ids) >= size else len(ids)
    recommended = recommend(found, target=goal.target, sample=len(ids), documents=documents)
    return Trial(tuple(found), recommended, len(ids), documents)


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
        tried, weight = advice.variant, advice.weight
        graph = f", m {tried.m}, ef {tried.ef_construction}" if tried.m else ""
        sizes = megabytes(weight.disk_bytes), megabytes(weight.memory_bytes)
        row = (f"{tried.index_type}{graph}", *cells(advice.point), f"{weight.index_seconds:.1f}", *sizes)
        shown.add_row(*row, style=style)
    return shown
