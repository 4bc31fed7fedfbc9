"""Find and open, on the machine that ingested them, the files that pictures were made from."""

from __future__ import annotations

import hashlib
import io
import os
import re
import sqlite3
import stat
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import closing
from io import BufferedReader, BytesIO
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from es_config.documents import content_id, paths_of, shown_path
from es_config.index import ImageIndex
from ingest.errors import UnreadableImageError
from ingest.files.live_photos import film_inside, may_have_film, part_beside
from ingest.files.picture import FileContent, is_raw, rendering
from ingest.files.walk import Stamp, container_of, is_address, valid_unicode
from ingest.history.ingested_files import IngestedFile, read_notes
from ingest.sources.archive import ARCHIVE_SCHEME
from ingest.sources.places import NotedPlaces
from ingest.sources.source import content_of_origin
from models.pixels import NoRoomError
from search_app.core.pictures import OpenedFile, no_room
from search_app.errors import QueryError
from storage.errors import StorageError
from storage.keys import ALIASES, ORIGINAL_TYPES

SHOWN = (
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "image/webp"),
    (re.compile(rb"GIF8[79]a"), "image/gif"),
    (re.compile(rb"....ftypavi[fs]", re.DOTALL), "image/avif"),
)
"""first bytes of files that every browser shows, and their media types"""
REMEMBERED = 4096
"""files whose content was checked, and whose state says that it is still the same"""

State = tuple[int, ...]
"""device, inode, size, and times of the last change of content and of anything, in nanoseconds"""


class IngestedOriginals:
    """Opens files where they lie, if the notes of ingest say that an index has their content. Thread-safe.

    Links are followed as ingest followed them. Whatever a path leads to now is opened only if its content
    still has the SHA-256 by which the index knows the picture.
    """

    def __init__(self, notes: Path, index: Callable[[], ImageIndex]) -> None:
        """Take the path of the notes, which need not exist, and the index that is searched at the moment."""
        self._notes, self._index = notes, index
        self._uuids: dict[str, str] = {}
        self._places = NotedPlaces()
        self._checked: OrderedDict[State, str] = OrderedDict()
        self._inside: OrderedDict[State, tuple[int, int] | None] = OrderedDict()
        self._lock = Lock()

    def files_of(self, pictures: Mapping[str, str]) -> dict[str, list[IngestedFile]]:
        """Return the notes of pictures by image id, `pictures` being a relative path of each by id.

        Files that are there come first, and among these the one of that path. Raises `StorageError` when the
        notes cannot be read, and `EngineError` when the index cannot be asked who it is.
        """
        if not pictures or not self._notes.is_file():
            return {image_id: [] for image_id in pictures}
        uuid = self._uuid()
        try:
            with closing(sqlite3.connect(f"{self._notes.absolute().as_uri()}?mode=ro", uri=True)) as base:
                return {
                    image_id: sorted(
                        read_notes(base, uuid, image_id),
                        key=lambda note: (not Path(note.shown).is_file(), note.relative_path != path),
                    )
                    for image_id, path in pictures.items()
                }
        except sqlite3.Error as error:
            raise StorageError(
                f"The notes of what was ingested, {self._notes}, cannot be read: {error}."
            ) from error

    def paths(self, image_id: str, source: Mapping[str, Any]) -> list[str]:
        """Return the absolute paths of the files of a document's picture that are there.

        Raises as `files_of` does.
        """
        files = [note.shown for note in self._notes_of(image_id, source) if Path(note.shown).is_file()]
        return list(dict.fromkeys(map(valid_unicode, files)))

    def name(self, image_id: str, source: Mapping[str, Any]) -> str | None:
        """Return the name of the file that `open` tries first, or None without one.

        Nobody is asked whether an object of a bucket or of the web is still there. Raises as `files_of` does.
        """
        notes = self._notes_of(image_id, source)
        there = (note for note in notes if is_address(note.path) or Path(note.shown).is_file())
        return next(map(_name, there), None)

    def open(self, image_id: str, source: Mapping[str, Any], *, near: bool = False) -> OpenedFile | None:
        """Open the file of a document's picture for reading, or return None where none has its content now.

        With `near`, no other machine is asked for it. Raises as `files_of` does.
        """
        content = content_id(image_id, source)
        for note in self._notes_of(image_id, source):
            if is_address(note.path):
                is_asked = not near or note.shown.startswith(ARCHIVE_SCHEME)
                if is_asked and (found := self._far(note, content)):
                    return found
                continue
            if (stream := _opened(note.path)) is None:
                continue
            if (content != image_id or source.get("film")) and _as_noted(stream, note):
                return OpenedFile(
                    stream, Path(note.shown).name, os.fstat(stream.fileno()).st_size, *_type(stream, note)
                )
            if self._digest(stream) == content:
                return OpenedFile(
                    stream, Path(note.shown).name, os.fstat(stream.fileno()).st_size, *_type(stream, note)
                )
            stream.close()
        return None

    def film(self, image_id: str, source: Mapping[str, Any]) -> OpenedFile | None:
        """Open the film of a live or motion photo, or return None for any other picture.

        It is inside the picture's own file, or beside it as ingest pairs them. Raises as `files_of` does.
        """
        if source.get("film"):
            return None
        for note in self._notes_of(image_id, source):
            if is_address(note.path) or (still := _opened(note.path)) is None:
                continue
            is_same = self._digest(still) == image_id
            if is_same and (place := self._film_inside(still)):
                start, size = place
                part = io.BufferedReader(_Part(still, start, size))
                return OpenedFile(part, f"{Path(note.shown).stem}.mp4", size, "video/mp4", True, "inside")
            still.close()
            if is_same and (opened := _film_beside(Path(note.shown))):
                return opened
        return None

    def render(self, image_id: str, source: Mapping[str, Any]) -> bytes | None:
        """Return a WebP of a picture that browsers do not show, or None as `open` does.

        It takes room and time in the budget of all requests. Raises as `files_of` does, `QueryError` when the
        file cannot be decoded within it, and `BusyError`.
        """
        opened = self.open(image_id, source)
        if opened is None:
            return None
        with opened.stream as stream:
            try:
                content = FileContent(stream.read(), image_id)
            except OSError:
                return None
        try:
            return rendering(content, path=Path(opened.name))
        except NoRoomError as error:
            raise no_room() from error
        except UnreadableImageError as error:
            raise QueryError(
                f"The picture cannot be drawn here: it is {error}. Download the file."
            ) from error

    def _far(self, note: IngestedFile, content: str) -> OpenedFile | None:
        """Open an object of a bucket, an archive or the web, or return None if it is another now.

        Its stamp tells that, as when it was ingested. Without one, a picture is read whole.
        """
        name = _name(note)
        try:
            origin = self._places.origin(note.shown)
            if note.stamp.is_settled and (stream := origin.open(note.stamp)):
                return OpenedFile(stream, name, note.stamp.size, *_type(stream, note))
            found = content_of_origin(origin, name=note.shown)[0]
        except (UnreadableImageError, StorageError, OSError):
            return None
        if found.image_id != content or found.film is not None:
            return None
        held = BytesIO(found.data)
        return OpenedFile(held, name, len(found.data), *_type(held, note))

    def _notes_of(self, image_id: str, source: Mapping[str, Any]) -> list[IngestedFile]:
        """Return the notes of a picture whose relative paths its document still has."""
        known = paths_of(source)
        content = content_id(image_id, source)
        notes = self.files_of({content: shown_path(source, image_id)})[content]
        return [note for note in notes if note.relative_path in known]

    def _uuid(self) -> str:
        index = self._index()
        name = index.name()
        if name not in self._uuids:
            self._uuids = {name: index.uuid()}
        return self._uuids[name]

    def _film_inside(self, stream: BufferedReader) -> tuple[int, int] | None:
        """Return `film_inside` of an open file, which is looked for once in each state of it."""
        state = _state(stream)
        with self._lock:
            if state in self._inside:
                return self._inside[state]
        place = None
        if may_have_film(stream.read(16)):
            stream.seek(0)
            place = film_inside(stream.read())
        with self._lock:
            self._inside[state] = place
            if len(self._inside) > REMEMBERED:
                self._inside.popitem(last=False)
        return place

    def _digest(self, stream: BufferedReader) -> str:
        """Return the SHA-256 of an open file, which is computed once for each state of it."""
        state = _state(stream)
        with self._lock:
            if known := self._checked.get(state):
                self._checked.move_to_end(state)
                return known
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        stream.seek(0)
        with self._lock:
            self._checked[state] = digest
            if len(self._checked) > REMEMBERED:
                self._checked.popitem(last=False)
        return digest


def _name(note: IngestedFile) -> str:
    """Return the name of a file, which is in an address of the web before its query."""
    place = note.shown
    if place.startswith(("https://", "http://")):
        place = urlsplit(place).path
    return place.rstrip("/").rpartition("/")[2] or "picture"


def _opened(path: bytes) -> BufferedReader | None:
    """Open a regular file, or return None for anything else and on errors."""
    try:
        # Without O_NONBLOCK, opening a named pipe waits for somebody to write into it.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        descriptor = os.open(path, flags | getattr(os, "O_CLOEXEC", 0))
    except OSError:
        return None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    return os.fdopen(descriptor, "rb")


class _Part(io.RawIOBase):
    """A part of an open file, read as a file of its own. It closes the file."""

    def __init__(self, whole: BufferedReader, start: int, size: int) -> None:
        self._whole, self._start, self._size, self._at = whole, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        self._whole.seek(self._start + self._at)
        data = self._whole.read(min(len(buffer), max(0, self._size - self._at)))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        self._whole.close()
        super().close()


def _film_beside(still: Path) -> OpenedFile | None:
    """Open the film of a live photo that lies beside a picture, or return None."""
    film = part_beside(still)
    stream = _opened(os.fsencode(film)) if film else None
    if film is None or stream is None:
        return None
    is_film = container_of(stream.read(64)) == "mov"
    stream.seek(0)
    if not is_film:
        stream.close()
        return None
    *_, size, changed, _ = _state(stream)
    return OpenedFile(stream, film.name, size, "video/mp4", True, f"{size:x}-{changed:x}")


def _state(stream: BufferedReader) -> State:
    status = os.fstat(stream.fileno())
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _as_noted(stream: BufferedReader, note: IngestedFile) -> bool:
    """Return whether a file has the size and time that it had when it was hashed: films take long to hash."""
    status = os.fstat(stream.fileno())
    return note.stamp.is_settled and note.stamp == Stamp(status.st_size, status.st_mtime_ns)


def _type(stream: BinaryIO, note: IngestedFile) -> tuple[str, bool]:
    """Return the media type of an open file, and whether every browser shows it.

    The name decides nothing but the words for a file that browsers only download.
    """
    head = stream.read(64)
    stream.seek(0)
    for pattern, media_type in SHOWN:
        if pattern.match(head):
            return media_type, True
    if container := container_of(head):
        # MOV is the same container as MP4, and browsers refuse it by its own name.
        webm = "video/webm" if b"webm" in head else "video/x-matroska"
        return ("video/mp4" if container == "mov" else webm), True
    suffix = Path(note.shown).suffix.lower().removeprefix(".")
    if is_raw(Path(note.shown), head):
        return "application/octet-stream", False
    return ORIGINAL_TYPES.get(ALIASES.get(suffix, suffix), "application/octet-stream"), False
