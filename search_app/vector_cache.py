"""Query vectors that were made before: a bounded memory between a searcher and its text encoder."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from models.encoders import TextEncoder

LOCAL_LANE = "local"


def lane_of(encoder: TextEncoder) -> str:
    """Return where `encoder` runs its model: its `lane`, or `local` when it does not say."""
    return getattr(encoder, "lane", LOCAL_LANE)


class TextVectors:
    """Embeds one text at a time; keeps the last `size` vectors by text, model and lane. Thread-safe."""

    def __init__(self, encoder: TextEncoder, *, size: int = 1024) -> None:
        self.encoder = encoder
        self._size = size
        self._kept: OrderedDict[tuple[str, str, str], np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def embed(self, text: str) -> tuple[np.ndarray, str]:
        """Return the vector float32 `[dims]` and the lane that made it."""
        lane = lane_of(self.encoder)
        with self._lock:
            vector = self._kept.get((text, self.encoder.revision, lane))
        if vector is None:
            vector, lane = self._made(text)
        self._keep((text, self.encoder.revision, lane), vector)
        return vector, lane

    def _made(self, text: str) -> tuple[np.ndarray, str]:
        if hasattr(self.encoder, "embed"):  # an encoder of several lanes says which one answered
            vectors, lane = self.encoder.embed([text])
        else:
            vectors, lane = self.encoder.embed_texts([text]), lane_of(self.encoder)
        return vectors[0], lane

    def _keep(self, key: tuple[str, str, str], vector: np.ndarray) -> None:
        with self._lock:
            self._kept[key] = vector
            self._kept.move_to_end(key)
            if len(self._kept) > self._size:
                self._kept.popitem(last=False)
