"""Pixels of any kind become upright RGB of a useful size: the same for what is indexed and what is asked."""

from __future__ import annotations

import io
import math
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Exif, Image

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "HEIF", "AVIF")
SHORT_EDGE, LONG_EDGE = 384, 512
"""pixels that are left at least, when they were there: no tower looks closer"""
MOST_PIXELS = 16_000_000
ORIENTATION = 0x0112


@cache
def register_formats() -> None:
    """Teach Pillow every format once; threads that decode come later."""
    import pillow_heif
    from PIL import Image

    pillow_heif.register_heif_opener()
    Image.init()


def draft(image: Image) -> None:
    """Let the JPEG decoder skip detail that nobody will see; other formats ignore it."""
    factor = min(min(image.size) // SHORT_EDGE, max(image.size) // LONG_EDGE)
    if factor > 1 and image.mode in ("RGB", "L"):
        image.draft(image.mode, (image.width // factor, image.height // factor))


def orientation(exif: Exif) -> int:
    """Return EXIF's orientation, 1 to 8; 1, upright, for anything else."""
    try:
        value = int(exif.get(ORIENTATION, 1))
    except Exception:  # anything can be written into EXIF, and Pillow raises whatever that leads to
        return 1
    return value if value in range(1, 9) else 1


def to_rgb(image: Image) -> Image:
    """Return RGB: transparency on white, 16 bits and floats brought to 8, inks by their profile."""
    from PIL import Image as pil

    if image.mode in ("CMYK", "LAB"):
        image = _as_srgb(image)
    if image.mode.startswith(("I", "F")):
        image = _eight_bits(image)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = pil.new("RGB", image.size, "white")
        white.paste(layer, mask=layer.getchannel("A"))
        return white
    if image.mode == "RGB":
        return image
    rgb = image.convert("RGB")
    rgb.info.pop("icc_profile", None)  # it describes the colours of the other mode
    return rgb


def shrink(image: Image) -> Image:
    """Return an RGB picture reduced by a whole factor, as far as the encoders and the thumbnail allow."""
    factor = min(min(image.size) // SHORT_EDGE, max(image.size) // LONG_EDGE)
    factor = max(factor, math.ceil(math.sqrt(image.width * image.height / MOST_PIXELS)))
    return image.reduce(factor) if factor > 1 else image


def upright(image: Image, orientation: int) -> Image:
    """Return the picture as it is meant to be seen; `orientation` is EXIF's, 1 to 8."""
    from PIL.Image import Transpose

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


def _as_srgb(image: Image) -> Image:
    """Return CMYK or LAB as RGB by its colour profile; as it is where that cannot be followed."""
    from PIL import ImageCms

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


def _eight_bits(image: Image) -> Image:
    import numpy as np
    from PIL import Image as pil

    values: np.ndarray = np.asarray(image).astype(np.float32)
    values = np.nan_to_num(values, posinf=0.0, neginf=0.0)
    if image.mode.startswith("I"):
        top = 65535.0 if values.max(initial=0) > 255 else 255.0
        values = values * (255.0 / top)
    else:
        low, high = (0.0, 1.0) if values.min() >= 0 and values.max() <= 1 else (values.min(), values.max())
        values = (values - low) * (255.0 / max(high - low, 1e-9))
    return pil.fromarray(np.clip(values, 0, 255).round().astype(np.uint8), "L")
