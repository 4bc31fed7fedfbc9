"""Pictures that people show: bytes of any origin become an upright RGB picture, or a sentence."""

from __future__ import annotations

import io
import threading
from contextlib import nullcontext
from typing import TYPE_CHECKING

from models.pixels import FORMATS, draft, orientation, register_formats, shrink, to_rgb, upright
from search_app.errors import QueryError, TooLargeError

if TYPE_CHECKING:
    from PIL.Image import Image
    from werkzeug.datastructures import FileStorage

MAX_PIXELS = 100_000_000
"""that are decoded, 300 MB; JPEG files are decoded at a reduced size, and so may hold more"""
LARGE = 16_000_000
"""pixels; pictures from this size on are decoded one at a time, so that memory stays bounded"""

FORM_ROOM = 256 * 1024
"""bytes that a form may need around its picture"""

_one_large_at_a_time = threading.Lock()


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


def open_picture(data: bytes) -> Image:
    """Decode a picture file's content: RGB, oriented by its EXIF, see-through parts on white, reduced.

    Raises `QueryError` when it is no picture, is damaged, or unfolds to more than `MAX_PIXELS`.
    """
    image = _recognised(data)
    draft(image)
    pixels = image.width * image.height
    if pixels > MAX_PIXELS:
        raise QueryError(_too_many_pixels())
    try:
        with _one_large_at_a_time if pixels > LARGE else nullcontext():
            image.load()  # some formats tell their EXIF data only then
            return upright(shrink(to_rgb(image)), orientation(image.getexif()))
    except Exception as error:  # decoders raise whatever damaged bytes lead them to
        raise QueryError("The picture is damaged and cannot be decoded; try another copy of it.") from error


def _recognised(data: bytes) -> Image:
    from PIL import Image

    register_formats()
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise QueryError(_too_many_pixels()) from error
    except Exception as error:  # as above
        raise QueryError(f"This is not a picture that can be read: use {', '.join(FORMATS)}.") from error


def _too_many_pixels() -> str:
    return f"The picture has more than {MAX_PIXELS // 1_000_000} million pixels; make it smaller first."
