"""Where the points of a tuning run lie on a chart of recall against latency: numbers for an SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

WIDTH, HEIGHT = 720, 380
LEFT, RIGHT, TOP, BOTTOM = 60, 20, 20, 50
NICE = (1, 2, 5)


@dataclass(frozen=True)
class Dot:
    """One measured setting."""

    x: float
    y: float
    num_candidates: int
    oversample: float | None
    recall: float
    p50_ms: float
    kind: str
    """`pick`, `default` or empty"""


@dataclass(frozen=True)
class Curve:
    """The dots of one oversampling, by rising candidates."""

    oversample: float | None
    dots: tuple[Dot, ...]

    @property
    def line(self) -> str:
        """The `points` of an SVG polyline."""
        return " ".join(f"{dot.x:.1f},{dot.y:.1f}" for dot in self.dots)


@dataclass(frozen=True)
class Tick:
    """A mark on an axis."""

    at: float
    label: str


@dataclass(frozen=True)
class Chart:
    """Everything that the template draws, in units of the SVG."""

    curves: tuple[Curve, ...]
    exact: Dot | None
    target_y: float
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


@dataclass(frozen=True)
class _Scale:
    fastest: float
    slowest: float
    lowest: float

    def x(self, milliseconds: float) -> float:
        share = math.log(milliseconds / self.fastest) / math.log(self.slowest / self.fastest)
        return round(LEFT + share * (WIDTH - RIGHT - LEFT), 1)

    def y(self, recall: float) -> float:
        share = (recall - self.lowest) / (1 - self.lowest)
        return round(HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP), 1)


def chart(point: Mapping[str, Any]) -> Chart | None:
    """Return the chart of one operating point's stored points; None when none are stored."""
    rows = point.get("points") or ()
    if not rows:
        return None
    scale = _scale(rows, point.get("exact_p50_ms"), point["target"])
    curves = tuple(
        Curve(oversample, tuple(_dot(row, point, scale) for row in group))
        for oversample, group in groupby(rows, key=lambda row: row[1])
    )
    exact = point.get("exact_p50_ms")
    return Chart(
        curves=curves,
        exact=Dot(scale.x(exact), scale.y(1.0), 0, None, 1.0, exact, "exact") if exact else None,
        target_y=scale.y(point["target"]),
        x_ticks=tuple(Tick(scale.x(value), f"{value:g}") for value in nice(scale.fastest, scale.slowest)),
        y_ticks=tuple(Tick(scale.y(value), f"{value:.2f}") for value in _recalls(scale.lowest)),
    )


def _scale(rows: Sequence[Sequence[Any]], exact: float | None, target: float) -> _Scale:
    times = [row[3] for row in rows] + ([exact] if exact else [])
    lowest = min([*(row[2] for row in rows), target])
    margin = 1.1
    return _Scale(min(times) / margin, max(times) * margin, max(0.0, math.floor(20 * lowest - 0.2) / 20))


def _dot(row: Sequence[Any], point: Mapping[str, Any], scale: _Scale) -> Dot:
    num_candidates, oversample, recall, p50 = row[:4]
    kind = ""
    if (num_candidates, oversample) == (point["num_candidates"], point["oversample"]):
        kind = "pick"
    elif (num_candidates, oversample) == (point.get("default_num_candidates"), None):
        kind = "default"
    return Dot(scale.x(p50), scale.y(recall), num_candidates, oversample, recall, p50, kind)


def nice(low: float, high: float) -> list[float]:
    """Return the numbers 1, 2 and 5 times a power of ten between two others."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    numbers = (factor * 10.0**power for power in range(first, last + 1) for factor in NICE)
    return [round(number, 9) for number in numbers if low <= number <= high]


def _recalls(lowest: float) -> list[float]:
    step = 0.01 if lowest >= 0.95 else 0.02 if lowest >= 0.9 else 0.05 if lowest >= 0.7 else 0.1
    count = round((1 - lowest) / step)
    return [1 - number * step for number in range(count + 1)]
