"""Calibrate relevance: queries that an index answers against queries that it does not."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np

from es_config.documents import MODE_FIELDS, paths_of
from es_config.index import ImageIndex
from es_config.relevance import SAMPLE_SIZE, Calibration, comparable, scores_of
from es_config.scan import Sample, read_sample
from evaluation.errors import EvaluationError
from evaluation.labels import Labels, find_answers, picture_finder
from models.encoders import load_caption_text_encoder, load_text_encoder
from models.profiles import Profile

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

CALIBRATED = ("image", "caption")
PENALTY = 0.01
WEAK_FACTOR = 8
"""how many times the rate of strong hits that of hits with any mark is"""
PICTURES = 20_000
"""pictures to learn from, at most"""
MISS_RATE = 0.05
"""share of answered queries that may be told that nothing good was found"""
FEWEST = 3
"""pictures that a word must occur with to be a thing"""
COMMON = 0.3
"""share of the pictures from which on a word is grammar, not a thing"""
LONGEST_PIECE = 5
TURNS = 6
"""how often each caption is used: once as it is, then for a piece each time"""
SHORTEST_STEM = 4
ENDING = 2
QUERIES = 1500
BLOCK = 64
MEANING = 0.02
"""of the captions that hold a query's words, the share that may mean less like it than a synonym does"""
LEAST_AREA = 0.6
"""area under the ROC curve; 0.5 is chance"""
TELLS_NOTHING = (
    "Queries that have answers score no higher than queries that have none: the captions do not"
    " describe the pictures, or the model does not know what is in them."
)
LEAST_LEFT = 0.3
"""share of the pictures that must be left once a thing is taken away"""
NONSENSE = 0.1
"""share of the unanswered queries that are no words at all"""


@dataclass(frozen=True)
class QueryScores:
    """Best scores of queries, with mean and deviation over the sample: float64 `[n]` each."""

    best: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[Sequence[float]] | np.ndarray) -> QueryScores:
        """Return the scores of rows of best, mean and deviation, `[n, 3]`."""
        return cls(*np.asarray(rows, np.float64).reshape(-1, 3).T)

    def columns(self) -> np.ndarray:
        """Return float64 `[n, 3]`."""
        return np.stack([self.best, self.mean, self.deviation], axis=1)

    def rows(self, chosen: np.ndarray) -> QueryScores:
        """Return some of the queries."""
        return QueryScores.of(self.columns()[chosen])

    def __len__(self) -> int:
        """Return the number of queries."""
        return len(self.best)


def fit(
    answered: QueryScores, unanswered: QueryScores, *, rate: float, sample: int, miss_rate: float = MISS_RATE
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
    needed = math.ceil(1 / rate) - 1
    third = np.arange(len(unanswered)) % 3 == 0
    if (~third).sum() < needed:
        raise EvaluationError(
            f"A rate of {rate:g} needs {math.ceil(1.5 * needed)} queries that nothing answers, and"
            f" {len(unanswered)} could be made: choose a higher rate, or caption more pictures."
        )
    weights = _regress(unanswered.rows(third), answered.rows(np.arange(len(answered)) % 3 == 0))
    if weights[0] <= 0:
        raise EvaluationError(TELLS_NOTHING)
    mean, deviation = (-weights[1:] / weights[0]).tolist()
    bare = Calibration(mean, deviation, 0, 0, sample)
    wrong = np.sort(heights_of(bare, unanswered.rows(~third)))
    right = np.sort(heights_of(bare, answered.rows(np.arange(len(answered)) % 3 != 0)))
    strong, weak = (_above(wrong, each) for each in (rate, min(0.5, WEAK_FACTOR * rate)))
    kept = float(right[max(1, math.floor((len(right) + 1) * miss_rate)) - 1])
    return replace(bare, strong=strong, weak=min(weak, kept))


def _above(heights: np.ndarray, rate: float) -> float:
    """Return a height just above the one in the place that conformal prediction names."""
    place = min(len(heights), math.ceil((len(heights) + 1) * (1 - rate)))
    return float(np.nextafter(np.float64(heights[place - 1]), np.inf))


def shares(calibration: Calibration, queries: QueryScores) -> dict[str, float]:
    """Return the shares of queries whose best hit is marked strong, and weak or strong."""
    height = heights_of(calibration, queries)
    return {
        "strong": round(float((height >= calibration.strong).mean()), 4),
        "weak": round(float((height >= calibration.weak).mean()), 4),
    }


def area(answered: np.ndarray, unanswered: np.ndarray) -> float:
    """Return the area under the ROC curve: how often an answered query scores above an unanswered one."""
    from scipy.stats import rankdata

    ranks = rankdata(np.concatenate([unanswered, answered]))[len(unanswered) :]
    above = ranks.sum() - len(answered) * (len(answered) + 1) / 2
    return float(above / len(answered) / len(unanswered))


def heights_of(calibration: Calibration, queries: QueryScores) -> np.ndarray:
    """Return how far each query's best hit is above its own bar without `strong` or `weak`, float64 `[n]`."""
    return queries.best - calibration.mean * queries.mean - calibration.deviation * queries.deviation


def _regress(unanswered: QueryScores, answered: QueryScores) -> np.ndarray:
    """Return weights `[3]` of best, mean and deviation, both kinds of queries counting alike."""
    from scipy.optimize import minimize

    rows = np.concatenate([unanswered.columns(), answered.columns()])
    label = np.repeat([0.0, 1.0], [len(unanswered), len(answered)])
    share = np.repeat([0.5 / len(unanswered), 0.5 / len(answered)], [len(unanswered), len(answered)])
    centre, scale = rows.mean(axis=0), rows.std(axis=0) + 1e-9
    scaled = (rows - centre) / scale

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        logit = scaled @ weights[1:] + weights[0]
        value = (share * (np.logaddexp(0, logit) - label * logit)).sum()
        error = share * (1 / (1 + np.exp(-np.clip(logit, -500, 500))) - label)
        slope = np.concatenate([[error.sum()], scaled.T @ error + PENALTY * weights[1:]])
        return value + PENALTY * (weights[1:] ** 2).sum() / 2, slope

    found: np.ndarray = minimize(loss, np.zeros(4), jac=True, method="L-BFGS-B").x
    scaled_back: np.ndarray = found[1:] / scale
    return scaled_back


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


@dataclass(frozen=True)
class EmbeddedPictures:
    """One kind of vectors of the pictures, and the encoder of its queries."""

    vectors: np.ndarray
    """float32 `[pictures, dims]`"""
    embed: Callable[[Sequence[str]], np.ndarray]
    similarity: str

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        """Return float32 `[texts, pictures]`."""
        return scores_of(self.embed(texts), self._comparable, self.similarity)

    @cached_property
    def _comparable(self) -> np.ndarray:
        return comparable(self.vectors, self.similarity)


def calibrate(
    captions: Sequence[str],
    searched: EmbeddedPictures,
    judging: EmbeddedPictures | None,
    *,
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
    the unanswered queries are nonsense. Without `judging`, words alone decide. The first `sample` pictures
    are the query's background.

    Raises `EvaluationError` when the captions are too few or too alike.
    """
    vocabulary = read_vocabulary(captions)
    phrases = [*more, *make_phrases(captions, vocabulary, size=queries, seed=seed)]
    if not phrases:
        raise EvaluationError(
            f"The captions of {len(captions)} pictures name no thing that some have and others have not:"
            " caption more pictures, or pictures that differ."
        )
    answered, unanswered = score_phrases(phrases, vocabulary, searched, judging, sample=sample)
    rng = Random(seed)
    nonsense = [scramble(phrase.text, rng) for phrase in phrases[: max(1, int(NONSENSE * len(phrases)))]]
    unheard = query_scores(searched.scores(nonsense), sample=sample)
    mixed = np.concatenate([unanswered.columns(), unheard.columns()])
    unanswered = QueryScores.of(np.random.default_rng(seed).permutation(mixed))
    bars = fit(answered, unanswered, rate=rate, sample=sample, miss_rate=miss_rate)
    figures = {
        "false_positive_rate": rate,
        "unanswered": shares(bars, unanswered),
        "answered": shares(bars, answered),
        "area": round(area(heights_of(bars, answered), heights_of(bars, unanswered)), 4),
        "area_of_a_global_cut_off": round(area(answered.best, unanswered.best), 4),
        "queries": len(answered),
        "pictures": len(captions),
    }
    if area(heights_of(bars, answered), heights_of(bars, unanswered)) < LEAST_AREA:
        raise EvaluationError(TELLS_NOTHING)
    return replace(bars, figures=figures)


def query_scores(scores: np.ndarray, *, sample: int) -> QueryScores:
    """Return the scores of queries, `[queries, pictures]`, with the first `sample` pictures as background."""
    own = scores[:, :sample]
    return QueryScores.of(np.stack([scores.max(axis=1), own.mean(axis=1), own.std(axis=1)], axis=1))


def score_phrases(
    phrases: Sequence[Phrase],
    vocabulary: Vocabulary,
    searched: EmbeddedPictures,
    judging: EmbeddedPictures | None,
    *,
    sample: int,
) -> tuple[QueryScores, QueryScores]:
    """Return the phrases over all pictures, and over those that do not answer them."""
    with_all, without = [], []
    for start in range(0, len(phrases), BLOCK):
        some = phrases[start : start + BLOCK]
        texts = [phrase.text for phrase in some]
        meanings = judging.scores(texts) if judging else [None] * len(texts)
        for phrase, own, meaning in zip(some, searched.scores(texts), meanings, strict=True):
            left = ~_answers(phrase, vocabulary, meaning, pictures=len(own))
            if left.mean() >= LEAST_LEFT and left[:sample].any():
                with_all.append((own.max(), own[:sample].mean(), own[:sample].std()))
                rest = own[:sample][left[:sample]]
                without.append((own[left].max(), rest.mean(), rest.std()))
    return QueryScores.of(with_all), QueryScores.of(without)


def _answers(
    phrase: Phrase, vocabulary: Vocabulary, meaning: np.ndarray | None, *, pictures: int
) -> np.ndarray:
    """Return which pictures answer a phrase, bool `[pictures]`."""
    answers = np.zeros(pictures, bool)
    answers[[phrase.row, *vocabulary.rows.get(phrase.stem, ())]] = True
    if meaning is None:
        return answers
    told = list(vocabulary.holding(phrase.text) | {phrase.row})
    near: np.ndarray = answers | (meaning >= np.quantile(meaning[told], MEANING))
    return near


def calibrate_index(
    client: Elasticsearch,
    index: ImageIndex,
    profile: Profile,
    *,
    rate: float,
    miss_rate: float,
    size: int,
    labels: Labels | None,
    say: Callable[[str], None],
) -> dict[str, Calibration]:
    """Fit the bars of each mode on up to `size` captioned pictures of an index.

    A mode whose scores tell nothing is left out, as that of the pictures where only captions are searched.
    Raises `EvaluationError` when there are no captions or no mode can be fitted, `EngineError`, `ModelError`.
    """
    fields = [MODE_FIELDS[mode] for mode in CALIBRATED]
    sample = read_sample(client, index.name(), fields=fields, size=size, source=["caption", "relative_path"])
    if not sample.ids:
        raise EvaluationError(
            f"The index '{index.alias}' has no captions to learn from: run `glimpse caption` first."
        )
    total = index.count()
    if total > len(sample.ids):
        say(
            f"Learning from {len(sample.ids)} of {total} pictures: among more pictures more come near by"
            " chance, so expect somewhat more false positives than the rate says."
        )
    texts = load_text_encoder(profile)
    of_captions = texts if profile.caption_shares_space else load_caption_text_encoder(profile)
    embed = {"image": texts.embed_texts, "caption": of_captions.embed_texts}
    similarity = index.meta().similarity
    sides = {
        mode: EmbeddedPictures(sample.vectors[MODE_FIELDS[mode]], embed[mode], similarity)
        for mode in CALIBRATED
    }
    captions = [source.get("caption") or "" for source in sample.sources]
    more = labelled_phrases(labels, sample, captions) if labels else []
    found, faults = {}, {}
    for mode, other in (CALIBRATED, CALIBRATED[::-1]):
        say(f"{mode}: asking pieces of {len(captions)} captions")
        try:
            bars = calibrate(
                captions,
                sides[mode],
                None if other in faults else sides[other],
                rate=rate,
                miss_rate=miss_rate,
                sample=min(SAMPLE_SIZE, len(captions)),
                more=more,
            )
        except EvaluationError as error:
            faults[mode] = error
            continue
        now = datetime.now(UTC).isoformat(timespec="seconds")
        found[mode] = replace(bars, figures={**bars.figures, "images": total, "measured_at": now})
    if not found:
        raise next(iter(faults.values()))
    for mode, fault in faults.items():
        say(f"{mode}: not calibrated. {fault}")
    return found


FEWEST_CAPTIONS = 200
"""pictures with a caption from which on an index is calibrated by itself"""
RATE = 0.01
TRIED = "tried"
"""note beside the modes in `_meta.relevance`: how many pictures the index had when nothing could be learnt"""


def is_due(index: ImageIndex) -> bool:
    """Whether an index has captions enough to calibrate it, for the first time or since it has doubled.

    Raises `EngineError`.
    """
    notes = index.meta().relevance
    figures = [each.get("figures", {}) for each in notes.values()]
    before = max((each.get("images", each.get("pictures", 0)) for each in figures), default=0)
    images = index.count()
    if images < max(FEWEST_CAPTIONS, 2 * before):
        return False
    return images - index.captions().count_missing(every=False) >= FEWEST_CAPTIONS


def calibrate_if_due(
    client: Elasticsearch, index: ImageIndex, profile: Profile, *, say: Callable[[str], None]
) -> bool:
    """Calibrate an index when `is_due`, note it and return True. `say` gets the reason when that fails.

    Raises `EngineError`, `ModelError`.
    """
    if not is_due(index):
        return False
    rates = [each.get("figures", {}).get("false_positive_rate") for each in index.meta().relevance.values()]
    try:
        found = calibrate_index(
            client,
            index,
            profile,
            rate=next(filter(None, rates), RATE),
            miss_rate=MISS_RATE,
            size=PICTURES,
            labels=None,
            say=lambda _: None,
        )
    except EvaluationError as error:  # tried again once the index has doubled
        say(f"The page cannot tell good hits from chance ones yet. {error}")
        index.note("relevance", {TRIED: {"figures": {"images": index.count()}}})
        return False
    index.note("relevance", {mode: each.as_dict() for mode, each in found.items()})
    return True


def labelled_phrases(labels: Labels, sample: Sample, captions: Sequence[str]) -> list[Phrase]:
    """Return labelled queries as phrases about their rarest thing. The pictures must be in the sample."""
    rows = {image_id: row for row, image_id in enumerate(sample.ids)}
    places = [
        (image_id, paths_of(source)) for image_id, source in zip(sample.ids, sample.sources, strict=True)
    ]
    find = picture_finder(known=lambda ids: filter(rows.__contains__, ids), by_name=lambda _: places)
    answers = find_answers([query for query in labels.queries if query.text], find=find)
    vocabulary = read_vocabulary(captions)
    made = (
        about(query.text or "", rows[answers.relevant[query.key][0]], vocabulary) for query in answers.queries
    )
    return [phrase for phrase in made if phrase]


def calibration_lines(mode: str, bars: Calibration) -> list[str]:
    """Return the figures of a mode as lines."""
    figures: Mapping[str, Any] = bars.figures
    rows = [
        f"  {kind:<10} queries: {figures[kind]['strong']:.1%} get a strong hit,"
        f" {figures[kind]['weak']:.1%} a weak or strong one"
        for kind in ("answered", "unanswered")
    ]
    return [
        f"{mode}: {figures['queries']} queries over {figures['pictures']} pictures",
        *rows,
        f"  area under the ROC curve {figures['area']:.3f}; of one cut-off for all queries"
        f" {figures['area_of_a_global_cut_off']:.3f}",
    ]
