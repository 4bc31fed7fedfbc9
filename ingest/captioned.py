"""Captions for a batch of pictures, each with its vector, where one bad picture costs itself alone."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from es_config.errors import EngineError
from ingest.pipeline.embed import embed_each
from ingest.errors import Fault, IngestError
from ingest.pipeline.items import Embedded
from models.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from PIL.Image import Image

    from es_config.documents import ImageDocument
    from ingest.pipeline.items import ToWrite
    from ingest.tally import Tally
    from models.captioning import Captioner
    from models.encoders import TextEncoder


@dataclass(frozen=True)
class Captioned:
    """A sentence about a picture."""

    text: str
    vector: np.ndarray
    """float32 `[caption_dims]`, unit length"""

    def on(self, document: ImageDocument) -> ImageDocument:
        """Return the document with this caption, which a model wrote."""
        words = {"caption": self.text, "caption_source": "model", "caption_embedding": self.vector}
        return replace(document, **words)


def open_thumbnail(data: bytes) -> Image:
    """Return a thumbnail of the store as RGB. Raises whatever damaged bytes lead the decoder to."""
    from PIL import Image

    return Image.open(io.BytesIO(data), formats=("WEBP",)).convert("RGB")


def caption_each(
    images: Sequence[Image], *, captioner: Captioner, caption_encoder: TextEncoder
) -> list[Captioned | Fault]:
    """Return for each RGB picture, in the same order, its caption, or why it has none."""
    written = captioner.caption_images(images, batch_size=max(1, len(images)))
    texts = [one.text for one in written if one.text is not None]
    vectors = iter(embed_each(caption_encoder.embed_texts, texts) if texts else ())
    return [
        Fault(one.error or "the captioner gave no reason")
        if one.text is None
        else _joined(one.text, next(vectors))
        for one in written
    ]


def _joined(text: str, vector: np.ndarray | Fault) -> Captioned | Fault:
    return vector.of("its caption") if isinstance(vector, Fault) else Captioned(text, vector)


class CaptionNow:
    """Captions new pictures before they are written; one without a caption is written too, and reported."""

    def __init__(self, *, captioner: Captioner, caption_encoder: TextEncoder, tally: Tally) -> None:
        self._models = {"captioner": captioner, "caption_encoder": caption_encoder}
        self._tally = tally

    def add(self, batch: Sequence[ToWrite]) -> list[ToWrite]:
        """Return the batch with a caption for every new picture that has none of its own.

        A picture is seen as its thumbnail shows it, so that `glimpse caption` would say the same of it.
        """
        plain = [item for item in batch if isinstance(item, Embedded) and item.document.caption is None]
        if not plain or self._tally.caption_error:
            return list(batch)
        try:
            _ = [model.revision for model in self._models.values()]  # loads them, on the first picture
        except (EngineError, IngestError, ModelError) as error:  # pictures are worth more than captions
            self._tally.caption_error = str(error)
            return list(batch)
        images = [open_thumbnail(item.thumbnail) for item in plain]
        captioned = dict(zip(map(id, plain), caption_each(images, **self._models), strict=True))
        return [self._with(item, captioned[id(item)]) if id(item) in captioned else item for item in batch]

    def _with(self, item: Embedded, caption: Captioned | Fault) -> Embedded:
        if isinstance(caption, Fault):
            self._tally.add_caption_failure(item.candidate, caption)
            return item
        return replace(item, document=caption.on(item.document))
