"""Waiting for an event, and holding a program or a budget until the test has done its part."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from models.pixels import Budget, NoRoomError

PATIENCE_S = 300.0
"""long enough for the slowest machine; only a test that fails waits so long"""


def wait_until(condition: Callable[[], object], *, running: subprocess.Popen | None = None) -> None:
    """Wait until a condition holds. Fail when it never does, or when `running` has ended before."""
    begun = time.monotonic()
    while not condition():
        assert running is None or running.poll() is None, f"ended with {running.returncode} before its time"
        waited = time.monotonic() - begun
        assert waited < PATIENCE_S, "it never came"
        time.sleep(min(0.01 + waited / 20, 0.25))  # asking costs the processor that the event may need


class Hold:
    """A decision for `proxy`: requests that are `wanted` are held, and all others pass.

    A program that is held can be looked at, interrupted or killed in the middle of its work, on a machine of
    any speed.
    """

    def __init__(self, wanted: Callable[[str, str], bool]) -> None:
        """Take a function of a request's method and path."""
        self._wanted = wanted
        self._reached, self._released = threading.Event(), threading.Event()
        self._is_dropped = False

    def __call__(self, method: str, path: str) -> None:
        """Pass a request on, now or when it is released. Raise `ConnectionAbortedError` for a dropped one."""
        if not self._released.is_set() and self._wanted(method, path):
            self._reached.set()
            self._released.wait(PATIENCE_S)
            if self._is_dropped:
                raise ConnectionAbortedError

    @property
    def is_reached(self) -> bool:
        """Whether a request is held, or was."""
        return self._reached.is_set()

    def release(self) -> None:
        """Let everything through from now on."""
        self._released.set()

    def drop(self) -> None:
        """Let nothing through that is held: whoever sent it is dead."""
        self._is_dropped = True
        self._released.set()


def after(count: int, part: str) -> Callable[[str, str], bool]:
    """Return a predicate for `Hold`: `part` is in the path, and `count` such requests came before."""
    seen: list[str] = []

    def wanted(_method: str, path: str) -> bool:
        if part in path:
            seen.append(path)
        return part in path and len(seen) > count

    return wanted


@contextmanager
def used_up(budget: Budget) -> Iterator[None]:
    """Hold all room of a budget, and let as many threads wait for it as may."""
    refused = threading.Event()

    def wait() -> None:
        try:
            with budget.room(1):
                pass
        except NoRoomError:
            refused.set()

    threads: list[threading.Thread] = []
    try:
        with budget.room(1 << 60):  # it counts as much as there is
            while not refused.wait(0.01):
                threads.append(threading.Thread(target=wait, daemon=True))
                threads[-1].start()
            yield
    finally:
        for each in threads:
            each.join(PATIENCE_S)
