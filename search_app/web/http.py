"""HTTP that all routes share: schemas, problem documents, upload limits, write access, bounded queues."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING
from dataclasses import fields as dataclass_fields
from functools import wraps
from http import HTTPStatus
from types import NoneType
from typing import Annotated, Any, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

from flask import Response, current_app, g, jsonify, request
from flask_smorest import Blueprint
from marshmallow import Schema, fields
from werkzeug.datastructures import FileStorage, Headers
from werkzeug.exceptions import HTTPException

from es_config.errors import EngineError
from models.errors import ModelError
from search_app.core.query import SearchArguments
from search_app.core.response import thumbnail_url
from search_app.core.users import Role, User
from search_app.core.vectors import parse_vector
from search_app.errors import BusyError, QueryError, TooLargeError
from storage.errors import StorageError

View = Callable[..., Any]
BINARY = {"type": "string", "format": "binary"}


PLAIN_FIELDS: Mapping[type, Callable[..., fields.Field[Any]]] = {
    str: fields.String,
    int: fields.Integer,
    float: fields.Float,
    bool: fields.Boolean,
}


def schema_of(shape: type, *, sparse: bool = False) -> type[Schema]:
    """Return the schema of a dataclass, for the OpenAPI document.

    `X | None` may be null; with `sparse`, fields that have a default may be absent instead. `Annotated` types
    hold descriptions: a text, and other keywords of OpenAPI in a mapping.
    """
    hints = get_type_hints(shape, include_extras=True)
    made = {
        each.name: _field_of(hints[each.name], absent=sparse and each.default is not MISSING)
        for each in dataclass_fields(shape)
    }
    return Schema.from_dict(made, name=shape.__name__)


def _field_of(hint: Any, *, absent: bool) -> fields.Field[Any]:
    metadata: dict[str, object] = {}
    if get_origin(hint) is Annotated:
        hint, description, *more = get_args(hint)
        metadata = {"description": description, **(more[0] if more else {})}
    kind, *others = get_args(hint) or (hint,)
    if get_origin(hint) is tuple:
        return fields.List(fields.Nested(schema_of(kind)), required=not absent, metadata=metadata)
    nullable = NoneType in others and not absent
    return PLAIN_FIELDS[kind](required=not absent, allow_none=nullable, metadata=metadata)


class SearchBody(SearchArguments):
    """A search as a JSON body, with the vector as an array."""

    vector = fields.Function(
        deserialize=parse_vector, metadata={"type": "array", "items": {"type": "number"}}
    )


class ProblemSchema(Schema):
    """A problem document (RFC 9457)."""

    type = fields.String(required=True)
    title = fields.String(required=True)
    status = fields.Integer(required=True)
    detail = fields.String(required=True, metadata={"description": "one sentence"})


class ExifSchema(Schema):
    """The EXIF data of a picture."""

    date = fields.String()
    location = fields.Raw(metadata={"description": "geo_point"})
    camera = fields.String()


class PictureSchema(Schema):
    """A picture's metadata, as the index keeps it."""

    image_id = fields.String(required=True)
    image_name = fields.String()
    relative_path = fields.List(fields.String())
    caption = fields.String()
    caption_source = fields.String(
        metadata={
            "description": "who wrote the caption: a model, the file's own description, or a person",
            "enum": ["model", "description", "human"],
        }
    )
    width = fields.Integer()
    height = fields.Integer()
    size_bytes = fields.Integer()
    exif = fields.Nested(ExifSchema)
    phash = fields.String()
    tags = fields.List(fields.String())
    indexed_at = fields.String()
    thumbnail_url = fields.String(required=True)


JSON = "application/json"
MACHINE_PATHS = ("/api/", "/healthz", "/readyz", "/metrics", "/openapi.json")
"""paths that programs ask; they are answered with JSON"""
YEAR = 365 * 24 * 3600
PROBLEM_TYPE = "application/problem+json"
EXPECTED = (QueryError, EngineError, ModelError, StorageError)
"""errors whose message is written for people"""


FORM_ROOM = 256 * 1024
"""bytes that a form may need around its files"""
MAX_FILES = 10
"""pictures that one request may add"""


def body_limit(max_upload: int, *, files: int = 1) -> int:
    """Return the largest body, in bytes, of a request with `files` pictures of `max_upload` bytes each."""
    return files * max_upload + FORM_ROOM


def too_large(max_upload: int, *, files: int = 1) -> TooLargeError:
    """Return the error of a picture over `max_upload` bytes, or of a request with `files` of them."""
    most = f"{max_upload / 1_000_000:g} MB"
    if files > 1:
        return TooLargeError(
            f"The upload is over the limit: {files} pictures of at most {most} each in one request."
        )
    return TooLargeError(f"The picture is over the limit of {most}; use a smaller one.")


def read_upload(upload: FileStorage | None, *, max_upload: int) -> bytes:
    """Return an uploaded file's content. Over `max_upload` bytes `TooLargeError`, empty `QueryError`."""
    data = upload.stream.read(max_upload + 1) if upload else b""
    if len(data) > max_upload:
        raise too_large(max_upload)
    if not data:
        raise QueryError("No picture arrived: choose a picture file that is not empty.")
    return data


def status_of(error: Exception) -> int:
    """Return the HTTP status of one of the `EXPECTED` errors."""
    return error.status if isinstance(error, QueryError) else HTTPStatus.SERVICE_UNAVAILABLE.value


def sentence_of(error: HTTPException, *, max_upload: int) -> str:
    """Return a sentence about an error that Flask raised."""
    if error.code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return str(too_large(max_upload))
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
    return jsonify(
        {"image_id": image_id, **source, "thumbnail_url": request.script_root + thumbnail_url(image_id)}
    )


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
"""`Sec-Fetch-Site` of a request from our own page, and of an address that a person typed"""


class ForbiddenError(QueryError):
    """The server refuses this request. The message says why."""

    status = 403


def requires_role(role: Role) -> Callable[[View], View]:
    """Return a decorator that lets a view answer only people of a role, where people sign in."""

    def mark(view: View) -> View:
        marked: Any = view
        marked.role = role  # what `login` reads
        return view

    return mark


def may(role: Role) -> bool:
    """Say whether the person who asks has a role. Without a login everybody has."""
    user: User | None = g.get("user")
    return user is None or user.role >= role


def requires_write_access(view: View) -> View:
    """Mark a view that changes something. It has to be the innermost decorator.

    The view then raises `ForbiddenError` when the server is read-only, and answers only contributors where
    people sign in. That no other site's page asks for it is checked for every route.
    """

    @wraps(view)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        check_writable()
        return view(*args, **kwargs)

    marked: Any = guarded
    marked.writes = True  # a test asks every route that changes something for it
    return requires_role(Role.CONTRIBUTOR)(guarded)


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
    if origin is not None and _host_of(origin) != host.lower():
        raise ForbiddenError(
            f"The page at '{origin[:100]}' asked '{host[:100]}' for this; do it on the page of Glimpse itself"
            " (a proxy in front of it has to pass the Host header on)."
        )


def _host_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:  # such as `http://[`
        return None


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
