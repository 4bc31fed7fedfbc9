"""Which of the points that meet a target is the cheapest, in spite of noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tuning.points import HeldOut, Point

AS_FAST = 1.05
"""p50 within this factor of the fastest is as fast: the vectors compared decide then"""
MAX_FINALISTS = 8


def is_beaten(point: Point, other: Point) -> bool:
    """Whether `other` asks the server for no more candidates and no more rescoring, and for less of one.

    Then it cannot be slower, whatever a clock says on a busy machine.
    """
    ours = (point.setting.num_candidates, point.rescored)
    others = (other.setting.num_candidates, other.rescored)
    return others != ours and others[0] <= ours[0] and others[1] <= ours[1]


def unbeaten(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other one beats."""
    return [point for point in points if not any(is_beaten(point, other) for other in points)]


def finalists(points: Sequence[Point], target: float) -> list[Point]:
    """Return the points that meet the target and may be the cheapest, and those that come next; at most 8."""
    able = [point for point in points if point.meets(target)]
    first = unbeaten(able)
    return [*first, *unbeaten([point for point in able if point not in first])][:MAX_FINALISTS]


def cheapest(points: Sequence[Point], target: float) -> Point | None:
    """Return the point that meets the target at the lowest cost; None when none does.

    Of the unbeaten ones the fastest p50 wins. Those within 5 % of it cannot be told apart by time: of these,
    the one that compares the fewest vectors is taken, a number that no noise touches.
    """
    able = unbeaten([point for point in points if point.meets(target)])
    if not able:
        return None
    fastest = min(point.latency.p50_ms for point in able)
    as_fast = [point for point in able if point.latency.p50_ms <= AS_FAST * fastest]
    return min(as_fast, key=lambda point: (point.operations, point.latency.p50_ms))


def confirmed(
    points: Sequence[Point], target: float, confirm: Callable[[Point], HeldOut]
) -> tuple[Point, HeldOut] | None:
    """Return the cheapest point that holds on other queries, with what it gave there; None when none does.

    When a point fails, so will those that look at fewer candidates with the same oversampling.
    """
    left = list(points)
    while (pick := cheapest(left, target)) is not None:
        held_out = confirm(pick)
        if held_out.confirms(target):
            return pick, held_out
        failed = pick.setting
        left = [
            point
            for point in left
            if point.setting.oversample != failed.oversample
            or point.setting.num_candidates > failed.num_candidates
        ]
    return None
