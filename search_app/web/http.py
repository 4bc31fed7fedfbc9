"""HTTP that all routes share: answers, problem documents, schemas, write access, bounded queues."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from flask import Response, current_app, jsonify, request
from marshmallow import Schema, fields

from es_config.errors import EngineError
from models.errors import ModelError
from search_app.core.query import SearchArguments, first_mistake, said
from search_app.core.response import thumbnail_url
from search_app.errors import BusyError, QueryError
from storage.errors import StorageError

if TYPE_CHECKING:
    from flask_smorest import Blueprint
    from werkzeug.datastructures import Headers
    from werkzeug.exceptions import HTTPException

View = Callable[..., Any]
BINARY = {"type": "string", "format": "binary"}


class HitSchema(Schema):
    """One picture that was found."""

    image_id = fields.String(required=True, metadata=said("SHA-256 of the file's content"))
    score = fields.Float(required=True, metadata=said("Elasticsearch's _score; in mode hybrid the fusion's"))
    similarity = fields.Float(
        required=True,
        allow_none=True,
        metadata=said("the cosine; null in mode hybrid for a picture found by its caption alone"),
    )
    path = fields.String(required=True)
    caption = fields.String(required=True, allow_none=True)
    thumbnail_url = fields.String(required=True)
    why = fields.String(
        required=True,
        allow_none=True,
        metadata=said(
            "in mode hybrid, what brought it here: ranks and words",
            example="visual 2nd; caption meaning 1st; caption words: boat, red",
        ),
    )
    relevance = fields.String(
        required=True,
        allow_none=True,
        metadata=said(
            "how good a hit of a query in words is; null where the index is not calibrated",
            enum=["strong", "weak", "none", None],
        ),
    )


class SearchResponseSchema(Schema):
    """The answer to a search."""

    query = fields.String(required=True)
    mode = fields.String(required=True)
    lane = fields.String(required=True, allow_none=True)
    k = fields.Integer(required=True)
    num_candidates = fields.Integer(required=True, allow_none=True)
    took_ms = fields.Float(required=True)
    total = fields.Integer(required=True)
    hits = fields.List(fields.Nested(HitSchema), required=True)


class SearchBody(SearchArguments):
    """A search as a JSON body, with the vector as an array."""

    vector = fields.Raw(metadata={"type": "array", "items": {"type": "number"}})


class ProblemSchema(Schema):
    """A problem document (RFC 9457)."""

    type = fields.String(required=True)
    title = fields.String(required=True)
    status = fields.Integer(required=True)
    detail = fields.String(required=True, metadata=said("one sentence"))


class ExifSchema(Schema):
    """The EXIF data of a picture."""

    date = fields.String()
    location = fields.Raw(metadata=said("geo_point"))
    camera = fields.String()


class PictureSchema(Schema):
    """A picture's metadata, as the index keeps it."""

    image_id = fields.String(required=True)
    image_name = fields.String()
    relative_path = fields.List(fields.String())
    caption = fields.String()
    caption_source = fields.String(
        metadata=said(
            "who wrote the caption: a model, the file's own description, or a person",
            enum=["model", "description", "human"],
        )
    )
    width = fields.Integer()
    height = fields.Integer()
    size_bytes = fields.Integer()
    exif = fields.Nested(ExifSchema)
    phash = fields.String()
    tags = fields.List(fields.String())
    indexed_at = fields.String()
    thumbnail_url = fields.String(required=True)


class AddedFileSchema(Schema):
    """The result for one file."""

    name = fields.String(required=True)
    status = fields.Integer(
        required=True, metadata=said("201 added, 200 known before, else refused: see `detail`")
    )
    detail = fields.String(metadata=said("one sentence, for a refused file"))
    image_id = fields.String(metadata=said("SHA-256 of the file's content"))
    path = fields.String()
    caption = fields.String(allow_none=True)
    caption_source = fields.String(metadata=said("`model`, `description` or `human`"))
    caption_error = fields.String(metadata=said("why it has no caption yet"))
    thumbnail_url = fields.String()


class AddedSchema(Schema):
    """One entry for each file, in their order."""

    images = fields.List(fields.Nested(AddedFileSchema), required=True)


class TranscriptSchema(Schema):
    """The transcript of a recording."""

    text = fields.String(required=True, metadata=said("empty where nobody spoke"))
    language = fields.String(required=True, allow_none=True, metadata=said("ISO 639-1, such as `fr`"))
    language_probability = fields.Float(required=True, metadata=said("0 to 1"))
    no_speech_probability = fields.Float(
        required=True, metadata=said("0 to 1; 1 where no voice was found at all")
    )
    seconds = fields.Float(required=True, metadata=said("length of the recording"))
    took_ms = fields.Integer(required=True)


JSON = "application/json"
YEAR = 365 * 24 * 3600
PROBLEM_TYPE = "application/problem+json"
EXPECTED = (QueryError, EngineError, ModelError, StorageError)
"""the errors whose message is meant for people"""


def sentence_of(error: HTTPException, *, max_upload: int) -> str:
    """Return a sentence about an error that Flask or an argument parser raised."""
    if error.code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return f"The upload is over the limit of {max_upload / 1_000_000:g} MB; use a smaller picture."
    data = getattr(error, "data", None)  # webargs sets it
    if data and data.get("messages"):
        return first_mistake(data["messages"])
    if error.code == HTTPStatus.INTERNAL_SERVER_ERROR:
        return "Something went wrong on the server; its log says what."
    return error.description or error.name


def problem(status: int, detail: str) -> tuple[dict[str, object], int, dict[str, str]]:
    """Return a Flask answer that is a problem document."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return body, status, {"Content-Type": PROBLEM_TYPE}


def may_fail(api: Blueprint, *statuses: int) -> Callable[[View], View]:
    """Return a decorator that writes a route's errors into the OpenAPI document."""

    def mark(view: View) -> View:
        for status in reversed(statuses):
            view = api.alt_response(status, schema=ProblemSchema, content_type=PROBLEM_TYPE)(view)
        return view

    return mark


def picture_document(image_id: str, source: Mapping[str, Any]) -> Response:
    """Return a picture's `_source` as JSON."""
    shown = {"image_id": image_id, **source, "thumbnail_url": thumbnail_url(image_id)}
    return jsonify(shown)


def unchanging(data: bytes, *, mimetype: str, etag: str) -> Response:
    """Return a file that browsers may keep for good, since its name is that of its content."""
    response = Response(data, mimetype=mimetype)
    response.set_etag(etag)
    response.cache_control.private = True
    response.cache_control.max_age = YEAR
    response.cache_control.immutable = True
    response.make_conditional(request)
    return response


OUR_OWN = ("same-origin", "none")
"""what browsers say in `Sec-Fetch-Site` of our own page, and of an address that a person typed"""


class ForbiddenError(QueryError):
    """The server refuses this request. The message says why."""

    status = 403


def requires_write_access(view: View) -> View:
    """Mark a view that changes something. It has to be the innermost decorator.

    The view then raises `ForbiddenError` when the server is read-only, and when a browser sends the request
    for another site's page: a form on any page that a person visits can be sent to this machine.
    """

    @wraps(view)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        check_writable()
        check_origin(request.headers, host=request.host)
        return view(*args, **kwargs)

    marked: Any = guarded
    marked.writes = True  # a test asks every route that changes something for it
    return guarded


def check_writable() -> None:
    """Raise `ForbiddenError` when this server was started with `--read-only`."""
    if current_app.config["READ_ONLY"]:
        raise ForbiddenError("This server only searches: it was started with --read-only.")


def check_origin(headers: Headers | Mapping[str, str], *, host: str) -> None:
    """Raise `ForbiddenError` for a request that a browser makes for a page of another site than `host`.

    Programs other than browsers send neither header, and pass.
    """
    site, origin = headers.get("Sec-Fetch-Site"), headers.get("Origin")
    if site is not None and site not in OUR_OWN:
        raise ForbiddenError("Another site's page asked for this; do it on the page of Glimpse itself.")
    if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
        raise ForbiddenError(
            f"The page at '{origin[:100]}' asked '{host[:100]}' for this; do it on the page of Glimpse itself"
            " (a proxy in front of it has to pass the Host header on)."
        )


AT_ONCE = 2
WAITING = 14
"""requests that wait for their turn; the server has threads for them beside those of the page"""


class RequestQueue:
    """Let `at_once` threads run and `waiting` more wait, and refuse others with the sentence `busy`."""

    def __init__(
        self, *, busy: str, retry_after_s: int, at_once: int = AT_ONCE, waiting: int = WAITING
    ) -> None:
        self._busy, self._retry_after_s = busy, retry_after_s
        self._places = threading.BoundedSemaphore(at_once + waiting)
        self._running = threading.BoundedSemaphore(at_once)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a turn. Raises `BusyError` when the line is full."""
        if not self._places.acquire(blocking=False):
            raise BusyError(self._busy, retry_after_s=self._retry_after_s)
        try:
            with self._running:
                yield
        finally:
            self._places.release()
