"""Runs against labels: means with intervals, by language, and two runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from evaluation.errors import EvaluationError
from evaluation.metrics import Difference, Estimate, difference, estimate, query_metrics

if TYPE_CHECKING:
    import numpy as np

    from evaluation.answers import Answers
    from evaluation.run import Run

EVERY = "all"
ALPHA = 0.05


@dataclass(frozen=True)
class Score:
    """The metrics of one run over the queries of one language."""

    run: str
    language: str
    """`all`, or a language of the labels"""
    queries: int
    metrics: dict[str, Estimate]


@dataclass(frozen=True)
class Comparison:
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


@dataclass(frozen=True)
class Report:
    """Everything that an evaluation says."""

    scores: tuple[Score, ...]
    comparisons: tuple[Comparison, ...]
    runs: tuple[Run, ...]
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return what `glimpse evaluate --json` prints."""
        return {
            "runs": [
                {name: value for name, value in vars(run).items() if name != "ranked"} for run in self.runs
            ],
            "scores": [asdict(score) for score in self.scores],
            "comparisons": [{**asdict(each), "verdict": each.verdict} for each in self.comparisons],
            "warnings": list(self.warnings),
        }


def score_run(run: Run, answers: Answers) -> list[Score]:
    """Return a run's metrics over all queries, and over those of each language where there are several."""
    values = query_metrics(answers.relevant, run.ranked, k=run.k)
    languages = [query.language for query in answers.queries]
    spoken = sorted({language for language in languages if language})
    groups = {EVERY: [True] * len(languages)}
    if len(set(languages)) > 1:
        groups |= {each: [language == each for language in languages] for each in spoken}
    return [_score(run.name, language, chosen, values) for language, chosen in groups.items()]


def _score(run: str, language: str, chosen: Sequence[bool], values: dict[str, np.ndarray]) -> Score:
    import numpy as np

    rows = np.asarray(chosen)
    metrics = {name: estimate(value[rows]) for name, value in values.items()}
    return Score(run, language, int(rows.sum()), metrics)


def compare_runs(first: Run, second: Run, answers: Answers) -> Comparison:
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
    return Comparison(first.name, second.name, len(shared), metrics)
