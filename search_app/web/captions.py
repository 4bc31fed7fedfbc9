"""Correct captions by page and by REST: stored as a person's, embedded again, found at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Blueprint as PageBlueprint
from flask import current_app, redirect, request
from flask_babel import gettext as _
from flask_babel import lazy_gettext
from flask_smorest import Blueprint
from werkzeug.wrappers import Response

from es_config.documents import without_controls
from search_app.core.parts import has_lone_surrogate
from search_app.core.query import API_PREFIX
from search_app.core.searcher import Searcher, SearchService
from search_app.core.users import Role
from search_app.errors import QueryError, WrongTypeError
from search_app.web.http import (
    JSON,
    PictureSchema,
    may,
    may_fail,
    picture_document,
    read_json,
    requires_write_access,
    search_arguments,
)
from search_app.web.page import address

MAX_CAPTION = 1_000


def correct_caption(searcher: Searcher, image_id: str, caption: object) -> dict[str, Any]:
    """Write a person's caption of a picture and return the picture's `_source` as it is then.

    Searches find it as soon as this returns, and no captioner overwrites it. Raises `QueryError` unless it
    has 1 to 1 000 characters of valid text, `NotFoundError` for an unknown id, `EngineError` when it cannot
    be written.
    """
    text = checked_caption(caption)
    searcher.picture(image_id)
    searcher.check_profile()
    vector, _lane = searcher.caption_texts.embed(text)
    searcher.index.captions().write_human(image_id, text, vector)
    searcher.index.refresh()
    return searcher.picture(image_id)


def checked_caption(caption: object) -> str:
    """Return a person's caption on one line. Raises `QueryError` as `correct_caption` does."""
    if not isinstance(caption, str):
        raise QueryError("caption must be a text.")
    text = without_controls(caption)
    if has_lone_surrogate(text):
        raise QueryError("The caption is not valid Unicode text.")
    if not text:
        raise QueryError("The caption is empty: say in a few words what the picture shows.")
    if len(text) > MAX_CAPTION:
        raise QueryError(f"The caption has {len(text)} characters; at most {MAX_CAPTION} are allowed.")
    return text


WRITTEN_BY = {
    "model": lazy_gettext("Caption written by the captioner"),
    "human": lazy_gettext("Caption written by a person"),
}
PUT_BODY = {
    "required": True,
    "content": {
        JSON: {
            "schema": {
                "type": "object",
                "required": ["caption"],
                "properties": {"caption": {"type": "string", "minLength": 1, "maxLength": MAX_CAPTION}},
                "additionalProperties": False,
            }
        }
    },
}


def caption_blueprint(*, service: SearchService) -> Blueprint:
    """Return the API's route around a search service."""
    api = Blueprint("captions", __name__, url_prefix=API_PREFIX, description="Captions")

    @api.put("/images/<image_id>/caption")
    @api.doc(requestBody=PUT_BODY)
    @api.response(200, PictureSchema, content_type=JSON)
    @may_fail(api, 404, 408, 413, 415)
    @requires_write_access
    def write_caption(image_id: str) -> Response:
        """Write a person's caption of a picture. Searches find it at once, and no captioner overwrites it."""
        if not request.is_json:
            raise WrongTypeError(
                'Send the caption as JSON: {"caption": "…"} with Content-Type application/json.'
            )
        body = read_json(request)
        if not isinstance(body, dict) or set(body) != {"caption"}:
            raise QueryError('The JSON body must be {"caption": "…"} and nothing else.')
        return picture_document(image_id, correct_caption(service.searcher, image_id, body["caption"]))

    return api


def caption_page_blueprint(*, service: SearchService) -> PageBlueprint:
    """Return the form's route for browsers without JavaScript, and tell templates whether it may be used."""
    page = PageBlueprint("caption_page", __name__)

    @page.post("/images/<image_id>/caption")
    @requires_write_access
    def write_caption(image_id: str) -> Response:
        """Write the form's caption and show the picture's page again."""
        correct_caption(service.searcher, image_id, request.form.get("caption", ""))
        return redirect(address(search_arguments(request.args), image_id), code=303)

    @page.app_context_processor
    def editing() -> dict[str, Any]:
        return {
            "can_edit": not current_app.config["READ_ONLY"] and may(Role.CONTRIBUTOR),
            "max_caption": MAX_CAPTION,
            "written_by": written_by,
        }

    return page


def written_by(source: Mapping[str, Any]) -> str:
    """Return a few words on the author of a picture's caption, from its `_source`."""
    if not source.get("caption"):
        return str(_("No caption yet; this is the file's name."))
    return str(WRITTEN_BY.get(source.get("caption_source", ""), _("From the file's own description")))
