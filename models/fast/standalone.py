"""Keep towers in a form that runs without torch and transformers, whose imports take seconds.

A tower is an ONNX file, with the steps of its preprocessing or with its tokenizer. It is made from the exact
encoder, compared with it, and kept only if it gives the same vectors.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from PIL import Image

from models.encoders import (
    Execution,
    ImageEncoder,
    PairedTextEncoder,
    SentenceEncoder,
    TextEncoder,
    finite_unit_rows,
    load_caption_text_encoder,
    load_image_encoder,
    load_text_encoder,
    plain_text,
)
from models.errors import ModelError, first_line, running
from models.hub import found_folder, local_folder, towers_folder
from models.profiles import CALIBRATION_PICTURES, Profile

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

RECIPE = 2
"""counts the forms in which towers were kept: another one, another folder"""
CLOSE = 1e-5
"""largest difference of a number of a unit vector from the exact one"""
AT_ONCE = 8
"""most pictures of a thread, so that the states between the layers stay in the processor's cache"""
EXPORTED, WEIGHTS = "exported.onnx", "tower.onnx.data"
"""a tower before it is optimized; its weights beside it, which ONNX Runtime then maps instead of copying"""
SMALL = 30_000_000
"""bytes of a text tower whose threads would wait for each other longer than they work"""
TOWER, TOKENIZER, NOTE, REFUSED = "tower.onnx", "tokenizer.json", "note.json", "refused.txt"
"""files of a kept tower; the last one has the reason why a tower is not kept, and stands alone"""
T = TypeVar("T")
SAMPLE_TEXTS = (
    "a picture",
    "boat",
    "Two YELLOW birds, left of three white trees (at night)!",
    "zwei gelbe Vögel im Wald bei Nacht, ein kleines rotes Boot auf dem See",
    "трое детей на пляже 海辺の犬 كلب",
    "a " + "very " * 200 + "long text",
    "don't <|endoftext|> [SEP] snake_case 3.14 e-mail@example.org",
)


class OnnxTower:
    """An ONNX file run by ONNX Runtime on the CPU, called with pixels from any thread.

    Each thread takes some of the pictures through all layers. Threads that share each layer would wait for
    one another in every one, and all of them for one that another job holds up.
    """

    def __init__(self, path: Path, *, threads: int | None = None, is_optimized: bool = False) -> None:
        """Load a file, to be run by as many threads, or one for each processor. Raises `ModelError`."""
        self._threads = threads or os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="tower")
        self._session = onnx_session(path, threads=1, is_optimized=is_optimized)

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Return float32 `[n, dims]`, of any length, for float32 `[n, 3, height, width]`."""
        size = min(AT_ONCE, max(1, -(-len(pixels) // self._threads)))
        parts = [pixels[start : start + size] for start in range(0, len(pixels), size)]
        return np.concatenate(list(self._pool.map(self._run, parts)))

    def _run(self, pixels: np.ndarray) -> np.ndarray:
        vectors: np.ndarray = self._session.run(None, {"pixels": pixels})[0]
        return vectors


def onnx_session(path: Path, *, threads: int = 0, is_optimized: bool = False) -> Any:
    """Return a session of ONNX Runtime on the CPU, with 0 threads for as many as cores.

    A file that `optimize` wrote is run as it is. Raises `ModelError` for a file that cannot be loaded.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if is_optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a class for each of its status codes
        raise ModelError(
            f"ONNX Runtime cannot load {path} ({first_line(error)}); use --backend torch."
        ) from error


def optimize(exported: Path, tower: Path) -> None:
    """Write a tower as it is run, its weights in a file of their own: it then loads in a quarter of the time.

    What is done to it suits any processor.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tower)
    external = "session.optimized_model_external_initializers"
    options.add_session_config_entry(f"{external}_file_name", WEIGHTS)
    options.add_session_config_entry(f"{external}_min_size_in_bytes", "1024")
    onnxruntime.InferenceSession(str(exported), options, providers=["CPUExecutionProvider"])
    exported.unlink()


@dataclass(frozen=True)
class PictureSteps:
    """The steps of the image processors of CLIP and SigLIP, by Pillow alone."""

    size: Mapping[str, int]
    """`height` and `width`, or `shortest_edge`"""
    crop_size: Mapping[str, int] | None
    resample: int
    do_rescale: bool
    rescale_factor: float
    do_normalize: bool
    image_mean: Sequence[float]
    image_std: Sequence[float]

    @classmethod
    def of(cls, processor: Any) -> PictureSteps:
        """Return the steps of a processor of transformers. Raises `ValueError` for one of another kind."""
        kind = type(processor).__name__
        if kind not in ("CLIPImageProcessor", "SiglipImageProcessor") or not processor.do_resize:
            raise ValueError(f"nothing is known of the steps of {kind}")
        crop = dict(processor.crop_size) if getattr(processor, "do_center_crop", False) else None
        return cls(
            dict(processor.size),
            crop,
            int(processor.resample),
            bool(processor.do_rescale),
            float(processor.rescale_factor),
            bool(processor.do_normalize),
            list(processor.image_mean),
            list(processor.image_std),
        )

    def __call__(self, image: Image.Image, **_options: object) -> dict[str, list[np.ndarray]]:
        """Return `pixel_values`, uint8 `[3, height, width]`, of one RGB picture, as the processor does."""
        resized = image.resize(self._resized(image.size), Image.Resampling(self.resample))
        pixels = np.asarray(resized)
        if self.crop_size:
            pixels = _cropped(pixels, self.crop_size["height"], self.crop_size["width"])
        return {"pixel_values": [pixels.transpose(2, 0, 1)]}

    def _resized(self, size: tuple[int, int]) -> tuple[int, int]:
        if (edge := self.size.get("shortest_edge")) is None:
            return self.size["width"], self.size["height"]
        long = int(edge * max(size) / min(size))
        return (edge, long) if size[0] <= size[1] else (long, edge)


def _cropped(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the middle of a picture `[h, w, 3]` that is as large in both directions or larger."""
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    if top < 0 or left < 0:
        raise ValueError("the crop is larger than the resized picture")
    return pixels[top : top + height, left : left + width]


@dataclass(eq=False)
class OnnxTextEncoder:
    """A text tower as an ONNX file with its tokenizer."""

    folder: Path
    dims: int
    revision: str
    max_length: int
    pad_id: int
    pads: bool
    """whether every text is filled up to `max_length`"""
    lowercase: bool
    is_plain: bool
    """whether texts are made plain and stripped first, as sentence-transformers' towers have them"""
    inputs: Sequence[str]

    @cached_property
    def _session(self) -> Any:
        size = sum(each.stat().st_size for each in self.folder.iterdir())
        return onnx_session(self.folder / TOWER, threads=1 if size < SMALL else 0, is_optimized=True)

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(self.folder / TOKENIZER))
        tokenizer.enable_truncation(self.max_length)
        tokenizer.no_padding()
        return tokenizer

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Return float32 `[n, dims]`, unit length."""
        with running("The text model"):
            rows = [self._embed(text) for text in texts]
            return finite_unit_rows(np.concatenate([np.zeros((0, self.dims), np.float32), *rows]))

    def reads_whole(self, text: str) -> bool:
        """Whether the model reads all of a text: it leaves out the tokens after its limit."""
        return not self._tokens(text).overflowing

    @cached_property
    def _encode(self) -> Callable[[str], Encoding]:
        """Return the tokens of a text. The last few are kept: who embeds a text asks whether it was cut."""
        return lru_cache(maxsize=16)(self._tokenizer.encode)

    def _tokens(self, text: str) -> Encoding:
        plain = plain_text(text) if self.is_plain else text
        return self._encode(plain.lower() if self.lowercase else plain)

    def _embed(self, text: str) -> np.ndarray:
        ids = self._tokens(text).ids
        left = self.max_length - len(ids) if self.pads else 0
        values = {
            "input_ids": [ids + [self.pad_id] * left],
            "attention_mask": [[1] * len(ids) + [0] * left],
        }
        feed = {name: np.array(values[name], np.int64) for name in self.inputs}
        vectors: np.ndarray = self._session.run(None, feed)[0]
        return vectors


def load_quick_image_encoder(profile: Profile, *, cache: Path) -> ImageEncoder:
    """Return the profile's image encoder in the form that starts at once, made on first use.

    It is the exact one where the two do not agree or nothing can be kept in `cache`. Raises `ModelError`.
    """
    source = towers_folder(local_folder(profile.image_model))
    return _kept_or_made(
        _place(source, "image", profile.dims, cache),
        _read_image,
        lambda: load_image_encoder(profile),
        _write_image,
    )


def load_quick_text_encoder(profile: Profile, *, cache: Path) -> TextEncoder:
    """Return the profile's text encoder as `load_quick_image_encoder` does. Raises `ModelError`."""
    source = local_folder(profile.text_model, role="text")
    place = _place(source, "text", profile.dims, cache)
    return _kept_or_made(place, _read_text, lambda: load_text_encoder(profile), _write_text)


def load_quick_caption_text_encoder(profile: Profile, *, cache: Path) -> TextEncoder:
    """Return the encoder of captions as `load_quick_image_encoder` does. Raises `ModelError`."""
    source = local_folder(profile.caption_text_model, role="caption_text")
    place = _place(source, "text", profile.caption_dims, cache)
    return _kept_or_made(place, _read_text, lambda: load_caption_text_encoder(profile), _write_text)


@dataclass(frozen=True)
class QuickTowers:
    """The towers by which a profile searches, in the form that starts at once."""

    profile: Profile
    cache: Path

    def are_kept(self) -> bool:
        """Return whether all of them were made, or cannot be. Models that are not here are not made."""
        return all((place / REFUSED).is_file() or _is_intact(place) for place in self._places().values())

    def make(self) -> None:
        """Make those that are not kept. Raises `ModelError`."""
        made = {
            "image": load_quick_image_encoder,
            "text": load_quick_text_encoder,
            "caption_text": load_quick_caption_text_encoder,
        }
        for role in self._places():
            made[role](self.profile, cache=self.cache)

    def _places(self) -> dict[str, Path]:
        """Return the folders in the cache of the towers whose models are on this machine."""
        profile = self.profile
        dims = {"image": profile.dims, "text": profile.dims, "caption_text": profile.caption_dims}
        models = profile.models()
        places = {}
        for role, source in models.items():
            if role in dims and (folder := found_folder(source, role=role)):
                kind = "image" if role == "image" else "text"
                whole = towers_folder(folder) if role == "image" else folder
                places[role] = _place(whole, kind, dims[role], self.cache)
        return places


def _place(source: Path, role: str, dims: int, cache: Path) -> Path:
    """Return the folder for a model in the cache. Its name changes with every file of the model."""
    digest = hashlib.sha256()
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        found = path.stat()
        digest.update(f"{path.relative_to(source)}\0{found.st_size}\0{found.st_mtime_ns}\n".encode())
    return cache / "standalone" / f"{role}-{digest.hexdigest()[:24]}-{dims}-{RECIPE}"


def _kept_or_made(
    place: Path, read: Callable[[Path], T], load: Callable[[], T], write: Callable[[T, Path], None]
) -> T:
    """Return the encoder that is kept at `place`, or make it, or return the exact one."""
    from filelock import FileLock

    if (place / REFUSED).is_file():
        return load()
    if _is_intact(place):
        try:
            return read(place)
        except (ModelError, OSError, ValueError, KeyError, TypeError):
            shutil.rmtree(place, ignore_errors=True)  # damaged: it is made again
    exact = load()
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{place}.lock"):
            if not _is_intact(place):
                _make(place, lambda part: write(exact, part))
        return read(place)
    except OSError as error:  # no room or no right: the exact one works
        logging.getLogger(__name__).debug("%s is not kept: %s", place.name, error)
    except Exception as error:  # torch and ONNX Runtime each raise their own: this tower has no such form
        with suppress(OSError):
            place.mkdir(exist_ok=True)
            (place / REFUSED).write_text(f"{error}\n", encoding="utf-8")
    return exact


def _is_intact(place: Path) -> bool:
    """Return whether the files of a kept tower are as they were written, by their sizes and times."""
    try:
        note = json.loads((place / NOTE).read_text(encoding="utf-8"))
        return bool(note["files"]) and note["files"] == _stamps(place)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _stamps(place: Path) -> dict[str, list[int]]:
    stamps = {}
    for path in place.iterdir():
        if path.name != NOTE:
            found = path.stat()
            stamps[path.name] = [found.st_size, found.st_mtime_ns]
    return stamps


def _make(place: Path, write: Callable[[Path], None]) -> None:
    """Write a folder that appears whole or not at all."""
    part = Path(tempfile.mkdtemp(prefix=".part-", dir=place.parent))
    try:
        write(part)
        note = json.loads((part / NOTE).read_text(encoding="utf-8"))
        (part / NOTE).write_text(json.dumps({**note, "files": _stamps(part)}), encoding="utf-8")
        shutil.rmtree(place, ignore_errors=True)
        part.rename(place)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _note(place: Path) -> dict[str, Any]:
    note: dict[str, Any] = json.loads((place / NOTE).read_text(encoding="utf-8"))
    return note


def _read_image(place: Path) -> ImageEncoder:
    note = _note(place)
    return ImageEncoder(
        OnnxTower(place / TOWER, is_optimized=True),
        PictureSteps(**note["steps"]),
        dims=note["dims"],
        revision=note["revision"],
        execution=Execution("onnx", "fp32"),
    )


def _write_image(exact: ImageEncoder, part: Path) -> None:
    from models.fast.onnx import export_image_tower

    export_image_tower(exact, part / EXPORTED)
    optimize(part / EXPORTED, part / TOWER)
    note = {"steps": asdict(PictureSteps.of(exact.processor)), "dims": exact.dims, "revision": exact.revision}
    (part / NOTE).write_text(json.dumps(note), encoding="utf-8")
    pictures = list(_sample_pictures())
    _check_close(exact.embed_images(pictures), _read_image(part).embed_images(pictures))


def _sample_pictures() -> Iterator[Image.Image]:
    """Yield drawn pictures, of many shapes and sizes."""
    with Image.open(CALIBRATION_PICTURES) as strip:
        side = strip.height
        for number, left in enumerate(range(0, min(strip.width, 8 * side), side)):
            picture = strip.crop((left, 0, left + side, side)).convert("RGB")
            width, height = ((700, 500), (333, 1000), (64, 64), (1999, 97))[number % 4]
            yield picture.resize((width, height))


def _read_text(place: Path) -> TextEncoder:
    note = _note(place)
    note.pop("files", None)
    encoder = OnnxTextEncoder(place, **note)
    encoder.embed_texts([SAMPLE_TEXTS[0]])  # what cannot be loaded is noticed here
    return encoder


def _write_text(exact: TextEncoder, part: Path) -> None:
    from models.fast.onnx import export_text_tower

    if isinstance(exact, SentenceEncoder):
        tokenizer, is_plain, pads = exact.model.tokenizer, True, False
        max_length = int(exact.model.max_seq_length or tokenizer.model_max_length)
    elif isinstance(exact, PairedTextEncoder):
        tokenizer, is_plain, pads, max_length = exact.tokenizer, False, True, exact.max_length
    else:
        raise ValueError(f"a {type(exact).__name__} has no tower of its own")
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ValueError("its tokenizer is not one of the library tokenizers")
    (part / TOKENIZER).write_text(backend.to_str(), encoding="utf-8")
    inputs = export_text_tower(exact, part / EXPORTED, length=max_length if pads else None)
    optimize(part / EXPORTED, part / TOWER)
    note = {
        "dims": exact.dims,
        "revision": exact.revision,
        "max_length": max_length,
        "pad_id": int(getattr(tokenizer, "pad_token_id", 0) or 0),
        "pads": pads,
        "lowercase": bool(getattr(exact, "lowercase", False)),
        "is_plain": is_plain,
        "inputs": inputs,
    }
    (part / NOTE).write_text(json.dumps(note), encoding="utf-8")
    texts = list(SAMPLE_TEXTS)
    _check_close(exact.embed_texts(texts), _read_text(part).embed_texts(texts))


def _check_close(exact: np.ndarray, other: np.ndarray) -> None:
    difference = float(np.abs(exact - other).max())
    if not difference <= CLOSE:
        raise ValueError(f"its vectors differ by {difference:.1g} from the exact ones")
