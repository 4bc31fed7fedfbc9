"""Settings of a kNN search, their measurements, and the choice of the cheapest that meets a target."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

SERVED = 0.95
"""share of the queries that must reach a recall of 0.9"""
MAX_STORED = 48
AS_FAST = 1.05
"""p50 within this factor of the fastest is as fast: the vectors compared decide then"""
MAX_FINALISTS = 8


@dataclass(frozen=True)
class Setting:
    """The numbers of a search that tuning chooses."""

    num_candidates: int
    oversample: float | None = None
    """None: the search names none, and the index's own default applies"""

    def __str__(self) -> str:
        """Return it as people write it."""
        rescored = "" if self.oversample is None else f", oversample {self.oversample:g}"
        return f"num_candidates {self.num_candidates}{rescored}"


@dataclass(frozen=True)
class Latency:
    """Milliseconds that requests took, seen from the client."""

    p50_ms: float
    p95_ms: float
    p99_ms: float | None
    """only from 1 000 samples on"""
    samples: int


@dataclass(frozen=True)
class Point:
    """One setting, measured."""

    setting: Setting
    index_type: str
    recall: float
    """mean of the queries' recall@k"""
    recall_low: float
    """one-sided lower 95 % bound of that mean"""
    served: float
    """share of the queries with a recall of at least 0.9"""
    operations: float
    """mean of the profile's `vector_operations_count`: vectors compared for one query"""
    rescored: float
    """the oversampling in force, of the search or by the index's default; 1 for none"""
    latency: Latency | None = None

    @property
    def p50_ms(self) -> float:
        """Median milliseconds of a request, infinite before the latency pass."""
        return self.latency.p50_ms if self.latency else math.inf

    def meets(self, target: float) -> bool:
        """Whether the bound meets the target and nearly all queries are served."""
        return self.recall_low >= target and self.served >= SERVED

    def timed(self, latency: Latency) -> Point:
        """Return the point with its latency."""
        return replace(self, latency=latency)

    def to_json(self) -> dict[str, Any]:
        """Return one flat object."""
        timed = asdict(self.latency) if self.latency else {"p50_ms": None, "p95_ms": None}
        timed = {name: value for name, value in timed.items() if name != "p99_ms" or value is not None}
        return {
            "index_type": self.index_type,
            **asdict(self.setting),
            "recall": round(self.recall, 5),
            "recall_low": round(self.recall_low, 5),
            "served": round(self.served, 4),
            "vector_operations_count": round(self.operations, 1),
            **{name: round(value, 3) if isinstance(value, float) else value for name, value in timed.items()},
        }


@dataclass(frozen=True)
class HeldOut:
    """The chosen setting on queries that had no part in choosing it."""

    recall: float
    recall_low: float
    served: float
    queries: int

    def confirms(self, target: float) -> bool:
        """Whether the bound meets the target and nearly all queries are served here, too.

        The first half alone flatters the pick, which is the cheapest of many that passed there.
        """
        return self.recall_low >= target and self.served >= SERVED


def in_order(points: Sequence[Point]) -> list[Point]:
    """Return points by oversampling, then by candidates."""
    return sorted(points, key=lambda point: (point.rescored, point.setting.num_candidates))


def stored_points(
    points: Sequence[Point], *, keep: Sequence[Setting | None] = ()
) -> list[list[float | None]]:
    """Return `[num_candidates, oversample, recall, p50_ms, operations]` of at most 48 points, for `_meta`.

    When there are more, those with the lowest recall are left out, but never one of `keep`.
    """
    timed = [point for point in points if point.latency]
    best = sorted(timed, key=lambda point: (point.setting not in keep, -point.recall))[:MAX_STORED]
    return [
        [
            point.setting.num_candidates,
            point.setting.oversample,
            round(point.recall, 4),
            round(point.p50_ms, 2),
            round(point.operations),
        ]
        for point in in_order(best)
    ]


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
    """Return at most 8 points that meet the target and may be the cheapest, and the next ones."""
    able = [point for point in points if point.meets(target)]
    first = unbeaten(able)
    return [*first, *unbeaten([point for point in able if point not in first])][:MAX_FINALISTS]


def cheapest(points: Sequence[Point], target: float) -> Point | None:
    """Return the point that meets the target at the lowest cost, or None when none does.

    Of the unbeaten ones the fastest p50 wins. Those within 5 % of it cannot be told apart by time: of these,
    the one that compares the fewest vectors is taken, a number that no noise touches.
    """
    able = unbeaten([point for point in points if point.meets(target)])
    if not able:
        return None
    fastest = min(point.p50_ms for point in able)
    as_fast = [point for point in able if point.p50_ms <= AS_FAST * fastest]
    return min(as_fast, key=lambda point: (point.operations, point.p50_ms))


def confirmed(
    points: Sequence[Point], target: float, confirm: Callable[[Point], HeldOut]
) -> tuple[Point, HeldOut] | None:
    """Return the cheapest point that holds on other queries, with its recall there, or None.

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
