"""Pictures that arrive by HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from search_app.errors import QueryError, TooLargeError

if TYPE_CHECKING:
    from werkzeug.datastructures import FileStorage

FORM_ROOM = 256 * 1024
"""bytes that a form may need around its picture"""


def read_upload(upload: FileStorage | None, *, max_upload: int) -> bytes:
    """Return an uploaded file's content. Over `max_upload` bytes `TooLargeError`, empty `QueryError`."""
    data = upload.stream.read(max_upload + 1) if upload else b""
    if len(data) > max_upload:
        raise TooLargeError(
            f"The picture is over the limit of {max_upload / 1_000_000:g} MB; use a smaller one."
        )
    if not data:
        raise QueryError("No picture arrived: choose a picture file that is not empty.")
    return data
