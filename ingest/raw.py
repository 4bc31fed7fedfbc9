"""RAW files: the preview that the camera put into them, read by `rawpy` where that is installed."""

from __future__ import annotations

import io
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ingest.errors import UnreadableImageError
from ingest.names import RAW_EXTENSIONS
from models.pixels import ORIENTATION, register_formats

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Exif, Image

SMALLEST_PREVIEW = 512
"""pixels of the longer edge; a smaller preview gives way to the sensor's own pixels"""
DATE = 306
NO_DATE = ("1969:12:31", "1970:01:01")
"""the day that LibRaw writes into the preview of a file without a date, in one time zone or another"""
FLIPS = {3: 3, 5: 8, 6: 6}
"""LibRaw's turn of a picture -> EXIF's orientation"""


@dataclass(frozen=True)
class RawPicture:
    """What a RAW file shows: its preview, and the size of the whole picture."""

    image: Image
    size: tuple[int, int]
    """(width, height) of the sensor's picture, not yet turned upright"""
    exif: Exif
    """with an orientation that is right for `image`"""


def is_raw(path: Path | None) -> bool:
    """Whether a file is a camera's RAW file by its name: by its content it may pass for a TIFF."""
    return path is not None and path.suffix.lower() in RAW_EXTENSIONS


def open_raw(data: bytes, *, extension: str) -> RawPicture:
    """Return the preview of a RAW file. Raises `UnreadableImageError`, without `rawpy` with how to get it."""
    try:
        import rawpy
    except ImportError as error:
        raise UnreadableImageError(
            f"a RAW file: `pip install rawpy` to read it, or leave it out with --exclude '*{extension}'"
        ) from error
    register_formats()
    try:
        with rawpy.imread(io.BytesIO(data)) as raw:
            return _picture(rawpy, raw, data)
    except rawpy.LibRawError as error:
        said = error.args[0] if error.args else type(error).__name__
        reason = said.decode(errors="replace") if isinstance(said, bytes) else said
        raise UnreadableImageError(
            f"damaged, or a RAW file that rawpy does not know ({reason})", lasting=True
        ) from error


def _picture(rawpy: Any, raw: Any, data: bytes) -> RawPicture:
    from PIL import Image

    size, turn = (raw.sizes.width, raw.sizes.height), FLIPS.get(raw.sizes.flip, 1)
    image = _preview(rawpy, raw)
    if image is None or max(image.size) < SMALLEST_PREVIEW:
        image = Image.fromarray(raw.postprocess(half_size=True, use_camera_wb=True, user_flip=0))
    exif = image.getexif()
    if not exif:
        with suppress(Exception):  # most RAW files are TIFFs; Pillow raises whatever the others lead it to
            exif.load_from_fp(io.BytesIO(data))
    if str(exif.get(DATE)).startswith(NO_DATE):
        del exif[DATE]
    exif.setdefault(ORIENTATION, turn)
    return RawPicture(image, size, exif)


def _preview(rawpy: Any, raw: Any) -> Image | None:
    """Return the preview as the camera stored it; LibRaw writes the EXIF of the file into it."""
    from PIL import Image

    try:
        preview = raw.extract_thumb()
    except (rawpy.LibRawNoThumbnailError, rawpy.LibRawUnsupportedThumbnailError):
        return None
    if preview.format == rawpy.ThumbFormat.JPEG:
        return Image.open(io.BytesIO(preview.data), formats=("JPEG",))
    return Image.fromarray(preview.data)
