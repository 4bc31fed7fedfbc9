"""Ask labelled queries in several ways of searching, and judge the hits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from es_config.documents import MODE_FIELDS
from es_config.index import ImageIndex
from es_config.vector_field import PlainIndex
from evaluation.errors import EvaluationError
from evaluation.judge import (
    Run,
    RunComparison,
    Score,
    Search,
    compare_runs,
    make_run,
    save_runs,
    score_run,
    table,
)
from evaluation.labels import Find, LabelledQuery, Labels, find_answers
from search_app.core.query import MODES, Query, default_candidates
from search_app.core.searcher import Searcher


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
    """Return every mode of an index that has captions, else the one of pictures. Raises `EngineError`."""
    captioned = {"query": {"exists": {"field": MODE_FIELDS["caption"]}}, "size": 0}
    return list(MODES) if index.search(captioned).total else ["image"]


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
