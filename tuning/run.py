"""One tuning run: exact neighbours, recall pass, latency pass, choice, confirmation."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import cycle, islice
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from es_config.client import engine_errors
from es_config.requests import exact_by_sequence
from es_config.scan import scan_view
from es_config.vector_field import Extent, read_extent
from search_app.core.searcher import tuned_points
from tuning.errors import TuneError
from tuning.points import SERVED, HeldOut, Latency, Point, Setting, confirmed, finalists
from tuning.queries import SOURCES, Corpus, Queries, QuerySources, draw_queries
from tuning.sweep import (
    JudgedQueries,
    Subject,
    best_bound,
    measure,
    measure_again,
    needed_queries,
    scanned_truth,
    sweep,
)

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

MANY = 1000
"""samples from which a 99th percentile is worth its name"""
WARM_UP = 10
"""requests of each setting that are sent first and not counted"""
EXACT_SAMPLES, EXACT_SECONDS, FEWEST_EXACT = 30, 10.0, 3
SAMPLES = 1600
"""queries of a run; half of them choose, half confirm"""
MOST_UNASKED = 4_000
"""queries that are drawn at most when a high target needs more than `SAMPLES`"""
ROUNDS = 60
"""requests of each point in the latency pass"""
FINALS = 5
"""times as many requests of each point that may be chosen"""
MOST_TIMED = 100
"""different queries of the latency pass"""

Key = TypeVar("Key")
Request = TypeVar("Request")
Say = Callable[[str], None]


def latencies(
    client: Elasticsearch,
    searches: Mapping[Key, list[tuple[str, dict[str, Any]]]],
    *,
    rounds: int,
    seed: int = 0,
) -> dict[Key, Latency]:
    """Return the time that the searches of each key (index and body) take, in turn. Raises EngineError."""
    taken = interleaved(lambda search: send(client, *search), searches, rounds=rounds, seed=seed)
    return {key: summary(samples) for key, samples in taken.items()}


def interleaved(
    send: Callable[[Request], object],
    requests: Mapping[Key, list[Request]],
    *,
    rounds: int,
    seed: int = 0,
    warm_up: int = WARM_UP,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Key, list[float]]:
    """Return milliseconds of `rounds` requests of each key.

    In every round each key sends its next request, in an order drawn anew: none is always the one that runs
    after a slow neighbour. Requests are used again when there are fewer than rounds.
    """
    random = Random(seed)
    taken: dict[Key, list[float]] = {key: [] for key in requests}
    upcoming = {key: islice(cycle(each), warm_up + rounds) for key, each in requests.items()}
    for turn in range(warm_up + rounds):
        for key in random.sample(list(requests), len(requests)):
            request = next(upcoming[key])
            begin = clock()
            send(request)
            if turn >= warm_up:
                taken[key].append(1000 * (clock() - begin))
    return taken


def summary(samples: list[float]) -> Latency:
    """Return the percentiles of milliseconds, interpolated between the nearest ranks."""
    p50, p95, p99 = np.percentile(samples, [50, 95, 99]).tolist()
    return Latency(p50, p95, p99 if len(samples) >= MANY else None, len(samples))


def send(client: Elasticsearch, index: str, body: dict[str, Any]) -> object:
    """Send a search to an index as it is now. Raises EngineError."""
    with engine_errors():
        return client.search(index=index, body=body)


def exact_latency(
    client: Elasticsearch, subject: Subject, queries: np.ndarray, *, last_sequence: int
) -> Latency:
    """Return milliseconds of the server's exact search: 30 requests, fewer when they take over 10 s together.

    Raises EngineError.
    """
    field, taken = subject.field, list[float]()
    started = time.perf_counter()
    for query in queries[: EXACT_SAMPLES + 1]:
        body = (
            subject.body(query, Setting(subject.k))
            if field.is_exact
            else exact_by_sequence(
                field=field.name,
                query_vector=query,
                k=subject.k,
                last_sequence=last_sequence,
                filters=subject.filters,
            )
        )
        begin = time.perf_counter()
        send(client, field.index, body)
        taken.append(1000 * (time.perf_counter() - begin))
        if len(taken) > FEWEST_EXACT and time.perf_counter() - started > EXACT_SECONDS:
            break
    return summary(taken[1:] or taken)  # the first one warms up


@dataclass(frozen=True)
class Goal:
    """The recall that the chosen setting must have, and the effort of measuring it."""

    target: float = 0.99
    default: Setting | None = None
    """the setting of a search when nothing was tuned; measured in any case"""
    rounds: int = ROUNDS
    seed: int = 0
    samples: int = SAMPLES


@dataclass(frozen=True)
class Tuning:
    """The result of a run."""

    subject: Subject
    goal: Goal
    source: str
    queries: int
    documents: int
    points: tuple[Point, ...]
    pick: Point | None
    """None when no setting meets the target"""
    held_out: HeldOut | None
    exact: Latency
    changed: str | None
    """a sentence when the index changed meanwhile"""

    @property
    def default(self) -> Point | None:
        """The point that a search uses when nothing was tuned."""
        return next((point for point in self.points if point.setting == self.goal.default), None)


def enough_queries(corpus: Corpus, sources: QuerySources, *, k: int, goal: Goal, say: Say) -> Queries:
    """Draw queries, more than `goal.samples` if the target needs it. Raises TuneError, EngineError."""
    wanted = needed_queries(goal.target, k=min(k, corpus.documents))
    size = max(goal.samples, min(4 * wanted, MOST_UNASKED))
    drawn = draw_queries(corpus, sources, size=size, seed=goal.seed)
    say(f"{len(drawn.vectors)} queries: {SOURCES[drawn.source]}.")
    return drawn


def tune(client: Elasticsearch, subject: Subject, queries: Queries, *, goal: Goal, say: Say) -> Tuning:
    """Measure and choose. The frozen view of `subject` keeps the recall true while the index changes.

    Raises TuneError when there is nothing to measure or the queries cannot show the target, EngineError.
    """
    before = read_extent(client, subject.field.index)
    judged = with_truth(subject, queries, say=say)
    chosen, held_out = halves(judged, goal.target)
    say(f"Recall of each setting, {len(chosen.queries)} queries …")
    points = swept(subject, chosen, goal=goal, say=say)
    points = timed(client, subject, chosen.queries, points, goal=goal, say=say)
    found = confirmed(points, goal.target, lambda point: measure_again(subject, held_out, point.setting))
    say("Latency of the exact search …")
    exact = exact_latency(client, subject, chosen.queries, last_sequence=before.last_sequence)
    return Tuning(
        subject=subject,
        goal=goal,
        source=queries.source,
        queries=len(queries.vectors),
        documents=judged.truth.documents,
        points=tuple(points),
        pick=found[0] if found else None,
        held_out=found[1] if found else None,
        exact=exact,
        changed=changes(before, read_extent(client, subject.field.index)),
    )


def swept(subject: Subject, judged: JudgedQueries, *, goal: Goal, say: Say) -> list[Point]:
    """Return the points of the recall pass, the default's among them.

    Where the default compares every vector, as in a small index, fewer candidates save nothing and would be
    too few once the index has grown: no setting has fewer than the default then.
    """

    def look(setting: Setting) -> Point:
        point = measure(subject, judged, setting)
        say(f"  {setting}: recall {point.recall:.4f} (at least {point.recall_low:.4f})")
        return point

    default, least = goal.default, 1
    known = {default: look(default)} if default else {}
    if default and known[default].operations >= judged.truth.documents:
        least = default.num_candidates
    return sweep(look, field=subject.field, k=subject.k, target=goal.target, least=least, known=known)


def with_truth(subject: Subject, queries: Queries, *, say: Say) -> JudgedQueries:
    """Return the queries with their exact neighbours. Raises TuneError when there are no documents."""
    if not len(queries.vectors):
        raise TuneError("There are no queries to measure with.")
    say(f"Exact neighbours of {len(queries.vectors)} queries …")
    blocks = scan_view(subject.view, field=subject.field.name, filters=subject.filters)
    truth = scanned_truth(blocks, queries.vectors, k=subject.k, similarity=subject.field.similarity)
    if truth.documents == 0:
        raise TuneError(
            f"The index {subject.field.index} holds no vectors in '{subject.field.name}'"
            f"{' that pass the filters' if subject.filters else ''}: there is nothing to measure."
        )
    if truth.documents < subject.k:
        say(f"Only {truth.documents} documents can be found, fewer than k = {subject.k}: all are neighbours.")
    return JudgedQueries(queries.vectors, truth)


def halves(judged: JudgedQueries, target: float) -> tuple[JudgedQueries, JudgedQueries]:
    """Return the queries to choose with and those to confirm with. Raises TuneError for too few."""
    half = len(judged.queries) // 2
    best = best_bound(half, k=judged.truth.wanted) if half else 0.0
    if best < target:
        raise TuneError(
            f"{len(judged.queries)} queries are too few to show a recall of {target:g} (half of them choose, "
            f"half confirm, and without a single miss that shows {best:.4f}): give more, or lower the target."
        )
    return judged.part(slice(0, half)), judged.part(slice(half, None))


def timed(
    client: Elasticsearch, subject: Subject, queries: np.ndarray, points: list[Point], *, goal: Goal, say: Say
) -> list[Point]:
    """Return the points with latencies. Candidates for the choice are measured more often.

    So is the default, in the same turns: what is to be gained is then seen beside it, whatever else the
    machine does at the time.
    """
    index = subject.field.index

    def taken(some: list[Point], *, rounds: int, seed: int) -> dict[Setting, Latency]:
        asked = queries[: min(rounds, MOST_TIMED)]
        searches = {
            point.setting: [(index, subject.body(query, point.setting)) for query in asked] for point in some
        }
        return latencies(client, searches, rounds=rounds, seed=seed)

    say(f"Latency of {len(points)} settings, in turn …")
    found = taken(points, rounds=goal.rounds, seed=goal.seed)
    points = [point.timed(found[point.setting]) for point in points]
    final = finalists(points, goal.target)
    if len(final) > 1:
        say(f"Latency of the {len(final)} that may be the cheapest …")
        final += [point for point in points if point.setting == goal.default and point not in final]
        found |= taken(final, rounds=FINALS * goal.rounds, seed=goal.seed + 1)
    return [point.timed(found[point.setting]) for point in points]


def changes(before: Extent, after: Extent) -> str | None:
    """Return a sentence when an index changed between two looks at it."""
    if before == after:
        return None
    if after.documents != before.documents:
        change = f"from {before.documents} to {after.documents} documents"
    else:
        change = f"{after.last_sequence - before.last_sequence} writes"
    return (
        f"The index changed while it was tuned ({change}): the recall is of the state at the start; "
        "tune again when it is quiet."
    )


@dataclass(frozen=True)
class StoredPointCheck:
    """A stored operating point, measured anew."""

    k: int
    setting: Setting
    target: float
    stored_recall: float
    stored_documents: int
    documents: int
    now: HeldOut

    @property
    def ok(self) -> bool:
        """Whether the mean still meets the target, and nearly all queries are still served."""
        return self.now.recall >= self.target and self.now.served >= SERVED

    def to_json(self) -> dict[str, Any]:
        """Return one flat object with `ok`."""
        found = {"ok": self.ok, **asdict(self), **asdict(self.setting)}
        del found["setting"], found["now"]
        return found | {
            "recall": self.now.recall,
            "recall_low": self.now.recall_low,
            "served": self.now.served,
        }

    def __str__(self) -> str:
        """Return one sentence."""
        verdict = "still meets" if self.ok else "no longer meets"
        grown = (
            f" (then {self.stored_recall:.4f} with {self.stored_documents} documents, now {self.documents})"
        )
        way_out = "" if self.ok else f": run `glimpse tune -k {self.k} --target-recall {self.target:g}`"
        return (
            f"k = {self.k}: {self.setting} has recall {self.now.recall:.4f} and {verdict} "
            f"{self.target:g}{grown}{way_out}."
        )


def check_stored(
    corpus: Corpus, sources: QuerySources, *, k: int | None, goal: Goal, say: Say
) -> list[StoredPointCheck]:
    """Measure the stored operating points of a field anew, or that of one `k`, each against its own target.

    Raises TuneError when none is stored.
    """
    stored = tuned_points(corpus.field.meta.get("operating_points", {}), corpus.field.name)
    if not stored and k is None:
        raise TuneError("No operating point is stored: run `glimpse tune` first.")
    if k is not None and k not in stored:
        raise TuneError(f"No operating point is stored for k = {k}: run `glimpse tune -k {k}` first.")
    checks = []
    for each in [k] if k else stored:
        entry = stored[each]
        # Other queries than those that chose the point, and the same ones in every run.
        other = replace(goal, target=entry["target"], seed=goal.seed + 1)
        queries = enough_queries(corpus, sources, k=each, goal=other, say=say)
        subject = Subject(corpus.view, corpus.field, each)
        judged = with_truth(subject, queries, say=say)
        setting = Setting(entry["num_candidates"], entry.get("oversample"))
        checks.append(
            StoredPointCheck(
                k=each,
                setting=setting,
                target=entry["target"],
                stored_recall=entry["recall"],
                stored_documents=entry["documents"],
                documents=judged.truth.documents,
                now=measure_again(subject, judged, setting),
            )
        )
    return checks
