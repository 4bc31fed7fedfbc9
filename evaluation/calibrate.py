"""Makes queries that an index answers, and the same queries as if it did not, and sets the bar between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING

from es_config.relevance import Calibration, comparable, scores_of
from evaluation.errors import EvaluationError
from evaluation.fit import MISS_RATE, Scored, area, fit, heights_of, shares
from evaluation.phrases import Phrase, Vocabulary, make_phrases, read_vocabulary, scramble

if TYPE_CHECKING:
    import numpy as np

QUERIES = 1500
BLOCK = 64
MEANING = 0.02
"""of the captions that hold a query's words, the share that may mean less like it than a synonym does"""
LEAST_LEFT = 0.3
"""share of the pictures that must be left once a thing is taken away"""
NONSENSE = 0.1
"""share of the unanswered queries that are no words at all"""


@dataclass(frozen=True)
class Side:
    """One kind of vectors of the pictures, and what embeds queries for it."""

    vectors: np.ndarray
    """float32 `[pictures, dims]`"""
    embed: Callable[[Sequence[str]], np.ndarray]


def calibrate(
    captions: Sequence[str],
    searched: Side,
    judging: Side,
    *,
    similarity: str,
    rate: float,
    sample: int,
    miss_rate: float = MISS_RATE,
    queries: int = QUERIES,
    more: Sequence[Phrase] = (),
    seed: int = 0,
) -> Calibration:
    """Fit the bars of searching `searched`, with the pictures' captions as the truth.

    A query is a caption or a piece of one. The index answers it as it is. It would not answer it without the
    pictures of the thing that the query names: those whose captions hold that word, and those whose vectors
    of the other kind, `judging`, are as near to the query as the captions that hold all its words, which
    synonyms are. So the best score of the pictures that are left is that of an unanswered query. A tenth of
    the unanswered queries are nonsense. The first `sample` pictures are the query's background.

    Raises `EvaluationError` when the captions are too few or too alike.
    """
    vocabulary = read_vocabulary(captions)
    phrases = [*more, *make_phrases(captions, vocabulary, size=queries, seed=seed)]
    if not phrases:
        raise EvaluationError(
            f"The captions of {len(captions)} pictures name no thing that some have and others have not:"
            " caption more pictures, or pictures that differ."
        )
    answered, unanswered = _score(
        phrases, vocabulary, searched, judging, similarity=similarity, sample=sample
    )
    nonsense = _nonsense(phrases, searched, similarity=similarity, sample=sample, seed=seed)
    unanswered = _mixed(unanswered, nonsense, seed=seed)
    bars = fit(answered, unanswered, rate=rate, sample=sample, miss_rate=miss_rate)
    return replace(bars, figures=_figures(bars, answered, unanswered, rate=rate, pictures=len(captions)))


def _figures(bars: Calibration, answered: Scored, unanswered: Scored, *, rate: float, pictures: int) -> dict:
    return {
        "false_positive_rate": rate,
        "unanswered": shares(bars, unanswered),
        "answered": shares(bars, answered),
        "area": round(area(heights_of(bars, answered), heights_of(bars, unanswered)), 4),
        "area_of_a_global_cut_off": round(area(answered.best, unanswered.best), 4),
        "queries": len(answered),
        "pictures": pictures,
    }


def _score(
    phrases: Sequence[Phrase],
    vocabulary: Vocabulary,
    searched: Side,
    judging: Side,
    *,
    similarity: str,
    sample: int,
) -> tuple[Scored, Scored]:
    """Return the phrases over all pictures, and over those that do not answer them."""
    with_all, without = [], []
    sides = [comparable(side.vectors, similarity) for side in (searched, judging)]
    for start in range(0, len(phrases), BLOCK):
        some = phrases[start : start + BLOCK]
        texts = [phrase.text for phrase in some]
        scores, meanings = (
            scores_of(side.embed(texts), vectors, similarity)
            for side, vectors in zip((searched, judging), sides, strict=True)
        )
        for phrase, own, meaning in zip(some, scores, meanings, strict=True):
            left = ~_answers(phrase, vocabulary, meaning)
            if left.mean() >= LEAST_LEFT and left[:sample].any():
                with_all.append((own.max(), own[:sample].mean(), own[:sample].std()))
                rest = own[:sample][left[:sample]]
                without.append((own[left].max(), rest.mean(), rest.std()))
    return _scored(with_all), _scored(without)


def _answers(phrase: Phrase, vocabulary: Vocabulary, meaning: np.ndarray) -> np.ndarray:
    """Return which pictures answer a phrase, bool `[pictures]`."""
    import numpy as np

    answers = np.zeros(len(meaning), bool)
    answers[[phrase.row, *vocabulary.rows.get(phrase.stem, ())]] = True
    told = list(vocabulary.holding(phrase.text) | {phrase.row})
    return answers | (meaning >= np.quantile(meaning[told], MEANING))


def _nonsense(
    phrases: Sequence[Phrase], searched: Side, *, similarity: str, sample: int, seed: int
) -> Scored:
    rng = Random(seed)
    size = max(1, int(NONSENSE * len(phrases)))
    texts = [scramble(phrase.text, rng) for phrase in phrases[:size]]
    scores = scores_of(searched.embed(texts), comparable(searched.vectors, similarity), similarity)
    own = scores[:, :sample]
    return _scored(list(zip(scores.max(axis=1), own.mean(axis=1), own.std(axis=1), strict=True)))


def _scored(rows: Sequence[tuple]) -> Scored:
    import numpy as np

    return Scored(*np.asarray(rows, np.float64).reshape(-1, 3).T)


def _mixed(first: Scored, second: Scored, *, seed: int) -> Scored:
    import numpy as np

    rows = np.concatenate([first.columns(), second.columns()])
    return _scored(np.random.default_rng(seed).permutation(rows))
