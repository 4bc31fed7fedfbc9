"""Which settings are worth measuring: a climb in coarse steps, then ever smaller ones around the target."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from tuning.points import Point, Setting

if TYPE_CHECKING:
    from es_config.vector_field import VectorField

FACTORS = (1, 1.5, 2, 3, 5, 7.5)
"""of `k`, then of 10 `k`, of 100 `k`, …"""
FINE = 1.06
"""settings nearer to each other than this factor differ by less than latency can be measured"""
NEXT = (1.08, 1.17, 1.27)
BEYOND = 2
"""steps beyond the first that meets the target"""
SAME = 0.001
"""a difference of mean recall that is none"""
FLAT_STEPS = 4
FLAT = 0.0005
"""a rise of mean recall over that many steps which is no rise"""


def oversamples(field: VectorField) -> tuple[float | None, ...]:
    """Return the oversamplings that make a difference for a field, rising; None is the index's default."""
    if not field.is_quantised:
        return (None,)
    own = field.oversample or 1.0
    usual = (2.0, 3.0, 5.0, 10.0) if field.index_type.startswith("bbq") else (1.5, 2.0, 3.0, 5.0)
    return tuple(None if each == own else each for each in sorted({own, *usual}))


def steps(k: int, *, least: int, most: int) -> Iterator[int]:
    """Give rising numbers of candidates from `least` to `most`, both included."""
    yield least
    scale, last = 1, least
    while last < most:
        for factor in FACTORS:
            step = min(math.ceil(factor * scale * k), most)
            if step > last:
                yield (last := step)
        scale *= 10


def climb(
    look: Callable[[Setting], Point],
    *,
    k: int,
    oversample: float | None,
    target: float,
    least: int = 1,
    most: int,
) -> list[Point]:
    """Measure rising `num_candidates` until two more than needed have met the target, or nothing rises.

    Two more even where the first of them misses nothing: it may not hold on other queries.
    """
    least = max(k, least, math.ceil(k * (oversample or 1)))
    curve: list[Point] = []
    for step in steps(k, least=least, most=max(most, least)):
        curve.append(look(Setting(step, oversample)))
        met = sum(point.meets(target) for point in curve)
        if met > BEYOND or _stopped_rising(curve, met):
            break
    return curve


def _stopped_rising(curve: list[Point], met: int) -> bool:
    return met == 0 and len(curve) > FLAT_STEPS and curve[-1].recall - curve[-1 - FLAT_STEPS].recall < FLAT


def is_same(before: list[Point], curve: list[Point]) -> bool:
    """Whether a curve is no better than the one before it, so that still more rescoring gains nothing."""
    recalls = {point.setting.num_candidates: point.recall for point in before}
    common = [point for point in curve if point.setting.num_candidates in recalls]
    return bool(common) and all(
        point.recall - recalls[point.setting.num_candidates] < SAME for point in common
    )


def bisect(look: Callable[[Setting], Point], curve: list[Point], *, target: float) -> None:
    """Measure between the last point that fails and the first that meets the target, until they are near.

    A few small steps beyond are measured as well: the next choices, should the first not be confirmed.
    """
    for below, above in pairwise(curve):
        if above.meets(target) and not below.meets(target):
            low, high = below.setting.num_candidates, above.setting.num_candidates
            while high > FINE * low + 1:
                middle = round(math.sqrt(low * high))
                if look(Setting(middle, above.setting.oversample)).meets(target):
                    high = middle
                else:
                    low = middle
            for factor in NEXT:
                if (step := math.ceil(factor * high)) < above.setting.num_candidates:
                    look(Setting(step, above.setting.oversample))
            return
