"""/tuning: what was measured of this index, and the current query at another `num_candidates`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from flask import Blueprint, render_template, request

from search_app.arguments import load_query
from search_app.operating_point import operating_point, tuned_points
from search_app.core.query import MAX_CANDIDATES, Query, default_candidates
from search_app.core.response import SearchHit, search_hit
from search_app.subjects import FIELDS
from search_app.tuning_chart import chart

if TYPE_CHECKING:
    from search_app.core.searcher import Searcher

FIELD = FIELDS["image"]
DEFAULT_K = 10
MOST_K = 100
FACTORS = (1, 1.5, 2, 3, 5, 7.5)
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


def tuning_blueprint(*, searcher: Searcher) -> Blueprint:
    """Return the page around one searcher. It reads what `glimpse tune` wrote, and searches."""
    page = Blueprint("tuning", __name__)

    @page.get("/tuning")
    def tuning() -> str:
        """Show the measured points, and a query beside its exact answer."""
        one = searcher.itself
        points = one.index.meta().operating_points
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
            compared=compare(one, load_query(asked, k=k), steps[step]) if asked else None,
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
        steps |= {round(factor * scale * k) for factor in FACTORS if factor * scale * k <= most}
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
    """Return a number from the address, or the default when it says none; never out of range."""
    number = int(text) if text is not None and text.isdecimal() and len(text) < 9 else default
    return min(max(number, least), most)
