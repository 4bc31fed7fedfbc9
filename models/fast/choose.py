"""Choosing how a vision tower runs: the fastest way whose vectors agree with the exact ones."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from models.agreement import FEWEST_TO_RANK, Agreement, agreement, from_note
from models.errors import ModelError
from models.fast.execution import EXACT, Execution, Processor, Wish

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from PIL.Image import Image

    from models.encoders import ImageEncoder

Noted = dict[str, dict]
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
        noted: Mapping[str, dict],
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
