"""Pictures that people show: bytes of any origin become an upright RGB picture, or a sentence."""

from __future__ import annotations

import io
import threading
from contextlib import nullcontext
from functools import cache
from typing import TYPE_CHECKING

from search_app.errors import QueryError

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "HEIF", "AVIF")
MAX_PIXELS = 100_000_000
"""that are decoded, 300 MB; JPEG files are decoded at a reduced size, and so may hold more"""
LARGE = 16_000_000
"""pixels; pictures from this size on are decoded one at a time, so that memory stays bounded"""
SHORT_EDGE, LONG_EDGE = 384, 512
"""pixels that are left at least, when they were there: no tower looks closer"""

_one_large_at_a_time = threading.Lock()


def open_picture(data: bytes) -> Image:
    """Decode a picture file's content: RGB, oriented by its EXIF, see-through parts on white, reduced.

    Raises `QueryError` when it is no picture, is damaged, or unfolds to more than `MAX_PIXELS`.
    """
    from PIL import ImageOps

    image = _recognised(data)
    factor = _reduction(image)
    if factor > 1 and image.mode in ("RGB", "L"):
        image.draft(image.mode, (image.width // factor, image.height // factor))
    pixels = image.width * image.height
    if pixels > MAX_PIXELS:
        raise QueryError(_too_many_pixels())
    try:
        with _one_large_at_a_time if pixels > LARGE else nullcontext():
            return ImageOps.exif_transpose(_reduced(_on_white(image)))
    except Exception as error:  # decoders raise whatever damaged bytes lead them to
        raise QueryError("The picture is damaged and cannot be decoded; try another copy of it.") from error


def _recognised(data: bytes) -> Image:
    from PIL import Image

    _register_formats()
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise QueryError(_too_many_pixels()) from error
    except Exception as error:  # as above
        raise QueryError(f"This is not a picture that can be read: use {', '.join(FORMATS)}.") from error


def _on_white(image: Image) -> Image:
    from PIL import Image as pil

    if image.mode.startswith("I"):
        return image.point(lambda value: value / 257, "F").convert("RGB")  # 16 bits brought to 8
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    white = pil.new("RGB", layer.size, "white")
    white.paste(layer, mask=layer.getchannel("A"))
    white.info.update(image.info)
    return white


def _reduced(image: Image) -> Image:
    factor = _reduction(image)
    if factor == 1:
        return image
    small = image.reduce(factor)
    small.info.update(image.info)  # the orientation is in there
    return small


def _reduction(image: Image) -> int:
    return max(1, min(min(image.size) // SHORT_EDGE, max(image.size) // LONG_EDGE))


def _too_many_pixels() -> str:
    return f"The picture has more than {MAX_PIXELS // 1_000_000} million pixels; make it smaller first."


@cache
def _register_formats() -> None:
    from PIL import Image
    from pillow_heif import register_heif_opener

    register_heif_opener()
    Image.init()
