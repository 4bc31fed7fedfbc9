"""Uploads by REST: pictures come in, and their originals come out again as nothing but pictures."""

from __future__ import annotations

import re
from http import HTTPStatus
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from flask import Response, current_app, make_response, request
from flask_smorest import Blueprint
from werkzeug.exceptions import RequestEntityTooLarge

from es_config.documents import paths_of
from search_app.additions import MAX_FILES, AddedFile, Library, add_files
from search_app.web.http import JSON, may_fail, problem, unchanging
from search_app.errors import NotFoundError, TooLargeError
from search_app.core.pictures import FORM_ROOM
from search_app.core.response import API_PREFIX
from search_app.schemas import BINARY, AddedSchema
from search_app.turns import Turns
from search_app.writing import ForbiddenError, check_writable, writing
from storage.errors import NoSuchKeyError
from storage.store import UPLOADS, find_original, media_type

if TYPE_CHECKING:
    from collections.abc import Sequence

    from werkzeug.datastructures import FileStorage

    from search_app.core.searcher import Searcher
    from storage.store import Storage

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
    """Adds what requests carry, a few requests at a time; `library` is None where that is switched off."""

    def __init__(self, *, library: Library | None, max_upload: int, turns: Turns | None = None) -> None:
        self._library = library
        self._max_upload = max_upload
        self._turns = turns or Turns(
            busy="Too many pictures are being added at the moment; send this one again in a few seconds.",
            retry_after_s=3,
        )

    @property
    def is_open(self) -> bool:
        """Whether this server adds pictures at all."""
        return self._library is not None and not current_app.config["READ_ONLY"]

    def add_request(self) -> list[AddedFile]:
        """Add the files of this request. Raises `QueryError`, `BusyError` or `ForbiddenError`."""
        check_writable()
        if self._library is None:
            raise ForbiddenError("Adding pictures is switched off on this server.")
        files = self._files()
        with self._turns.turn():
            return add_files(self._library, files, max_upload=self._max_upload)

    def _files(self) -> list[FileStorage]:
        """Read the form, which may be larger than one of a search; what is too large is not read at all."""
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


def upload_blueprint(*, searcher: Searcher, storage: Storage, uploads: Uploads) -> Blueprint:
    """Return the routes that add pictures and that send the originals of those that were added."""
    api = Blueprint("uploads", __name__, url_prefix=API_PREFIX, description="Adding pictures")

    @api.post("/images")
    @api.doc(requestBody=POST_BODY)
    @api.response(201, AddedSchema, content_type=JSON)
    @api.alt_response(200, schema=AddedSchema, content_type=JSON)
    @may_fail(api, 400, 403, 413, 503)
    @writing
    def add() -> Response:
        """Add one or several pictures (multipart `image`); with the answer, searches find them."""
        return _answer(uploads.add_request())

    @api.get("/images/<image_id>/original")
    @api.response(200, BINARY, content_type="image/*")
    @may_fail(api, 404, 503)
    def original(image_id: str) -> Response:
        """Send the whole picture: the file as it came, or the WebP copy that is kept of it."""
        names = names_of(searcher.picture(image_id))
        key = find_original(storage, image_id, names=names)
        if key is None:
            raise NotFoundError(f"The original of '{image_id[:70]}' is not kept here.")
        return _send_original(storage, image_id, key, name=(names or (image_id,))[0])

    return api


def names_of(source: dict) -> tuple[str, ...]:
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
    """Answer 201 when something is new, 200 when the index had what could be used, else with a problem."""
    shown = [each.to_json() for each in added]
    if all(each.is_refused for each in added):
        status = max(each.status for each in added)
        detail = added[0].detail if len(added) == 1 else f"None of {len(added)} files: {added[0].detail}"
        body, *rest = problem(status, detail)
        return make_response(({**body, "images": shown}, *rest))
    is_new = any(each.status == HTTPStatus.CREATED for each in added)
    response = current_app.json.response({"images": shown})
    response.status_code = HTTPStatus.CREATED if is_new else HTTPStatus.OK
    return response
