"""Models that are loaded only when something is asked of them."""

from __future__ import annotations

import threading
from collections.abc import Callable


class OnFirstUse:
    """An encoder that is loaded when it is first asked for anything: a run without news loads none."""

    def __init__(self, load: Callable[[], object]) -> None:
        self._load = load
        self._encoder: object | None = None
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> object:
        """Load the encoder once and pass everything on to it. Raises what loading raises: `ModelError`."""
        with self._lock:
            if self._encoder is None:
                self._encoder = self._load()
        return getattr(self._encoder, name)
