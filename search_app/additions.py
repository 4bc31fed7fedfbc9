"""Files that people send to be added: each becomes a picture of the index, or a sentence."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol

from es_config.errors import EngineError
from models.errors import ModelError
from search_app.errors import QueryError, TooLargeError
from search_app.core.pictures import read_upload
from search_app.core.response import thumbnail_url
from storage.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from werkzeug.datastructures import FileStorage

MAX_FILES = 10
"""in one request"""
LONGEST_NAME = 100
KNOWN = ("image_id", "path", "caption", "caption_source", "caption_error")
NOT_NOW = (EngineError, ModelError, StorageError)


class Addition(Protocol):
    """What became of one file; `refused` is the reason when it became no picture."""

    image_id: str
    is_new: bool
    path: str | None
    caption: str | None
    caption_source: str | None
    caption_error: str | None
    refused: str | None


class Library(Protocol):
    """Adds pictures to the index; the door hands one in, built from the parts of ingest."""

    def add(self, name: str, data: bytes) -> Addition:
        """Index one file's content. Raises `EngineError`, `ModelError` or `StorageError`."""

    def publish(self) -> None:
        """Let searches find what was added. Raises `EngineError`."""


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
        """Return what is known of the file; what is None is left out, but for the caption of a picture."""
        kept = {name: value for name, value in vars(self).items() if value is not None}
        return kept if self.is_refused else {**kept, "caption": self.caption}


def add_files(library: Library, files: Sequence[FileStorage], *, max_upload: int) -> list[AddedFile]:
    """Add files, one after the other, and make them findable; one that is refused does not stop the others.

    Raises `QueryError` when there is no file or more than `MAX_FILES`.
    """
    sent = [file for file in files if file.filename]
    if not sent:
        raise QueryError("No picture arrived: send one or several files as the multipart field `image`.")
    if len(sent) > MAX_FILES:
        raise QueryError(f"{len(sent)} files arrived, and one request adds {MAX_FILES}; send the rest after.")
    added = [_add(library, file, max_upload=max_upload) for file in sent]
    if not all(each.is_refused for each in added):
        library.publish()
    return added


def _add(library: Library, file: FileStorage, *, max_upload: int) -> AddedFile:
    name = file.filename.replace("\\", "/").rpartition("/")[2][:LONGEST_NAME]
    try:
        addition = library.add(name, read_upload(file, max_upload=max_upload))
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
