"""/tuning: the measurements of this index, and the current query at another `num_candidates`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from flask import Blueprint, Response, render_template, request

from es_config.documents import MODE_FIELDS
from es_config.requests import DEFAULT_K, MAX_CANDIDATES
from search_app.core.query import (
    CANDIDATE_STEPS,
    Query,
    SearchHit,
    default_candidates,
    load_query,
    search_hit,
)
from search_app.core.recall_chart import stored_chart
from search_app.core.searcher import Searcher, SearchService, operating_point, tuned_points
from search_app.core.users import Role
from search_app.errors import NotFoundError
from search_app.web.http import requires_role

FIELD = MODE_FIELDS["image"]
MOST_K = 100
BEYOND = 8
"""the slider goes to this many times the larger of the default and the pick"""
SHOWN = ("q", "like", "vector")
CHART_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""the Content-Security-Policy of the chart, whose SVG has styles of its own"""
CHART_SECONDS = 3600
"""a browser keeps the chart so long; its address changes with each measurement"""


@dataclass(frozen=True)
class ExactComparison:
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
    @requires_role(Role.OWNER)
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
            steps=steps,
            step=step,
            usual=usual,
            asked=asked,
            compared=compare(searcher, load_query(asked, k=k), steps[step]) if asked else None,
        )

    @page.get("/tuning/chart.svg")
    @requires_role(Role.OWNER)
    def chart() -> Response:
        """Draw the measured points of one `k`."""
        points = tuned_points(service.searcher.index.meta().operating_points, FIELD)
        k = _number(request.args.get("k"), least=1, most=MOST_K, default=DEFAULT_K)
        drawn = stored_chart(points[k], k=k) if k in points else None
        if drawn is None:
            raise NotFoundError(f"Nothing was measured for k = {k}: run `glimpse tune -k {k}` first.")
        response = Response(drawn.draw("svg", transparent=True), mimetype="image/svg+xml")
        response.headers["Content-Security-Policy"] = CHART_POLICY
        response.cache_control.max_age = CHART_SECONDS
        response.cache_control.private = True
        return response

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


def compare(searcher: Searcher, query: Query, num_candidates: int) -> ExactComparison:
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
    return ExactComparison(
        found=found,
        missed=tuple(hit for hit in nearest if hit.image_id not in ours),
        wrong=frozenset(ours - right),
        num_candidates=num_candidates,
        oversample=tuned.get("oversample"),
    )


def _number(text: str | None, *, least: int, most: int, default: int) -> int:
    """Return a number from the address, or the default when it says none, never out of range."""
    number = int(text) if text is not None and text.isdecimal() and len(text) < 9 else default
    return min(max(number, least), most)
