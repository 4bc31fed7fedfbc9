"""The file of SQLite behind the notes: opened, shared by processes and threads, made anew when damaged."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ingest.errors import IngestError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SCHEMA = """
CREATE TABLE IF NOT EXISTS files (
    idx TEXT, path BLOB, relative_path TEXT, size INTEGER, mtime_ns INTEGER, image_id TEXT, kept TEXT,
    PRIMARY KEY (idx, path, relative_path)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS files_of_image ON files (image_id);
CREATE TABLE IF NOT EXISTS stale (
    idx TEXT, image_id TEXT, relative_path TEXT, PRIMARY KEY (idx, image_id, relative_path)) WITHOUT ROWID;
CREATE TEMP TABLE came (image_id TEXT PRIMARY KEY) WITHOUT ROWID;
"""
TABLES = {
    "files": "path, relative_path, size, mtime_ns, image_id, kept",
    "stale": "image_id, relative_path",
}
"""what is noted for each index, without its uuid"""


class NotesFile:
    """An open file of notes. Every method raises `IngestError` when the disk refuses."""

    def __init__(self, path: Path, *, read_only: bool) -> None:
        """Open or make the file; one that is no database any more is made anew."""
        self.path, self._read_only = path, read_only
        self._lock = threading.RLock()
        with self._errors():
            try:
                self._base = self._open()
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError:  # nothing in it is worth a refusal
                path.unlink(missing_ok=True)
                self._base = self._open()

    def copy(self, *, old: str, new: str) -> None:
        """Let the index with the uuid `new` have the notes of `old`, and no others."""
        with self._writing():
            for table, columns in TABLES.items():
                self._base.execute(f"DELETE FROM {table} WHERE idx = ?", (new,))
                sql = f"INSERT INTO {table} SELECT ?, {columns} FROM {table} WHERE idx = ?"
                self._base.execute(sql, (new, old))

    def close(self) -> None:
        """Close the file."""
        self._base.close()

    def _open(self) -> sqlite3.Connection:
        if not self._read_only:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        base = sqlite3.connect(self.path, timeout=60, check_same_thread=False, isolation_level=None)
        base.executescript(SCHEMA)
        return base

    def _rows(self, sql: str, *values: object) -> list[tuple]:
        with self._errors():
            return self._base.execute(sql, values).fetchall()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Open a transaction; what it writes is there whole or not at all."""
        with self._errors():
            self._base.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._base.execute("COMMIT")
            except BaseException:
                self._base.execute("ROLLBACK")
                raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except (sqlite3.Error, OSError) as error:
                raise IngestError(
                    f"The notes of what was ingested, {self.path}, cannot be used: {error}. Make room, or set"
                    " GLIMPSE_HOME to a folder that can be written; a damaged file may be deleted: all is"
                    " then read once more."
                ) from error
