"""Captions in the same run as everything else: new pictures get theirs before they are written."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from es_config.errors import EngineError
from ingest.captioned import caption_each, open_thumbnail
from ingest.errors import IngestError
from ingest.writer import Embedded, ToWrite
from models.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ingest.tally import Tally
    from models.captioning import Captioner
    from models.encoders import TextEncoder


class CaptionNow:
    """Captions batches; what cannot be captioned is written without a caption, and reported."""

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
            self._load()
        except (
            EngineError,
            IngestError,
            ModelError,
        ) as error:  # the pictures are worth more than their captions
            self._tally.caption_error = str(error)
            return list(batch)
        images = [open_thumbnail(item.thumbnail) for item in plain]
        captioned = dict(zip(map(id, plain), caption_each(images, **self._models), strict=True))
        return [self._with(item, captioned[id(item)]) if id(item) in captioned else item for item in batch]

    def _load(self) -> None:
        """Load the models on the first picture. Raises what loading raises."""
        _ = [model.revision for model in self._models.values()]

    def _with(self, item: Embedded, caption) -> Embedded:
        if isinstance(caption, str):
            self._tally.add_caption_failure(item.candidate, caption)
            return item
        words = {
            "caption": caption.text,
            "caption_source": "model",
            "caption_embedding": caption.vector,
        }
        return replace(item, document=replace(item.document, **words))
