"""Pixels of any kind become upright RGB of a useful size, and a thumbnail."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

THUMBNAIL_EDGE = 512
SHORT_EDGE, LONG_EDGE = 384, THUMBNAIL_EDGE
"""pixels that are left at least, when they were there: enough for the encoders and for the thumbnail"""
MOST_PIXELS = 16_000_000
ICC_LIMIT = 4096
"""bytes; a colour profile that is larger costs more than the thumbnail's difference in colour is worth"""


def to_rgb(image: Image) -> Image:
    """Return RGB: transparency on white, 16 bits and floats brought to 8."""
    from PIL import Image as pil

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


def thumbnail(image: Image) -> bytes:
    """Return a WebP whose longer edge is at most 512 pixels, without the metadata of the original."""
    from PIL.Image import Resampling

    if max(image.size) > THUMBNAIL_EDGE:
        image = image.copy()
        image.thumbnail((THUMBNAIL_EDGE, THUMBNAIL_EDGE), Resampling.BICUBIC, reducing_gap=2.0)
    profile = image.info.get("icc_profile") or b""
    data = io.BytesIO()
    # Method 2 takes a third of the default's time for files 3 % larger.
    image.save(data, "WEBP", quality=80, method=2, icc_profile=profile if len(profile) <= ICC_LIMIT else b"")
    return data.getvalue()


def _eight_bits(image: Image) -> Image:
    import numpy as np
    from PIL import Image as pil

    values = np.asarray(image).astype(np.float32)
    values = np.nan_to_num(values, posinf=0.0, neginf=0.0)
    if image.mode.startswith("I"):
        top = 65535.0 if values.max(initial=0) > 255 else 255.0
        values = values * (255.0 / top)
    else:
        low, high = (0.0, 1.0) if values.min() >= 0 and values.max() <= 1 else (values.min(), values.max())
        values = (values - low) * (255.0 / max(high - low, 1e-9))
    return pil.fromarray(np.clip(values, 0, 255).round().astype(np.uint8), "L")
