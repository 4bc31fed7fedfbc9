"""Which model? One sample of pictures and queries, embedded by each profile into an index of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from statistics import median
from typing import TYPE_CHECKING

from evaluation.contest_types import Contest, Contestant, Picture, Question, Result
from evaluation.errors import EvaluationError
from evaluation.metrics import difference, estimate, query_metrics

if TYPE_CHECKING:
    import numpy as np

    from es_config.temporary_index import TemporaryIndex

BATCH = 32
CANDIDATES = 200
FEWEST_PICTURES = 2


def caption_questions(pictures: Sequence[Picture]) -> list[Question]:
    """Ask for every picture by its captions; pictures with one and the same caption answer it together."""
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
