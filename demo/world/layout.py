"""Place the subjects of a scene as boxes in the unit square."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from demo.world.scene import FLYING, Scene

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
