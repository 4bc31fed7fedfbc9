"""Ask labelled queries in several ways of searching, and judge the runs.

ir_measures computes the metrics. Means are resampled, which assumes no distribution.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from es_config.documents import MODE_FIELDS
from es_config.index import ImageIndex
from es_config.vector_field import PlainIndex
from evaluation.errors import EvaluationError, LabelError
from evaluation.labels import Answers, Find, LabelledQuery, Labels, find_answers
from search_app.core.query import MODES, Query, default_candidates
from search_app.core.searcher import Searcher

Search = Callable[[LabelledQuery], tuple[list[str], str | None]]
"""gives the ids that were found, best first, and the lane that embedded the text"""
CUTS = (1, 5, 10)
RESAMPLES = 10_000
BOOTSTRAPS = 2_000
CONFIDENCE = 0.95
CELLS = 4_000_000
"""random numbers that are held at a time"""
EVERY = "all"
ALPHA = 0.05
"""p-value from which on chance explains a difference"""
FORMAT = "glimpse-runs 1"


def metric_names(k: int) -> tuple[str, ...]:
    """Return the names of the metrics with `k` hits: recall at 1, 5, 10 and `k`, MRR and nDCG at `k`."""
    cuts = sorted({cut for cut in CUTS if cut <= k} | {k})
    return (*(f"recall@{cut}" for cut in cuts), f"mrr@{k}", f"ndcg@{k}")


def query_metrics(
    relevant: Mapping[str, Sequence[str]], ranked: Mapping[str, Sequence[str]], *, k: int
) -> dict[str, np.ndarray]:
    """Return each metric of each query of `relevant`, in its order: float64 `[queries]`, 0 to 1.

    `relevant` maps a query to the ids that answer it, `ranked` to the ids that were found, best first. A
    query that found nothing counts 0. `recall@1` of a query with two answers is at most one half.
    """
    import ir_measures
    from ir_measures import RR, Qrel, R, ScoredDoc, nDCG

    names = metric_names(k)
    kinds = {"recall": R, "mrr": RR, "ndcg": nDCG}
    measures = {kinds[name.split("@")[0]] @ int(name.split("@")[1]): name for name in names}
    rows = {key: row for row, key in enumerate(relevant)}
    values = {name: np.zeros(len(rows)) for name in names}
    qrels = [Qrel(key, each, 1) for key, ids in relevant.items() for each in ids]
    # The rank itself is the score: equal similarities keep the order that was shown.
    run = [
        ScoredDoc(key, each, -float(rank))
        for key in relevant
        for rank, each in enumerate(ranked.get(key, ()))
    ]
    for found in ir_measures.iter_calc(list(measures), qrels, run):
        values[measures[found.measure]][rows[found.query_id]] = found.value
    return values


@dataclass(frozen=True)
class Estimate:
    """A mean over queries with its two-sided 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        """Return it as tables show it."""
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Difference:
    """Mean of the second run minus mean of the first, over the same queries."""

    mean: float
    low: float
    high: float
    p_value: float
    """how often signs given by chance make a mean difference at least as large"""


def estimate(values: np.ndarray, *, seed: int = 0) -> Estimate:
    """Return the mean of float `[queries]` with its percentile bootstrap interval over the queries."""
    rng, size = np.random.default_rng(seed), len(values)
    means: list[np.ndarray] = []
    for start in range(0, BOOTSTRAPS, step := max(1, CELLS // size)):
        rows = min(step, BOOTSTRAPS - start)
        means.append(values[rng.integers(0, size, size=(rows, size))].mean(axis=1))
    low, high = np.quantile(np.concatenate(means), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(float(values.mean()), float(low), float(high))


def difference(first: np.ndarray, second: np.ndarray, *, seed: int = 0) -> Difference:
    """Compare two runs over the same queries, float `[queries]` each, by a paired randomisation test.

    Under the hypothesis that the runs are alike, each query's difference might as well have the other sign.
    The test asks how often random signs give a mean that is as far from 0. It needs neither normal
    differences, as a t test does, nor symmetric ones without ties, as Wilcoxon's: per-query recall is mostly
    ties at 0 and 1. (Smucker, Allan and Carterette, 2007, compare these for retrieval.)
    """
    pairs = second - first
    observed = abs(pairs.mean())
    rng = np.random.default_rng(seed)
    beyond, done = 0, 0
    while done < RESAMPLES:
        rows = min(RESAMPLES - done, max(1, CELLS // len(pairs)))
        signs = rng.integers(0, 2, size=(rows, len(pairs)), dtype=np.int8) * 2 - 1
        beyond += int((np.abs(signs @ pairs) / len(pairs) >= observed - 1e-12).sum())
        done += rows
    spread = estimate(pairs, seed=seed)
    return Difference(spread.mean, spread.low, spread.high, (beyond + 1) / (RESAMPLES + 1))


@dataclass(frozen=True)
class Score:
    """The metrics of one run over the queries of one language."""

    run: str
    language: str
    """`all`, or a language of the labels"""
    queries: int
    metrics: dict[str, Estimate]


@dataclass(frozen=True)
class RunComparison:
    """Two runs over the queries that both were asked."""

    first: str
    second: str
    queries: int
    metrics: dict[str, Difference]

    @property
    def verdict(self) -> str:
        """One sentence about nDCG."""
        name = next(name for name in self.metrics if name.startswith("ndcg"))
        found = self.metrics[name]
        sure = f"{name} {found.mean:+.3f}, p = {found.p_value:.4f}, {self.queries} queries"
        if found.p_value >= ALPHA:
            return f"No difference between {self.first} and {self.second} can be told from chance ({sure})."
        better = self.second if found.mean > 0 else self.first
        return f"{better} is better than {self.first if found.mean > 0 else self.second} ({sure})."


def score_run(run: Run, answers: Answers) -> list[Score]:
    """Return a run's metrics over all queries, and over those of each language where there are several."""
    values = query_metrics(answers.relevant, run.ranked, k=run.k)
    languages = [query.language for query in answers.queries]
    spoken = sorted({language for language in languages if language})
    groups = {EVERY: [True] * len(languages)}
    if len(set(languages)) > 1:
        groups |= {each: [language == each for language in languages] for each in spoken}
    return [
        Score(
            run.name,
            language,
            sum(chosen),
            {name: estimate(value[np.asarray(chosen)]) for name, value in values.items()},
        )
        for language, chosen in groups.items()
    ]


def compare_runs(first: Run, second: Run, answers: Answers) -> RunComparison:
    """Pair two runs, query by query. Raises `EvaluationError` when they share no query."""
    shared = {
        key: ids for key, ids in answers.relevant.items() if key in first.ranked and key in second.ranked
    }
    if not shared:
        raise EvaluationError(
            f"The runs {first.name} and {second.name} share no query with the labels: compare runs of the"
            " same file of queries."
        )
    k = min(first.k, second.k)
    one, other = (query_metrics(shared, run.ranked, k=k) for run in (first, second))
    metrics = {name: difference(one[name], other[name]) for name in one}
    return RunComparison(first.name, second.name, len(shared), metrics)


@dataclass(frozen=True)
class Run:
    """One way of searching, asked everything."""

    name: str
    """such as `image` or `hybrid, infer`"""
    profile: str
    mode: str
    lane: str | None
    """where texts were embedded; None when no text was"""
    k: int
    ranked: dict[str, tuple[str, ...]]
    """ids, best first, by the query's key"""
    query_ms: float
    """median milliseconds of one search, embedding included"""


def make_run(
    queries: Sequence[LabelledQuery], *, search: Search, name: str, profile: str, mode: str, k: int
) -> Run:
    """Ask every query through `search`. Raises its errors."""
    ranked: dict[str, tuple[str, ...]] = {}
    took: list[float] = []
    lanes: set[str] = set()
    for query in queries:
        started = time.perf_counter()
        ids, lane = search(query)
        took.append(1000 * (time.perf_counter() - started))
        ranked[query.key] = tuple(ids)
        lanes |= {lane} if lane else set()
    lane = " and ".join(sorted(lanes)) or None
    return Run(name, profile, mode, lane, k, ranked, round(median(took), 3))


def save_runs(path: Path, runs: Iterable[Run]) -> None:
    """Write runs as JSON. Raises `EvaluationError`."""
    text = json.dumps({"format": FORMAT, "runs": [asdict(run) for run in runs]}, ensure_ascii=False)
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise EvaluationError(
            f"The runs cannot be written to {path} ({error.strerror}): choose another file."
        ) from error


def load_runs(path: Path) -> list[Run]:
    """Read a file that `save_runs` wrote. Raises `LabelError` for any other file."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LabelError(f"{path} cannot be read ({error.strerror}): check the path.") from error
    except (ValueError, RecursionError) as error:
        raise LabelError(f"{path} is not JSON: name a file that --save-run wrote.") from error
    try:
        if data["format"] != FORMAT:
            raise KeyError("format")
        return [
            Run(**{each.name: row[each.name] for each in fields(Run)} | {"ranked": _ranked(row["ranked"])})
            for row in data["runs"]
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise LabelError(
            f"{path} holds no runs of this version: name a file that --save-run wrote."
        ) from error


def _ranked(row: dict[str, list[str]]) -> dict[str, tuple[str, ...]]:
    return {str(key): tuple(map(str, ids)) for key, ids in row.items()}


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield aligned lines, with two spaces between columns."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        yield "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


@dataclass(frozen=True)
class MeasuredSearch:
    """One way of searching that is measured."""

    name: str
    mode: str
    search: Search


@dataclass(frozen=True)
class EvaluationReport:
    """The scores and comparisons of an evaluation."""

    scores: tuple[Score, ...]
    comparisons: tuple[RunComparison, ...]
    runs: tuple[Run, ...]
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the JSON of `glimpse evaluate --json`."""
        return {
            "runs": [
                {name: value for name, value in vars(run).items() if name != "ranked"} for run in self.runs
            ],
            "scores": [asdict(score) for score in self.scores],
            "comparisons": [{**asdict(each), "verdict": each.verdict} for each in self.comparisons],
            "warnings": list(self.warnings),
        }

    def lines(self) -> Iterator[str]:
        """Give every score with its 95 % interval, then every comparison."""
        scores = [
            (score.run, score.language, str(score.queries), *map(str, score.metrics.values()))
            for score in self.scores
        ]
        yield from table(("run", "language", "queries", *self.scores[0].metrics), scores)
        for run in self.runs:
            lane = f", text model: {run.lane}" if run.lane else ""
            yield f"{run.name}: {run.query_ms:.1f} ms a query (median){lane}"
        for comparison in self.comparisons:
            yield ""
            yield f"{comparison.second} minus {comparison.first}, {comparison.queries} queries in pairs:"
            differences = [
                (name, f"{found.mean:+.4f}", f"[{found.low:+.4f}, {found.high:+.4f}]", f"{found.p_value:.4f}")
                for name, found in comparison.metrics.items()
            ]
            yield from table(("metric", "difference", "95 % interval", "p"), differences)
            yield comparison.verdict


def evaluate_searches(
    labels: Labels,
    searches: Iterable[MeasuredSearch],
    *,
    find: Find,
    profile: str,
    k: int,
    saved: Sequence[Run] = (),
    save_to: Path | None = None,
    say: Callable[[str], None],
) -> EvaluationReport:
    """Ask every labelled query in every way, judge the hits, and pair them with those of `saved` runs.

    Raises `EvaluationError`, and what searching raises.
    """
    answers = find_answers(labels.queries, find=find)
    runs = []
    for each in searches:
        say(f"{each.name}: asking {len(answers.queries)} queries")
        runs.append(
            make_run(
                answers.queries, search=each.search, name=each.name, profile=profile, mode=each.mode, k=k
            )
        )
    if save_to:
        save_runs(save_to, runs)
    pairs = [(before, run) for before in saved for run in runs]
    same = [(before, run) for before, run in pairs if before.name == run.name]
    return EvaluationReport(
        scores=tuple(score for run in runs for score in score_run(run, answers)),
        comparisons=tuple(
            compare_runs(replace(before, name=f"{before.name} (saved)"), run, answers)
            for before, run in same or pairs
        ),
        runs=tuple(runs),
        warnings=(*labels.warnings, *answers.warnings),
    )


def picture_searches(
    searchers: Mapping[str, Searcher],
    modes: Sequence[str],
    *,
    k: int,
    num_candidates: int | None,
    exact: bool,
) -> Iterator[MeasuredSearch]:
    """Give a search for each mode and each searcher, which are named by their text lanes."""

    def search_of(searcher: Searcher, mode: str) -> Search:
        def search(query: LabelledQuery) -> tuple[list[str], str | None]:
            vector = None if query.text else query.vector
            asked = Query(
                text=query.text, vector=vector, mode=mode, k=k, num_candidates=num_candidates, exact=exact
            )
            response = searcher.search(asked)
            return [hit.image_id for hit in response.hits], response.lane

        return search

    for mode in modes:
        for lane, searcher in searchers.items():
            name = mode if len(searchers) == 1 else f"{mode}, {lane}"
            yield MeasuredSearch(name, mode, search_of(searcher, mode))


def modes_of(index: ImageIndex) -> list[str]:
    """Return the modes that an index can answer: those of captions and of words if it has such.

    Raises `EngineError`.
    """
    fields = {"caption": MODE_FIELDS["caption"], "words": "words", "hybrid": MODE_FIELDS["caption"]}
    has = {
        field: bool(index.search({"query": {"exists": {"field": field}}, "size": 0}).total)
        for field in set(fields.values())
    }
    return [mode for mode in MODES if mode not in fields or has[fields[mode]]]


def check_vectors(queries: Iterable[LabelledQuery]) -> None:
    """Raise `EvaluationError` unless every query has a vector."""
    unasked = next((query for query in queries if query.vector is None), None)
    if unasked:
        raise EvaluationError(
            f"With --field every query is a vector, and '{unasked.label[:60]}' has none: add"
            ' "vector": [...] to it, or evaluate an index of pictures without --field.'
        )


def vector_search(index: PlainIndex, *, k: int, num_candidates: int | None, exact: bool) -> MeasuredSearch:
    """Return the search of any `dense_vector` field, with queries that have vectors."""
    candidates = max(k, num_candidates or default_candidates(k))

    def search(query: LabelledQuery) -> tuple[list[str], None]:
        vector = np.asarray(query.vector, np.float32)
        return index.nearest(vector, k=k, num_candidates=candidates, exact=exact), None

    return MeasuredSearch("exact" if exact else "knn", index.field.name, search)
