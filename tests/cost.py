"""Measure the cost of work in this process, independent of how slow or busy the machine is."""

from __future__ import annotations

import time
from collections.abc import Callable


def processor_s(work: Callable[[], object]) -> float:
    """Return the seconds of processor time that a call took in all threads, without its waiting."""
    begun = time.process_time()
    work()
    return time.process_time() - begun
