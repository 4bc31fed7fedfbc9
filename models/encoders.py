"""Encoders that turn pictures and texts into unit vectors, loaded on first use.

Elasticsearch's tokenisers and the reference ones disagree about characters that no model was trained on:
emoji are dropped or unknown, a no-break space separates words or does not, the names of special tokens are
special or not. Texts are therefore made plain before they are embedded, wherever the model runs.
"""

from __future__ import annotations

import math
import re
import threading
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast

import numpy as np
from PIL import Image

from models.errors import WAY_OUT, ModelError, running
from models.hub import fingerprint, local_folder, towers_folder
from models.profiles import Profile, loading, read_config

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers import BatchEncoding, CLIPModel, SiglipModel

T_co = TypeVar("T_co", covariant=True)
LONGEST_WORD = 512
SPECIAL = re.compile(r"\[(PAD|UNK|CLS|SEP|MASK)\]")
REPLACEMENT = "\ufffd"
VARIATION_SELECTORS = range(0xFE00, 0xFE10)


def plain_text(text: str) -> str:
    """Return `text` composed (NFC), with single spaces, without emoji, control characters and the like."""
    words = unicodedata.normalize("NFC", text).translate(_PLAIN_LETTERS).split()
    return SPECIAL.sub(r"[ \1 ]", " ".join(word[:LONGEST_WORD] for word in words))


class _PlainLetters(dict[int, str]):
    """The text in place of each letter, by its number: itself, a space or nothing. Fills itself."""

    def __missing__(self, number: int) -> str:
        if number > 0xFFFF:  # a million of them are not kept
            return ""
        self[number] = _plain(chr(number))
        return self[number]


_PLAIN_LETTERS = _PlainLetters()


def _plain(letter: str) -> str:
    """Return the letter, a space, or nothing."""
    category = unicodedata.category(letter)
    if category.startswith("Z") or letter in "\t\n\r":
        return " "
    is_dropped = category.startswith("C") or ord(letter) in VARIATION_SELECTORS or letter == REPLACEMENT
    return "" if is_dropped else letter


BATCH_SIZE = 32
WIDE = 2.5
"""longer pictures are seen in tiles: the towers look at the middle square, or squeeze the whole into one"""
TILE_STEP, MOST_TILES = 0.75, 24
"""distance of two tiles in sides; tiles of still longer pictures are squeezed instead"""
LARGEST_TILE = 512
"""pixels of an edge of a squeezed tile: no tower looks closer"""
SALIENCE = 3.0
"""how much more the unusual tiles of a wide picture count: by the mean, a boat is lost in its sky"""


class TextEncoder(Protocol):
    """The interface of every text encoder, wherever the model runs."""

    dims: int
    revision: str

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Return float32 `[n, dims]`, unit length. Raises `ModelError` when the model fails on them."""
        ...


@dataclass(frozen=True)
class Execution:
    """One way to run a tower. `torch` in `fp32` is the exact one that others are compared with."""

    backend: str
    precision: str

    def __str__(self) -> str:
        return f"{self.backend} {self.precision}"


EXACT = Execution("torch", "fp32")


@dataclass(frozen=True, eq=False)
class ImageEncoder:
    """A CLIP or SigLIP vision tower."""

    tower: Callable[[np.ndarray], np.ndarray]
    """from preprocessed pictures to vectors of any length"""
    processor: Any
    """CLIP's or SigLIP's of transformers, or its steps without that library"""
    dims: int
    revision: str
    """fingerprint of the weights"""
    execution: Execution = EXACT

    def running(self, tower: Callable[[np.ndarray], np.ndarray], execution: Execution) -> ImageEncoder:
        """Return the same encoder with its tower run in another way."""
        return replace(self, tower=tower, execution=execution)

    def preprocess(self, image: Image.Image) -> np.ndarray:
        """Return one RGB picture as the tower wants it: float32 `[3, height, width]`. Safe in any thread.

        Of a picture beyond `WIDE` it is float32 `[tiles, 3, height, width]`.
        """
        if max(image.size) > WIDE * min(image.size):
            return np.stack([self._preprocess(tile) for tile in tiles_of(image)])
        return self._preprocess(image)

    def _preprocess(self, image: Image.Image) -> np.ndarray:
        # The processor would take three passes over floats to scale and centre; one line below does it.
        batch = self.processor(
            image,
            do_rescale=False,
            do_normalize=False,
            return_tensors="np",
            # Without it a picture one pixel high or wide is taken for one with three channels.
            input_data_format="channels_last",
        )
        factor, offset = self._scale
        pixels: np.ndarray = batch["pixel_values"][0] * factor + offset
        return pixels

    @cached_property
    def _scale(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the factor and the offset of the processor's scaling: float32 `[3, 1, 1]` each."""
        steps = self.processor
        factor = steps.rescale_factor if steps.do_rescale else 1.0
        mean, std = (steps.image_mean, steps.image_std) if steps.do_normalize else ([0.0] * 3, [1.0] * 3)
        means, stds = (np.asarray(each, np.float64).reshape(3, 1, 1) for each in (mean, std))
        return (factor / stds).astype(np.float32), (-means / stds).astype(np.float32)

    def embed_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Return float32 `[n, dims]`, unit length, for preprocessed pictures `[n, 3, height, width]`.

        Raises `ModelError` when the model fails on them.
        """
        way_out = WAY_OUT if self.execution == EXACT else "use --backend torch --precision fp32"
        with running(f"The image model in {self.execution}", way_out=way_out):
            return finite_unit_rows(self.tower(pixels))

    def embed_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Return float32 `[n, dims]`, unit length, row by row the vectors of RGB pictures."""
        batches = [
            embed_prepared(self, [self.preprocess(image) for image in images[start : start + BATCH_SIZE]])
            for start in range(0, len(images), BATCH_SIZE)
        ]
        return np.concatenate(batches) if batches else np.zeros((0, self.dims), np.float32)


@dataclass(eq=False)
class SentenceEncoder:
    """A text tower in sentence-transformers' layout, such as DistilBERT with pooling and Dense."""

    model: SentenceTransformer
    dims: int
    revision: str

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Return float32 `[n, dims]`, unit length."""
        if not texts:
            return np.zeros((0, self.dims), np.float32)
        plain = [plain_text(text) for text in texts]  # as Elasticsearch reads them
        with running("The text model"):
            vectors = self.model.encode(plain, convert_to_numpy=True, show_progress_bar=False)
            return finite_unit_rows(vectors.astype(np.float32, copy=False))

    def reads_whole(self, text: str) -> bool:
        """Whether the model reads all of a text: it leaves out the tokens after its limit."""
        tokens = self.model.tokenizer(plain_text(text), verbose=False)["input_ids"]
        return len(tokens) <= (self.model.get_max_seq_length() or len(tokens))


@dataclass(eq=False)
class PairedTextEncoder:
    """The text tower of a CLIP or SigLIP model that holds both towers."""

    model: CLIPModel | SiglipModel
    tokenizer: Callable[..., BatchEncoding]
    padding: str
    max_length: int
    dims: int
    revision: str
    lowercase: bool = False
    """SigLIP 2 knows lowercase texts only, and its tokenizer leaves capitals"""

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Return float32 `[n, dims]`, unit length."""
        import torch

        rows = [np.zeros((0, self.dims), np.float32)]
        for start in range(0, len(texts), BATCH_SIZE):
            with running("The text model"), torch.inference_mode():
                asked = list(texts[start : start + BATCH_SIZE])
                tokens = self.tokenizer(
                    [text.lower() for text in asked] if self.lowercase else asked,
                    padding=self.padding,
                    truncation=True,
                    max_length=self.max_length,
                    return_tensors="pt",
                )
                if self.padding == "max_length":  # trained on padded texts, it reads the padding too
                    tokens.pop("attention_mask", None)
                features = self.model.get_text_features(**tokens.to(self.model.device))
                rows.append(finite_unit_rows(features.float().cpu().numpy()))
        return np.concatenate(rows)

    def reads_whole(self, text: str) -> bool:
        """Whether the model reads all of a text: it leaves out the tokens after its limit."""
        return len(self.tokenizer(text, verbose=False)["input_ids"]) <= self.max_length


def finite_unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Return `vectors` `[n, dims]` divided by their lengths.

    A zero vector stays zero. Raises `ValueError` for values that are not numbers.
    """
    if not np.isfinite(vectors).all():
        raise ValueError("it gives values that are not numbers")
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: np.ndarray = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
    return unit.astype(np.float32, copy=False)


class EmbedsPixels(Protocol):
    """The part of an image encoder that takes preprocessed pictures."""

    def embed_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Return float32 `[n, dims]`, unit length, for float32 `[n, 3, height, width]`."""
        ...


def embed_prepared(encoder: EmbedsPixels, prepared: Sequence[np.ndarray]) -> np.ndarray:
    """Return float32 `[n, dims]`, unit length, for pictures as `preprocess` returns them.

    Of a wide picture it is the vector of its tiles together. Raises `ModelError` as `embed_pixels` does.
    """
    plain = [place for place, pixels in enumerate(prepared) if pixels.ndim == 3]
    rows: dict[int, np.ndarray] = {}
    if plain:
        rows |= zip(plain, encoder.embed_pixels(np.stack([prepared[place] for place in plain])), strict=True)
    for place, pixels in enumerate(prepared):
        if pixels.ndim == 4:
            rows[place] = _together(encoder.embed_pixels(pixels))
    return np.stack([rows[place] for place in range(len(prepared))])


def tiles_of(image: Image.Image) -> list[Image.Image]:
    """Return square tiles that cover a picture from one end of its longer side to the other."""
    width, height = image.size
    long, short = max(image.size), min(image.size)
    length = max(short, math.ceil(long / (1 + TILE_STEP * (MOST_TILES - 1))))
    count = min(MOST_TILES, math.ceil((long - length) / (TILE_STEP * length)) + 1)
    tiles = []
    for number in range(count):
        begin = round(number * (long - length) / max(1, count - 1))
        box = (begin, 0, begin + length, height) if width > height else (0, begin, width, begin + length)
        tile = image.crop(box)
        edge = max(short, min(length, LARGEST_TILE))
        tiles.append(tile if length == short else tile.resize((edge, edge)))
    return tiles


def _together(vectors: np.ndarray) -> np.ndarray:
    """Return one unit vector float32 `[dims]` for those of a picture's tiles `[n, dims]`."""
    middle = vectors.mean(axis=0)
    middle /= max(float(np.linalg.norm(middle)), float(np.finfo(np.float32).tiny))
    unusual = 1.0 - vectors @ middle
    weights = np.exp(SALIENCE * (unusual - unusual.max()) / max(float(unusual.std()), 1e-6))
    row: np.ndarray = finite_unit_rows((weights / weights.sum() @ vectors)[None])[0]
    return row


def load_image_encoder(profile: Profile) -> ImageEncoder:
    """Load the profile's vision tower. Raises `ModelError` when it is absent or of another width."""
    from transformers import AutoImageProcessor

    folder = towers_folder(local_folder(profile.image_model))
    with loading("The image model", folder):
        tower = TorchTower(_load_tower(folder))
    with loading("The image processor (preprocessor_config.json)", folder):
        processor = AutoImageProcessor.from_pretrained(str(folder), use_fast=False)
    encoder = ImageEncoder(tower, processor, dims=profile.dims, revision=fingerprint(folder))
    with loading("The image model", folder):
        vectors = encoder.embed_images([Image.new("RGB", (64, 64), "grey")])
    _check_width(vectors, profile.dims, folder)
    return encoder


def load_text_encoder(profile: Profile) -> TextEncoder:
    """Load the profile's text tower in this process. Raises `ModelError` as `load_image_encoder` does."""
    return _load_texts(local_folder(profile.text_model, role="text"), profile.dims)


def load_caption_text_encoder(profile: Profile) -> TextEncoder:
    """Load the model that embeds captions. Raises `ModelError` as `load_image_encoder` does."""
    return _load_texts(local_folder(profile.caption_text_model, role="caption_text"), profile.caption_dims)


def _load_texts(folder: Path, dims: int) -> TextEncoder:
    paired = not (folder / "modules.json").is_file() or (folder / "0_CLIPModel").is_dir()
    encoder: TextEncoder = _load_paired(folder, dims) if paired else _load_sentences(folder, dims)
    with loading("The text model", folder):
        vectors = encoder.embed_texts(["a picture"])
    _check_width(vectors, dims, folder)
    return encoder


def _load_sentences(folder: Path, dims: int) -> SentenceEncoder:
    from sentence_transformers import SentenceTransformer

    with loading("The text model", folder):
        model = SentenceTransformer(str(folder), local_files_only=True)
    return SentenceEncoder(model=model, dims=dims, revision=fingerprint(folder))


def _load_paired(folder: Path, dims: int) -> PairedTextEncoder:
    from transformers import AutoTokenizer

    folder = towers_folder(folder)
    with loading("The text model", folder):
        model = cast("CLIPModel | SiglipModel", _load_tower(folder, whole=True))
        max_length = model.config.text_config.max_position_embeddings
    with loading("The tokenizer", folder):
        tokenizer = AutoTokenizer.from_pretrained(str(folder))
    # SigLIP was trained on padded texts; CLIP gives the same vector with and without padding.
    is_siglip = model.config.model_type.startswith("siglip")
    return PairedTextEncoder(
        model,
        tokenizer,
        padding="max_length" if is_siglip else "longest",
        max_length=max_length,
        dims=dims,
        revision=fingerprint(folder),
        lowercase=is_siglip,
    )


def _load_tower(folder: Path, *, whole: bool = False) -> torch.nn.Module:
    import torch
    from transformers import AutoModel, CLIPVisionModelWithProjection

    is_clip = read_config(folder).get("model_type") in ("clip", "clip_vision_model")
    model_class = CLIPVisionModelWithProjection if is_clip and not whole else AutoModel
    model: torch.nn.Module = model_class.from_pretrained(
        str(folder), dtype=torch.float32, local_files_only=True
    )
    return model.eval().to("cuda" if torch.cuda.is_available() else "cpu")


def _check_width(vectors: np.ndarray, dims: int, folder: Path) -> None:
    width = vectors.shape[1]
    if width != dims:
        raise ModelError(
            f"The model in {folder} gives vectors of {width} dims, but its profile says {dims};"
            " choose the profile that it belongs to."
        )


class TorchTower:
    """A CLIP or SigLIP vision tower run by torch, called with pixels."""

    def __init__(self, model: torch.nn.Module) -> None:
        first = next(model.parameters())
        self.model = model
        self._device, self._dtype = first.device, first.dtype

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Return float32 `[n, dims]`, of any length, for float32 `[n, 3, height, width]`."""
        import torch

        with torch.inference_mode():
            features = self._features(torch.from_numpy(pixels).to(self._device, self._dtype))
            return features.float().cpu().numpy()

    def _features(self, values: torch.Tensor) -> torch.Tensor:
        whole = getattr(self.model, "get_image_features", None)
        features = whole(pixel_values=values) if whole else self.model(values)
        vectors: torch.Tensor = getattr(features, "image_embeds", features)
        return vectors


class Lazy(Generic[T_co]):
    """A value that the first `get` loads, once, in any thread. A load that fails is tried again."""

    def __init__(self, load: Callable[[], T_co]) -> None:
        self._load = load
        self._loaded: list[T_co] = []
        self._lock = threading.Lock()

    def get(self) -> T_co:
        """Return the value. Raises the errors of loading, such as `ModelError`."""
        with self._lock:
            if not self._loaded:
                self._loaded.append(self._load())
            return self._loaded[0]

    def release(self) -> None:
        """Let go of the value. The next `get` loads it again."""
        with self._lock:
            self._loaded.clear()
