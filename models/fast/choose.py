"""Choose the fastest backend and precision whose vectors agree with fp32."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from models.errors import ModelError
from models.fast.execution import EXACT, Execution, Processor, Wish, probe
from models.profiles import CALIBRATION_PICTURES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    import torch
    from PIL.Image import Image

    from models.encoders import ImageEncoder
    from models.profiles import Profile

COSINE = 0.999
OVERLAP = 0.98
NEIGHBOURS = 10
FEWEST_TO_RANK = 32
"""pictures; among fewer, ten neighbours are no choice and their overlap says nothing"""
EVEN = 1e-6
"""similarities that differ by less are a draw"""


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
        """Whether both limits are kept; without any picture nothing is known and nothing has passed."""
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

    Neighbours are asked for with the exact vector, as a search does, and looked for among the other ones.
    """
    import numpy as np

    count = len(exact)
    if count == 0:
        return Agreement(0, 0.0, None)
    if not np.isfinite(other).all():
        return Agreement(count, -1.0, None)
    cosine = float((exact * other).sum(axis=1).min())
    return Agreement(count, min(cosine, 1.0), _overlap(exact, other) if count >= FEWEST_TO_RANK else None)


def from_note(note: Mapping[str, float | int | None]) -> Agreement:
    """Return what an index noted. The exact vectors themselves carry no figures."""
    return Agreement(int(note.get("pictures") or 0), float(note.get("cosine") or 0.0), note.get("overlap"))


def _overlap(exact: np.ndarray, other: np.ndarray) -> float:
    import numpy as np

    truth, found = exact @ exact.T, exact @ other.T
    np.fill_diagonal(truth, -np.inf)
    np.fill_diagonal(found, -np.inf)
    tenth = np.partition(truth, -NEIGHBOURS, axis=1)[:, -NEIGHBOURS]
    ten = np.argpartition(-found, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
    return float((np.take_along_axis(truth, ten, axis=1) >= tenth[:, None] - EVEN).mean())


Noted = dict[str, dict[str, Any]]
"""What an index says of its vectors: for each precision its backend and how it agreed with fp32"""
BATCH = 32
SMALL = 20_000_000
"""parameters; a smaller tower is faster than the decoding of its pictures, whatever runs it"""


@dataclass(frozen=True)
class Chosen:
    """An encoder, how its vectors agreed where they were compared, and one sentence for people, or none."""

    encoder: ImageEncoder
    agreement: Agreement | None = None
    sentence: str = ""
    why: str = ""
    """why nothing faster was taken, where something was tried"""

    @property
    def compared(self) -> bool:
        """Whether vectors were compared for this choice: what an index notes of it is then news."""
        return self.agreement is not None or bool(self.why)

    def note(self) -> Noted:
        """Return what the index is to note."""
        way = self.encoder.execution
        figures = self.agreement.as_note() if self.agreement else {}
        why = {"why": self.why} if self.why else {}
        return {way.precision: {"backend": way.backend, **figures, **why}}


class Chooser:
    """Weighs the ways to run one encoder for one index.

    `exact` is the encoder in torch and float32; `build` returns it running in another way, or raises
    `ModelError`; `sample` returns some of the person's own pictures, and is asked only when vectors have to
    be compared; `noted` is what the index says of the vectors that it holds, empty for a new one.
    """

    def __init__(
        self,
        exact: ImageEncoder,
        *,
        build: Callable[[Execution], ImageEncoder],
        sample: Callable[[], Sequence[Image]],
        processor: Processor,
        noted: Mapping[str, dict[str, Any]],
        is_small: bool = False,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._exact = exact
        self._build = build
        self._yardstick = _Yardstick(exact, sample, clock)
        self._processor = processor
        self._noted = noted
        self._is_small = is_small

    def choose(self, wish: Wish) -> Chosen:
        """Return the encoder. Raises `ModelError` when what was asked for would not fit the index."""
        ways = self._ways(wish)
        reasons: list[str] = []
        for way in ways:
            chosen = self._try(way, wish, reasons)
            if chosen is not None:
                return chosen
        self._refuse_strangers(EXACT)
        why = "; ".join(reasons)
        return Chosen(
            self._exact, why=why, sentence=f"Pictures are embedded in {EXACT}: {why}." if why else ""
        )

    def _ways(self, wish: Wish) -> list[Execution]:
        ways = list(wish.ways())
        ways = [way for way in ways if self._processor.gains(way)] or ways[-1:]
        if wish.precision != "auto":
            return ways
        if self._is_settled():
            held = [way for way in ways if way.precision in self._noted]
            return held or [way for way in ways if way.precision == "fp32"] or ways
        return [EXACT] if wish.is_auto and self._is_small else ways

    def _is_settled(self) -> bool:
        """Whether the index has what a comparison said, or a precision that somebody asked for."""
        return any(
            precision != "fp32" or note.get("pictures") or note.get("why")
            for precision, note in self._noted.items()
        )

    def _try(self, way: Execution, wish: Wish, reasons: list[str]) -> Chosen | None:
        """Return the choice of `way`, or None with a reason why it is not to be."""
        if self._is_known(way, wish):
            self._refuse_strangers(way)
            return Chosen(self._running(way))
        if way == EXACT:
            return None
        if wish.precision == "auto" and len(self._yardstick.pixels) < FEWEST_TO_RANK:
            reasons.clear()  # for so few pictures nobody waits, and nobody wants to read why
            return None
        try:
            return self._compared(self._running(way), wish, reasons)
        except ModelError as error:
            if wish.precision != "auto":
                raise
            reasons.append(str(error).rstrip("."))
            return None

    def _is_known(self, way: Execution, wish: Wish) -> bool:
        """Whether nothing has to be compared.

        Eight bits overflow on processors that are not made for them, so they are compared there again.
        """
        if way.precision == "fp32":
            return not wish.is_auto or (self._is_settled() and way != EXACT)
        return way.precision in self._noted and self._processor.gains(way)

    def _compared(self, encoder: ImageEncoder, wish: Wish, reasons: list[str]) -> Chosen | None:
        (found, faster), way = self._yardstick.compare(encoder), encoder.execution
        if found.passed:
            if wish.precision == "auto" and not faster:
                reasons.append(f"{way} is not faster on this machine")
                return None
            self._refuse_strangers(way)
            return Chosen(encoder, found, f"Pictures are embedded in {way}: {found}.")
        if wish.precision == "auto":
            reasons.append(f"{way} does not agree with it ({found})")
            return None
        if self._noted:
            raise ModelError(
                f"The index holds vectors in {' and '.join(self._noted)}, and {way} does not agree with"
                f" fp32 ({found}): use --precision {next(iter(self._noted))}."
            )
        return Chosen(encoder, found, f"Warning: {way} does not agree with fp32: {found}.")

    def _refuse_strangers(self, way: Execution) -> None:
        """Raise `ModelError` when the index holds vectors that do not agree with fp32, and `way` differs."""
        for precision, note in self._noted.items():
            found = from_note(note)
            if precision not in ("fp32", way.precision) and not found.passed:
                raise ModelError(
                    f"The index holds vectors in {precision}, which do not agree with fp32 ({found}): use"
                    f" --precision {precision}, or run `glimpse index delete` and ingest again."
                )

    def _running(self, way: Execution) -> ImageEncoder:
        return self._exact if way == EXACT else self._build(way)


class _Yardstick:
    """The person's own pictures and their exact vectors, made when they are first needed."""

    def __init__(
        self,
        exact: ImageEncoder,
        sample: Callable[[], Sequence[Image]],
        clock: Callable[[], float],
    ) -> None:
        self._exact = exact
        self._sample = sample
        self._clock = clock

    @cached_property
    def pixels(self) -> list[np.ndarray]:
        return [self._exact.preprocess(image) for image in self._sample()]

    @cached_property
    def _truth(self) -> tuple[np.ndarray, float]:
        return self._timed(self._exact)

    def compare(self, encoder: ImageEncoder) -> tuple[Agreement, bool]:
        """Return how an encoder agrees, and whether it is faster than the exact one."""
        vectors, seconds = self._timed(encoder)
        exact, exact_seconds = self._truth
        return agreement(exact, vectors), seconds < exact_seconds

    def _timed(self, encoder: ImageEncoder) -> tuple[np.ndarray, float]:
        import numpy as np

        rows, begun = [np.zeros((0, encoder.dims), np.float32)], self._clock()
        for start in range(0, len(self.pixels), BATCH):
            rows.append(encoder.embed_pixels(np.stack(self.pixels[start : start + BATCH])))
        return np.concatenate(rows), self._clock() - begun


def load_fast_image_encoder(
    profile: Profile,
    *,
    wish: Wish,
    noted: Mapping[str, dict[str, Any]],
    cache: Path,
    sample: Callable[[], Sequence[Image]],
    processor: Processor | None = None,
) -> Chosen:
    """Load the profile's vision tower for the wish, the index's notes and this machine.

    `cache` is a folder for exported models; for the rest see `Chooser`. Raises `ModelError`.
    """
    from models.encoders import load_image_encoder

    exact = load_image_encoder(profile)
    parameters = sum(one.numel() for one in _torch_model(exact).parameters())
    return Chooser(
        exact,
        build=lambda way: run_in(way, exact, cache=cache),
        sample=sample,
        processor=processor or probe(),
        noted=noted,
        is_small=parameters < SMALL,
    ).choose(wish)


def run_in(way: Execution, exact: ImageEncoder, *, cache: Path) -> ImageEncoder:
    """Return the encoder running in another way, from the one in torch and float32. Raises `ModelError`."""
    from models.encoders import bf16_tower
    from models.fast.onnx import onnx_tower

    if way == EXACT:
        return exact
    if way.backend == "torch":
        return exact.running(bf16_tower(_torch_model(exact)), way)
    tower = onnx_tower(
        _torch_model(exact),
        precision=way.precision,
        revision=exact.revision,
        cache=cache,
        calibration=lambda: _calibration(exact),
    )
    return exact.running(tower, way)


def _torch_model(encoder: ImageEncoder) -> torch.nn.Module:
    from models.encoders import TorchTower

    if not isinstance(encoder.tower, TorchTower):
        raise TypeError("only an encoder that runs in torch can be run in another way")
    return encoder.tower.model


def _calibration(encoder: ImageEncoder) -> np.ndarray:
    """Return the calibration pictures, preprocessed: float32 `[n, 3, height, width]`.

    They never change, so the same weights give the same eight-bit model everywhere.
    """
    import numpy as np
    from PIL import Image

    with Image.open(CALIBRATION_PICTURES) as strip:
        side = strip.height
        pictures = [strip.crop((left, 0, left + side, side)) for left in range(0, strip.width, side)]
    return np.stack([encoder.preprocess(picture) for picture in pictures])
