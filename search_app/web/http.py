"""What routes answer with: problem documents (RFC 9457), pictures' documents, files that never change."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from flask import Response, current_app, request

from es_config.errors import EngineError
from models.errors import ModelError
from search_app.arguments import first_mistake
from search_app.errors import QueryError
from search_app.core.response import thumbnail_url
from search_app.schemas import ProblemSchema
from storage.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flask_smorest import Blueprint
    from werkzeug.exceptions import HTTPException

JSON = "application/json"
YEAR = 365 * 24 * 3600
PROBLEM_TYPE = "application/problem+json"
EXPECTED = (QueryError, EngineError, ModelError, StorageError)
"""the errors whose message is meant for people"""


def sentence_of(error: HTTPException, *, max_upload: int) -> str:
    """Return what to tell a person about an error that Flask or an argument parser raised."""
    if error.code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return f"The upload is over the limit of {max_upload / 1_000_000:g} MB; use a smaller picture."
    messages = getattr(error, "data", None) and error.data.get("messages")
    if messages:
        return first_mistake(messages)
    if error.code == HTTPStatus.INTERNAL_SERVER_ERROR:
        return "Something went wrong on the server; its log says what."
    return error.description or error.name


def problem(status: int, detail: str) -> tuple[dict[str, object], int, dict[str, str]]:
    """Return a Flask answer that is a problem document."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return body, status, {"Content-Type": PROBLEM_TYPE}


def may_fail(api: Blueprint, *statuses: int) -> Callable:
    """Return a decorator that writes a route's errors into the OpenAPI document."""

    def mark(view: Callable) -> Callable:
        for status in reversed(statuses):
            view = api.alt_response(status, schema=ProblemSchema, content_type=PROBLEM_TYPE)(view)
        return view

    return mark


def picture_document(image_id: str, source: Mapping[str, Any]) -> Response:
    """Return what the index knows about a picture, its `_source`, as JSON."""
    shown = {"image_id": image_id, **source, "thumbnail_url": thumbnail_url(image_id)}
    return current_app.json.response(shown)


def unchanging(data: bytes, *, mimetype: str, etag: str) -> Response:
    """Return a file that browsers may keep for good, since its name is that of its content."""
    response = Response(data, mimetype=mimetype)
    response.set_etag(etag)
    response.cache_control.private = True
    response.cache_control.max_age = YEAR
    response.cache_control.immutable = True
    return response.make_conditional(request)
