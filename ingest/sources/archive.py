"""Pictures in tar and zip archives and in WebDataset shards, read where they lie."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import tarfile
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import IO, Any

from ingest.errors import UnreadableImageError
from ingest.files.walk import (
    EXTENSIONS,
    HEAD_BYTES,
    Candidate,
    Failure,
    Stamp,
    stamp_of,
    valid_unicode,
)
from ingest.sources.source import (
    ARCHIVES,
    INSIDE,
    Rules,
    candidate,
    extension,
    relative_name,
    too_large,
)

ARCHIVE_SCHEME = "archive://"
"""stands before the path of an archive of this machine"""
UNPACKERS: dict[str, Callable[[Path], Any]] = {
    ".gz": gzip.open,
    ".tgz": gzip.open,
    ".bz2": bz2.open,
    ".tbz2": bz2.open,
    ".xz": lzma.open,
    ".txz": lzma.open,
}
BOMB_RATIO, BOMB_FLOOR = 100, 64 << 20
"""content that is larger than the floor and packed to less than its hundredth is no picture"""
BESIDE = (".txt", ".json")
"""extensions of the captions that a WebDataset has beside a picture"""
MOST_BESIDE = 1 << 20
"""bytes of a caption's file that are read"""
PIECE = 1 << 20
BOMB = "it unpacks to more than a hundred times its size: a bomb"
BROKEN = (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, ValueError)
"""errors of damaged archives, whatever library meets them"""


class ArchiveError(Exception):
    """An archive cannot be used. The message says why."""


@dataclass(frozen=True)
class Member:
    """One file in an archive."""

    name: str
    size: int
    """bytes, unpacked"""
    place: Any
    """offset in a tar, the entry of a zip"""
    fault: str | None = None
    """why it cannot be used"""


class TarReader:
    """Reads the members of a tar in any order. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def members(self) -> Iterator[Member]:
        """Yield the files in order, each once the head before it is read. Raises `ArchiveError`."""
        size = self._path.stat().st_size
        with self._path.open("rb") as file:
            try:
                with tarfile.open(fileobj=file, mode="r:", errorlevel=0) as tar:
                    for info in tar:
                        tar.members.clear()  # type: ignore[attr-defined] # else they are all kept
                        if info.isdir():
                            continue
                        fault = None if info.isreg() else "a link or device in an archive is not followed"
                        if info.offset_data + info.size > size:
                            fault = "cut short with its archive"
                        yield Member(info.name, info.size, info.offset_data, fault)
                    end = tar.offset
            except BROKEN as error:
                raise ArchiveError(f"damaged or cut short ({error})") from error
            file.seek(end)
            if len(file.read(tarfile.BLOCKSIZE)) < tarfile.BLOCKSIZE:
                raise ArchiveError("cut short: its end mark is missing")

    def read(self, member: Member, most: int) -> bytes:
        """Return the content, or its first `most` bytes. Raises `OSError`."""
        with self._path.open("rb") as file:
            file.seek(member.place)
            return file.read(min(most, member.size))

    def close(self) -> None:
        """Do nothing: files are open only while they are read."""


class ZipReader:
    """Reads the members of a zip in any order. Thread-safe. Raises `ArchiveError` for none."""

    def __init__(self, path: Path) -> None:
        try:
            self._zip = zipfile.ZipFile(path)
        except BROKEN as error:
            raise ArchiveError(f"damaged or cut short ({error})") from error

    def members(self) -> Iterator[Member]:
        """Yield the files in the order of the archive's list."""
        for info in self._zip.infolist():
            if info.is_dir():
                continue
            fault = None
            if info.flag_bits & 1:
                fault = "it is encrypted"
            elif info.file_size > BOMB_FLOOR and info.file_size > BOMB_RATIO * info.compress_size:
                fault = BOMB
            elif (info.external_attr >> 16) & 0o170000 == 0o120000:
                fault = "a link or device in an archive is not followed"
            yield Member(info.filename, info.file_size, info, fault)

    def read(self, member: Member, most: int) -> bytes:
        """Return the content, or its first `most` bytes. Raises one of `BROKEN`."""
        with self._zip.open(member.place) as file:
            data = file.read(min(most, member.size))
            if most > member.size and file.read(1):
                raise ValueError("it is longer than it says")
            return data

    def close(self) -> None:
        """Close the file."""
        self._zip.close()


@dataclass(frozen=True)
class ArchiveMember:
    """A picture in an archive, as an `Origin`."""

    archive: ArchiveSource
    member: Member
    words: tuple[Member, ...] = ()
    """captions and JSON beside it"""

    @property
    def address(self) -> str:
        """Return the archive's address and the name in it."""
        return f"{self.archive.address}{valid_unicode(self.member.name)}"

    def stamp(self) -> Stamp | None:
        """Return None: listing has told it."""
        return None

    def read(self) -> tuple[bytes, Stamp | None]:
        """Return the content. Raises `UnreadableImageError`."""
        if not self.member.size:
            raise UnreadableImageError("the file is empty", lasting=True)
        if reason := self.member.fault or too_large(self.member.size):
            raise UnreadableImageError(reason, lasting=True)
        data = self.archive.bytes_of(self.member, self.member.size + 1)
        if len(data) < self.member.size:
            raise UnreadableImageError("cut short with its archive")
        return data, None

    def caption(self) -> str | None:
        """Return the text beside it, or else the caption of its JSON."""
        said: dict[str, str] = {}
        for each in self.words:
            with suppress(UnreadableImageError, ValueError, AttributeError):
                text = self.archive.bytes_of(each, MOST_BESIDE).decode("utf-8", "replace")
                kind = extension(each.name)
                said[kind] = str(json.loads(text).get("caption") or "") if kind == ".json" else text
        return next((found for kind in BESIDE if (found := said.get(kind, "").strip())), None)


class ArchiveSource:
    """An archive that somebody named. One that is far away or packed as a whole is first made a local tar.

    Its relative paths begin with its own name, as shards often hold equal names.
    """

    is_far = False

    def __init__(
        self,
        path: Path | None,
        *,
        address: str,
        name: str,
        fetch: Callable[[], Iterator[bytes]] | None = None,
    ) -> None:
        """Take the `path` of an archive of this machine, or the way to `fetch` another one."""
        self.address = f"{address}{INSIDE}"
        self.is_complete = False
        self._path, self._name, self._fetch = path, name, fetch
        self._temporary: list[Path] = []
        self._reader: TarReader | ZipReader | None = None
        self._time = -1
        self._lock = threading.Lock()

    def candidates(self, rules: Rules) -> Iterator[Candidate | Failure]:
        """Yield the pictures in order. A damaged archive is a failure that names the members before it."""
        number, self.is_complete = 0, False
        try:
            reader = self._open()
            for _, group in groupby(reader.members(), key=lambda member: _key(member.name)):
                for each in self._of_group(list(group), rules, reader):
                    number += isinstance(each, Candidate)
                    yield each
            self.is_complete = True
        except ArchiveError as error:
            before = f"; {number} pictures before that were found" if number else ""
            yield Failure(self.address.removesuffix(INSIDE), f"{error}{before}")

    def bytes_of(self, member: Member, most: int) -> bytes:
        """Return the content of a member, or its first `most` bytes. Raises `UnreadableImageError`."""
        try:
            return self._open().read(member, most)
        except (ArchiveError, *BROKEN, RuntimeError, NotImplementedError) as error:
            raise UnreadableImageError(f"it cannot be unpacked ({error})") from error

    def find(self, name: str) -> bytes:
        """Return the content of the member of this name. Raises `UnreadableImageError`."""
        try:
            members = self._open().members()
            found = next((each for each in members if valid_unicode(each.name) == name), None)
        except ArchiveError as error:
            raise UnreadableImageError(f"its archive is {error}") from error
        if found is None:
            raise UnreadableImageError("its archive does not hold it any more")
        return ArchiveMember(self, found).read()[0]

    def close(self) -> None:
        """Close the archive, and delete the temporary files."""
        if self._reader:
            self._reader.close()
        for path in self._temporary:
            with suppress(OSError):
                path.unlink()

    def _of_group(
        self, group: Sequence[Member], rules: Rules, reader: TarReader | ZipReader
    ) -> Iterator[Candidate | Failure]:
        """Yield the pictures among members that differ in their extensions alone."""
        pictures = [each for each in group if extension(each.name) in EXTENSIONS]
        words = tuple(each for each in group if pictures and extension(each.name) in BESIDE)
        for member in group:
            if member in words:
                continue
            relative = relative_name(member.name)
            where = f"{self.address}{valid_unicode(member.name)}"
            is_picture = extension(member.name) in EXTENSIONS
            if relative is None:
                yield Failure(where, "its name leads out of the archive")
            elif member.fault and is_picture:
                yield Failure(where, member.fault)
            elif member.name.lower().endswith(ARCHIVES):
                yield Failure(where, "an archive in an archive is not opened: unpack it first")
            else:
                head = None
                if not (is_picture or member.fault):
                    with suppress(*BROKEN, RuntimeError, NotImplementedError):
                        head = reader.read(member, HEAD_BYTES)
                if rules.admit(f"{self._name}/{relative}", head=head):
                    origin = ArchiveMember(self, member, words)
                    yield candidate(origin, f"{self._name}/{relative}", Stamp(member.size, self._time))

    def _open(self) -> TarReader | ZipReader:
        """Return the reader, which is made at the first call. Raises `ArchiveError`."""
        with self._lock:  # of the threads that read, the first one opens it
            return self._opened()

    def _opened(self) -> TarReader | ZipReader:
        if self._reader is None:
            path = self._path or self._spool(self._fetched())
            stamp = stamp_of(path) if self._fetch is None else None
            self._time = stamp.mtime_ns if stamp else -1
            name = self._name.lower()
            if unpack := next((each for end, each in UNPACKERS.items() if name.endswith(end)), None):
                path = self._spool(self._unpacked(path, unpack))
            self._reader = ZipReader(path) if name.endswith(".zip") else TarReader(path)
        return self._reader

    def _fetched(self) -> Iterator[bytes]:
        if self._fetch is None:
            raise ArchiveError("there is no such archive")
        yield from self._fetch()

    def _unpacked(self, path: Path, unpack: Callable[[Path], Any]) -> Iterator[bytes]:
        most = max(BOMB_FLOOR, BOMB_RATIO * path.stat().st_size)
        done = 0
        try:
            with unpack(path) as file:
                while piece := file.read(PIECE):
                    done += len(piece)
                    if done > most:
                        raise ArchiveError(BOMB)
                    yield piece
        except BROKEN as error:
            raise ArchiveError(f"damaged or cut short ({error})") from error

    def _spool(self, pieces: Iterator[bytes]) -> Path:
        """Write pieces into a temporary file, and return it. Raises `ArchiveError` when the disk is full."""
        descriptor, name = tempfile.mkstemp(prefix="glimpse-archive-")
        self._temporary.append(Path(name))
        file: IO[bytes]
        with os.fdopen(descriptor, "wb") as file:
            for piece in pieces:
                try:
                    file.write(piece)
                except OSError as error:
                    raise ArchiveError(
                        f"it does not fit into {Path(name).parent} ({error.strerror})"
                    ) from error
        return Path(name)


def _key(name: str) -> str:
    """Return the name up to the first dot after its folders, which a WebDataset's files have in common."""
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}{last.partition('.')[0]}"


def archive_source(path: Path) -> ArchiveSource:
    """Return the source of an archive of this machine."""
    whole = os.path.abspath(path)  # noqa: PTH100 - links stay as they are named
    return ArchiveSource(
        Path(whole), address=valid_unicode(f"{ARCHIVE_SCHEME}{whole}"), name=valid_unicode(path.name)
    )
