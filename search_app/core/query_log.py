"""The log of queries: off unless asked for, in one file of this machine, bounded, and read back as texts."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from es_config.home import private_folder
from search_app.core.query import Query, SearchResponse

NAME = "queries.jsonl"
MAX_BYTES = 5_000_000
OWNER_ONLY = 0o600


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
        self, path: Path, *, warn: Callable[[str], None] = lambda _: None, max_bytes: int = MAX_BYTES
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
    """Return the path of the log in a GLIMPSE_HOME."""
    return home / NAME


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
