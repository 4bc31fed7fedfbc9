"""Remember ingested and failed files, so that the next run need not read them again.

The history is a file of SQLite in GLIMPSE_HOME, shared by several processes. It may be deleted at any time:
then files are read once more, and `--prune` knows only those that have been seen since. Failed files are also
written to `failed.jsonl` beside it, for people and scripts.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from es_config.home import private_file, private_folder
from ingest.errors import Fault, IngestError
from ingest.files.walk import Candidate, Stamp, device_of, is_address, is_gone, valid_unicode
from models.pixels import MAX_PIXELS

HISTORY_FILE = "ingested.sqlite"
"""its name in GLIMPSE_HOME"""
SCHEMA = """
CREATE TABLE IF NOT EXISTS files (
    idx TEXT, path BLOB, relative_path TEXT, size INTEGER, mtime_ns INTEGER, image_id TEXT, kept TEXT,
    PRIMARY KEY (idx, path, relative_path)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS files_of_image ON files (image_id);
CREATE TABLE IF NOT EXISTS sidecars (
    idx TEXT, path BLOB, names TEXT, stamp TEXT, PRIMARY KEY (idx, path)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS stale (
    idx TEXT, image_id TEXT, relative_path TEXT, PRIMARY KEY (idx, image_id, relative_path)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS failed (
    path BLOB PRIMARY KEY, reason TEXT, time TEXT, size INTEGER, mtime_ns INTEGER, lasting INTEGER,
    pixels INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS folders (path BLOB PRIMARY KEY, device INTEGER) WITHOUT ROWID;
CREATE TEMP TABLE seen (path BLOB, relative_path TEXT, PRIMARY KEY (path, relative_path)) WITHOUT ROWID;
CREATE TEMP TABLE moved (image_id TEXT PRIMARY KEY) WITHOUT ROWID;
"""
TABLES = {
    "files": "path, relative_path, size, mtime_ns, image_id, kept",
    "stale": "image_id, relative_path",
    "sidecars": "path, names, stamp",
}
"""columns of the tables that belong to one index, without its uuid"""
LOG_IMPORTED = 1
"""`user_version` of a file that has taken in the failed files of an earlier version's log"""
FLUSH_FILES, FLUSH_S, PAGE = 1000, 5.0, 1000
MAKE_STALE = (
    "INSERT OR IGNORE INTO stale SELECT idx, image_id, relative_path FROM files WHERE {} AND image_id <> ?"
)
BELOW = "idx = ? AND (path, relative_path) > (?, ?) AND path < ?"
ONE = "idx = ? AND path = ? AND relative_path = ?"


@dataclass(frozen=True)
class IngestedFile:
    """One file as it was when the index took it in."""

    path: bytes
    """absolute"""
    relative_path: str
    image_id: str
    stamp: Stamp
    kept: str
    """form in which the store keeps the whole picture"""

    @property
    def folder(self) -> bytes:
        """The absolute path of its folder."""
        return folder_of(self.path)

    @property
    def shown(self) -> str:
        """The absolute path as text, where bytes that are not UTF-8 are Python's surrogates."""
        return os.fsdecode(self.path)

    @property
    def root(self) -> str:
        """The absolute path of the folder that was named, which the relative path starts from."""
        path, below = self.shown, "/" + self.relative_path
        whole = valid_unicode(path)
        if whole.endswith(below):
            return str(Path(path).parents[self.relative_path.count("/")])
        return os.fsdecode(self.folder)


@dataclass(frozen=True)
class StalePath:
    """A path that a document of the index should no longer have."""

    image_id: str
    relative_path: str


@dataclass(frozen=True)
class FailedFile:
    """A file that could not be used: one line of `failed.jsonl`."""

    path: str
    """absolute; bytes that are not UTF-8 as Python's surrogates"""
    reason: str
    time: str
    """ISO 8601, of the last attempt"""
    size: int = -1
    mtime_ns: int = -1
    """of the file as it was read; -1 if it could not be asked, or had only just changed"""
    lasting: bool = False
    pixels: int | None = None
    """both as in `Fault`; logs of the first versions lack them, so these files are read once more"""


def nowhere(_: str) -> list[bytes]:
    """Return no place of a content, where there is no history."""
    return []


class IngestHistory:
    """The history of one index. Thread-safe. Every method raises `IngestError` when the disk refuses."""

    def __init__(
        self,
        path: Path | None = None,
        *,
        index: str = "",
        kept: str = "none",
        max_pixels: int = MAX_PIXELS,
        retry_failed: bool = False,
        read_only: bool = False,
        device_of: Callable[[str], int | None] = device_of,
    ) -> None:
        """Open or create the file, also anew if it is damaged. Without a `path`, remember until `close`.

        `index` is the uuid of the index. `kept` is the form in which the run keeps whole pictures: a file
        that was not kept so must be read again. With `retry_failed`, no failed file is passed over.
        `device_of` returns the number of the device that holds a folder.
        """
        self.path = path
        self._index, self._kept = index, kept
        self._max_pixels, self._retry_failed = max_pixels, retry_failed
        self._read_only = read_only
        self.device_of = device_of
        self._lock = threading.RLock()
        self._waiting: list[tuple[Candidate, str]] = []
        self._changed: set[str] = set()
        self._new_devices: dict[bytes, int] = {}
        self._flushed = time.monotonic()
        with self._errors():
            try:
                self._base = self._open()
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError:  # nothing in it is worth a refusal
                Path(path or "").unlink(missing_ok=True)
                self._base = self._open()
            self._failed = self._read_failed()
            self._devices: dict[bytes, int] = dict(self._rows("SELECT path, device FROM folders"))
            self._has_sidecars = bool(self._rows("SELECT 1 FROM sidecars WHERE idx = ? LIMIT 1", index))

    def look_up(self, candidates: Sequence[Candidate]) -> list[IngestedFile | None]:
        """Return the note of each file that has not changed since."""
        sql = f"SELECT * FROM files WHERE {ONE}"
        with self._errors():
            rows = [self._base.execute(sql, self._place(each)).fetchone() for each in candidates]
        notes = [_ingested(row) if row else None for row in rows]
        unchanged = [
            note if note and self._is_unchanged(note, each.stamp) else None
            for note, each in zip(notes, candidates, strict=True)
        ]
        for note in filter(None, unchanged):
            self._see_folder(note.path)
        return unchanged

    def sidecar_stamps(self, candidates: Sequence[Candidate]) -> list[str]:
        """Return the stamp of the sidecars with which the index took in each file, empty without any."""
        if not self._has_sidecars:
            return [""] * len(candidates)
        sql = "SELECT stamp FROM sidecars WHERE idx = ? AND path = ?"
        with self._errors():
            rows = [self._base.execute(sql, self._place(each)[:2]).fetchone() for each in candidates]
        return [row[0] if row else "" for row in rows]

    def sidecars_of(self, image_id: str) -> dict[str, tuple[str, ...]]:
        """Return the absolute paths of files with this content that had sidecars, with the names of these."""
        sql = "SELECT path, names FROM sidecars JOIN files USING (idx, path) WHERE image_id = ? AND idx = ?"
        rows = self._rows(sql, image_id, self._index) if self._has_sidecars else []
        return {os.fsdecode(path): tuple(json.loads(names)) for path, names in rows}

    def lacks_sidecars_of(self, image_id: str) -> bool:  # noqa: ARG002 - that of a lease asks
        """Return whether `sidecars_of` may leave out files that earlier runs noted. Never here."""
        return False

    def leave_open(self, candidate: Candidate, image_id: str) -> None:
        """Note that a file must be looked at once more, when all copies of its content are noted."""
        raise NotImplementedError("a history that knows all sidecars leaves nothing open")

    def _is_unchanged(self, note: IngestedFile, stamp: Stamp | None) -> bool:
        is_kept = self._kept in ("none", note.kept)
        return is_kept and stamp is not None and stamp.is_settled and note.stamp == stamp

    def failed_before(self, candidate: Candidate) -> bool:
        """Return whether a file failed, has not changed since, and would fail again.

        Only reasons that lie in the content last: permissions, models and limits change without the file.
        """
        failed, stamp = self._failed.get(candidate.place), candidate.stamp
        if failed is None or self._retry_failed or stamp is None or not stamp.is_settled:
            return False
        lasts = failed.lasting or (failed.pixels is not None and failed.pixels > self._max_pixels)
        return lasts and Stamp(failed.size, failed.mtime_ns) == stamp

    def record_ok(self, candidate: Candidate, image_id: str, *, new_path: bool = False) -> None:
        """Note that the index has a file's content under its path. Another content there becomes stale.

        With `new_path`, the index had the content under another path before.
        """
        with self._lock:
            if self._failed and (path := candidate.place) in self._failed:
                del self._failed[path]
                self._changed.add(path)
            self._waiting.append((candidate, image_id))
            self._see_folder(os.fsencode(candidate.place))
            self._flush_in_time()
        if new_path:
            self.mark_moved(image_id)

    def record_failure(self, candidate: Candidate, fault: Fault) -> None:
        """Note that a file cannot be used, in place of an earlier note of its failure."""
        stamp = candidate.stamp or Stamp(-1, -1)
        failed = FailedFile(
            candidate.place,
            fault.reason,
            datetime.now(UTC).isoformat(timespec="seconds"),
            stamp.size,
            stamp.mtime_ns,
            fault.lasting,
            fault.pixels,
        )
        with self._lock:
            self._failed[failed.path] = failed
            self._changed.add(failed.path)
            self._flush_in_time()

    def mark_moved(self, image_id: str) -> None:
        """Remember for this run that a known content was found under another path: it may have moved."""
        with self._errors():  # a table of this process alone
            self._base.execute("INSERT OR IGNORE INTO moved VALUES (?)", (image_id,))

    def was_moved(self, image_id: str) -> bool:
        """Return whether a content was found under another path in this run."""
        return bool(self._rows("SELECT 1 FROM moved WHERE image_id = ?", image_id))

    def moved_notes(self) -> list[IngestedFile]:
        """Return every note of the contents that were found under another path in this run."""
        ids = self._rows("SELECT image_id FROM moved")
        return [note for (image_id,) in ids for note in self.of_image(image_id)]

    def below(self, folder: Path, *, moved_only: bool) -> Iterator[IngestedFile]:
        """Yield the notes of files below a folder, with `moved_only` those of contents marked as moved."""
        where = "AND image_id IN (SELECT image_id FROM moved)" if moved_only else ""
        sql = f"SELECT * FROM files WHERE {BELOW} {where} ORDER BY path, relative_path LIMIT {PAGE}"
        path, name, end = _range(folder)
        while True:
            rows = self._rows(sql, self._index, path, name, end)
            yield from map(_ingested, rows)
            if len(rows) < PAGE:
                return
            path, name = rows[-1][1:3]

    def at(self, path: Path) -> Iterator[IngestedFile]:
        """Yield the notes of a file, or of those below a folder."""
        sql = "SELECT * FROM files WHERE idx = ? AND path = ?"
        yield from map(_ingested, self._rows(sql, self._index, os.fsencode(_absolute(path))))
        yield from self.below(path, moved_only=False)

    def count(self, folder: Path) -> int:
        """Return the number of notes of files below a folder."""
        ((number,),) = self._rows(f"SELECT count(*) FROM files WHERE {BELOW}", self._index, *_range(folder))
        return int(number)

    def count_below(self, address: str) -> int:
        """Return the number of notes of the objects of a source."""
        place = _range_of(os.fsencode(address))
        ((number,),) = self._rows(f"SELECT count(*) FROM files WHERE {BELOW}", self._index, *place)
        return int(number)

    def of_image(self, image_id: str) -> list[IngestedFile]:
        """Return every note of a content in this index."""
        sql = "SELECT * FROM files WHERE image_id = ? AND idx = ?"
        return [_ingested(row) for row in self._rows(sql, image_id, self._index)]

    def places(self, image_id: str) -> list[bytes]:
        """Return the paths and addresses at which a content was seen."""
        return [note.path for note in self.of_image(image_id)]

    def noted_device(self, folder: bytes) -> int | None:
        """Return the device that held a folder when a file was seen in it, or None if nobody noted it."""
        return self._devices.get(folder)

    def note_devices(self, devices: Mapping[bytes, int]) -> None:
        """Note the devices of folders in the place of earlier notes."""
        with self._lock:
            self._devices |= devices
            self._new_devices |= devices

    def _see_folder(self, path: bytes) -> None:
        """Note the device of a file's folder, if none is noted: the file is there now."""
        folder = folder_of(path)
        if is_address(path):
            return
        if folder not in self._devices and (device := self.device_of(os.fsdecode(folder))) is not None:
            self.note_devices({folder: device})

    def knows(self, candidate: Candidate) -> bool:
        """Return whether a file or object was noted before, whatever has become of it."""
        return bool(self._rows(f"SELECT 1 FROM files WHERE {ONE}", *self._place(candidate)))

    def see(self, candidates: Sequence[Candidate]) -> None:
        """Remember for this run that a source listed these objects."""
        rows = [self._place(each)[1:] for each in candidates if each.origin]
        with self._errors():  # a table of this process alone
            self._base.executemany("INSERT OR IGNORE INTO seen VALUES (?, ?)", rows)

    def below_address(self, address: str, *, unseen: bool = False) -> Iterator[IngestedFile]:
        """Yield the notes of the objects of a source, with `unseen` those that this run did not `see`."""
        no_more = "AND (path, relative_path) NOT IN (SELECT path, relative_path FROM seen)" if unseen else ""
        sql = f"SELECT * FROM files WHERE {BELOW} {no_more} ORDER BY path, relative_path LIMIT {PAGE}"
        path, name, end = _range_of(os.fsencode(address))
        while True:
            rows = self._rows(sql, self._index, path, name, end)
            yield from map(_ingested, rows)
            if len(rows) < PAGE:
                return
            path, name = rows[-1][1:3]

    def has_outdated(self) -> bool:
        """Return whether there are stale paths, or contents that may have moved in this run."""
        sql = "SELECT 1 FROM moved UNION ALL SELECT 1 FROM stale WHERE idx = ? LIMIT 1"
        return bool(self._rows(sql, self._index))

    def other_indexes(self, image_id: str) -> set[str]:
        """Return the uuids of other indexes that were given the content too: they may share the store."""
        sql = "SELECT DISTINCT idx FROM files WHERE image_id = ? AND idx <> ?"
        return {uuid for (uuid,) in self._rows(sql, image_id, self._index)}

    def forget(self, notes: Sequence[IngestedFile]) -> None:
        """Turn notes of files that are gone into stale paths."""
        with self._writing():
            for note in notes:
                place = (self._index, note.path, note.relative_path)
                self._base.execute(MAKE_STALE.format(ONE), (*place, ""))
                self._base.execute(f"DELETE FROM files WHERE {ONE}", place)
                self._base.execute("DELETE FROM sidecars WHERE idx = ? AND path = ?", place[:2])

    def stale(self) -> list[StalePath]:
        """Return up to 1000 stale paths."""
        sql = f"SELECT image_id, relative_path FROM stale WHERE idx = ? LIMIT {PAGE}"
        return [StalePath(*row) for row in self._rows(sql, self._index)]

    def delete_stale(self, paths: Sequence[StalePath]) -> None:
        """Delete stale paths that have left the index."""
        rows = [(self._index, each.image_id, each.relative_path) for each in paths]
        with self._writing():
            self._base.executemany(
                "DELETE FROM stale WHERE idx = ? AND image_id = ? AND relative_path = ?", rows
            )

    def copy(self, *, old: str, new: str) -> None:
        """Give the index with the uuid `new` the notes of `old`, in place of its own."""
        with self._writing():
            for table, columns in TABLES.items():
                self._base.execute(f"DELETE FROM {table} WHERE idx = ?", (new,))
                sql = f"INSERT INTO {table} SELECT ?, {columns} FROM {table} WHERE idx = ?"
                self._base.execute(sql, (new, old))

    def flush(self) -> None:
        """Write the waiting notes."""
        with self._lock:
            waiting, changed, devices = self._waiting, self._changed, self._new_devices
            self._waiting, self._changed, self._new_devices = [], set(), {}
            self._flushed = time.monotonic()
            if self._read_only:
                return
            with self._writing():
                for candidate, image_id in waiting:
                    place = self._place(candidate)
                    self._base.execute(MAKE_STALE.format(ONE), (*place, image_id))
                    stamp = candidate.stamp or Stamp(-1, -1)
                    row = (*place, stamp.size, stamp.mtime_ns, image_id, self._kept)
                    self._base.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?)", row)
                    self._note_sidecars(candidate)
                self._base.executemany("INSERT OR REPLACE INTO folders VALUES (?, ?)", devices.items())
                for path in changed:
                    self._delete(path)
                    if path in self._failed:
                        self._insert(self._failed[path])

    def _note_sidecars(self, candidate: Candidate) -> None:
        place = self._place(candidate)[:2]
        if candidate.sidecars_stamp:
            row = (*place, json.dumps(candidate.sidecars), candidate.sidecars_stamp)
            self._base.execute("INSERT OR REPLACE INTO sidecars VALUES (?, ?, ?, ?)", row)
            self._has_sidecars = True
        elif self._has_sidecars:
            self._base.execute("DELETE FROM sidecars WHERE idx = ? AND path = ?", place)

    def save(self, *, last: bool) -> None:
        """Write the waiting notes, and the failed files into `failed.jsonl`.

        With `last`, at the end of a whole run, failed files that are gone leave the list.
        """
        self.flush()
        if self._read_only or self.path is None:
            return
        with self._writing():  # one process at a time
            failed = self._failed_rows()
            if last:
                for path in [path for path in failed if is_gone(path)]:
                    self._delete(path)
                    del failed[path]
            self._failed = failed
            _write_log(self._log, "".join(f"{json.dumps(asdict(each))}\n" for each in failed.values()))

    def close(self) -> None:
        """Write the waiting notes and close the file."""
        try:
            self.flush()
        finally:
            self._base.close()

    @property
    def _log(self) -> Path:
        return Path(self.path or "").with_name("failed.jsonl")

    def _open(self) -> sqlite3.Connection:
        if self.path and not self._read_only:
            private_folder(self.path.parent)
            private_file(self.path)
        name = self.path or ":memory:"
        base = sqlite3.connect(name, timeout=60, check_same_thread=False, isolation_level=None)
        base.executescript(SCHEMA)
        return base

    def _read_failed(self) -> dict[str, FailedFile]:
        """Return failed files by path, with those of an earlier version's log, which is read once."""
        failed = self._failed_rows()
        ((version,),) = self._rows("PRAGMA user_version")
        if self.path is None or version >= LOG_IMPORTED:
            return failed
        failed = {each.path: each for each in _read_log(self._log)} | failed
        if not self._read_only:
            with self._writing():
                for each in failed.values():
                    self._insert(each)
                self._base.execute(f"PRAGMA user_version = {LOG_IMPORTED}")
        return failed

    def _failed_rows(self) -> dict[str, FailedFile]:
        rows = self._rows("SELECT * FROM failed ORDER BY path")
        return {
            (name := os.fsdecode(path)): FailedFile(name, reason, when, size, mtime_ns, bool(lasting), pixels)
            for path, reason, when, size, mtime_ns, lasting, pixels in rows
        }

    def _insert(self, failed: FailedFile) -> None:
        row = (os.fsencode(failed.path), *astuple(failed)[1:])
        self._base.execute("INSERT OR REPLACE INTO failed VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    def _delete(self, path: str) -> None:
        self._base.execute("DELETE FROM failed WHERE path = ?", (os.fsencode(path),))

    def _flush_in_time(self) -> None:
        if len(self._waiting) >= FLUSH_FILES or time.monotonic() - self._flushed > FLUSH_S:
            self.flush()

    def _place(self, candidate: Candidate) -> tuple[str, bytes, str]:
        return self._index, os.fsencode(candidate.place), candidate.relative_path

    def _rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        with self._errors():
            return self._base.execute(sql, values).fetchall()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Open a transaction, which is written whole or not at all."""
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


def _absolute(path: Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100 - resolve() would follow links, and fail on a loop


def read_notes(base: sqlite3.Connection, index: str, image_id: str) -> list[IngestedFile]:
    """Return every note of a content in an index, from a history that was opened for reading alone.

    Raises `sqlite3.Error`.
    """
    sql = "SELECT * FROM files WHERE image_id = ? AND idx = ?"
    return [_ingested(row) for row in base.execute(sql, (image_id, index))]


def folder_of(path: bytes) -> bytes:
    """Return the folder of an absolute path."""
    return path.rpartition(b"/")[0] or b"/"


def _range(folder: Path) -> tuple[bytes, str, bytes]:
    """Return the values of `BELOW`: the place before the first file below a folder, and the end of paths."""
    return _range_of(os.fsencode(_absolute(folder)).rstrip(b"/") + b"/")


def _range_of(prefix: bytes) -> tuple[bytes, str, bytes]:
    return prefix, "", prefix[:-1] + b"0"  # the byte after a slash


def _ingested(row: tuple[Any, ...]) -> IngestedFile:
    _, path, relative_path, size, mtime_ns, image_id, kept = row
    return IngestedFile(path, relative_path, image_id, Stamp(size, mtime_ns), kept)


def _read_log(path: Path) -> list[FailedFile]:
    """Return the files of a log without damaged lines, such as one that a crash cut short."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise IngestError(f"The log of bad files {path} cannot be read: {error}.") from error
    return [failed for line in lines if (failed := _parse(line))]


def _parse(line: str) -> FailedFile | None:
    try:
        failed = FailedFile(**json.loads(line))
    except (ValueError, TypeError, RecursionError):
        return None
    types = ((failed.path, str), (failed.reason, str), (failed.size, int), (failed.mtime_ns, int))
    well = all(isinstance(value, kind) for value, kind in types) and isinstance(failed.pixels, int | None)
    return failed if well else None


def _write_log(path: Path, text: str) -> None:
    """Write the log at once or not at all, if it changes."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        if text == (path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""):
            return
        private_file(temporary)
        with temporary.open("w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise IngestError(f"The log of bad files {path} cannot be written: {error}.") from error
