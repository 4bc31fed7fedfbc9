"""Write a caption for each picture with a BLIP or a Florence-2 model."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from PIL.Image import Image

from models.errors import WAY_OUT, ModelError, first_line
from models.hub import ModelSource, fingerprint, local_folder
from models.profiles import loading, read_config

if TYPE_CHECKING:
    import torch
    from transformers import (
        BlipForConditionalGeneration,
        Florence2ForConditionalGeneration,
        PreTrainedTokenizerBase,
    )

BATCH_SIZE = 16
LONGEST = 40
"""tokens that a caption may have"""
LARGE = 50_000_000
"""parameters from which computing in bf16 is worth trying"""
FLORENCE_TASK = "What does the image describe?"
"""the words by which Florence-2 is asked for one sentence"""
NO_WORDS = "the model found no words for it"
OFTEN = 3
"""times that a phrase stands in a caption that goes round in circles"""
JOINING = {"a", "an", "and", "are", "at", "by", "for", "from", "in", "is", "of", "on", "the", "to", "with"}
"""words that a good caption has again and again"""


@dataclass(frozen=True)
class Caption:
    """A sentence about a picture, or why there is none: one of `text` and `error` is None."""

    text: str | None
    error: str | None = None


def without_loops(text: str) -> str:
    """Return a caption up to where it begins to repeat itself, or all of it.

    A phrase said again at once is a loop, a single word if it comes three times. So is a phrase of two words
    that mean something if it comes back again and again, as in "a green butterfly above green butterfly to
    green butterfly".
    """
    words = text.split()
    for end in range(2, len(words) + 1):
        for length in range(1, end // 2 + 1):
            times = OFTEN if length == 1 else 2
            phrase = words[end - length : end]
            if end >= times * length and words[end - times * length : end] == phrase * times:
                return " ".join(words[: end - (times - 1) * length])
        pairs = list(pairwise(words[:end]))
        if not JOINING & set(pairs[-1]) and pairs.count(pairs[-1]) >= OFTEN:
            return " ".join(words[: pairs.index(pairs[-1]) + 2])
    return text


@dataclass(eq=False)
class Captioner:
    """A BLIP or Florence-2 model, whose `revision` is the fingerprint of its weights."""

    model: BlipForConditionalGeneration | Florence2ForConditionalGeneration
    image_processor: Callable[..., Mapping[str, Sequence[np.ndarray]]]
    tokenizer: PreTrainedTokenizerBase
    revision: str
    prompt: tuple[int, ...] = ()
    """tokens that ask for a caption, with a place for each part of the picture; BLIP needs none"""

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
        asked: dict[str, torch.Tensor] = {"pixel_values": values}
        if self.prompt:
            asked["input_ids"] = torch.tensor([self.prompt] * len(pixels), device=self.model.device)
            asked["attention_mask"] = torch.ones_like(asked["input_ids"])
        with torch.inference_mode():
            tokens = self.model.generate(
                **cast("dict[str, Any]", asked), max_new_tokens=LONGEST, do_sample=False, num_beams=1
            )
        texts = self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        captions = [without_loops(text.strip()) for text in texts]
        return [Caption(text) if text else Caption(None, NO_WORDS) for text in captions]


def load_captioner(source: ModelSource) -> Captioner:
    """Load a BLIP or Florence-2 captioner from the hub or a folder, and try it on one picture.

    Raises `ModelError` when it is absent or unusable.
    """
    import torch
    from PIL import Image as pillow

    folder = local_folder(source, role="caption")
    kind = read_config(folder).get("model_type")
    if kind not in ("blip", "florence2"):
        raise ModelError(
            f"{folder} holds a '{kind}' model, which cannot write captions; it needs a BLIP model, or a"
            " Florence-2 in the layout of florence-community."
        )
    with loading("The captioner", folder):
        captioner = _load_blip(folder) if kind == "blip" else _load_florence(folder)
        model = captioner.model
        if not all(bool(torch.isfinite(one).all()) for one in model.parameters()):
            raise ValueError("its weights hold values that are not numbers")
        device = "cuda" if torch.cuda.is_available() else "cpu"
        is_large = sum(one.numel() for one in model.parameters()) >= LARGE
        dtype = torch.bfloat16 if is_large and (device == "cuda" or bf16_gains()) else torch.float32
        captioner.model = model.eval().to(device, dtype)
        (tried,) = captioner.caption_images([pillow.new("RGB", (64, 64), "grey")])
        if tried.error and tried.error != NO_WORDS:
            raise ValueError(tried.error)
    return captioner


def _load_blip(folder: Path) -> Captioner:
    import torch
    from transformers import AutoTokenizer, BlipForConditionalGeneration, BlipImageProcessor

    return Captioner(
        model=BlipForConditionalGeneration.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True
        ),
        image_processor=BlipImageProcessor.from_pretrained(folder),
        tokenizer=AutoTokenizer.from_pretrained(folder),
        revision=fingerprint(folder),
    )


def _load_florence(folder: Path) -> Captioner:
    import torch
    from transformers import AutoImageProcessor, AutoTokenizer, Florence2ForConditionalGeneration

    tokenizer = AutoTokenizer.from_pretrained(folder)
    images = AutoImageProcessor.from_pretrained(folder, use_fast=False)
    places = tokenizer.image_token * images.image_seq_length
    asked = f"{places}{tokenizer.bos_token}{FLORENCE_TASK}{tokenizer.eos_token}"
    return Captioner(
        model=Florence2ForConditionalGeneration.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True
        ),
        image_processor=images,
        tokenizer=tokenizer,
        revision=fingerprint(folder),
        prompt=tuple(tokenizer(asked, add_special_tokens=False)["input_ids"]),
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
