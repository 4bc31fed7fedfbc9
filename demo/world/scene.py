"""Describe scenes of the drawn world by seed, in disjoint splits.

A description is the facts alone. Its order is canonical: the first group is the one on the left or above,
so "a left of b" and "b right of a" are one description. A hash of it decides whether it may be trained on.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from random import Random

PLACES = ("sea", "meadow", "desert", "city", "forest", "mountains")
WEATHERS = ("sunny", "cloudy", "rain", "sunset", "night", "rainbow")
FLYING = ("balloon", "bird", "butterfly", "kite")
AFLOAT = ("boat", "fish")
KINDS = (
    *("boat", "house", "tree", "car", "cat", "horse", "flower", "umbrella"),
    *("mushroom", "fish", "balloon", "bird", "butterfly", "kite"),
)
COLOURS = ("red", "blue", "green", "yellow", "orange", "purple", "pink", "black", "white")
COUNTS = (1, 2, 3)
RELATIONS = ("left", "above")
SPLITS = ("train", "test", "demo")


@dataclass(frozen=True)
class Group:
    """One to three subjects of the same kind and colour."""

    kind: str
    colour: str
    count: int


@dataclass(frozen=True)
class Scene:
    """The facts of a picture, and the seed of everything that no caption mentions (positions, sizes, hills).

    With two groups, `relation` says how the first stands to the second: `left` (of it) or `above` (it).
    """

    place: str
    weather: str
    groups: tuple[Group, ...]
    relation: str | None
    seed: int = 0

    @property
    def key(self) -> str:
        """The canonical description, equal for pictures that show exactly the same facts."""
        groups = (f"{group.count} {group.colour} {group.kind}" for group in self.groups)
        return "|".join((self.place, self.weather, self.relation or "alone", *groups))

    @property
    def split(self) -> str:
        """`train`, `test` or `demo`, decided by the description alone."""
        bucket = int.from_bytes(hashlib.sha256(self.key.encode()).digest()[:4], "big") % 20
        return {0: "test", 1: "demo"}.get(bucket, "train")


def _group(rng: Random) -> Group:
    return Group(rng.choice(KINDS), rng.choice(COLOURS), rng.choice(COUNTS))


def is_possible(scene: Scene) -> bool:
    """Return whether the scene is unambiguous: its two groups differ, and a group that is above can fly."""
    if len(scene.groups) == 1:
        return scene.relation is None
    first, second = scene.groups
    if (first.kind, first.colour) == (second.kind, second.colour):
        return False
    return scene.relation == "left" or (scene.relation == "above" and first.kind in FLYING)


def _draw_facts(rng: Random) -> Scene:
    groups = tuple(_group(rng) for _ in range(1 if rng.random() < 0.3 else 2))
    relation = None
    if len(groups) == 2:
        relation = "above" if groups[0].kind in FLYING and rng.random() < 0.75 else "left"
    return Scene(rng.choice(PLACES), rng.choice(WEATHERS), groups, relation, rng.randrange(2**31))


def scene(split: str, index: int) -> Scene:
    """Return scene number `index` of `split`, the same on every machine."""
    if split not in SPLITS:
        raise ValueError(f"There is no split '{split}'; choose one of: {', '.join(SPLITS)}.")
    rng = Random(f"glimpse/{split}/{index}")
    while True:
        found = _draw_facts(rng)
        if is_possible(found) and found.split == split:
            return found


def sample(split: str, n: int, seed: int = 0) -> list[Scene]:
    """Return `n` scenes of `split` whose descriptions all differ."""
    found: dict[str, Scene] = {}
    index = seed * 10_000_000
    while len(found) < n:
        candidate = scene(split, index)
        found.setdefault(candidate.key, candidate)
        index += 1
    return list(found.values())
