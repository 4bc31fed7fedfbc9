"""Write a caption for each picture with a BLIP model."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
from PIL.Image import Image

from models.errors import WAY_OUT, ModelError, first_line
from models.hub import ModelSource, fingerprint, local_folder
from models.profiles import read_config, unusable

if TYPE_CHECKING:
    import torch
    from transformers import BlipForConditionalGeneration, PreTrainedTokenizerBase

BATCH_SIZE = 16
LONGEST = 40
"""tokens that a caption may have"""
LARGE = 50_000_000
"""parameters from which computing in bf16 is worth trying"""


@dataclass(frozen=True)
class Caption:
    """A sentence about a picture, or why there is none: one of `text` and `error` is None."""

    text: str | None
    error: str | None = None


@dataclass(eq=False)
class Captioner:
    """A BLIP model, whose `revision` is the fingerprint of its weights."""

    model: BlipForConditionalGeneration
    image_processor: Callable[..., Mapping[str, Sequence[np.ndarray]]]
    tokenizer: PreTrainedTokenizerBase
    revision: str

    @property
    def dtype(self) -> str:
        """The type that it computes in: `float32` or `bfloat16`."""
        return str(self.model.dtype).removeprefix("torch.")

    def caption_images(self, images: Sequence[Image], *, batch_size: int = BATCH_SIZE) -> list[Caption]:
        """Return a caption for each RGB picture, always the same for the same picture.

        A picture that fails has an `error` and does not affect the others.
        """
        captions: list[Caption] = []
        for start in range(0, len(images), batch_size):
            captions += self._caption_batch(images[start : start + batch_size])
        return captions

    def _caption_batch(self, images: Sequence[Image]) -> list[Caption]:
        ready = [self._prepared(image) for image in images]
        pixels = [one for one in ready if not isinstance(one, Caption)]
        written = iter(self._written(pixels))
        return [one if isinstance(one, Caption) else next(written) for one in ready]

    def _prepared(self, image: Image) -> np.ndarray | Caption:
        from transformers.image_utils import ChannelDimension

        try:
            # Without the explicit format a picture one pixel high is taken for one with three channels.
            batch = self.image_processor(image, return_tensors="np", input_data_format=ChannelDimension.LAST)
            return batch["pixel_values"][0]
        except Exception as error:  # libraries raise anything for a strange picture
            return Caption(None, f"the captioner failed on it ({first_line(error)})")

    def _written(self, pixels: list[np.ndarray]) -> list[Caption]:
        """Caption preprocessed pictures together, or one by one if that fails."""
        if not pixels:
            return []
        try:
            return self._generated(pixels)
        except Exception as error:  # out of memory, or one picture of the batch
            if len(pixels) == 1:
                return [Caption(None, f"the captioner failed on it ({first_line(error)}); {WAY_OUT}")]
            return [caption for one in pixels for caption in self._written([one])]

    def _generated(self, pixels: list[np.ndarray]) -> list[Caption]:
        import torch

        values = torch.from_numpy(np.stack(pixels)).to(self.model.device, self.model.dtype)
        with torch.inference_mode():
            tokens = self.model.generate(
                cast("torch.FloatTensor", values), max_new_tokens=LONGEST, do_sample=False, num_beams=1
            )
        texts = self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [
            Caption(text.strip()) if text.strip() else Caption(None, "the model found no words for it")
            for text in texts
        ]


def load_captioner(source: ModelSource) -> Captioner:
    """Load a BLIP captioner from the hub or a folder. Raises `ModelError` when it is absent or unusable."""
    import torch
    from transformers import AutoTokenizer, BlipForConditionalGeneration, BlipImageProcessor

    folder = local_folder(source, role="caption")
    kind = read_config(folder).get("model_type")
    if kind != "blip":
        raise ModelError(
            f"{folder} holds a '{kind}' model, which cannot write captions; it needs a BLIP model."
        )
    try:
        model = BlipForConditionalGeneration.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True
        )
        image_processor = BlipImageProcessor.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        if not all(bool(torch.isfinite(one).all()) for one in model.parameters()):
            raise ValueError("its weights hold values that are not numbers")
    except Exception as error:  # transformers, safetensors and torch each raise their own
        raise unusable("The captioner", folder, error) from error
    device = "cuda" if torch.cuda.is_available() else "cpu"
    is_large = sum(one.numel() for one in model.parameters()) >= LARGE
    dtype = torch.bfloat16 if is_large and (device == "cuda" or bf16_gains()) else torch.float32
    return Captioner(
        model=model.eval().to(device, dtype),
        image_processor=image_processor,
        tokenizer=tokenizer,
        revision=fingerprint(folder),
    )


def bf16_gains(*, at_least: float = 1.3) -> bool:
    """Try on this processor whether a layer's product in bf16 is `at_least` times as fast as in float32."""
    import torch

    def seconds(dtype: torch.dtype) -> float:
        layer, states = torch.nn.Linear(768, 3072).to(dtype), torch.ones(256, 768, dtype=dtype)
        best = float("inf")
        with torch.inference_mode():
            for _ in range(6):
                begun = time.perf_counter()
                layer(states)
                best = min(best, time.perf_counter() - begun)
        return best

    return seconds(torch.float32) >= at_least * seconds(torch.bfloat16)
