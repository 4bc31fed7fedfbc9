"""Calibrate relevance: queries that an index answers against queries that it does not."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING

from es_config.relevance import Calibration, comparable, scores_of
from evaluation.errors import EvaluationError

if TYPE_CHECKING:
    import numpy as np

PENALTY = 0.01
WEAK_FACTOR = 8
"""how many times the rate of strong hits that of hits with any mark is"""
MISS_RATE = 0.05
"""share of answered queries that may be told that nothing good was found"""


@dataclass(frozen=True)
class Scored:
    """Best scores of queries, with mean and deviation over the sample: float64 `[n]` each."""

    best: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray

    def columns(self) -> np.ndarray:
        """Return float64 `[n, 3]`."""
        import numpy as np

        return np.stack([self.best, self.mean, self.deviation], axis=1)

    def rows(self, chosen: np.ndarray) -> Scored:
        """Return some of the queries."""
        return Scored(self.best[chosen], self.mean[chosen], self.deviation[chosen])

    def __len__(self) -> int:
        """Return the number of queries."""
        return len(self.best)


def fit(
    answered: Scored, unanswered: Scored, *, rate: float, sample: int, miss_rate: float = MISS_RATE
) -> Calibration:
    """Return the bars: `rate` of unanswered queries get a strong hit, eight times that a strong or weak one.

    A logistic regression on one third of the queries says how the bar follows a query's mean and deviation;
    the other two thirds say how high it is. The heights are those of split conformal prediction: of `n`
    unanswered queries the one in place ceil((n + 1)(1 - rate)), so that the next such query gets a strong hit
    with a probability of at most `rate`, whatever the distribution. Where the weak bar would cost more than
    `miss_rate` of the answered queries every mark, it is lowered: with a model that cannot tell, "nothing
    good" is seldom said rather than often wrong. Raises `EvaluationError` when there are too few queries, or
    when scores tell nothing.
    """
    import numpy as np

    needed = math.ceil(1 / rate) - 1
    third = np.arange(len(unanswered)) % 3 == 0
    if (~third).sum() < needed:
        raise EvaluationError(
            f"A rate of {rate:g} needs {math.ceil(1.5 * needed)} queries that nothing answers, and"
            f" {len(unanswered)} could be made: choose a higher rate, or caption more pictures."
        )
    weights = _regress(unanswered.rows(third), answered.rows(np.arange(len(answered)) % 3 == 0))
    if weights[0] <= 0:
        raise EvaluationError(
            "Queries that have answers score no higher than queries that have none: the captions do not"
            " describe the pictures, or the model does not know what is in them."
        )
    mean, deviation = (-weights[1:] / weights[0]).tolist()
    bare = Calibration(mean, deviation, 0, 0, sample)
    wrong = np.sort(heights_of(bare, unanswered.rows(~third)))
    right = np.sort(heights_of(bare, answered.rows(np.arange(len(answered)) % 3 != 0)))
    strong, weak = (_above(wrong, each) for each in (rate, min(0.5, WEAK_FACTOR * rate)))
    kept = float(right[max(1, math.floor((len(right) + 1) * miss_rate)) - 1])
    return replace(bare, strong=strong, weak=min(weak, kept))


def _above(heights: np.ndarray, rate: float) -> float:
    """Return a height just above the one in the place that conformal prediction names."""
    import numpy as np

    place = min(len(heights), math.ceil((len(heights) + 1) * (1 - rate)))
    return float(np.nextafter(np.float64(heights[place - 1]), np.inf))


def shares(calibration: Calibration, queries: Scored) -> dict[str, float]:
    """Return the shares of queries whose best hit is marked strong, and weak or strong."""
    height = heights_of(calibration, queries)
    return {
        "strong": round(float((height >= calibration.strong).mean()), 4),
        "weak": round(float((height >= calibration.weak).mean()), 4),
    }


def area(answered: np.ndarray, unanswered: np.ndarray) -> float:
    """Return the area under the ROC curve: how often an answered query scores above an unanswered one."""
    import numpy as np
    from scipy.stats import rankdata

    ranks = rankdata(np.concatenate([unanswered, answered]))[len(unanswered) :]
    above = ranks.sum() - len(answered) * (len(answered) + 1) / 2
    return float(above / len(answered) / len(unanswered))


def heights_of(calibration: Calibration, queries: Scored) -> np.ndarray:
    """Return how far each query's best hit is above its own bar without `strong` or `weak`, float64 `[n]`."""
    return queries.best - calibration.mean * queries.mean - calibration.deviation * queries.deviation


def _regress(unanswered: Scored, answered: Scored) -> np.ndarray:
    """Return weights `[3]` of best, mean and deviation, both kinds of queries counting alike."""
    import numpy as np
    from scipy.optimize import minimize

    rows = np.concatenate([unanswered.columns(), answered.columns()])
    label = np.repeat([0.0, 1.0], [len(unanswered), len(answered)])
    share = np.repeat([0.5 / len(unanswered), 0.5 / len(answered)], [len(unanswered), len(answered)])
    centre, scale = rows.mean(axis=0), rows.std(axis=0) + 1e-9
    scaled = (rows - centre) / scale
    found = minimize(_logistic_loss(scaled, label, share), np.zeros(4), jac=True, method="L-BFGS-B").x
    return found[1:] / scale


def _logistic_loss(rows: np.ndarray, label: np.ndarray, share: np.ndarray) -> Callable:
    import numpy as np

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        logit = rows @ weights[1:] + weights[0]
        value = (share * (np.logaddexp(0, logit) - label * logit)).sum()
        error = share * (1 / (1 + np.exp(-np.clip(logit, -500, 500))) - label)
        slope = np.concatenate([[error.sum()], rows.T @ error + PENALTY * weights[1:]])
        return value + PENALTY * (weights[1:] ** 2).sum() / 2, slope

    return loss


FEWEST = 3
"""pictures that a word must occur with to be a thing"""
COMMON = 0.3
"""share of the pictures from which on a word is grammar, not a thing"""
LONGEST_PIECE = 5
TURNS = 6
"""how often each caption is used: once as it is, then for a piece each time"""
SHORTEST_STEM = 4
ENDING = 2


@dataclass(frozen=True)
class Phrase:
    """A query, and the word stem of its subject."""

    text: str
    stem: str
    row: int
    """the picture that it was made from"""


@dataclass(frozen=True)
class Vocabulary:
    """The words of captions: in which pictures each occurs, and which of them name things."""

    rows: dict[str, set[int]]
    """pictures by word stem"""
    things: frozenset[str]
    common: frozenset[str]

    def holding(self, text: str) -> set[int]:
        """Return the pictures whose captions hold every word of `text` that is not common."""
        stems = [stem for word in words(text) if (stem := stem_of(word)) not in self.common]
        found = [self.rows.get(stem, set()) for stem in stems]
        return set.intersection(*found) if found else set()


def words(text: str) -> list[str]:
    """Return the words of a text in lower case."""
    return re.findall(r"\w+", text.lower())


def stem_of(word: str) -> str:
    """Return a word without its ending, roughly and in any language: `boats` and `boat` are both `boat`."""
    return word[: max(SHORTEST_STEM, len(word) - ENDING)]


def read_vocabulary(captions: Sequence[str]) -> Vocabulary:
    """Return the words of one caption a picture."""
    rows: dict[str, set[int]] = {}
    for row, caption in enumerate(captions):
        for word in words(caption):
            rows.setdefault(stem_of(word), set()).add(row)
    limit = COMMON * len(captions)
    common = frozenset(stem for stem, held in rows.items() if len(held) > limit)
    things = frozenset(
        stem for stem, held in rows.items() if FEWEST <= len(held) <= limit and len(stem) >= FEWEST
    )
    return Vocabulary(rows, things, common)


def make_phrases(
    captions: Sequence[str], vocabulary: Vocabulary, *, size: int, seed: int = 0
) -> list[Phrase]:
    """Return up to `size` different phrases: at most a third are whole captions, the rest pieces of them.

    People type both. A piece has one to five words, and no common word, such as an article, at its ends.
    """
    rng = Random(seed)
    rows = list(range(len(captions)))
    rng.shuffle(rows)
    found: dict[tuple[str, str], Phrase] = {}
    for turn in range(TURNS):
        limit = size // 3 if turn == 0 else size
        for row in rows:
            phrase = _phrase(captions[row], row, vocabulary, rng, whole=turn == 0)
            if phrase and len(found) < limit:
                found.setdefault((phrase.text, phrase.stem), phrase)
    phrases = list(found.values())
    rng.shuffle(phrases)
    return phrases


def _phrase(caption: str, row: int, vocabulary: Vocabulary, rng: Random, *, whole: bool) -> Phrase | None:
    said = words(caption)
    things = [place for place, word in enumerate(said) if stem_of(word) in vocabulary.things]
    if not things:
        return None
    place = rng.choice(things)
    text = caption if whole else _piece(said, place, vocabulary, rng)
    return Phrase(text, stem_of(said[place]), row)


def _piece(said: Sequence[str], place: int, vocabulary: Vocabulary, rng: Random) -> str:
    length = rng.randint(1, LONGEST_PIECE)
    start = max(0, place - rng.randrange(length))
    end = max(place + 1, min(len(said), start + length))
    while start < place and stem_of(said[start]) in vocabulary.common:
        start += 1
    while end - 1 > place and stem_of(said[end - 1]) in vocabulary.common:
        end -= 1
    return " ".join(said[start:end])


def scramble(text: str, rng: Random) -> str:
    """Return a text with the letters of each word in another order: it asks for nothing there is."""
    return " ".join("".join(rng.sample(word, len(word))) for word in words(text))


def about(text: str, row: int, vocabulary: Vocabulary) -> Phrase | None:
    """Return a query as a phrase about the rarest thing that it names, or None when it names none."""
    things = [stem for word in words(text) if (stem := stem_of(word)) in vocabulary.things]
    if not things:
        return None
    return Phrase(text, min(things, key=lambda stem: len(vocabulary.rows[stem])), row)


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
    """One kind of vectors of the pictures, and the encoder of its queries."""

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
