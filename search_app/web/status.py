"""The state of the index as a page and as JSON: its pictures, its runs, and their failures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Blueprint as PageBlueprint
from flask import Response, jsonify, render_template, request
from flask_babel import lazy_gettext
from flask_smorest import Blueprint

from es_config.overview import Overview
from search_app.core.browse import Kept
from search_app.core.query import API_PREFIX
from search_app.core.users import Role
from search_app.web.http import JSON, may, may_fail, schema_of
from search_app.web.languages import RUNS
from search_app.web.originals import shows_paths

KEPT_S = 3.0
"""seconds for which a look at everything is believed, whoever asks"""
CHECKS = {
    "home": lazy_gettext("Notes of this program"),
    "store": lazy_gettext("Room for pictures"),
    "elasticsearch": lazy_gettext("Search engine"),
    "disk": lazy_gettext("Room for the index"),
    "shards": lazy_gettext("Parts of the index"),
    "profile": lazy_gettext("Models"),
}


class StatusReader:
    """Looks at everything, at most every three seconds. Thread-safe."""

    def __init__(self, read: Callable[[], Overview]) -> None:
        self._read = read
        self._kept = Kept(seconds=KEPT_S, size=1)

    def read(self) -> Overview:
        """Return the state as far as who asks may see it."""
        found: Overview = self._kept.get("overview", self._read)
        return found if may(Role.OWNER) and shows_paths() else found.for_visitors()


def status_blueprint(*, reader: StatusReader) -> Blueprint:
    """Return the API's route."""
    api = Blueprint("status", __name__, url_prefix=API_PREFIX, description="State of the index")

    @api.get("/status")
    @api.response(200, schema_of(Overview), content_type=JSON)
    @may_fail(api)
    def status() -> Response:
        """Say how many pictures the index holds, which runs there are, and whether all is well."""
        return jsonify(reader.read().to_json())

    return api


def status_page_blueprint(*, reader: StatusReader) -> PageBlueprint:
    """Return the page's route."""
    page = PageBlueprint("status_page", __name__)

    @page.get("/status")
    def show() -> str:
        """Show the state as a page, or as a part of it that the page puts in its own place."""
        template = "_status.html" if "part" in request.args else "status.html"
        return render_template(template, now=reader.read(), doing_words=RUNS, check_words=CHECKS)

    @page.app_context_processor
    def has_status() -> dict[str, Any]:
        return {"has_status": True}

    return page
