"""Browsing: the routes of counts and completion, and counts as the page shows them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from flask import Response, jsonify, request
from flask_babel import format_date, lazy_gettext
from flask_smorest import Blueprint
from marshmallow import fields

from es_config.facets import FACETS, MOST_VALUES, Facet, FacetValue
from es_config.requests import UNDATED
from search_app.core.browse import Browser, FacetsAnswer
from search_app.core.query import API_PREFIX, SearchArguments, load_query
from search_app.core.suggest import KINDS, MOST, Suggester, Suggestions
from search_app.errors import QueryError
from search_app.web.http import JSON, may_fail, schema_of

TITLES = {
    "camera": lazy_gettext("Camera"),
    "tag": lazy_gettext("Keyword"),
    "person": lazy_gettext("Person"),
    "place": lazy_gettext("Place"),
    "folder": lazy_gettext("Folder"),
    "format": lazy_gettext("Format"),
    "has_text": lazy_gettext("Text in it"),
    "film": lazy_gettext("Film"),
}
YES = {"has_text": lazy_gettext("with text"), "film": lazy_gettext("films")}
NO = {"has_text": lazy_gettext("without text"), "film": lazy_gettext("no films")}
"""labels of a facet that only says yes or no"""
WITHOUT_DATE = lazy_gettext("without a date")


class FacetArguments(SearchArguments):
    """The parameters of a search, and which counts are wanted."""

    facet = fields.String(
        metadata={"description": "facets with commas between them; default: all", "example": "camera,tag"}
    )
    size = fields.Integer(
        metadata={"description": "values of each facet; default 12", "minimum": 1, "maximum": MOST_VALUES}
    )


def browse_blueprint(*, browser: Browser, suggester: Suggester) -> Blueprint:
    """Return the API's routes for counts and completion."""
    api = Blueprint("browse", __name__, url_prefix=API_PREFIX, description="Counts and completion")

    @api.get("/facets")
    @api.doc(parameters=[{"in": "query", "schema": FacetArguments}])
    @api.response(200, schema_of(FacetsAnswer), content_type=JSON)
    @may_fail(api, 404, 429)
    def facets() -> Response:
        """Count pictures by camera, keyword, person, place, folder, format, month, text and film."""
        given = request.args.to_dict()
        names = [name for name in given.pop("facet", "").split(",") if name]
        size = _number(given.pop("size", "12"), "size")
        if not any(given.values()):
            given["sort"] = "newest"
        answer = browser.facets(load_query(given), names=names or FACETS, size=size)
        return jsonify(answer.to_json())

    @api.get("/suggest")
    @api.doc(
        parameters=[
            {
                "in": "query",
                "name": "q",
                "schema": {"type": "string"},
                "description": "what was typed so far",
            },
            {
                "in": "query",
                "name": "kind",
                "schema": {"type": "string", "enum": list(KINDS)},
                "description": "complete to one kind alone; without q its most frequent values",
            },
            {
                "in": "query",
                "name": "limit",
                "schema": {"type": "integer", "minimum": 1, "maximum": MOST, "default": 8},
            },
        ]
    )
    @api.response(200, schema_of(Suggestions), content_type=JSON)
    @may_fail(api, 429)
    def suggest() -> Response:
        """Complete a typed text to keywords, people, places, cameras, folders and files."""
        given = request.args.to_dict()
        for name in given.keys() - {"q", "kind", "limit"}:
            raise QueryError(f"There is no parameter '{name[:60]}'.")
        limit = _number(given.get("limit", "8"), "limit")
        found = suggester.suggest(given.get("q", ""), kind=given.get("kind") or None, limit=limit)
        return jsonify(found.to_json())

    return api


@dataclass(frozen=True)
class Year:
    """A year of the timeline with its months, the latest first."""

    value: str
    count: int
    selected: bool
    months: tuple[FacetValue, ...]


@dataclass(frozen=True)
class Timeline:
    """The years in which pictures were taken, the latest first."""

    years: tuple[Year, ...]
    undated: FacetValue | None

    @property
    def opened(self) -> tuple[FacetValue, ...]:
        """The months of the year that is chosen."""
        return next((year.months for year in self.years if year.selected), ())


def timeline_of(taken: Facet) -> Timeline:
    """Return the months of a facet as years."""
    months: dict[str, list[FacetValue]] = {}
    undated = None
    for each in taken.values:
        if each.value == UNDATED:
            undated = each
        else:
            months.setdefault(each.value[:4], []).append(each)
    years = (
        Year(year, sum(each.count for each in some), any(each.selected for each in some), tuple(some))
        for year, some in months.items()
    )
    return Timeline(tuple(years), undated)


def label_of(facet: str, value: str) -> str:
    """Return a value of a facet as people read it in the language of this request."""
    if facet in YES:
        return str(YES[facet]) if value == "true" else str(NO[facet])
    if facet == "format":
        return value.upper()
    if facet == "taken":
        return month_of(value)
    return value.rsplit("/", 1)[-1] if facet == "folder" else value


def month_name(value: str) -> str:
    """Return the name of the month of `2023-07`, without its year."""
    return str(format_date(date.fromisoformat(f"{value}-01"), "LLLL"))


def is_useful(facet: Facet, total: int) -> bool:
    """Say whether a facet tells pictures apart: one value that all of them have does not."""
    only = facet.values[0] if len(facet.values) == 1 else None
    return bool(facet.values) and (only is None or only.selected or only.count < total)


def month_of(value: str) -> str:
    """Return `2023-07` as a month with its year, `2023` as it is, and a day as a day."""
    if value == UNDATED:
        return str(WITHOUT_DATE)
    form = {7: "LLLL y", 10: None}.get(len(value), "")
    try:
        day = date.fromisoformat(f"{value}{'-01-01'[len(value) - 4 :]}")
    except ValueError:
        return value
    if form == "":
        return value
    return str(format_date(day, form) if form else format_date(day))


def _number(text: str, name: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6):
        raise QueryError(f"{name} must be a number.")
    return int(text)
