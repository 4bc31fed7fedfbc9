"""Files that are expensive to make and cheap to check: made once, whoever asks first."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from models.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def made_once(path: Path, make: Callable[[Path], None]) -> Path:
    """Return `path`, written by `make` when it is absent or not as it was written.

    Processes that ask at the same time wait for the first one. A file appears whole or not at all; its
    SHA-256 stands beside it, so that a damaged one is noticed and made again. Raises `ModelError` when the
    folder cannot be written.
    """
    from filelock import FileLock

    if _intact(path):
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            if not _intact(path):
                _make(path, make)
    except OSError as error:
        raise ModelError(
            f"The model for ONNX Runtime cannot be kept in {path.parent} ({error.strerror or error}); make"
            " room or set GLIMPSE_HOME, or use --backend torch."
        ) from error
    return path


def _make(path: Path, make: Callable[[Path], None]) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        make(part)
        digest = _digest(part)
        part.replace(path)
        note = part.with_suffix(".note")
        note.write_text(digest, encoding="ascii")
        note.replace(_note(path))
    finally:
        part.unlink(missing_ok=True)


def _intact(path: Path) -> bool:
    try:
        return _note(path).read_text(encoding="ascii") == _digest(path)
    except (OSError, UnicodeDecodeError):
        return False


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _note(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")
