"""Describe scenes of the drawn world by seed, in disjoint splits, and place their subjects.

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


HORIZON = 0.55


@dataclass(frozen=True)
class Placed:
    """One subject: its group's position, centre, and the side of its square box, in picture widths."""

    group: int
    kind: str
    colour: str
    x: float
    y: float
    size: float
    facing: int
    """1 looks to the right, -1 to the left"""


def _offsets(count: int, *, in_row: bool) -> list[tuple[float, float]]:
    """Return the offsets of a group's members from its middle, in subject sizes."""
    if count == 1:
        return [(0.0, 0.0)]
    if count == 2:
        return [(-0.52, 0.06), (0.52, -0.06)]
    return [(-1.0, 0.0), (0.0, 0.0), (1.0, 0.0)] if in_row else [(-0.53, 0.42), (0.0, -0.5), (0.53, 0.42)]


def _middle(scene: Scene, position: int, rng: Random) -> tuple[float, float]:
    flies = scene.groups[position].kind in FLYING
    if scene.relation == "above":
        height = 0.2 if position == 0 else (0.66 if flies else 0.76)
        return 0.5 + rng.uniform(-0.07, 0.07), height
    height = rng.uniform(0.3, 0.42) if flies else rng.uniform(0.68, 0.75)
    if scene.relation == "left":
        return (0.265, 0.735)[position] + rng.uniform(-0.02, 0.02), height
    return rng.uniform(0.34, 0.66), height


def _size(scene: Scene, position: int) -> float:
    count = scene.groups[position].count
    if scene.relation is None:
        return (0.42, 0.33, 0.28)[count - 1]
    if scene.relation == "left":
        return (0.36, 0.225, 0.215)[count - 1]
    return (0.34, 0.29, 0.24)[count - 1]


def _place_group(scene: Scene, position: int, rng: Random) -> list[Placed]:
    group = scene.groups[position]
    x, y = _middle(scene, position, rng)
    size = _size(scene, position) * rng.uniform(0.93, 1.04)
    mirrored = rng.choice((-1, 1))
    placed = []
    for dx, dy in _offsets(group.count, in_row=scene.relation == "above"):
        jitter = rng.uniform(-0.012, 0.012)
        at = (x + dx * size * mirrored, y + dy * size + jitter)
        placed.append(Placed(position, group.kind, group.colour, *at, size, rng.choice((-1, 1))))
    return placed


def lay_out(scene: Scene) -> list[Placed]:
    """Return the subjects in drawing order: the farthest, which is the highest, first."""
    rng = Random(f"layout/{scene.seed}")
    placed = [one for position in range(len(scene.groups)) for one in _place_group(scene, position, rng)]
    return sorted(placed, key=lambda one: one.y + one.size / 2)
