"""Work that takes long: a few requests at a time do it, some wait, and no more than that."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from search_app.errors import BusyError

AT_ONCE = 2
WAITING = 14
"""requests that wait for their turn; the server has threads for them beside those of the page"""


class Turns:
    """Lets `at_once` threads in and `waiting` more stand in line; whoever comes then is told `busy`."""

    def __init__(
        self, *, busy: str, retry_after_s: int, at_once: int = AT_ONCE, waiting: int = WAITING
    ) -> None:
        self._busy, self._retry_after_s = busy, retry_after_s
        self._places = threading.BoundedSemaphore(at_once + waiting)
        self._running = threading.BoundedSemaphore(at_once)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a turn. Raises `BusyError` when the line is full."""
        if not self._places.acquire(blocking=False):
            raise BusyError(self._busy, retry_after_s=self._retry_after_s)
        try:
            with self._running:
                yield
        finally:
            self._places.release()
