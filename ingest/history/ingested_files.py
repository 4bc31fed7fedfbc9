"""Remember ingested files, so that the next run need not read them again.

A file of SQLite in GLIMPSE_HOME, shared by several processes. It may be deleted at any time: then everything
is read once more, and `--prune` knows only what it has seen since.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ingest.errors import IngestError
from ingest.files.walk import Stamp

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from ingest.errors import Fault
    from ingest.files.walk import Candidate
    from ingest.history.failed_files import Quarantine

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


FLUSH_FILES, FLUSH_S, PAGE = 1000, 5.0, 1000
STAY = "INSERT OR IGNORE INTO stale SELECT idx, image_id, relative_path FROM files WHERE {} AND image_id <> ?"
BELOW = "idx = ? AND (path, relative_path) > (?, ?) AND path < ?"
ONE = "idx = ? AND path = ? AND relative_path = ?"


@dataclass(frozen=True)
class Note:
    """One file as it was when the index took it in."""

    path: bytes
    """absolute"""
    relative_path: str
    image_id: str
    stamp: Stamp
    kept: str
    """what the store keeps of it beside the thumbnail"""


@dataclass(frozen=True)
class Stale:
    """A path that a document of the index should no longer have."""

    image_id: str
    relative_path: str


class Notes(NotesFile):
    """The files of one index. Thread-safe; every method raises `IngestError` when the disk refuses."""

    def __init__(self, path: Path, *, index: str, kept: str = "none", read_only: bool = False) -> None:
        """Open or make the file; `index` is the uuid of the index. A damaged file is made anew.

        `kept` says what the run keeps of whole pictures: what was not kept so then must be read again.
        """
        super().__init__(path, read_only=read_only)
        self._index, self._kept = index, kept
        self._waiting: list[tuple[Candidate, str]] = []
        self._flushed = time.monotonic()

    def look_up(self, candidates: Sequence[Candidate]) -> list[Note | None]:
        """Return for each file what was noted, if it is as it was then."""
        sql = f"SELECT * FROM files WHERE {ONE}"
        with self._errors():
            rows = [self._base.execute(sql, self._place(each)).fetchone() for each in candidates]
        notes = [row and _note(row) for row in rows]
        return [
            note if note and self._still_true(note, each.stamp) else None
            for note, each in zip(notes, candidates, strict=True)
        ]

    def _still_true(self, note: Note, stamp: Stamp | None) -> bool:
        is_kept = self._kept in ("none", note.kept)
        return is_kept and stamp is not None and stamp.is_settled and note.stamp == stamp

    def record(self, candidate: Candidate, image_id: str) -> None:
        """Note that the index has a file's content under its path; what was there before becomes stale."""
        if self._read_only:
            return
        with self._lock:
            self._waiting.append((candidate, image_id))
            if len(self._waiting) >= FLUSH_FILES or time.monotonic() - self._flushed > FLUSH_S:
                self.flush()

    def came(self, image_id: str) -> None:
        """Remember for this run that a known content was found under another path: it may have moved."""
        with self._errors():  # a table of this process alone
            self._base.execute("INSERT OR IGNORE INTO came VALUES (?)", (image_id,))

    def flush(self) -> None:
        """Write what waits."""
        with self._writing():
            for candidate, image_id in self._waiting:
                place = self._place(candidate)
                self._base.execute(STAY.format(ONE), (*place, image_id))
                stamp = candidate.stamp or Stamp(-1, -1)
                row = (*place, stamp.size, stamp.mtime_ns, image_id, self._kept)
                self._base.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            self._waiting, self._flushed = [], time.monotonic()

    def below(self, folder: Path, *, moved_only: bool) -> Iterator[Note]:
        """Yield the notes of files below a folder; with `moved_only`, of contents that `came` in this run."""
        where = "AND image_id IN (SELECT image_id FROM came)" if moved_only else ""
        sql = f"SELECT * FROM files WHERE {BELOW} {where}"
        sql += f" ORDER BY path, relative_path LIMIT {PAGE}"
        path, name, end = _range(folder)
        after = (path, name)
        while True:
            rows = self._rows(sql, self._index, *after, end)
            yield from map(_note, rows)
            if len(rows) < PAGE:
                return
            after = rows[-1][1:3]

    def count(self, folder: Path) -> int:
        """Return the number of notes of files below a folder."""
        ((number,),) = self._rows(f"SELECT count(*) FROM files WHERE {BELOW}", self._index, *_range(folder))
        return int(number)

    def at(self, path: Path) -> Iterator[Note]:
        """Yield the notes of a file, or of those below a folder."""
        absolute = os.fsencode(os.path.abspath(path))  # noqa: PTH100
        sql = "SELECT * FROM files WHERE idx = ? AND path = ?"
        yield from map(_note, self._rows(sql, self._index, absolute))
        yield from self.below(path, moved_only=False)

    def of_image(self, image_id: str) -> list[Note]:
        """Return every note of a content in this index."""
        sql = "SELECT * FROM files WHERE image_id = ? AND idx = ?"
        return [_note(row) for row in self._rows(sql, image_id, self._index)]

    def has_come(self, image_id: str) -> bool:
        """Whether a content `came` under another path in this run."""
        return bool(self._rows("SELECT 1 FROM came WHERE image_id = ?", image_id))

    def come(self) -> list[Note]:
        """Return every note of the contents that `came` in this run."""
        return [
            note
            for (image_id,) in self._rows("SELECT image_id FROM came")
            for note in self.of_image(image_id)
        ]

    def elsewhere(self, image_id: str) -> set[str]:
        """Return the uuids of other indexes that were given the content too: they may share the store."""
        sql = "SELECT DISTINCT idx FROM files WHERE image_id = ? AND idx <> ?"
        return {uuid for (uuid,) in self._rows(sql, image_id, self._index)}

    def forget(self, notes: Sequence[Note]) -> None:
        """Turn notes of files that are gone into stale paths."""
        with self._writing():
            for note in notes:
                place = (self._index, note.path, note.relative_path)
                self._base.execute(STAY.format(ONE), (*place, ""))
                self._base.execute(f"DELETE FROM files WHERE {ONE}", place)

    def stale(self) -> list[Stale]:
        """Return some of the stale paths, none when there are none."""
        sql = f"SELECT image_id, relative_path FROM stale WHERE idx = ? LIMIT {PAGE}"
        return [Stale(*row) for row in self._rows(sql, self._index)]

    def settle(self, stale: Sequence[Stale]) -> None:
        """Strike stale paths out that the index has no more."""
        rows = [(self._index, each.image_id, each.relative_path) for each in stale]
        with self._writing():
            self._base.executemany(
                "DELETE FROM stale WHERE idx = ? AND image_id = ? AND relative_path = ?", rows
            )

    def close(self) -> None:
        """Write what waits and close the file."""
        try:
            self.flush()
        finally:
            super().close()

    def _place(self, candidate: Candidate) -> tuple[str, bytes, str]:
        path = os.fsencode(os.path.abspath(candidate.path))  # noqa: PTH100 - links stay as they are named
        return self._index, path, candidate.relative_path


def _range(folder: Path) -> tuple[bytes, str, bytes]:
    """Return what `BELOW` asks for: the place before the first file below a folder, and the end of paths."""
    prefix = os.fsencode(os.path.abspath(folder)).rstrip(b"/") + b"/"  # noqa: PTH100
    return prefix, "", prefix[:-1] + b"0"  # the byte after a slash


def _note(row: tuple) -> Note:
    _, path, relative_path, size, mtime_ns, image_id, kept = row
    return Note(path, relative_path, image_id, Stamp(size, mtime_ns), kept)


@dataclass(frozen=True)
class Memory:
    """Either may be missing: then nothing is remembered of that kind."""

    notes: Notes | None = None
    quarantine: Quarantine | None = None

    def look_up(self, candidates: Sequence[Candidate]) -> list[Note | None]:
        """Return for each file what was noted of it, if it is as it was then."""
        return self.notes.look_up(candidates) if self.notes else [None] * len(candidates)

    def count(self, folders: Sequence[Path]) -> int:
        """Return how many files below folders, each of which is below no other, earlier runs noted."""
        return sum(map(self.notes.count, folders)) if self.notes else 0

    def failed_before(self, candidate: Candidate) -> bool:
        """Whether a file need not be tried again."""
        return bool(self.quarantine and self.quarantine.reason(candidate.path, candidate.stamp))

    def good(self, candidate: Candidate, image_id: str, *, new_path: bool = False) -> None:
        """The index has a file's content under its path; with `new_path`, it had it under another before."""
        if self.quarantine:
            self.quarantine.discard(candidate.path)
        if self.notes:
            self.notes.record(candidate, image_id)
        if new_path:
            self.came(image_id)

    def came(self, image_id: str) -> None:
        """A known content was found under another path: it may have moved."""
        if self.notes:
            self.notes.came(image_id)

    def bad(self, candidate: Candidate, fault: Fault) -> None:
        """A file cannot be used."""
        if self.quarantine:
            self.quarantine.add(candidate.path, fault, candidate.stamp)

    def save(self, *, last: bool) -> None:
        """Write what waits; `last` at the end of a whole run."""
        if self.notes:
            self.notes.flush()
        if self.quarantine:
            self.quarantine.save(last=last)

    def close(self) -> None:
        """Let the files go."""
        if self.notes:
            self.notes.close()
