"""Telling a file that may have changed from one that has not, without reading it."""

from __future__ import annotations

import os
import stat
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

SETTLED_NS = 2_000_000_000
"""a file changed as lately as this may change again within one tick of its clock (two seconds on FAT)"""


@dataclass(frozen=True)
class Stamp:
    """Size and time of a file; the same stamp twice means the same content."""

    size: int
    """bytes"""
    mtime_ns: int
    """nanoseconds; -1 for a file that was changed too lately to be told by it, which no file ever has"""

    @property
    def is_settled(self) -> bool:
        """Whether the stamp can stand for the content."""
        return self.mtime_ns >= 0


def stamp_of(path: Path) -> Stamp | None:
    """Return the stamp of a regular file as it is now; None for anything else and what cannot be asked."""
    try:
        status = os.stat(path)  # noqa: PTH116 - this is called once for every file of a run
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    settled = status.st_mtime_ns < time.time_ns() - SETTLED_NS
    return Stamp(status.st_size, status.st_mtime_ns if settled else -1)


def is_gone(path: str | bytes | Path) -> bool:
    """Whether there is certainly no such file: a closed folder or a failing disk proves nothing."""
    try:
        os.stat(path)  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        return False
    return False
