"""Errors on the way out: one sentence, as a problem document (RFC 9457) for programs."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from es_config.errors import EngineError
from models.errors import ModelError
from search_app.errors import QueryError
from storage.errors import StorageError

if TYPE_CHECKING:
    from werkzeug.exceptions import HTTPException

PROBLEM_TYPE = "application/problem+json"
EXPECTED = (QueryError, EngineError, ModelError, StorageError)
"""the errors whose message is meant for people"""


def status_of(error: Exception) -> int:
    """Return the HTTP status of an expected error; 500 for any other."""
    if isinstance(error, QueryError):
        return error.status
    if isinstance(error, EXPECTED):
        return HTTPStatus.SERVICE_UNAVAILABLE
    return HTTPStatus.INTERNAL_SERVER_ERROR


def sentence_of(error: HTTPException, *, max_upload: int) -> str:
    """Return what to tell a person about an error that Flask or an argument parser raised."""
    from search_app.arguments import first_mistake

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
