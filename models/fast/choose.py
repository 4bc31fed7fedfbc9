"""The ways to run a vision tower, and the choice of the fastest whose vectors agree with fp32."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from models.encoders import (
    BATCH_SIZE,
    EXACT,
    Execution,
    ImageEncoder,
    TorchTower,
    embed_prepared,
    load_image_encoder,
)
from models.errors import ModelError, first_line
from models.profiles import CALIBRATION_PICTURES, Profile

if TYPE_CHECKING:
    import torch

CPUINFO = Path("/proc/cpuinfo")
BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
INT8_FLAGS = {"avx512_vnni", "avx_vnni", "amx_int8", "i8mm", "asimddp"}
FASTEST_FIRST = (
    Execution("onnx", "int8"),
    Execution("torch", "bf16"),
    Execution("onnx", "fp32"),
    EXACT,
)
"""every way, in the order of speed on a processor that has the instructions for it"""


@dataclass(frozen=True)
class Requested:
    """The backend and precision to use, where `auto` leaves the choice to a comparison."""

    backend: str = "auto"
    precision: str = "auto"

    def __post_init__(self) -> None:
        """Raise `ModelError` when no way fits."""
        self.ways()

    @property
    def is_auto(self) -> bool:
        """Whether both are left to choose."""
        return self.backend == self.precision == "auto"

    def ways(self) -> tuple[Execution, ...]:
        """Return the ways that fit, at least one, fastest first."""
        fitting = tuple(
            way
            for way in FASTEST_FIRST
            if self.backend in ("auto", way.backend) and self.precision in ("auto", way.precision)
        )
        if not fitting:
            does = {way.backend for way in FASTEST_FIRST if way.precision == self.precision}
            raise ModelError(
                f"The backend {self.backend} does not run in {self.precision}; leave out --backend, or use"
                f" --backend {does.pop()}."
            )
        return fitting


@dataclass(frozen=True)
class Processor:
    """The features of this machine that make low precision faster."""

    cuda: bool = False
    bf16: bool = False
    int8: bool = False

    def gains(self, way: Execution) -> bool:
        """Whether `way` is expected to be faster here than torch in float32."""
        if way == EXACT:
            return True
        if self.cuda:  # ONNX Runtime is installed for the CPU alone
            return way.backend == "torch"
        return way.precision == "fp32" or getattr(self, way.precision)


def probe(*, cpuinfo: Path = CPUINFO) -> Processor:
    """Ask the kernel and torch for the features of this machine. An unknown feature counts as absent."""
    import torch

    try:
        words = set(cpuinfo.read_text(encoding="utf-8", errors="replace").split())
    except OSError:  # not Linux
        words = set()
    return Processor(
        cuda=torch.cuda.is_available(), bf16=bool(words & BF16_FLAGS), int8=bool(words & INT8_FLAGS)
    )


COSINE = 0.999
OVERLAP = 0.98
NEIGHBOURS = 10
FEWEST_TO_RANK = 32
"""pictures: among fewer, the overlap of ten neighbours says nothing"""
EVEN = 1e-6
"""similarities that differ by less are a draw"""
SMALL = 20_000_000
"""parameters; a smaller tower is faster than the decoding of its pictures in any case"""


@dataclass(frozen=True)
class Agreement:
    """How near vectors are to the exact ones of the same pictures."""

    pictures: int
    cosine: float
    """the smallest of all pictures: a mean would hide the one whose vector is ruined"""
    overlap: float | None
    """mean share of the ten nearest that stay among the ten; None for too few pictures"""

    @property
    def passed(self) -> bool:
        """Whether both limits are kept. A comparison without pictures does not pass."""
        enough = self.overlap is None or self.overlap >= OVERLAP
        return self.pictures > 0 and self.cosine >= COSINE and enough

    def __str__(self) -> str:
        if self.pictures == 0:
            return "there is no picture to compare"
        overlap = "" if self.overlap is None else f" and top-{NEIGHBOURS} overlap {self.overlap:.3f}"
        return f"smallest cosine {self.cosine:.5f}{overlap} on {self.pictures} of your pictures"

    def as_note(self) -> dict[str, float | int | None]:
        """Return the figures as an index notes them."""
        return {"cosine": self.cosine, "overlap": self.overlap, "pictures": self.pictures}


def agreement(exact: np.ndarray, other: np.ndarray) -> Agreement:
    """Compare unit vectors `[n, dims]` of the same pictures, row by row.

    Like a search, it takes the exact vector as the query and ranks the other ones.
    """
    count = len(exact)
    if count == 0:
        return Agreement(0, 0.0, None)
    if not np.isfinite(other).all():
        return Agreement(count, -1.0, None)
    cosine = float((exact * other).sum(axis=1).min())
    return Agreement(count, min(cosine, 1.0), _overlap(exact, other) if count >= FEWEST_TO_RANK else None)


def _overlap(exact: np.ndarray, other: np.ndarray) -> float:
    truth, found = exact @ exact.T, exact @ other.T
    np.fill_diagonal(truth, -np.inf)
    np.fill_diagonal(found, -np.inf)
    tenth = np.partition(truth, -NEIGHBOURS, axis=1)[:, -NEIGHBOURS]
    ten = np.argpartition(-found, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
    return float((np.take_along_axis(truth, ten, axis=1) >= tenth[:, None] - EVEN).mean())


Noted = Mapping[str, Mapping[str, Any]]
"""the index's notes on its vectors: for each precision its backend and how it agreed with fp32"""


@dataclass(frozen=True)
class Chosen:
    """An encoder, how its vectors agreed if they were compared, and a sentence for people, or none."""

    encoder: ImageEncoder
    agreement: Agreement | None = None
    sentence: str = ""
    why: str = ""
    """why nothing faster was taken, if something was tried"""

    @property
    def compared(self) -> bool:
        """Whether vectors were compared for this choice, so that the index's note of it is news."""
        return self.agreement is not None or bool(self.why)

    def note(self) -> dict[str, dict[str, Any]]:
        """Return the note for the index."""
        way = self.encoder.execution
        figures = self.agreement.as_note() if self.agreement else {}
        why = {"why": self.why} if self.why else {}
        return {way.precision: {"backend": way.backend, **figures, **why}}


def choose_backend(
    exact: ImageEncoder,
    requested: Requested,
    *,
    build: Callable[[Execution], ImageEncoder],
    sample: Callable[[], Sequence[Image.Image]],
    processor: Processor,
    noted: Noted,
    is_small: bool = False,
    clock: Callable[[], float] = time.perf_counter,
) -> Chosen:
    """Choose how to run an encoder for an index: the first way that passes, the fastest tried first.

    `exact` is the encoder in torch and float32; `build` returns it running in a given way, or raises
    `ModelError`; `sample` returns some of the person's own pictures, and is asked only when vectors have to
    be compared; `noted` is empty for a new index. Raises `ModelError` when the index cannot hold vectors in
    the requested precision.
    """
    is_automatic = requested.precision == "auto"
    is_settled = any(
        precision != "fp32" or note.get("pictures") or note.get("why") for precision, note in noted.items()
    )
    ways = [way for way in requested.ways() if processor.gains(way)] or [requested.ways()[-1]]
    if is_automatic and is_settled:
        ways = [way for way in ways if way.precision in noted] or [
            way for way in ways if way.precision == "fp32"
        ]
    elif requested.is_auto and is_small:
        ways = [EXACT]
    first = ways[0]
    _refuse_mixing(noted, first)
    # Eight bits overflow on processors that are not made for them, so they are compared there again.
    is_known = first.precision in noted and processor.gains(first)
    if (is_automatic and is_settled) or (not is_automatic and (first.precision == "fp32" or is_known)):
        return Chosen(build(first))
    # The fp32 of a backend that was named is not compared: it is taken when nothing lower passes.
    compared = [way for way in ways if way != EXACT and (requested.is_auto or way.precision != "fp32")]
    pixels = [exact.preprocess(image) for image in sample()] if compared else []
    if not is_automatic:
        return _as_requested(exact, build(first), noted, pixels)
    chosen = Chosen(exact)
    if len(pixels) >= FEWEST_TO_RANK:  # fewer pictures are embedded before anything is gained
        chosen = _first_that_passes(exact, compared, build, pixels, clock)
    if chosen.encoder is exact and not requested.is_auto:
        return Chosen(build(ways[-1]))
    return chosen


def _first_that_passes(
    exact: ImageEncoder,
    ways: Sequence[Execution],
    build: Callable[[Execution], ImageEncoder],
    pixels: list[np.ndarray],
    clock: Callable[[], float],
) -> Chosen:
    """Return the first encoder that agrees with the exact one and is faster, or else the exact one."""
    truth, exact_seconds = _timed(exact, pixels, clock)
    reasons = []
    for way in ways:
        try:
            encoder = build(way)
            vectors, seconds = _timed(encoder, pixels, clock)
        except ModelError as error:
            reasons.append(str(error).rstrip("."))
            continue
        found = agreement(truth, vectors)
        if not found.passed:
            reasons.append(f"{way} does not agree with it ({found})")
        elif seconds >= exact_seconds:
            reasons.append(f"{way} is not faster on this machine")
        else:
            return Chosen(encoder, found, f"Pictures are embedded in {way}: {found}.")
    why = "; ".join(reasons)
    return Chosen(exact, why=why, sentence=f"Pictures are embedded in {EXACT}: {why}.")


def _as_requested(
    exact: ImageEncoder, encoder: ImageEncoder, noted: Noted, pixels: list[np.ndarray]
) -> Chosen:
    """Return the encoder with its agreement. Raises `ModelError` when its vectors would not fit the index."""
    way = encoder.execution
    found = agreement(_timed(exact, pixels)[0], _timed(encoder, pixels)[0])
    if found.passed:
        return Chosen(encoder, found, f"Pictures are embedded in {way}: {found}.")
    if noted:
        raise ModelError(
            f"The index holds vectors in {' and '.join(noted)}, and {way} does not agree with fp32"
            f" ({found}): use --precision {next(iter(noted))}."
        )
    return Chosen(encoder, found, f"Warning: {way} does not agree with fp32: {found}.")


def _refuse_mixing(noted: Noted, way: Execution) -> None:
    """Raise `ModelError` when the index holds vectors that do not agree with fp32, and `way` differs."""
    for precision, note in noted.items():
        found = Agreement(
            int(note.get("pictures") or 0), float(note.get("cosine") or 0.0), note.get("overlap")
        )
        if precision not in ("fp32", way.precision) and not found.passed:
            raise ModelError(
                f"The index holds vectors in {precision}, which do not agree with fp32 ({found}): use"
                f" --precision {precision}, or run `glimpse index delete` and ingest again."
            )


def _timed(
    encoder: ImageEncoder, pixels: list[np.ndarray], clock: Callable[[], float] = time.perf_counter
) -> tuple[np.ndarray, float]:
    """Return the vectors, and the seconds that they took."""
    rows, begun = [np.zeros((0, encoder.dims), np.float32)], clock()
    for start in range(0, len(pixels), BATCH_SIZE):
        rows.append(embed_prepared(encoder, pixels[start : start + BATCH_SIZE]))
    return np.concatenate(rows), clock() - begun


def load_fast_image_encoder(
    profile: Profile,
    *,
    requested: Requested,
    noted: Noted,
    cache: Path,
    sample: Callable[[], Sequence[Image.Image]],
    processor: Processor | None = None,
) -> Chosen:
    """Load the profile's vision tower for the request, the index's notes and this machine.

    `cache` is a folder for exported models; for the rest see `choose_backend`. Raises `ModelError`.
    """
    exact = load_image_encoder(profile)
    return choose_backend(
        exact,
        requested,
        build=lambda way: run_in(way, exact, cache=cache),
        sample=sample,
        processor=processor or probe(),
        noted=noted,
        is_small=sum(one.numel() for one in _torch_model(exact).parameters()) < SMALL,
    )


def run_in(way: Execution, exact: ImageEncoder, *, cache: Path) -> ImageEncoder:
    """Return the encoder running in another way, from the one in torch and float32. Raises `ModelError`."""
    if way == EXACT:
        return exact
    try:
        return exact.running(_tower_in(way, exact, cache), way)
    except ModelError:
        raise
    except Exception as error:  # a tower of another build than CLIP's and SigLIP's, or no memory
        raise ModelError(
            f"The image model cannot be run in {way} ({first_line(error)}); use --backend torch --precision"
            " fp32."
        ) from error


def _tower_in(way: Execution, exact: ImageEncoder, cache: Path) -> Callable[[np.ndarray], np.ndarray]:

    import torch

    from models.fast.onnx import onnx_file
    from models.fast.standalone import OnnxTower

    if way.backend == "torch":
        return bf16_tower(_torch_model(exact))
    path = onnx_file(
        _torch_model(exact),
        precision=way.precision,
        revision=exact.revision,
        cache=cache,
        calibration=lambda: _calibration(exact),
    )
    return OnnxTower(path, threads=torch.get_num_threads())


def bf16_tower(model: torch.nn.Module) -> TorchTower:
    """Return a copy of a vision tower that computes in bfloat16, where the model is."""
    import copy

    import torch

    from models.fast.onnx import LeanTower

    return TorchTower(copy.deepcopy(LeanTower(model)).eval().to(torch.bfloat16))


def _torch_model(encoder: ImageEncoder) -> torch.nn.Module:
    if not isinstance(encoder.tower, TorchTower):
        raise TypeError("only an encoder that runs in torch can be run in another way")
    return encoder.tower.model


def _calibration(encoder: ImageEncoder) -> np.ndarray:
    """Return the calibration pictures, preprocessed: float32 `[n, 3, height, width]`.

    They never change, so the same weights give the same eight-bit model everywhere.
    """
    with Image.open(CALIBRATION_PICTURES) as strip:
        side = strip.height
        pictures = [strip.crop((left, 0, left + side, side)) for left in range(0, strip.width, side)]
    return np.stack([encoder.preprocess(picture) for picture in pictures])
