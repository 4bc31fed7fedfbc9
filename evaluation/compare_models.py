"""Compare models: one sample of pictures and queries, embedded by each profile into an index of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from evaluation.errors import EvaluationError
from evaluation.judge import ALPHA, difference, estimate, query_metrics

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    from es_config.vector_field import TemporaryIndex
    from evaluation.judge import Difference, Estimate


@dataclass(frozen=True)
class Picture:
    """One picture of the sample, decoded only when a model looks at it."""

    image_id: str
    open: Callable[[], Image]
    captions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Question:
    """One query with the ids of the sample that answer it."""

    text: str
    relevant: tuple[str, ...]


@dataclass(frozen=True)
class Contestant:
    """A profile whose models are loaded."""

    name: str
    dims: int
    similarity: str
    embed_images: Callable[[Sequence[Image]], np.ndarray]
    """gives float32 `[n, dims]`, unit length"""
    embed_texts: Callable[[Sequence[str]], np.ndarray]


@dataclass(frozen=True)
class Result:
    """The scores of one profile."""

    name: str
    dims: int
    metrics: dict[str, Estimate]
    images_per_second: float
    """preprocessing and embedding; reading and decoding the files apart"""
    query_ms: float
    """median: embedding the text, and the kNN search"""
    index_bytes: int
    per_query: dict[str, np.ndarray]
    """float64 `[queries]` by metric"""


@dataclass(frozen=True)
class Contest:
    """All results, best nDCG first, with their distance from the first, and advice."""

    results: tuple[Result, ...]
    against_best: dict[str, Difference]
    """by name: that profile minus the best, in nDCG"""
    pictures: int
    queries: int
    asked: str
    """where the queries came from"""
    k: int

    @property
    def recommendation(self) -> str:
        """Which profile to take, and why, in one sentence."""
        best = self.results[0]
        alike = [each for each in self.results[1:] if self.against_best[each.name].p_value >= ALPHA]
        if len(self.results) == 1:
            return f"{best.name} was measured alone: name two profiles or more for a choice."
        fastest = max([best, *alike], key=lambda each: each.images_per_second)
        if fastest is not best:
            times = fastest.images_per_second / best.images_per_second
            p_value = self.against_best[fastest.name].p_value
            return (
                f"Take {fastest.name}: chance alone could explain why {best.name} finds more"
                f" (p = {p_value:.4f}), and it embeds {times:.1f} times as many pictures a second."
            )
        if alike:
            names = ", ".join(each.name for each in alike)
            return f"Take {best.name}: it finds at least as much as {names}, and none of these is faster."
        quality = best.metrics[f"ndcg@{self.k}"].mean
        worst = max(self.against_best[each.name].p_value for each in self.results[1:])
        return (
            f"Take {best.name}: its nDCG@{self.k} of {quality:.3f} is the best, beyond chance"
            f" (p ≤ {worst:.4f})."
        )

    def to_json(self) -> dict[str, Any]:
        """Return the JSON of `glimpse evaluate --profiles … --json`."""
        rows = [
            {name: value for name, value in vars(each).items() if name != "per_query"}
            | {"metrics": {name: asdict(value) for name, value in each.metrics.items()}}
            for each in self.results
        ]
        return {
            "profiles": rows,
            "against_best": {name: asdict(value) for name, value in self.against_best.items()},
            "pictures": self.pictures,
            "queries": self.queries,
            "asked": self.asked,
            "recommendation": self.recommendation,
        }


BATCH = 32
CANDIDATES = 200
FEWEST_PICTURES = 2


def caption_questions(pictures: Sequence[Picture]) -> list[Question]:
    """Ask for every picture by its captions. Pictures with the same caption answer it together."""
    answers: dict[str, list[str]] = {}
    for picture in pictures:
        for caption in picture.captions:
            answers.setdefault(caption, []).append(picture.image_id)
    return [Question(text, tuple(ids)) for text, ids in answers.items()]


def hold_contest(
    names: Sequence[str],
    *,
    pictures: Sequence[Picture],
    questions: Sequence[Question],
    asked: str,
    load: Callable[[str], Contestant],
    open_index: Callable[[Contestant], AbstractContextManager[TemporaryIndex]],
    k: int = 10,
    say: Callable[[str], None] = lambda _: None,
) -> Contest:
    """Measure each profile of `names` on the same pictures and questions, one after the other.

    Raises `EvaluationError` when there is nothing to ask or to find, and what the parts raise.
    """
    if len(pictures) < FEWEST_PICTURES:
        raise EvaluationError(
            f"The sample has {len(pictures)} pictures: index a folder first, or name one with --folder."
        )
    if not questions:
        raise EvaluationError(
            "There is nothing to ask: give labelled --queries, or write captions with `glimpse caption`."
        )
    results = [
        _measure(name, pictures=pictures, questions=questions, load=load, open_index=open_index, k=k, say=say)
        for name in names
    ]
    metric = f"ndcg@{k}"
    results.sort(key=lambda each: -each.metrics[metric].mean)
    best = results[0].per_query[metric]
    against = {each.name: difference(best, each.per_query[metric]) for each in results[1:]}
    return Contest(tuple(results), against, len(pictures), len(questions), asked, k)


def _measure(name: str, *, pictures, questions, load, open_index, k: int, say) -> Result:
    say(f"{name}: loading the models")
    contestant = load(name)
    say(f"{name}: embedding {len(pictures)} pictures")
    vectors, seconds = _embed(contestant, pictures)
    with open_index(contestant) as index:
        index.add([picture.image_id for picture in pictures], vectors)
        say(f"{name}: asking {len(questions)} queries")
        ranked, milliseconds = _ask(contestant, index, questions, k=k)
        size = index.size_bytes()
    relevant = {str(row): question.relevant for row, question in enumerate(questions)}
    values = query_metrics(relevant, ranked, k=k)
    means = {metric: estimate(value) for metric, value in values.items()}
    speed = round(len(pictures) / seconds, 1)
    return Result(name, contestant.dims, means, speed, round(milliseconds, 2), size, values)


def _embed(contestant: Contestant, pictures: Sequence[Picture]) -> tuple[np.ndarray, float]:
    """Return the vectors `[n, dims]` and the seconds that embedding took after one batch to warm up."""
    import numpy as np

    rows, seconds = [], 0.0
    contestant.embed_images([pictures[0].open()])
    for start in range(0, len(pictures), BATCH):
        images = [picture.open() for picture in pictures[start : start + BATCH]]
        started = time.perf_counter()
        rows.append(contestant.embed_images(images))
        seconds += time.perf_counter() - started
    return np.concatenate(rows), seconds


def _ask(
    contestant: Contestant, index: TemporaryIndex, questions: Sequence[Question], *, k: int
) -> tuple[dict[str, list[str]], float]:
    """Return the ids by the question's number, and the median milliseconds of one question."""
    ranked: dict[str, list[str]] = {}
    took: list[float] = []
    contestant.embed_texts([questions[0].text])  # warms up
    for row, question in enumerate(questions):
        started = time.perf_counter()
        vector = contestant.embed_texts([question.text])[0]
        ranked[str(row)] = index.nearest(vector, k=k, num_candidates=max(k, CANDIDATES))
        took.append(1000 * (time.perf_counter() - started))
    return ranked, median(took)


FORMATS = (".png", ".svg", ".pdf")
COLOUR = "#2f6f8f"


def check_format(path: Path) -> None:
    """Raise `EvaluationError` for a file that no plot can be written to, before anything is measured."""
    if path.suffix.lower() not in FORMATS:
        raise EvaluationError(f"A plot can be {', '.join(FORMATS)}, and '{path.name}' is none of them.")
    if not path.absolute().parent.is_dir():
        raise EvaluationError(f"There is no folder {path.absolute().parent} for the plot: make it first.")


def plot_contest(contest: Contest, path: Path) -> None:
    """Draw four bar charts in one row, one for each thing that was measured. Raises `EvaluationError`."""
    from matplotlib.figure import Figure

    results = contest.results[::-1]  # matplotlib draws the first at the bottom
    names = [each.name for each in results]
    quality = [each.metrics[f"ndcg@{contest.k}"] for each in results]
    charts = {
        f"nDCG@{contest.k}": [each.mean for each in quality],
        "pictures embedded a second": [each.images_per_second for each in results],
        "milliseconds a query": [each.query_ms for each in results],
        "MB of index": [each.index_bytes / 1e6 for each in results],
    }
    figure = Figure(figsize=(13, 1.6 + 0.45 * len(names)), layout="constrained")
    axes = figure.subplots(1, len(charts), sharey=True)
    for axis, (title, values) in zip(axes, charts.items(), strict=True):
        bars = axis.barh(names, values, color=COLOUR)
        axis.bar_label(bars, fmt="{:.3g}", padding=4)
        axis.set_title(title, fontsize=10)
        axis.set_xlim(0, 1.25 * max(values) or 1)
        axis.spines[["top", "right"]].set_visible(False)
    low_high = [[each.mean - each.low for each in quality], [each.high - each.mean for each in quality]]
    axes[0].errorbar(
        [each.mean for each in quality], names, xerr=low_high, fmt="none", ecolor="black", capsize=3
    )
    figure.suptitle(f"{contest.pictures} pictures, {contest.queries} queries ({contest.asked})", fontsize=10)
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise EvaluationError(f"The plot cannot be written to {path} ({error.strerror}).") from error
