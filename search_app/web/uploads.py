"""Add pictures by page and by REST."""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

from flask import Blueprint as PageBlueprint
from flask import Response, current_app, jsonify, make_response, render_template, request, url_for
from flask_smorest import Blueprint
from werkzeug.exceptions import RequestEntityTooLarge

from es_config.documents import paths_of
from es_config.errors import EngineError
from models.errors import ModelError
from search_app.core.pictures import FORM_ROOM, Addition, read_upload
from search_app.core.response import API_PREFIX, thumbnail_url
from search_app.errors import NotFoundError, QueryError, TooLargeError
from search_app.web.http import (
    BINARY,
    JSON,
    AddedSchema,
    ForbiddenError,
    RequestQueue,
    check_writable,
    may_fail,
    problem,
    requires_write_access,
    unchanging,
)
from storage.errors import NoSuchKeyError, StorageError
from storage.keys import UPLOADS, media_type
from storage.store import find_original

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from werkzeug.datastructures import FileStorage

    from search_app.core.searcher import SearchService
    from storage.store import Storage

MAX_FILES = 10
"""in one request"""
LONGEST_NAME = 100
KNOWN = ("image_id", "path", "caption", "caption_source", "caption_error")
NOT_NOW = (EngineError, ModelError, StorageError)


class PictureIndexer(Protocol):
    """Adds pictures to the index. `glimpse serve` builds one from the parts of ingest and hands it in."""

    def add(self, name: str, data: bytes) -> Addition:
        """Index one file's content. Raises `EngineError`, `ModelError` or `StorageError`."""

    def publish(self) -> None:
        """Let searches find the added pictures. Raises `EngineError`."""


@dataclass(frozen=True)
class AddedFile:
    """One file of a request: `status` is the HTTP status that it would have alone."""

    name: str
    status: int
    """201 added, 200 the index had this content, else refused: `detail` says why, all below is None"""
    detail: str | None = None
    image_id: str | None = None
    path: str | None = None
    caption: str | None = None
    caption_source: str | None = None
    caption_error: str | None = None
    thumbnail_url: str | None = None

    @property
    def is_refused(self) -> bool:
        """Whether it became no picture."""
        return self.status >= HTTPStatus.BAD_REQUEST

    def to_json(self) -> dict[str, Any]:
        """Return the known fields. None is left out, except the caption of a picture."""
        kept = {name: value for name, value in vars(self).items() if value is not None}
        return kept if self.is_refused else {**kept, "caption": self.caption}


def add_files(indexer: PictureIndexer, files: Sequence[FileStorage], *, max_upload: int) -> list[AddedFile]:
    """Add files one after the other and make them findable. A refused file does not stop the others.

    Raises `QueryError` when there is no file or more than `MAX_FILES`.
    """
    sent = [file for file in files if file.filename]
    if not sent:
        raise QueryError("No picture arrived: send one or several files as the multipart field `image`.")
    if len(sent) > MAX_FILES:
        raise QueryError(f"{len(sent)} files arrived, and one request adds {MAX_FILES}; send the rest after.")
    added = [_add(indexer, file, max_upload=max_upload) for file in sent]
    if not all(each.is_refused for each in added):
        indexer.publish()
    return added


def _add(indexer: PictureIndexer, file: FileStorage, *, max_upload: int) -> AddedFile:
    name = (file.filename or "").replace("\\", "/").rpartition("/")[2][:LONGEST_NAME]
    try:
        addition = indexer.add(name, read_upload(file, max_upload=max_upload))
    except TooLargeError as error:
        return AddedFile(name, error.status, f"'{name}' was not added. {error}")
    except QueryError as error:
        return AddedFile(name, error.status, f"'{name}' was not added: the file is empty.")
    except NOT_NOW as error:
        return AddedFile(name, HTTPStatus.SERVICE_UNAVAILABLE.value, f"'{name}' was not added. {error}")
    if addition.refused is not None:
        return AddedFile(name, HTTPStatus.BAD_REQUEST.value, f"'{name}' was not added: {addition.refused}.")
    return AddedFile(
        name,
        (HTTPStatus.CREATED if addition.is_new else HTTPStatus.OK).value,
        **{name: getattr(addition, name) for name in KNOWN},
        thumbnail_url=thumbnail_url(addition.image_id),
    )


LONGEST_STEM = 100
UNSAFE = re.compile(r"[^\w .()-]")
"""what a name from a file system may hold and a header had better not"""
POST_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["image"],
                "properties": {"image": {"type": "array", "items": BINARY, "maxItems": MAX_FILES}},
            }
        }
    },
}
SEALED = "default-src 'none'; sandbox; frame-ancestors 'none'"
"""a Content-Security-Policy under which nothing runs, whatever a file's bytes could also be read as"""


class Uploads:
    """Adds the files of a few requests at a time. `indexer` returns the current one, or None if off."""

    def __init__(
        self,
        *,
        indexer: Callable[[], PictureIndexer | None],
        max_upload: int,
        queue: RequestQueue | None = None,
    ) -> None:
        self._indexer = indexer
        self._max_upload = max_upload
        self._queue = queue or RequestQueue(
            busy="Too many pictures are being added at the moment; send this one again in a few seconds.",
            retry_after_s=3,
        )

    @property
    def is_open(self) -> bool:
        """Whether this server adds pictures at all."""
        return self._indexer() is not None and not current_app.config["READ_ONLY"]

    def add_request(self) -> list[AddedFile]:
        """Add the files of this request. Raises `QueryError`, `BusyError` or `ForbiddenError`."""
        check_writable()
        indexer = self._indexer()
        if indexer is None:
            raise ForbiddenError("Adding pictures is switched off on this server.")
        files = self._files()
        with self._queue.turn():
            return add_files(indexer, files, max_upload=self._max_upload)

    def _files(self) -> list[FileStorage]:
        """Read the form, which may be larger than one of a search. A form over the limit is not read."""
        request.max_content_length = largest_request(self._max_upload)
        try:
            return request.files.getlist("image")
        except RequestEntityTooLarge as error:
            each = f"{self._max_upload / 1_000_000:g} MB"
            raise TooLargeError(
                f"The upload is over the limit: {MAX_FILES} pictures of at most {each} each in one request."
            ) from error


def largest_request(max_upload: int) -> int:
    """Return the bytes that one request may have."""
    return MAX_FILES * max_upload + FORM_ROOM


def upload_blueprint(*, service: SearchService, storage: Storage, uploads: Uploads) -> Blueprint:
    """Return the routes that add pictures and that send the originals of those that were added."""
    api = Blueprint("uploads", __name__, url_prefix=API_PREFIX, description="Adding pictures")

    @api.post("/images")
    @api.doc(requestBody=POST_BODY)
    @api.response(201, AddedSchema, content_type=JSON)
    @api.alt_response(200, schema=AddedSchema, content_type=JSON)
    @may_fail(api, 400, 403, 413, 503)
    @requires_write_access
    def add() -> Response:
        """Add one or several pictures (multipart `image`). With the answer, searches find them."""
        return _answer(uploads.add_request())

    @api.get("/images/<image_id>/original")
    @api.response(200, BINARY, content_type="image/*")
    @may_fail(api, 404, 503)
    def original(image_id: str) -> Response:
        """Send the whole picture: the file as it came, or the WebP copy that is kept of it."""
        names = names_of(service.searcher.picture(image_id))
        key = find_original(storage, image_id, names=names)
        if key is None:
            raise NotFoundError(f"The original of '{image_id[:70]}' is not kept here.")
        return _send_original(storage, image_id, key, name=(names or (image_id,))[0])

    return api


def names_of(source: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the relative paths of a document, the uploaded one first: it is named by its content."""
    return tuple(sorted(paths_of(source), key=lambda path: not path.startswith(UPLOADS)))


def _send_original(storage: Storage, image_id: str, key: str, *, name: str) -> Response:
    try:
        data = storage.get(key)
    except NoSuchKeyError as error:
        raise NotFoundError(f"The original of '{image_id[:70]}' is not kept here.") from error
    response = unchanging(data, mimetype=media_type(key), etag=PurePosixPath(key).name)
    stem = UNSAFE.sub("_", PurePosixPath(name).stem)[:LONGEST_STEM]
    response.headers.set("Content-Disposition", "inline", filename=f"{stem}.{key.rpartition('.')[2]}")
    response.headers["Content-Security-Policy"] = SEALED
    response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
    return response


def _answer(added: Sequence[AddedFile]) -> Response:
    """Answer 201 when something is new, 200 when the index had every usable file, else with a problem."""
    shown = [each.to_json() for each in added]
    if all(each.is_refused for each in added):
        status = max(each.status for each in added)
        first = added[0].detail or ""
        detail = first if len(added) == 1 else f"None of {len(added)} files: {first}"
        body, *rest = problem(status, detail)
        return make_response(({**body, "images": shown}, *rest))
    is_new = any(each.status == HTTPStatus.CREATED for each in added)
    response = jsonify({"images": shown})
    response.status_code = HTTPStatus.CREATED if is_new else HTTPStatus.OK
    return response


def add_page_blueprint(*, uploads: Uploads, storage: Storage) -> PageBlueprint:
    """Return the page's routes, and tell every template whether pictures can be added."""
    page = PageBlueprint("add_page", __name__)

    @page.get("/add")
    def add() -> str:
        """Show the form."""
        return render_template("add.html", added=())

    @page.post("/add")
    @requires_write_access
    def add_chosen() -> str:
        """Add the chosen pictures and show the result of each, for browsers without JavaScript."""
        return render_template("add.html", added=uploads.add_request())

    @page.app_context_processor
    def adding() -> dict[str, Any]:
        return {
            "can_add": uploads.is_open,
            "original_url": lambda image_id, source: _original_url(storage, image_id, source),
        }

    return page


def _original_url(storage: Storage, image_id: str, source: Mapping[str, Any]) -> str | None:
    """Return the address of a picture's original, or None when none is kept or known."""
    try:
        kept = find_original(storage, image_id, names=names_of(source))
    except StorageError:
        return None
    return url_for("uploads.original", image_id=image_id) if kept else None
