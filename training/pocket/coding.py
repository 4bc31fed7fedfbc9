"""Encode scenes and statements as rows of small integers, to label and mask a whole batch at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from demo.world.scene import COLOURS, COUNTS, KINDS, PLACES, RELATIONS, WEATHERS, Group, Scene, lay_out
from training.pocket.sentences.statements import Mention, Statement

UNSAID = -1
PATCH_FACTS = ("kind", "colour", "count", "slot")
COLUMNS = ("place", "weather", "relation", "kind_1", "colour_1", "count_1", "kind_2", "colour_2", "count_2")
CLASSES = (len(PLACES), len(WEATHERS), 1 + len(RELATIONS), *2 * (len(KINDS), len(COLOURS), 1 + len(COUNTS)))
"""How many values each column has. Relation 0 means alone; counts stand for themselves, 0 for "many\""""


def _index(values: tuple[str, ...], value: str | None) -> int:
    return UNSAID if value is None else values.index(value)


def _groups(groups: Sequence[Group | Mention]) -> list[int]:
    row = [UNSAID] * 6
    for position, group in enumerate(groups):
        count = UNSAID if group.count is None else group.count
        row[3 * position : 3 * position + 3] = [KINDS.index(group.kind), _index(COLOURS, group.colour), count]
    return row


def scene_codes(scenes: Sequence[Scene]) -> np.ndarray:
    """Return int64 `[n, 9]` with the columns of `COLUMNS`, `UNSAID` if there is no second group."""
    rows = [
        [
            PLACES.index(scene.place),
            WEATHERS.index(scene.weather),
            1 + _index(RELATIONS, scene.relation),
            *_groups(scene.groups),
        ]
        for scene in scenes
    ]
    return np.array(rows, dtype=np.int64)


def statement_codes(statements: Sequence[Statement]) -> np.ndarray:
    """Return int64 `[n, 9]`, `UNSAID` for facts that are not claimed."""
    rows = []
    for said in statements:
        relation = RELATIONS.index(said.relation) + 1 if said.relation else (0 if said.complete else UNSAID)
        rows.append(
            [_index(PLACES, said.place), _index(WEATHERS, said.weather), relation, *_groups(said.mentions)]
        )
    return np.array(rows, dtype=np.int64)


def labels(codes: np.ndarray) -> np.ndarray:
    """Return `codes` as targets for classifiers by slot, without facts whose slot is unknown.

    "Many" is no count, and without a relation (unless alone) no group is known to be the first.
    """
    targets = codes.copy()
    targets[targets[:, 2] == UNSAID, 3:] = UNSAID
    for column in (5, 8):
        targets[targets[:, column] == 0, column] = UNSAID
    return targets


def _fits(said: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Return bool `[statements, scenes]`: whether a mention (`[n, 3]`) can be said of a group (`[m, 3]`)."""
    kind, colour, count = (said[:, None, column] for column in range(3))
    seen_kind, seen_colour, seen_count = (seen[None, :, column] for column in range(3))
    fits: np.ndarray = (kind == seen_kind) & ((colour == UNSAID) | (colour == seen_colour))
    fits &= (count == UNSAID) | (count == seen_count) | ((count == 0) & (seen_count > 1))
    return fits


def holds(said: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Return `Statement.holds` of each pair: bool `[statements, scenes]`."""
    setting = (said[:, None, :3] == UNSAID) | (said[:, None, :3] == seen[None, :, :3])
    one, other = said[:, 3:6], said[:, 6:9]
    left, right = seen[:, 3:6], seen[:, 6:9]
    in_order = _fits(one, left) & _fits(other, right)
    crossed = _fits(one, right) & _fits(other, left)
    either = _fits(one, left) | _fits(one, right)
    no_mention, one_mention = (said[:, [3]] == UNSAID), (said[:, [6]] == UNSAID)
    ordered = said[:, [2]] > 0
    both = np.where(ordered, in_order, in_order | crossed)
    groups = np.where(no_mention, True, np.where(one_mention, either, both))
    found: np.ndarray = np.all(setting, axis=2) & groups
    return found


def patch_labels(scene: Scene, grid: int = 8) -> np.ndarray:
    """Return the kind, colour, count and slot seen in each patch: uint8 `[4, grid, grid]`.

    0 means background; slot 1 is the first group, 2 the second; kinds and colours are 1 + their position in
    `KINDS` and `COLOURS`.
    """
    labels = np.zeros((len(PATCH_FACTS), grid, grid), dtype=np.uint8)
    centres = (np.arange(grid) + 0.5) / grid
    for one in lay_out(scene):
        reach = one.size * 0.5
        across, down = abs(centres - one.x) < reach, abs(centres - one.y) < reach
        kind, colour = 1 + KINDS.index(one.kind), 1 + COLOURS.index(one.colour)
        count = scene.groups[one.group].count
        labels[:, np.ix_(down, across)[0], np.ix_(down, across)[1]] = np.array(
            [kind, colour, count, one.group + 1], dtype=np.uint8
        )[:, None, None]
    return labels
