"""Make the towers' training data: pictures of scenes, of siblings with one edited fact, and texts."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random

import numpy as np

from demo.world.draw import draw
from demo.world.scene import COLOURS, COUNTS, KINDS, PLACES, WEATHERS, Group, Scene, is_possible, scene
from training.pocket.coding import patch_labels
from training.pocket.sentences.grammar import say
from training.pocket.sentences.lexicon import LANGUAGES
from training.pocket.sentences.statements import Statement, full, partial

EDITABLE = ("place", "weather", "count", "colours", "relation", "kind", "colour")
SIZE = 96
TWO_GROUPS = {"relation": 7, "colours": 6, "count": 5, "kind": 1, "colour": 1}
ONE_GROUP = {"count": 10, "kind": 4, "colour": 4, "place": 1, "weather": 1}
CONSONANTS, VOWELS = "bcdfghklmnprstvw", "aeiou"


@dataclass(frozen=True)
class Pool:
    """Scenes with their siblings: `pixels` uint8 `[n, 2, 96, 96, 3]`, `patches` uint8 `[n, 2, 4, 8, 8]`."""

    scenes: list[tuple[Scene, Scene]]
    pixels: np.ndarray
    patches: np.ndarray


def _group_edits(old: Scene, fact: str) -> Iterator[Scene]:
    for position, group in enumerate(old.groups):
        before, after = old.groups[:position], old.groups[position + 1 :]
        for new in _edited_groups(group, fact):
            yield replace(old, groups=(*before, new, *after))


def _edited_groups(group: Group, fact: str) -> list[Group]:
    if fact == "kind":
        return [replace(group, kind=kind) for kind in KINDS]
    if fact == "colour":
        return [replace(group, colour=colour) for colour in COLOURS]
    return [replace(group, count=count) for count in COUNTS]


def _colour_exchanges(old: Scene) -> Iterator[Scene]:
    if len(old.groups) == 2:
        first, second = old.groups
        groups = (replace(first, colour=second.colour), replace(second, colour=first.colour))
        yield replace(old, groups=groups)


def _relation_edits(old: Scene) -> Iterator[Scene]:
    if old.relation is not None:
        swapped = old.groups[::-1]
        other = "above" if old.relation == "left" else "left"
        yield replace(old, groups=swapped)
        yield replace(old, relation=other)
        yield replace(old, groups=swapped, relation=other)


def edits(old: Scene, fact: str) -> list[Scene]:
    """Return every possible scene that differs from `old` in one fact only.

    The seed stays. `fact` is one of `EDITABLE`: `colours` exchanges the two groups' colours and `relation`
    moves the groups; both need two groups, so the list may be empty.
    """
    found: Iterator[Scene]
    if fact == "place":
        found = (replace(old, place=place) for place in PLACES)
    elif fact == "weather":
        found = (replace(old, weather=weather) for weather in WEATHERS)
    elif fact == "colours":
        found = _colour_exchanges(old)
    elif fact == "relation":
        found = _relation_edits(old)
    else:
        found = _group_edits(old, fact)
    return [new for new in found if new.key != old.key and is_possible(new)]


def sibling(of: Scene, rng: Random) -> Scene:
    """Return a training scene that differs from `of` in one fact, most often one of the hard facts."""
    weights = TWO_GROUPS if len(of.groups) == 2 else ONE_GROUP
    while True:
        fact = rng.choices(list(weights), list(weights.values()))[0]
        found = [new for new in edits(of, fact) if new.split == "train"]
        if found:
            return rng.choice(found)


def render(shown: Scene, rng: Random) -> np.ndarray:
    """Return the picture as uint8 `[96, 96, 3]`.

    Some are drawn larger and reduced like the image processor does.
    """
    from PIL import Image

    if rng.random() < 0.6:
        return np.asarray(draw(shown, SIZE))
    larger = draw(shown, rng.choice((160, 224, 320)))
    return np.asarray(larger.resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def _make(index: int) -> tuple[tuple[Scene, Scene], np.ndarray, np.ndarray]:
    first = scene("train", index)
    rng = Random(f"sibling/{index}")
    pair = (first, sibling(first, rng))
    return pair, np.stack([render(one, rng) for one in pair]), np.stack([patch_labels(one) for one in pair])


def make_pool(pairs: int, *, start: int = 0) -> Pool:
    """Render `pairs` pairs on all cores, at about 3 ms of CPU each."""
    from concurrent.futures import ProcessPoolExecutor

    scenes: list[tuple[Scene, Scene]] = []
    pixels = np.empty((pairs, 2, SIZE, SIZE, 3), dtype=np.uint8)
    patches = np.empty((pairs, 2, 4, 8, 8), dtype=np.uint8)
    with ProcessPoolExecutor(os.cpu_count()) as workers:
        made = workers.map(_make, range(start, start + pairs), chunksize=64)
        for position, (pair, pictures, where) in enumerate(made):
            scenes.append(pair)
            pixels[position], patches[position] = pictures, where
    return Pool(scenes, pixels, patches)


def add_typos(text: str, rng: Random) -> str:
    """Return `text`, now and then with a typing error or an unknown word."""
    choice = rng.random()
    if choice < 0.03:
        at = rng.randrange(len(text))
        return text[:at] + text[at + 1 :] if rng.random() < 0.5 else text[:at] + text[at : at + 1] + text[at:]
    if choice < 0.06:
        words = text.split()
        made_up = "".join(rng.choice(CONSONANTS) + rng.choice(VOWELS) for _ in range(rng.randint(1, 4)))
        words.insert(rng.randrange(len(words) + 1), made_up)
        return " ".join(words)
    if choice < 0.08:
        return text.replace("ß", "ss").replace("ü", "ue").replace("ä", "ae").replace("ö", "oe")
    return text


def write_texts(shown: Sequence[Scene], rng: Random) -> tuple[list[str], list[Statement]]:
    """Return full captions of all scenes, then partial ones, with their statements."""
    statements = [full(one) for one in shown] + [partial(one, rng) for one in shown]
    return [add_typos(say(said, rng.choice(LANGUAGES), rng), rng) for said in statements], statements


def corpus(scenes: int = 6000) -> list[str]:
    """Return captions in every language that show every word and form, for the tokenizer."""
    rng = Random("corpus")
    texts = []
    for index in range(scenes):
        shown = scene("train", index)
        texts += [say(said, LANGUAGES[index % 4], rng) for said in (full(shown), partial(shown, rng))]
    return texts
