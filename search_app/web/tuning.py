"""/tuning: the measurements of this index, and the current query at another `num_candidates`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

from flask import Blueprint, render_template, request

from es_config.mapping import MODE_FIELDS
from es_config.requests import DEFAULT_K, MAX_CANDIDATES
from search_app.core.query import CANDIDATE_STEPS, Query, default_candidates, load_query
from search_app.core.response import SearchHit, search_hit
from search_app.core.searcher import operating_point, tuned_points

if TYPE_CHECKING:
    from search_app.core.searcher import Searcher, SearchService

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
    """Return the chart of one operating point's stored points, or None when none are stored."""
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


FIELD = MODE_FIELDS["image"]
MOST_K = 100
BEYOND = 8
"""the slider goes to this many times the larger of the default and the pick"""
SHOWN = ("q", "like", "vector")


@dataclass(frozen=True)
class Comparison:
    """One query, approximately and exactly."""

    found: tuple[SearchHit, ...]
    missed: tuple[SearchHit, ...]
    """neighbours of the exact answer that are not in the approximate one"""
    wrong: frozenset[str]
    """ids of the approximate answer that are not in the exact one"""
    num_candidates: int
    oversample: float | None

    @property
    def recall(self) -> float:
        """The share of the exact neighbours that was found."""
        right = len(self.found) - len(self.wrong)
        return right / max(1, right + len(self.missed))


def tuning_blueprint(*, service: SearchService) -> Blueprint:
    """Return the page around a search service. It reads the results of `glimpse tune`, and searches."""
    page = Blueprint("tuning", __name__)

    @page.get("/tuning")
    def tuning() -> str:
        """Show the measured points, and a query beside its exact answer."""
        searcher = service.searcher
        points = searcher.index.meta().operating_points
        tuned = tuned_points(points, FIELD)
        given = {name: value for name, value in request.args.items() if value.strip()}
        k = _number(given.pop("k", None), least=1, most=MOST_K, default=next(iter(tuned), DEFAULT_K))
        steps = slider_steps(k, points)
        usual = operating_point(points, field=FIELD, k=k)["num_candidates"]
        step = _number(given.pop("step", None), least=0, most=len(steps) - 1, default=steps.index(usual))
        asked = {name: given[name] for name in SHOWN if name in given}
        point = tuned.get(k)
        return render_template(
            "tuning.html",
            k=k,
            tuned=tuned,
            point=point,
            chart=chart(point) if point else None,
            steps=steps,
            step=step,
            usual=usual,
            asked=asked,
            compared=compare(searcher, load_query(asked, k=k), steps[step]) if asked else None,
        )

    return page


def slider_steps(k: int, points: Mapping[str, Any]) -> list[int]:
    """Return rising numbers of candidates, with the default's and the operating point's among them."""
    usual = operating_point(points, field=FIELD, k=k)["num_candidates"]
    default = default_candidates(k)
    most = min(MAX_CANDIDATES, BEYOND * max(usual, default))
    steps = {k, usual, default}
    scale = 1
    while scale * k <= most:
        steps |= {round(factor * scale * k) for factor in CANDIDATE_STEPS if factor * scale * k <= most}
        scale *= 10
    return sorted(steps)


def compare(searcher: Searcher, query: Query, num_candidates: int) -> Comparison:
    """Return the query's answer with `num_candidates` beside the exact one. Raises as `Searcher.search`.

    Rescoring is that of the operating point; a search that names `num_candidates` itself has none.
    """
    tuned = operating_point(searcher.index.meta().operating_points, field=FIELD, k=query.k)
    exact = searcher.prepare(replace(query, exact=True)).body
    body = searcher.prepare(replace(query, num_candidates=num_candidates)).body
    if "oversample" in tuned:
        body["knn"]["rescore_vector"] = {"oversample": tuned["oversample"]}
    nearest, found = (
        tuple(search_hit(hit) for hit in searcher.send(query, each)[0].hits) for each in (exact, body)
    )
    right, ours = {hit.image_id for hit in nearest}, {hit.image_id for hit in found}
    return Comparison(
        found=found,
        missed=tuple(hit for hit in nearest if hit.image_id not in ours),
        wrong=frozenset(ours - right),
        num_candidates=num_candidates,
        oversample=tuned.get("oversample"),
    )


def _number(text: str | None, *, least: int, most: int, default: int) -> int:
    """Return a number from the address, or the default when it names none, never out of range."""
    number = int(text) if text is not None and text.isdecimal() and len(text) < 9 else default
    return min(max(number, least), most)
