"""Add pictures by page and by REST."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any, Protocol

from flask import Blueprint as PageBlueprint
from flask import Response, current_app, jsonify, make_response, render_template, request
from flask_smorest import Blueprint
from marshmallow import Schema, fields
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import RequestEntityTooLarge

from es_config.index import ImageIndex
from search_app.core.pictures import Addition
from search_app.core.query import API_PREFIX, thumbnail_url
from search_app.core.users import Role
from search_app.errors import BusyError, QueryError, TooLargeError
from search_app.web.http import (
    BINARY,
    EXPECTED,
    JSON,
    MAX_FILES,
    ForbiddenError,
    ProblemSchema,
    RequestQueue,
    body_limit,
    check_writable,
    may,
    may_fail,
    problem,
    read_upload,
    requires_write_access,
    schema_of,
    status_of,
    too_large,
    visitors_sentence,
)
from search_app.web.languages import translated
from storage.keys import UPLOADS

LONGEST_NAME = 100
RETRY_AFTER_S = 3
KNOWN = ("image_id", "path", "caption", "caption_source", "caption_error")
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


class PictureIndexer(Protocol):
    """Adds pictures to the index. `glimpse serve` builds it from the parts of ingest."""

    def add(self, name: str, data: bytes) -> Addition:
        """Index one file's content. Raises `EngineError`, `ModelError` or `StorageError`."""

    def publish(self) -> None:
        """Let searches find the added pictures. Raises `EngineError`."""


@dataclass(frozen=True)
class AddedFile:
    """One file of a request. Of a refused one, `name`, `status` and `detail` alone are known."""

    name: str
    status: Annotated[int, "201 added, 200 known before, else refused: see `detail`"]
    detail: Annotated[str | None, "one sentence, for a refused file"] = None
    image_id: Annotated[str | None, "SHA-256 of the file's content"] = None
    path: str | None = None
    caption: Annotated[str | None, "null when it has none yet", {"nullable": True}] = None
    caption_source: Annotated[str | None, "`model`, `description` or `human`"] = None
    caption_error: Annotated[str | None, "why it has no caption yet"] = None
    thumbnail_url: str | None = None

    @property
    def is_refused(self) -> bool:
        """Whether it became no picture."""
        return self.status >= HTTPStatus.BAD_REQUEST

    def to_json(self) -> dict[str, Any]:
        """Return the known fields. None is left out, except the caption of a picture."""
        kept = {name: value for name, value in vars(self).items() if value is not None}
        return kept if self.is_refused else {**kept, "caption": self.caption}


class Uploads:
    """Adds the files of a few requests at a time. `indexer` returns the current one, or None if off."""

    def __init__(
        self,
        *,
        indexer: Callable[[], PictureIndexer | None],
        max_upload: int,
        count_added: Callable[[], int] = lambda: 0,
        max_added: int | None = None,
        queue: RequestQueue | None = None,
    ) -> None:
        self._indexer = indexer
        self._max_upload = max_upload
        self._count_added, self._max_added = count_added, max_added
        self._queue = queue or RequestQueue(
            busy="Too many pictures are being added at the moment; send this one again in a few seconds.",
            retry_after_s=3,
        )

    @property
    def is_open(self) -> bool:
        """Whether this server adds pictures at all."""
        return self._indexer() is not None and not current_app.config["READ_ONLY"]

    def add_request(self) -> list[AddedFile]:
        """Add the files of this request, one after the other, and make them findable.

        A refused file does not stop the others. Raises `QueryError` for no file, more than `MAX_FILES` or a
        body over the limit, `BusyError` or `ForbiddenError`.
        """
        check_writable()
        indexer = self._indexer()
        if indexer is None:
            raise ForbiddenError("Adding pictures is switched off on this server.")
        request.max_content_length = body_limit(self._max_upload, files=MAX_FILES)
        try:
            sent = [file for file in request.files.getlist("image") if file.filename]
        except RequestEntityTooLarge as error:
            raise too_large(self._max_upload, files=MAX_FILES) from error
        if not sent:
            raise QueryError("No picture arrived: send one or several files as the multipart field `image`.")
        if len(sent) > MAX_FILES:
            raise QueryError(
                f"{len(sent)} files arrived, and one request adds {MAX_FILES}; send the rest after."
            )
        with self._queue.turn():
            if self._max_added is not None and self._count_added() + len(sent) > self._max_added:
                raise ForbiddenError(
                    f"This server keeps at most {self._max_added} pictures that were added here, and has no"
                    " room for these: ask the person who runs it."
                )
            added = [self._add(indexer, file) for file in sent]
            if not all(each.is_refused for each in added):
                indexer.publish()
        return added

    def _add(self, indexer: PictureIndexer, file: FileStorage) -> AddedFile:
        name = (file.filename or "").replace("\\", "/").rpartition("/")[2][:LONGEST_NAME]
        try:
            addition = indexer.add(name, read_upload(file, max_upload=self._max_upload))
        except EXPECTED as error:
            is_empty = isinstance(error, QueryError) and not isinstance(error, BusyError | TooLargeError)
            if is_empty:
                return _refused(name, status_of(error), f"'{name}' was not added: the file is empty.")
            return _refused(name, status_of(error), f"'{name}' was not added. {visitors_sentence(error)}")
        if addition.refused is not None:
            return _refused(name, 400, f"'{name}' was not added: {addition.refused}.")
        return AddedFile(
            name,
            (HTTPStatus.CREATED if addition.is_new else HTTPStatus.OK).value,
            **{known: getattr(addition, known) for known in KNOWN},
            thumbnail_url=request.script_root + thumbnail_url(addition.image_id),
        )


def _refused(name: str, status: int, sentence: str) -> AddedFile:
    return AddedFile(name, status, translated(sentence))


def count_uploads(index: ImageIndex) -> int:
    """Return how many pictures of an index were added through a server, as far as the last refresh."""
    added = {"query": {"prefix": {"relative_path": {"value": UPLOADS}}}, "size": 0, "track_total_hits": True}
    return index.search(added).total if index.exists() else 0


def upload_blueprint(*, uploads: Uploads) -> Blueprint:
    """Return the route that adds pictures."""
    api = Blueprint("uploads", __name__, url_prefix=API_PREFIX, description="Adding pictures")

    files = fields.Nested(schema_of(AddedFile, sparse=True))
    added = Schema.from_dict({"images": fields.List(files, required=True)}, name="Added")

    class RefusedUploadSchema(ProblemSchema):
        """A problem document, with the refused files where any was read."""

        images = fields.List(files)

    @api.post("/images")
    @api.doc(requestBody=POST_BODY, operationId="add_pictures")
    @api.response(201, added, content_type=JSON)
    @api.alt_response(200, schema=added, content_type=JSON)
    @may_fail(api, 408, 413, 429, schema=RefusedUploadSchema)
    @requires_write_access
    def add() -> Response:
        """Add one or several pictures (multipart `image`). With the answer, searches find them."""
        return _answer(uploads.add_request())

    return api


def _answer(added: Sequence[AddedFile]) -> Response:
    """Answer 201 when a picture is new, 200 when the index had them all, else with a problem."""
    shown = [each.to_json() for each in added]
    if all(each.is_refused for each in added):
        status = max(each.status for each in added)
        first = added[0].detail or ""
        detail = first if len(added) == 1 else translated(f"None of {len(added)} files: {first}")
        body, *rest = problem(status, detail)
        response = make_response(({**body, "images": shown}, *rest))
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            response.headers["Retry-After"] = RETRY_AFTER_S
        return response
    is_new = any(each.status == HTTPStatus.CREATED for each in added)
    response = jsonify({"images": shown})
    response.status_code = HTTPStatus.CREATED if is_new else HTTPStatus.OK
    return response


def add_page_blueprint(*, uploads: Uploads) -> PageBlueprint:
    """Return the page's routes, and tell every template whether pictures can be added."""
    page = PageBlueprint("add_page", __name__)

    @page.get("/add")
    def add() -> str:
        """Show the form."""
        return render_template("add.html", added=())

    @page.post("/add")
    @requires_write_access
    def add_chosen() -> str:
        """Add the chosen pictures and show the result of each: for browsers without JavaScript."""
        return render_template("add.html", added=uploads.add_request())

    @page.app_context_processor
    def adding() -> dict[str, Any]:
        return {"can_add": uploads.is_open and may(Role.CONTRIBUTOR)}

    return page
