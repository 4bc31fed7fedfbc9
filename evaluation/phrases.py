"""Queries out of captions: whole ones and pieces of them, each about a thing that can be taken away."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

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
    """A query, and the word stem that names what it is about."""

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
    """Return a query as a phrase about the rarest thing that it names; None when it names none."""
    things = [stem for word in words(text) if (stem := stem_of(word)) in vocabulary.things]
    if not things:
        return None
    return Phrase(text, min(things, key=lambda stem: len(vocabulary.rows[stem])), row)
