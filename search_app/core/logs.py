"""Logs of this machine for its owner alone: sign-ins and writes, and queries if that is asked for."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import IO

from es_config.home import OWNER_ONLY, private_folder
from search_app.core.query import Query, SearchResponse

AUDIT_BYTES, QUERY_BYTES = 10_000_000, 5_000_000
"""of one file"""
KEPT = 4
"""older files of the audit log beside the one that is written"""


class AuditLog:
    """Appends one JSON object a line to a file that its owner alone can read. Thread-safe."""

    def __init__(self, path: Path, *, warn: Callable[[str], None]) -> None:
        """Take the file, and the function to call when it cannot be written. Nothing is opened yet."""
        self._handler = _OwnerOnly(path, maxBytes=AUDIT_BYTES, backupCount=KEPT, delay=True, encoding="utf-8")
        self._handler.told = warn

    def write(
        self,
        action: str,
        *,
        user: str | None,
        address: str,
        status: int,
        path: str,
        pictures: Sequence[str] = (),
    ) -> None:
        """Keep one line, with the ids of `pictures` that `path` does not name.

        Never raises for want of a disk.
        """
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = {
            "time": now,
            "user": user,
            "address": address,
            "action": action,
            "path": path,
            "status": status,
            **({"pictures": list(pictures)} if pictures else {}),
        }
        text = json.dumps(line, ensure_ascii=False)
        self._handler.handle(logging.LogRecord("audit", logging.INFO, "", 0, text, None, None))

    def close(self) -> None:
        """Close the file."""
        self._handler.close()


class _OwnerOnly(RotatingFileHandler):
    told: Callable[[str], None]

    def _open(self) -> IO[str]:  # type: ignore[override]  # the stubs name the class of text files
        private_folder(Path(self.baseFilename).parent)
        opener = lambda name, flags: os.open(name, flags, OWNER_ONLY)  # noqa: E731
        return open(self.baseFilename, self.mode, encoding=self.encoding, opener=opener)

    def handleError(self, record: logging.LogRecord) -> None:
        del record
        self.told(f"{self.baseFilename} cannot be written: sign-ins and writes are not noted.")


def audit_path(home: Path) -> Path:
    """Return where the audit log of a GLIMPSE_HOME is."""
    return home / "audit.jsonl"


@dataclass(frozen=True)
class Entry:
    """One query in words, as it was kept."""

    time: str
    """ISO 8601, UTC"""
    text: str
    mode: str
    k: int
    took_ms: float
    hits: int


class QueryLog:
    """Appends queries in words to a file that its owner alone can read. Thread-safe.

    Past `max_bytes` the file becomes `queries.1.jsonl`, in place of the one before: what is kept is at most
    twice that. No addresses, no pictures and no vectors are kept.
    """

    def __init__(
        self, path: Path, *, warn: Callable[[str], None] = lambda _: None, max_bytes: int = QUERY_BYTES
    ) -> None:
        """Take the file. `warn` is called once when it cannot be written."""
        self.path = path
        self._warn = warn
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._warned = False

    def write(self, query: Query, response: SearchResponse) -> None:
        """Keep one query if it was in words. Never raises for want of a disk: a search is worth more."""
        if query.text is None:
            return
        now = datetime.now(UTC).isoformat(timespec="seconds")
        entry = Entry(now, query.text, query.mode, query.k, response.took_ms, len(response.hits))
        line = json.dumps(vars(entry), ensure_ascii=False) + "\n"
        try:
            with self._lock:
                self._append(line.encode())
        except OSError as error:
            if not self._warned:
                self._warned = True
                self._warn(f"queries cannot be kept in {self.path} ({error.strerror}); searching goes on.")

    def _append(self, line: bytes) -> None:
        private_folder(self.path.parent)
        if self.path.exists() and self.path.stat().st_size + len(line) > self._max_bytes:
            self.path.replace(older(self.path))
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, OWNER_ONLY)
        with os.fdopen(descriptor, "r+b", buffering=0) as file:
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                line = line if file.read(1) == b"\n" else b"\n" + line  # the last line may be torn
            file.write(line)


def log_path(home: Path) -> Path:
    """Return the path of the log of queries in a GLIMPSE_HOME."""
    return home / "queries.jsonl"


def older(path: Path) -> Path:
    """Return the path of the rotated log."""
    return path.with_suffix(f".1{path.suffix}")


def read_entries(path: Path) -> Iterator[Entry]:
    """Yield the entries, oldest first. Torn and strange lines are skipped, and a missing file is empty."""
    for file in (older(path), path):
        try:
            lines = file.read_bytes().splitlines()
        except FileNotFoundError:
            continue
        for line in lines:
            try:
                row = json.loads(line)
                yield Entry(**{name: row[name] for name in Entry.__dataclass_fields__})
            except (ValueError, KeyError, TypeError, RecursionError):
                continue


def read_query_log(path: Path) -> Iterator[str]:
    """Return the texts that were asked, oldest first, repeated as often as they were asked."""
    return (entry.text for entry in read_entries(path))
