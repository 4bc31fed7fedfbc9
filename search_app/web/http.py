"""HTTP that all routes share: schemas, problem documents, upload limits, write access, bounded queues."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING
from dataclasses import fields as dataclass_fields
from functools import wraps
from http import HTTPStatus
from types import NoneType
from typing import IO, Annotated, Any, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

from flask import Request, Response, current_app, g, jsonify, request
from flask_smorest import Blueprint
from marshmallow import Schema, fields
from werkzeug.datastructures import FileStorage, Headers, MultiDict
from werkzeug.exceptions import BadRequest, HTTPException, NotFound, RequestEntityTooLarge
from werkzeug.sansio.multipart import Data, Epilogue, Field, File, MultipartDecoder, NeedData

from es_config.documents import one_line, paths_of
from es_config.errors import EngineError, RefusedQueryError
from models.errors import ModelError
from search_app.core.parts import MAX_DIMS, MAX_PARTS, MAX_WEIGHT
from search_app.core.query import PARTS, WEIGHTED, SearchArguments, thumbnail_url
from search_app.core.users import Role, User
from search_app.errors import BusyError, QueryError, TooLargeError
from search_app.web.languages import translated
from storage.errors import StorageError

View = Callable[..., Any]
BINARY = {"type": "string", "format": "binary"}


PLAIN_FIELDS: Mapping[type, Callable[..., fields.Field[Any]]] = {
    str: fields.String,
    int: fields.Integer,
    float: fields.Float,
    bool: fields.Boolean,
    dict: fields.Dict,
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
    return PLAIN_FIELDS[get_origin(kind) or kind](required=not absent, allow_none=nullable, metadata=metadata)


NUMBERS = {"type": "array", "items": {"type": "number"}, "minItems": 1, "maxItems": MAX_DIMS}
WEIGHTED_VECTOR = {
    "type": "object",
    "properties": {"values": NUMBERS, "weight": {"type": "number", "maximum": MAX_WEIGHT}},
    "required": ["values", "weight"],
    "additionalProperties": False,
}


def _one_or_several(description: str) -> dict[str, object]:
    one = {"type": "string"}
    several = {"type": "array", "items": one, "maxItems": MAX_PARTS}
    return {"description": description + WEIGHTED, "oneOf": [one, several]}


def _vectors(description: str) -> dict[str, object]:
    coded = {"type": "string", "description": "base64url of little-endian float16 numbers"}
    several = {
        "type": "array",
        "items": {"oneOf": [NUMBERS, coded, WEIGHTED_VECTOR]},
        "minItems": 1,
        "maxItems": MAX_PARTS,
    }
    return {"description": description, "oneOf": [NUMBERS, coded, several]}


class SearchBody(SearchArguments):
    """A search as a JSON body."""

    q: fields.Field[Any] = fields.Raw(metadata=_one_or_several("words to search for"))
    like: fields.Field[Any] = fields.Raw(
        metadata=_one_or_several("id of a picture of the index: find pictures like it")
    )
    minus: fields.Field[Any] = fields.Raw(metadata=_one_or_several("words that are not wanted"))
    unlike: fields.Field[Any] = fields.Raw(
        metadata=_one_or_several("id of a picture of the index that is not wanted")
    )
    vector: fields.Field[Any] = fields.Raw(metadata=_vectors("a vector, or several"))
    minus_vector: fields.Field[Any] = fields.Raw(metadata=_vectors("a vector that is not wanted, or several"))


class SearchForm(SearchArguments):
    """A search as a form, with pictures that are asked with."""

    image = fields.List(
        fields.Raw(metadata=BINARY),
        metadata={"description": "picture files: find pictures like them", "maxItems": MAX_PARTS},
    )
    image_weight = fields.List(
        fields.Float(metadata={"maximum": MAX_WEIGHT}),
        metadata={"description": "weights of the files of image, in their order; else 1"},
    )
    minus_image = fields.List(
        fields.Raw(metadata=BINARY),
        metadata={"description": "picture files that are not wanted", "maxItems": MAX_PARTS},
    )
    minus_image_weight = fields.List(
        fields.Float(metadata={"maximum": MAX_WEIGHT}),
        metadata={"description": "weights of the files of minus_image, in their order; else 1"},
    )
    audio = fields.List(
        fields.Raw(metadata=BINARY),
        metadata={
            "description": "recordings of wanted words, as /transcribe takes them",
            "maxItems": MAX_PARTS,
        },
    )
    audio_weight = fields.List(
        fields.Float(metadata={"maximum": MAX_WEIGHT}),
        metadata={"description": "weights of the files of audio, in their order; else 1"},
    )
    minus_audio = fields.List(
        fields.Raw(metadata=BINARY),
        metadata={"description": "recordings of words that are not wanted", "maxItems": MAX_PARTS},
    )
    minus_audio_weight = fields.List(
        fields.Float(metadata={"maximum": MAX_WEIGHT}),
        metadata={"description": "weights of the files of minus_audio, in their order; else 1"},
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
    local_date = fields.String(metadata={"description": "what a clock at the place showed"})
    offset = fields.String(metadata={"description": "of that clock from UTC, such as +02:00"})
    date_source = fields.String(metadata={"description": "where the date was read"})


class WrittenLineSchema(Schema):
    """A line of text in a picture."""

    text = fields.String(required=True)
    confidence = fields.Float(required=True, metadata={"description": "the reader's, 0 to 1"})
    box = fields.List(
        fields.Float(),
        required=True,
        metadata={
            "description": "four corners, x and y of each from 0 to 1 of the upright picture's width and"
            " height, clockwise from the beginning of the line"
        },
    )


class FilmSchema(Schema):
    """The film that a picture was taken from, and its time in it."""

    id = fields.String(
        required=True, metadata={"description": "SHA-256 of the film's file, the same for all of its moments"}
    )
    time_ms = fields.Integer(required=True)
    duration_ms = fields.Integer(required=True)
    is_moment = fields.Boolean(
        metadata={"description": "false for the picture that stands for the whole film"}
    )
    moments = fields.List(
        fields.Integer(),
        metadata={"description": "of the whole film, the times of its other pictures, in milliseconds"},
    )
    codec = fields.String(metadata={"description": "as FFmpeg calls it, such as h264"})
    has_sound = fields.Boolean()


class PlacedFileSchema(Schema):
    """A file on the server."""

    root = fields.String(
        required=True, metadata={"description": "the folder that was ingested, as an absolute path"}
    )
    path = fields.String(required=True, metadata={"description": "the path of the file below that folder"})
    absolute_path = fields.String(required=True)


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
    words = fields.List(
        fields.String(),
        metadata={"description": "the lines written in the picture, once it was read"},
    )
    words_by = fields.String(metadata={"description": "the models that read the text"})
    words_fault = fields.String(metadata={"description": "why the text cannot be read"})
    words_lines = fields.List(fields.Nested(WrittenLineSchema))
    film = fields.Nested(FilmSchema)
    cut_short = fields.Boolean(
        metadata={"description": "true if the end of the file is missing, and the rest of it grey"}
    )
    width = fields.Integer()
    height = fields.Integer()
    size_bytes = fields.Integer()
    exif = fields.Nested(ExifSchema)
    phash = fields.String()
    tags = fields.List(fields.String())
    tags_source = fields.String(
        metadata={"description": "`human` when a person edited the keywords", "enum": ["human"]}
    )
    favourite = fields.Boolean()
    people = fields.List(fields.String())
    places = fields.List(fields.String())
    title = fields.String()
    rating = fields.Integer()
    names = fields.Raw(metadata={"description": "the names of the picture, folded for search"})
    indexed_at = fields.String()
    thumbnail_url = fields.String(required=True)
    original_url = fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "the whole picture, as a path on this server; null where it is not here"},
    )
    film_url = fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "the film of a live or motion photo, as a path on this server"},
    )
    files = fields.List(
        fields.Nested(PlacedFileSchema),
        metadata={"description": "where its files lie on the server, for those who may know it"},
    )


JSON = "application/json"
OCTETS = "application/octet-stream"
MACHINE_PATHS = ("/api/", "/healthz", "/readyz", "/metrics", "/openapi.json")
"""paths that programs ask; they are answered with JSON"""
ORIGINAL_OF = "glimpse_original_of"
"""the extension of an application that returns the addresses and files of a picture's original"""
YEAR = 365 * 24 * 3600
PROBLEM_TYPE = "application/problem+json"
EXPECTED = (QueryError, EngineError, ModelError, StorageError)
"""errors whose message is written for people, if not always for visitors"""
LOG_AGAIN_S = 60.0
"""seconds until a sentence that was just logged is logged again"""


FORM_ROOM = 256 * 1024
"""bytes that a form may need around its files, and that each of its fields may have"""
MAX_JSON = 128 * 1024
"""bytes of a JSON body. A vector of 4 096 numbers takes at most 107 000, as `-1.2345678901234567e-05, ` has
25 characters, and the other parameters take 16 000 if each character is escaped"""
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


def read_json(asked: Request) -> object:
    """Return the JSON body of a request. Raises `TooLargeError` over `MAX_JSON` bytes, `QueryError`."""
    asked.max_content_length = MAX_JSON
    try:
        return asked.get_json()
    except RequestEntityTooLarge as error:
        raise TooLargeError(f"The JSON body is over the limit of {MAX_JSON} bytes.") from error
    except BadRequest as error:
        raise QueryError("The JSON body must be valid JSON.") from error
    except RecursionError as error:
        raise QueryError("The JSON body is nested too deeply.") from error


def search_arguments(given: MultiDict[str, str]) -> dict[str, str | list[str]]:
    """Return the parameters of a search: those of parts of the question as lists, the first of each other."""
    return {name: given.getlist(name) if name in PARTS else given[name] for name in given}


class FormRequest(Request):
    """A request that names the form field that is over its room, instead of calling the file too large.

    The files of a question stay in memory, whose recordings must never be written to a disk.
    """

    def _get_file_stream(
        self,
        total_content_length: int | None,
        content_type: str | None,
        filename: str | None = None,
        content_length: int | None = None,
    ) -> IO[bytes]:
        if self.endpoint == "api.search_by_body":
            return io.BytesIO()
        return super()._get_file_stream(total_content_length, content_type, filename, content_length)

    def _load_form_data(self) -> None:
        try:
            super()._load_form_data()
        except RequestEntityTooLarge as error:
            most = self.max_content_length
            if most is not None and (self.content_length or 0) > most:
                raise
            raise form_too_large(self) from error


def form_too_large(asked: Request) -> TooLargeError:
    """Return the error of a form whose body is within the limit, and whose fields are not."""
    stream, boundary = asked.environ["wsgi.input"], asked.mimetype_params.get("boundary", "")
    name = None
    if boundary and stream.seekable():
        stream.seek(0)
        name = _field_over_room(stream, boundary)
    if name is None:
        return TooLargeError(f"The form has too many fields, or more than {FORM_ROOM} bytes around its file.")
    return TooLargeError(
        f"The field '{one_line(name[:60])}' of the form is over its room of {FORM_ROOM} bytes."
    )


def _field_over_room(stream: IO[bytes], boundary: str) -> str | None:
    """Read a form again and return the name of the first field over `FORM_ROOM`, or None without one."""
    decoder = MultipartDecoder(boundary.encode(), max_form_memory_size=2 * FORM_ROOM)
    name: str | None = None
    size = 0
    try:
        while data := stream.read(FORM_ROOM // 4):
            decoder.receive_data(data)
            while not isinstance(event := decoder.next_event(), (Epilogue, NeedData)):
                if isinstance(event, Field | File):
                    name, size = event.name if isinstance(event, Field) else None, 0
                elif isinstance(event, Data):
                    size += len(event.data)
                    if name is not None and size > FORM_ROOM:
                        return name
    except (RequestEntityTooLarge, ValueError):
        return None
    return None


def status_of(error: Exception) -> int:
    """Return the HTTP status of one of the `EXPECTED` errors."""
    if isinstance(error, RefusedQueryError):
        return HTTPStatus.BAD_REQUEST.value
    return error.status if isinstance(error, QueryError) else HTTPStatus.SERVICE_UNAVAILABLE.value


def visitors_sentence(error: Exception) -> str:
    """Return the sentence of one of the `EXPECTED` errors for whoever asks, and log that for the operator.

    The operator's names addresses, folders and indexes. An owner who is signed in reads it as well, and
    /readyz, which programs of operators ask, says it where nobody signs in.
    """
    sentence = str(error)
    shown = getattr(error, "for_visitors", sentence)
    if shown == sentence:
        return translated(sentence)
    _log_for_operator(sentence)
    is_told = g.get("user") is not None or request.endpoint == "health.readyz"
    return sentence if is_told and may(Role.OWNER) else translated(shown)


def _log_for_operator(sentence: str) -> None:
    """Log a sentence, but not twice within a minute: while Elasticsearch is away every request has it."""
    logged: dict[str, float] = current_app.extensions.setdefault("glimpse_logged", {})
    now = time.monotonic()
    if now - logged.get(sentence, -LOG_AGAIN_S) < LOG_AGAIN_S:
        return
    if len(logged) > 100:
        logged.clear()
    logged[sentence] = now
    current_app.logger.error("%s", one_line(sentence))


def sentence_of(error: HTTPException, *, max_upload: int) -> str:
    """Return a sentence about an error that Flask raised."""
    if error.code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        if request.mimetype == "multipart/form-data":
            return str(too_large(max_upload))
        return f"The request is over the limit of {body_limit(max_upload) / 1_000_000:.3g} MB."
    if error.code == HTTPStatus.INTERNAL_SERVER_ERROR:
        return "Something went wrong on the server; its log says what."
    if error.code == HTTPStatus.NOT_FOUND and error.description == NotFound.description:
        return _nothing_there_sentence()
    if error.code == HTTPStatus.METHOD_NOT_ALLOWED:
        return f"'{request.path[:100]}' does not answer to {request.method}."
    return error.description or error.name


def _nothing_there_sentence() -> str:
    path, root = request.path[:100], request.script_root
    if request.path.startswith(MACHINE_PATHS):
        return f"There is no route '{path}'; the page '{root}/docs' lists them."
    return f"There is nothing at '{path}'; the start page of Glimpse is at '{root}/'."


def problem(status: int, detail: str) -> tuple[dict[str, object], int, dict[str, str]]:
    """Return a Flask answer that is a problem document."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return body, status, {"Content-Type": PROBLEM_TYPE}


ERRORS: Mapping[int, str] = {
    400: "a part of the request is not valid; a Host header that this server does not answer to",
    401: "nobody is signed in, where people have to",
    403: "the role does not allow it, the server is read-only, or another site's page asks",
    404: "the index holds no such picture",
    408: "the body came too slowly",
    413: "the body or a part of it is over its limit",
    416: "the part that was asked for is not in the file",
    415: "the body is of a type that is not read here",
    429: "asked too often, see Retry-After",
    503: "Elasticsearch, a store or a model cannot be used, or too many requests wait, see Retry-After",
}
OF_ALL_ROUTES = (400, 401, 403, 503)


def may_fail(api: Blueprint, *statuses: int, schema: type[Schema] = ProblemSchema) -> Callable[[View], View]:
    """Return a decorator that writes a route's errors, with those of all, into the OpenAPI document."""

    def mark(view: View) -> View:
        for status in sorted({*statuses, *OF_ALL_ROUTES}, reverse=True):
            view = api.alt_response(
                status, schema=schema, content_type=PROBLEM_TYPE, description=ERRORS[status]
            )(view)
        return view

    return mark


def picture_document(image_id: str, source: Mapping[str, Any]) -> Response:
    """Return a picture's `_source` as JSON, with the addresses of its thumbnail, original and film."""
    original = current_app.extensions[ORIGINAL_OF](image_id, source)
    files = placed_files(original["files"], paths_of(source))
    return jsonify(
        {
            "image_id": image_id,
            **{name: value for name, value in source.items() if value is not None},
            "thumbnail_url": request.script_root + thumbnail_url(image_id),
            "original_url": original.get("open"),
            "film_url": original.get("part"),
            **({"files": files} if files else {}),
        }
    )


def placed_files(absolute: Sequence[str], relative: Sequence[str]) -> list[dict[str, str]]:
    """Return the folder that was ingested, and the path below it, of each absolute path of a picture."""
    placed = []
    for file in absolute:
        path = max((each for each in relative if file.endswith(f"/{each}")), key=len, default="")
        root = file.removesuffix(path).rstrip("/") or "/"
        placed.append({"root": root, "path": path, "absolute_path": file})
    return placed


def media_type_for(own: str) -> str:
    """Return the media type to send a file as: its own, or as bytes where the request accepts only that."""
    return request.accept_mimetypes.best_match([own, OCTETS], default=own) or own


def unchanging(data: bytes, *, mimetype: str, etag: str) -> Response:
    """Return a file that browsers may keep for good, since its name is that of its content."""
    response = Response(data, mimetype=media_type_for(mimetype))
    response.vary.add("Accept")
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

    Programs other than browsers send neither header, and pass. A picture that a person shares with the
    installed page is a navigation of no site's page, and browsers call its origin null: no page can send
    that, since scripts cannot set `Sec-Fetch-Site`.
    """
    site, origin = headers.get("Sec-Fetch-Site"), headers.get("Origin")
    is_shared = site == "none" and headers.get("Sec-Fetch-Mode", "navigate") == "navigate"
    if is_shared and origin == "null":
        return
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
