"""Parse English captions of the drawn world into facts, and score them against scenes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, fields
from random import Random
from typing import TYPE_CHECKING, TypeVar

from demo.world.scene import COLOURS, Scene
from training.pocket.sentences.grammar import caption
from training.pocket.sentences.lexicon import (
    AND,
    NOUNS,
    NUMBERS,
    OPENINGS,
    PLACE_PHRASES,
    RELATION_PHRASES,
    THERE_IS,
    WEATHER_PHRASES,
)
from training.pocket.sentences.statements import MANY, Mention, Statement

if TYPE_CHECKING:
    from _typeshed import SupportsLenAndGetItem

LANGUAGE = "en"
Option = TypeVar("Option")


class FirstChoice(Random):
    """A random generator that always takes the first choice, which is the usual word."""

    def random(self) -> float:
        """Return the value that leaves out openings, digits and turned relations."""
        return 0.5

    def choice(self, seq: SupportsLenAndGetItem[Option]) -> Option:
        """Return the first of `seq`."""
        return seq[0]


def usual_caption(scene: Scene) -> str:
    """Return the plainest English sentence with every fact, as the captioner learns to write it."""
    return caption(scene, LANGUAGE, FirstChoice())


def read_caption(text: str) -> Statement:
    """Return the statement of an English caption in any order, without words that are not understood."""
    rest = f" {re.sub(r'[^a-z0-9 ]', ' ', text.lower())} "
    rest = " ".join(rest.split()).join("  ")
    place, rest = _take(PLACE_PHRASES[LANGUAGE], rest)
    weather, rest = _take(WEATHER_PHRASES[LANGUAGE], rest)
    for phrase in (*OPENINGS[LANGUAGE], *(form for pair in THERE_IS[LANGUAGE] for form in pair)):
        rest = rest.replace(f" {phrase} ", " ")
    relation, mentions = _subjects(rest)
    return Statement(place, weather, mentions, relation)


def _take(phrases: dict[str, tuple[str, ...]], text: str) -> tuple[str | None, str]:
    """Return the fact of the longest phrase found in `text`, and the text without it."""
    ordered = sorted(
        ((words, fact) for fact, ways in phrases.items() for words in ways), key=lambda one: -len(one[0])
    )
    for words, fact in ordered:
        if f" {words} " in text:
            return fact, text.replace(f" {words} ", " ", 1)
    return None, text


def _subjects(text: str) -> tuple[str | None, tuple[Mention, ...]]:
    ways = [
        (words, relation, turned)
        for relation, sides in RELATION_PHRASES[LANGUAGE].items()
        for turned, options in enumerate(sides)
        for words in options
    ]
    for words, relation, turned in sorted(ways, key=lambda way: -len(way[0])):
        first, found, second = text.partition(f" {words} ")
        if found:
            mentions = _mentions(first, second)
            return relation, mentions[::-1] if turned else mentions
    first, _, second = text.partition(f" {AND[LANGUAGE]} ")
    return None, _mentions(first, second)


def _mentions(*texts: str) -> tuple[Mention, ...]:
    found = (_mention(f" {text.strip()} ") for text in texts)
    return tuple(one for one in found if one is not None)


def _mention(text: str) -> Mention | None:
    forms = [
        (form.replace("-", " "), kind, plural)
        for kind, languages in NOUNS.items()
        for noun in languages[LANGUAGE]
        for plural, form in enumerate(noun.split("|"))
    ]
    named = [one for one in forms if f" {one[0]} " in text]
    if not named:
        return None
    _form, kind, plural = max(named, key=lambda one: len(one[0]))
    words = text.split()
    colour = next((word for word in words if word in COLOURS), None)
    return Mention(kind, colour, _count(words, plural=bool(plural)))


def _count(words: list[str], *, plural: bool) -> int | None:
    for number, word in enumerate(NUMBERS[LANGUAGE], start=2):
        if word in words or str(number) in words:
            return number
    if words[0] in ("a", "an"):
        return 1
    return MANY if plural else None


@dataclass(frozen=True)
class FactScores:
    """Shares of correct facts, 0 to 1, where every fact of a missing group is wrong.

    `kinds`, `colours` and `counts` are over groups, `relations` over scenes with two groups, the others over
    scenes; `all` is the share of captions with every fact right.
    """

    place: float
    weather: float
    kinds: float
    colours: float
    counts: float
    relations: float
    all: float


def score_captions(captions: Iterable[str], scenes: Iterable[Scene]) -> FactScores:
    """Compare captions with their scenes, fact by fact."""
    hits: dict[str, list[bool]] = {field.name: [] for field in fields(FactScores)}
    for text, scene in zip(captions, scenes, strict=True):
        right = compare(read_caption(text), scene)
        for name, values in right.items():
            hits[name] += values
        hits["all"].append(all(all(values) for values in right.values()))
    return FactScores(**{name: sum(values) / max(1, len(values)) for name, values in hits.items()})


def compare(said: Statement, scene: Scene) -> dict[str, list[bool]]:
    """Return whether each fact is stated correctly: one value, or one for each group."""
    mentions = [*said.mentions, None, None]
    pairs = [(mention, group) for mention, group in zip(mentions, scene.groups, strict=False)]
    extra = len(said.mentions) > len(scene.groups)
    right = {
        "place": [said.place == scene.place],
        "weather": [said.weather == scene.weather],
        "relations": [said.relation == scene.relation] if scene.relation else [],
    }
    for name, attribute in (("kinds", "kind"), ("colours", "colour"), ("counts", "count")):
        right[name] = [
            not extra and mention is not None and getattr(mention, attribute) == getattr(group, attribute)
            for mention, group in pairs
        ]
    return right
