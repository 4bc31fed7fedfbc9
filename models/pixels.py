"""Decode pictures of any kind to upright RGB of a useful size, for indexing and for searching alike."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError
from PIL.Image import Transpose

from models.errors import first_line

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "HEIF", "AVIF")
MAGIC = re.compile(
    rb"\xff\xd8\xff|\x89PNG|RIFF....WEBP|GIF8|BM|II\*\0|MM\0\*|....ftyp(heic|heix|mif1|msf1|avif|avis)",
    re.DOTALL,
)
MAX_PIXELS = 200_000_000
"""of a file in a folder, unless --max-pixels says otherwise"""
MAX_REQUEST_PIXELS = 89_000_000
"""of a picture that is uploaded, to search with or to add: just below where Pillow itself warns, whose own
limit is one for the whole process, and stays as it is"""
SHORT_EDGE, LONG_EDGE = 384, 512
"""pixels that are left at least, when they were there: no tower looks closer"""
MOST_PIXELS = 16_000_000
"""of a reduced picture"""
ORIENTATION = 0x0112


class PictureError(Exception):
    """Bytes are not a usable picture. The message is the reason, a phrase such as "damaged or cut short"."""

    def __init__(self, reason: str, *, pixels: int | None = None, limit: int | None = None) -> None:
        super().__init__(reason)
        self.pixels = pixels
        """the number of pixels, if they are too many"""
        self.limit = limit
        """how many they may be, if that is known"""


class TooSlowError(PictureError):
    """A picture was not decoded in time. A machine with less to do might."""


def open_image(data: bytes) -> Image.Image:
    """Open the bytes of a picture without decoding its pixels. Raises `PictureError`."""
    register_formats()
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        known = MAGIC.match(data)
        raise PictureError("damaged or cut short" if known else "not a picture in a known format") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        # Pillow gives the number only in its message; it refuses from twice its limit on.
        number = re.search(r"\d+", str(error))
        pixels = int(number[0]) if number else 2 * (Image.MAX_IMAGE_PIXELS or MAX_PIXELS)
        raise PictureError("too many pixels", pixels=pixels) from error
    except Exception as error:  # decoders raise anything for damaged bytes
        raise _damaged(error) from error
    if not (image.width and image.height):
        raise PictureError("a picture without pixels")
    return image


@contextmanager
def decoding() -> Iterator[None]:
    """Turn any error of a decoder into `PictureError`."""
    try:
        yield
    except PictureError:
        raise
    except MemoryError as error:
        raise PictureError("decoding it takes more memory than there is for a picture of its size") from error
    except Exception as error:  # decoders raise anything for damaged bytes
        raise _damaged(error) from error


def _damaged(error: Exception) -> PictureError:
    return PictureError(f"damaged or cut short ({first_line(error)[:200]})")


@cache
def register_formats() -> None:
    """Teach Pillow every format, once, before threads decode."""
    import pillow_heif

    pillow_heif.register_heif_opener()
    Image.init()


def draft_factor(image: Image.Image) -> int:
    """Return by how much a picture can be reduced without a loss that a tower sees, at least 1."""
    return max(1, min(min(image.size) // SHORT_EDGE, max(image.size) // LONG_EDGE))


def draft(image: Image.Image) -> None:
    """Let the JPEG decoder skip detail that no tower sees. Other formats ignore it."""
    factor = draft_factor(image)
    if factor > 1 and image.mode in ("RGB", "L"):
        image.draft(image.mode, (image.width // factor, image.height // factor))


def orientation(exif: Image.Exif) -> int:
    """Return EXIF's orientation, 1 to 8, or 1 (upright) for any other value."""
    try:
        value = int(exif.get(ORIENTATION, 1))
    except Exception:  # EXIF may hold anything, and Pillow then raises anything
        return 1
    return value if value in range(1, 9) else 1


def to_rgb(image: Image.Image) -> Image.Image:
    """Return RGB: transparency on white, 16 bits and floats brought to 8, inks by their profile."""
    if image.mode in ("CMYK", "LAB"):
        image = _as_srgb(image)
    if image.mode.startswith(("I", "F")):
        image = _eight_bits(image)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(layer, mask=layer.getchannel("A"))
        return white
    if image.mode == "RGB":
        return image
    rgb = image.convert("RGB")
    rgb.info.pop("icc_profile", None)  # it describes the colours of the other mode
    return rgb


def shrink(image: Image.Image) -> Image.Image:
    """Return an RGB picture reduced by a whole factor, as far as the encoders and the thumbnail allow."""
    factor = max(draft_factor(image), math.ceil(math.sqrt(image.width * image.height / MOST_PIXELS)))
    return image.reduce(factor) if factor > 1 else image


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """Return the picture turned upright by EXIF's `orientation`, 1 to 8."""
    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    return image.transpose(turns[orientation]) if orientation in turns else image


def _as_srgb(image: Image.Image) -> Image.Image:
    """Return CMYK or LAB as RGB by its colour profile, or unchanged if the profile is unusable."""
    profile = image.info.get("icc_profile")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile)) if profile else ImageCms.createProfile("LAB")
        rgb = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image
    if rgb is None:  # only a transformation in place returns nothing
        return image
    rgb.info.pop("icc_profile", None)  # sRGB is what everybody assumes
    return rgb


def _eight_bits(image: Image.Image) -> Image.Image:
    import numpy as np

    values: np.ndarray = np.asarray(image).astype(np.float32)
    values = np.nan_to_num(values, posinf=0.0, neginf=0.0)
    if image.mode.startswith("I"):
        top = 65535.0 if values.max(initial=0) > 255 else 255.0
        values = values * (255.0 / top)
    else:
        low, high = (0.0, 1.0) if values.min() >= 0 and values.max() <= 1 else (values.min(), values.max())
        values = (values - low) * (255.0 / max(high - low, 1e-9))
    return Image.fromarray(np.clip(values, 0, 255).round().astype(np.uint8), "L")
