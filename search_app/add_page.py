"""The page where pictures are added; with JavaScript it is also a panel on every other page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Blueprint, render_template, url_for

from search_app.web.uploads import names_of
from search_app.writing import writing
from storage.errors import StorageError
from storage.store import find_original

if TYPE_CHECKING:
    from search_app.web.uploads import Uploads
    from storage.store import Storage


def add_page_blueprint(*, uploads: Uploads, storage: Storage) -> Blueprint:
    """Return the page's routes, and tell every template whether pictures can be added."""
    page = Blueprint("add_page", __name__)

    @page.get("/add")
    def add() -> str:
        """Show the form."""
        return render_template("add.html", added=())

    @page.post("/add")
    @writing
    def add_chosen() -> str:
        """Add the chosen pictures and show what became of each: for browsers without JavaScript."""
        return render_template("add.html", added=uploads.add_request())

    @page.app_context_processor
    def adding() -> dict[str, Any]:
        return {
            "can_add": uploads.is_open,
            "original_url": lambda image_id, source: _original_url(storage, image_id, source),
        }

    return page


def _original_url(storage: Storage, image_id: str, source: dict) -> str | None:
    """Return where the original of a picture is; None where none is kept, or where nobody can say."""
    try:
        kept = find_original(storage, image_id, names=names_of(source))
    except StorageError:
        return None
    return url_for("uploads.original", image_id=image_id) if kept else None
