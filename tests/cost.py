"""What work costs this process, told in a way that neither a slow nor a busy machine changes."""

from __future__ import annotations

import time
from collections.abc import Callable


def processor_s(work: Callable[[], object]) -> float:
    """Return the seconds of processor time that a call took in all threads; waiting costs nothing."""
    begun = time.process_time()
    work()
    return time.process_time() - begun
