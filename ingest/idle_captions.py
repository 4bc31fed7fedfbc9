"""Captions while a watch has nothing else to do: a slice at a time, so that a new picture does not wait."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from es_config.errors import EngineError
from ingest.pipeline.captions import caption_pictures
from ingest.errors import IngestError
from ingest.options import UNCAPTIONED, CaptionOptions, Progress
from models.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ingest.files.walk import Failure
    from ingest.wiring import Parts

SLICE_S = 1.0
MOST = 16
AGAIN_S = 30.0
MOST_FAILED = 64
"""pictures without a caption that a slice looks past; behind more of them, the others wait"""


class IdleCaptions(Progress):
    """Captions what has none, until nothing is left that can be captioned and `wake` is called."""

    def __init__(self, parts: Parts, *, say: Callable[[str], None], written: Callable[[int], None]) -> None:
        """`say` is told what goes wrong, once; `written` how many there were when the last is done."""
        self._parts = parts
        self._say = say
        self._written = written
        self._count, self._slice, self._failed, self._at = 0, 1, 0, 0.0
        self._said: set[object] = set()

    def wake(self) -> None:
        """There are new pictures."""
        self._at = min(self._at, time.monotonic())

    def failed(self, failure: Failure, *, what: str = UNCAPTIONED) -> None:
        """A picture gets no caption."""
        self._once(f"{what} {failure.path}: {failure.reason}")

    def __call__(self) -> bool:
        """Write a slice; return whether there may be more. Raises `KeyboardInterrupt`."""
        if time.monotonic() < self._at:
            return False
        try:
            limit = self._slice + self._failed  # those that failed are looked at again: they come first
            options = CaptionOptions(limit=limit, batch_size=self._slice)
            summary = caption_pictures(self._parts, options=options, progress=self)
        except (EngineError, IngestError, ModelError) as error:
            return self._rest(AGAIN_S, str(error))
        self._count += summary.written
        if summary.interrupted:
            raise KeyboardInterrupt
        self._failed = summary.failed
        is_last = summary.pictures < limit or self._failed > MOST_FAILED
        if summary.error or (is_last and not summary.written):
            return self._rest(AGAIN_S if summary.error else float("inf"), summary.error)
        self._slice = min(MOST, 2 * self._slice) if summary.seconds < SLICE_S / 2 else self._slice
        self._slice = max(1, self._slice // 2) if summary.seconds > SLICE_S else self._slice
        return True

    def _rest(self, seconds: float, error: str | None) -> bool:
        self._at = time.monotonic() + seconds
        if error:
            self._once(f"Error: Captions wait: {error}")
        if self._count:
            self._written(self._count)
            self._count = 0
        return False

    def _once(self, sentence: str) -> None:
        if sentence not in self._said:
            self._said.add(sentence)
            self._say(sentence)
