"""Captions for a batch of pictures, each with its vector, where one bad picture costs itself alone."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ingest.embed import embed_each

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from PIL.Image import Image

    from models.captioning import Captioner
    from models.encoders import TextEncoder


@dataclass(frozen=True)
class Captioned:
    """A sentence about a picture."""

    text: str
    vector: np.ndarray
    """float32 `[caption_dims]`, unit length"""


def open_thumbnail(data: bytes) -> Image:
    """Return a thumbnail of the store as RGB. Raises whatever damaged bytes lead the decoder to."""
    from PIL import Image

    return Image.open(io.BytesIO(data), formats=("WEBP",)).convert("RGB")


def caption_each(
    images: Sequence[Image], *, captioner: Captioner, caption_encoder: TextEncoder
) -> list[Captioned | str]:
    """Return for each RGB picture, in the same order, its caption, or the reason why it has none."""
    written = captioner.caption_images(images, batch_size=max(1, len(images)))
    texts = [one.text for one in written if one.text is not None]
    vectors = iter(embed_each(caption_encoder.embed_texts, texts) if texts else ())
    return [
        one.error or "the captioner gave no reason" if one.text is None else _joined(one.text, next(vectors))
        for one in written
    ]


def _joined(text: str, vector: np.ndarray | str) -> Captioned | str:
    return f"its caption: {vector}" if isinstance(vector, str) else Captioned(text, vector)
