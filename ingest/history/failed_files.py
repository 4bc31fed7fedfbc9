"""The log of bad files: each one is in it once, and is not read again until it changes."""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ingest.errors import IngestError
from ingest.files.walk import Stamp, is_gone

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ingest.errors import Fault

SAVE_EVERY_S = 5.0


@dataclass(frozen=True)
class Bad:
    """One line of the log."""

    path: str
    """absolute; bytes that are no UTF-8 as Python's surrogates"""
    reason: str
    time: str
    """ISO 8601, when it was last tried"""
    size: int = -1
    mtime_ns: int = -1
    """of the file as it was read; -1 where it could not be asked, or had only just changed"""
    lasting: bool = False
    pixels: int | None = None
    """both as in `Fault`; lines of earlier versions lack them, so these files are read once more"""


class Quarantine:
    """The bad files of `path`, a file of JSON lines that several processes may share."""

    def __init__(
        self, path: Path, *, max_pixels: int, retry_failed: bool = False, read_only: bool = False
    ) -> None:
        """Read the log. With `retry_failed`, nothing in it is passed over."""
        self._max_pixels = max_pixels
        self._path = path
        self._retry_failed = retry_failed
        self._read_only = read_only
        self._entries = _read(path)
        self._changes: dict[str, Bad | None] = {}
        self._saved = time.monotonic()
        self._lock = threading.RLock()

    def reason(self, path: Path, stamp: Stamp | None) -> str | None:
        """Return why a file that is as it was then cannot be used; None when it is to be read.

        Only reasons that lie in the content last: permissions, models and limits change without the file.
        """
        bad = self._entries.get(_key(path))
        if bad is None or self._retry_failed or stamp is None or not stamp.is_settled:
            return None
        lasts = bad.lasting or (bad.pixels is not None and bad.pixels > self._max_pixels)
        return bad.reason if lasts and (bad.size, bad.mtime_ns) == (stamp.size, stamp.mtime_ns) else None

    def add(self, path: Path, fault: Fault, stamp: Stamp | None) -> None:
        """List a file, in place of what was said of it before."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        bad = Bad(_key(path), fault.reason, now, lasting=fault.lasting, pixels=fault.pixels)
        self._change(bad.path, replace(bad, **asdict(stamp)) if stamp else bad)

    def discard(self, path: Path) -> None:
        """Take a file out that could be used."""
        if self._entries and (key := _key(path)) in self._entries:
            self._change(key, None)

    def save(self, *, last: bool = False) -> None:
        """Write the log anew, at once or not at all, with what others wrote meanwhile.

        The `last` time, files that are gone are left out. Raises `IngestError`.
        """
        with self._lock:
            if not self._read_only and (self._changes or (last and self._entries)):
                self._save(last=last)

    def _save(self, *, last: bool) -> None:
        from filelock import FileLock

        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{self._path}.lock", timeout=60):
                found = _read(self._path)
                together = {**found, **self._changes}
                entries = {key: bad for key, bad in together.items() if bad and not (last and is_gone(key))}
                if entries != found:
                    _write(self._path, entries.values())
        except (OSError, TimeoutError) as error:
            raise IngestError(f"The log of bad files {self._path} cannot be written: {error}.") from error
        self._entries, self._changes, self._saved = entries, {}, time.monotonic()

    def _change(self, key: str, bad: Bad | None) -> None:
        with self._lock:
            self._changes[key] = bad
            if bad is None:
                self._entries.pop(key, None)
            else:
                self._entries[key] = bad
            if time.monotonic() - self._saved > SAVE_EVERY_S:
                self.save()


def _key(path: Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100 - resolve() would follow links, and fail on a loop


def _read(path: Path) -> dict[str, Bad]:
    """Return the log by path; a line that a crash cut short, or that somebody spoiled, is left out."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise IngestError(f"The log of bad files {path} cannot be read: {error}.") from error
    found = (bad for line in lines if (bad := _parse(line)))
    return {bad.path: bad for bad in found}


def _parse(line: str) -> Bad | None:
    try:
        bad = Bad(**json.loads(line))
    except (ValueError, TypeError):
        return None
    well = isinstance(bad.path, str) and isinstance(bad.reason, str)
    return bad if well and isinstance(bad.pixels, int | None) else None


def _write(path: Path, entries: Iterable[Bad]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    with temporary.open("w", encoding="ascii") as file:
        file.writelines(json.dumps(asdict(bad)) + "\n" for bad in entries)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
