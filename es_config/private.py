"""Keep folders and files for their owner alone."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

OTHERS = 0o077
"""the rights of a file's group and of everybody else"""


def private_folder(path: Path) -> None:
    """Make a folder that its owner alone can enter, or take the rights of others from it.

    A folder of another user, a shared one such as /tmp, and a person's whole home stay as they are. Raises
    OSError if the folder cannot be made.
    """
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.stat().st_mode & stat.S_ISVTX and path.resolve() != Path.home().resolve():
        _close(path)


def private_file(path: Path) -> None:
    """Make an empty file unless there is one, and take the rights of others from it. Raises OSError."""
    path.touch(mode=0o600)
    _close(path)


def _close(path: Path) -> None:
    found = path.stat()
    if found.st_uid == os.getuid() and found.st_mode & OTHERS:
        with suppress(OSError):  # some file systems have no rights
            path.chmod(stat.S_IMODE(found.st_mode) & ~OTHERS)


@contextmanager
def files_for_owner() -> Iterator[None]:
    """Let this process and those that it starts make files that their owner alone can read."""
    before = os.umask(OTHERS)
    try:
        yield
    finally:
        os.umask(before)
