"""Encoders: pictures and texts become unit vectors."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from models.fast.execution import EXACT
from models.plain_text import plain_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import torch
    from PIL.Image import Image

    from models.fast.execution import Execution

BATCH_SIZE = 32
WIDEST_RATIO = 8
"""Longer pictures are cropped to this ratio first: resizing the short side alone would fill the memory."""


class TextEncoder(Protocol):
    """What every text encoder offers, wherever the model runs."""

    dims: int
    revision: str

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Return float32 `[n, dims]`, unit length."""
        ...


class ImageEncoder:
    """A CLIP or SigLIP vision tower; `revision` is the fingerprint of its weights."""

    def __init__(
        self,
        *,
        tower: Callable[[np.ndarray], np.ndarray],
        processor: object,
        dims: int,
        revision: str,
        execution: Execution = EXACT,
    ) -> None:
        self.tower = tower
        self._processor = processor
        self.dims = dims
        self.revision = revision
        self.execution = execution

    def running(self, tower: Callable[[np.ndarray], np.ndarray], execution: Execution) -> ImageEncoder:
        """Return the same encoder with its tower run in another way."""
        return ImageEncoder(
            tower=tower,
            processor=self._processor,
            dims=self.dims,
            revision=self.revision,
            execution=execution,
        )

    def preprocess(self, image: Image) -> np.ndarray:
        """Return one RGB picture as the tower wants it: float32 `[3, height, width]`. Safe in any thread."""
        from transformers.image_utils import ChannelDimension

        # The processor takes three passes over floats to scale and centre what is one line here.
        batch = self._processor(
            _not_too_long(image),
            do_rescale=False,
            do_normalize=False,
            return_tensors="np",
            # Without it a picture one pixel high or wide is taken for one with three channels.
            input_data_format=ChannelDimension.LAST,
        )
        factor, offset = self._scale
        return batch["pixel_values"][0] * factor + offset

    @cached_property
    def _scale(self) -> tuple[np.ndarray, np.ndarray]:
        """Return what the processor multiplies by and adds: float32 `[3, 1, 1]` each."""
        import numpy as np

        asked = self._processor
        factor = asked.rescale_factor if asked.do_rescale else 1.0
        mean, std = (asked.image_mean, asked.image_std) if asked.do_normalize else ([0.0] * 3, [1.0] * 3)
        mean, std = (np.asarray(each, np.float64).reshape(3, 1, 1) for each in (mean, std))
        return (factor / std).astype(np.float32), (-mean / std).astype(np.float32)

    def embed_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Return float32 `[n, dims]`, unit length, for preprocessed pictures `[n, 3, height, width]`."""
        return unit_rows(self.tower(pixels))

    def embed_images(self, images: Sequence[Image]) -> np.ndarray:
        """Return float32 `[n, dims]`, unit length, row by row the vectors of RGB pictures."""
        import numpy as np

        batches = [
            self.embed_pixels(
                np.stack([self.preprocess(image) for image in images[start : start + BATCH_SIZE]])
            )
            for start in range(0, len(images), BATCH_SIZE)
        ]
        return np.concatenate(batches) if batches else np.zeros((0, self.dims), np.float32)


class SentenceEncoder:
    """A text tower in sentence-transformers' layout, such as DistilBERT with pooling and Dense."""

    def __init__(self, *, model: object, dims: int, revision: str) -> None:
        self._model = model
        self.dims = dims
        self.revision = revision

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Return float32 `[n, dims]`, unit length."""
        import numpy as np

        if not texts:
            return np.zeros((0, self.dims), np.float32)
        plain = [plain_text(text) for text in texts]  # as Elasticsearch reads them
        vectors = self._model.encode(plain, convert_to_numpy=True, show_progress_bar=False)
        return unit_rows(vectors.astype(np.float32, copy=False))


class PairedTextEncoder:
    """The text tower of a CLIP or SigLIP model that holds both towers."""

    def __init__(
        self,
        *,
        model: torch.nn.Module,
        tokenizer: object,
        padding: str,
        max_length: int,
        dims: int,
        revision: str,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._padding = padding
        self._max_length = max_length
        self.dims = dims
        self.revision = revision

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Return float32 `[n, dims]`, unit length."""
        import numpy as np
        import torch

        rows = [np.zeros((0, self.dims), np.float32)]
        for start in range(0, len(texts), BATCH_SIZE):
            tokens = self._tokens(list(texts[start : start + BATCH_SIZE]))
            with torch.inference_mode():
                features = self._model.get_text_features(**tokens)
            rows.append(unit_rows(features.float().cpu().numpy()))
        return np.concatenate(rows)

    def _tokens(self, texts: list[str]) -> dict[str, torch.Tensor]:
        tokens = self._tokenizer(
            texts,
            padding=self._padding,
            truncation=True,
            max_length=self._max_length,
            return_tensors="pt",
        )
        return tokens.to(self._model.device)


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Return `vectors` `[n, dims]` divided by their lengths; a zero vector stays zero."""
    import numpy as np

    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.maximum(lengths, np.finfo(np.float32).tiny)).astype(np.float32, copy=False)


def _not_too_long(image: Image) -> Image:
    width, height = image.size
    longest = WIDEST_RATIO * min(width, height)
    left, top = max(0, width - longest) // 2, max(0, height - longest) // 2
    return image if left == top == 0 else image.crop((left, top, width - left, height - top))
