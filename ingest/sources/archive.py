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
import weakref
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path
from typing import IO, Any, BinaryIO

from ingest.errors import UnreadableImageError
from ingest.files.live_photos import is_part_name, is_part_of, part_keys, still_keys
from ingest.files.picture import MAX_FILM_BYTES
from ingest.files.sidecars import Siblings, is_sidecar
from ingest.files.walk import (
    EXTENSIONS,
    HEAD_BYTES,
    Candidate,
    Failure,
    Stamp,
    is_film_name,
    stamp_of,
    valid_unicode,
)
from ingest.sources.source import (
    ARCHIVES,
    INSIDE,
    Rules,
    candidate,
    extension,
    far_file,
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
LARGEST_PART = 64 << 20
"""bytes of a film that may be one of a live photo, which is unpacked to be sure"""
BOMB_RATIO, BOMB_FLOOR = 100, 64 << 20
"""content that is larger than the floor and packed to less than its hundredth is no picture"""
BESIDE = (".txt", ".json")
"""extensions of the captions that a WebDataset has beside a picture"""
MOST_BESIDE = 1 << 20
"""bytes of a caption's file that are read"""
PIECE = 1 << 20
REMEMBERED = 200_000
"""members of an archive whose places are kept in memory while pictures are asked for by name"""
BOMB = "it unpacks to more than a hundred times its size: a bomb"
BROKEN = (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, ValueError)
"""errors of damaged archives, whatever library meets them"""


class ArchiveError(Exception):
    """An archive cannot be used. The message says why."""


@dataclass(frozen=True, slots=True)
class Member:
    """One file in an archive."""

    name: str
    size: int
    """bytes, unpacked"""
    place: Any
    """offset in a tar, the entry of a zip"""
    mark: int
    """changes with the content: the time of a tar's member, the checksum of a zip's"""
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
                        mark = max(0, int(info.mtime))
                        yield Member(info.name, info.size, info.offset_data, mark, fault)
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

    def stream(self, member: Member, start: int = 0) -> Iterator[bytes]:
        """Yield the content in pieces, from an offset on. Raises `OSError`."""
        left = member.size - start
        with self._path.open("rb") as file:
            file.seek(member.place + start)
            while left and (piece := file.read(min(PIECE, left))):
                left -= len(piece)
                yield piece

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
            yield Member(info.filename, info.file_size, info, info.CRC, fault)

    def read(self, member: Member, most: int) -> bytes:
        """Return the content, or its first `most` bytes. Raises one of `BROKEN`."""
        with self._zip.open(member.place) as file:
            data = file.read(min(most, member.size))
            if most > member.size and file.read(1):
                raise ValueError("it is longer than it says")
            return data

    def stream(self, member: Member, start: int = 0) -> Iterator[bytes]:
        """Yield the content in pieces, as far as it is as long as it says. Raises one of `BROKEN`."""
        left = member.size - start
        with self._zip.open(member.place) as file:
            file.seek(start)
            while left and (piece := file.read(min(PIECE, left))):
                left -= len(piece)
                yield piece

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
    sidecars: tuple[Member, ...] = ()

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

    def stream(self) -> tuple[Iterator[bytes], Stamp | None]:
        """Return the content in pieces. They raise as `read` does."""
        return self._pieces(), None

    def open(self, noted: Stamp) -> BinaryIO | None:
        """Open the member, if its archive has not changed since."""
        stamp = self.archive.member_stamp(self.member)
        if self.member.fault or not stamp.is_settled or stamp != noted:
            return None
        return far_file(lambda start: self.archive.stream_of(self.member, start), self.member.size)

    def _pieces(self) -> Iterator[bytes]:
        if self.member.size > MAX_FILM_BYTES:
            raise UnreadableImageError(f"a film larger than {MAX_FILM_BYTES >> 30} GiB", lasting=True)
        if self.member.fault:
            raise UnreadableImageError(self.member.fault, lasting=True)
        done = 0
        for piece in self.archive.stream_of(self.member):
            done += len(piece)
            yield piece
        if done < self.member.size:
            raise UnreadableImageError("cut short with its archive")

    def beside(self, name: str, most: int) -> bytes | None:
        """Return the content of a sidecar in the same folder, or None if it is not there."""
        found = next((each for each in self.sidecars if _last(each.name) == name), None)
        if found is None:
            return None
        if found.fault or found.size > most:
            raise UnreadableImageError(found.fault or f"larger than {most >> 20} MiB", lasting=True)
        return self.archive.bytes_of(found, most)

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
        mark: Callable[[], int] | None = None,
    ) -> None:
        """Take the `path` of an archive of this machine, or the way to `fetch` another one.

        `mark` returns a number that changes with its content, or -1, and raises `StorageError`.
        """
        self.address = f"{address}{INSIDE}"
        self.is_complete = False
        self._path, self._name, self._fetch = path, name, fetch
        self._mark = mark
        self._temporary: list[Path] = []
        self._reader: TarReader | ZipReader | None = None
        self._time = -1
        self._places: dict[str, Member] = {}
        self._fault = ""
        self._lock = threading.Lock()

    def candidates(self, rules: Rules) -> Iterator[Candidate | Failure]:
        """Yield the pictures in order. A damaged archive is a failure that names the members before it."""
        number, self.is_complete = 0, False
        fault: ArchiveError | None = None
        apart = _Apart()
        try:
            reader = self._open()
            for group in _groups(reader):
                apart.learn(group)
        except ArchiveError as error:  # it is met again, after the members before it
            fault = error
        try:
            reader = self._open()
            for group in _groups(reader):
                for each in self._of_group(group, rules, apart):
                    number += isinstance(each, Candidate)
                    yield each
            self.is_complete = True
        except ArchiveError as error:
            fault = error
        for each in self._of_rest(rules, apart):
            number += isinstance(each, Candidate)
            yield each
        if fault:
            before = f"; {number} pictures before that were found" if number else ""
            yield Failure(self.address.removesuffix(INSIDE), f"{fault}{before}")

    def mark(self) -> int:
        """Return a number that changes with the archive, or -1 if none can tell it. Raises `StorageError`."""
        if self._mark:
            return self._mark()
        stamp = stamp_of(self._path) if self._path else None
        return stamp.mtime_ns if stamp else -1

    def bytes_of(self, member: Member, most: int) -> bytes:
        """Return the content of a member, or its first `most` bytes. Raises `UnreadableImageError`."""
        try:
            return self._open().read(member, most)
        except (ArchiveError, *BROKEN, RuntimeError, NotImplementedError) as error:
            raise UnreadableImageError(f"it cannot be unpacked ({error})") from error

    def member_stamp(self, member: Member) -> Stamp:
        """Return the stamp of a member: that of its archive, with its own size."""
        return Stamp(member.size, self._time)

    def stream_of(self, member: Member, start: int = 0) -> Iterator[bytes]:
        """Yield the content of a member in pieces, from an offset on. Raises `UnreadableImageError`."""
        try:
            yield from self._open().stream(member, start)
        except (ArchiveError, *BROKEN, RuntimeError, NotImplementedError) as error:
            raise UnreadableImageError(f"it cannot be unpacked ({error})") from error

    def find(self, name: str) -> ArchiveMember:
        """Return the member of this name. Raises `UnreadableImageError`.

        The first call remembers where the members lie, as far as they are not too many.
        """
        try:
            reader = self._open()
            with self._lock:
                found = self._learned(reader).get(name)
            if found is None and len(self._places) == REMEMBERED:
                found = next((each for each in reader.members() if valid_unicode(each.name) == name), None)
            if found is None and self._fault:
                raise ArchiveError(self._fault)
        except ArchiveError as error:
            raise UnreadableImageError(f"its archive is {error}") from error
        if found is None:
            raise UnreadableImageError("its archive does not hold it any more")
        return ArchiveMember(self, found)

    def _learned(self, reader: TarReader | ZipReader) -> dict[str, Member]:
        """Return the members by name, which are read at the first call."""
        if not self._places and not self._fault:
            try:
                for each in islice(reader.members(), REMEMBERED):
                    self._places.setdefault(valid_unicode(each.name), each)
            except ArchiveError as error:  # what is before the fault can be read
                self._fault = str(error)
        return self._places

    def close(self) -> None:
        """Close the archive, and delete the temporary files."""
        if self._reader:
            self._reader.close()
        for path in self._temporary:
            _delete(path)

    def _of_group(
        self, group: Sequence[Member], rules: Rules, apart: _Apart
    ) -> Iterator[Candidate | Failure]:
        """Yield the pictures and films among members that differ in their extensions alone."""
        words = _captions(group)
        own = {_last(each.name): each for each in group if is_sidecar(each.name)}
        used: set[str] = set()
        for member in group:
            apart.meet(member)
            if member in words or is_sidecar(member.name) or member.name in apart.parts:
                continue
            relative = relative_name(member.name)
            where = f"{self.address}{valid_unicode(member.name)}"
            is_picture = extension(member.name) in EXTENSIONS or is_film_name(member.name)
            if relative is None:
                yield Failure(where, "its name leads out of the archive")
            elif member.fault and is_picture:
                yield Failure(where, member.fault)
            elif member.name.lower().endswith(ARCHIVES):
                yield Failure(where, "an archive in an archive is not opened: unpack it first")
            else:
                head = None if is_picture or member.fault else self._head(member)
                if rules.admit(f"{self._name}/{relative}", head=head):
                    beside = apart.sidecars_of(member, own)
                    used.update(each.name for each in beside)
                    yield self._candidate(member, relative, words, beside)
        for each in own.values():
            if each not in words and each.name not in used and not apart.holds(each):
                self._pass_over(each, rules)

    def _of_rest(self, rules: Rules, apart: _Apart) -> Iterator[Candidate | Failure]:
        """Yield the films that might have been of live photos, and count sidecars of no picture."""
        for member, stills in apart.live():
            relative = relative_name(member.name)
            where = f"{self.address}{valid_unicode(member.name)}"
            if relative is None or member.fault:
                yield Failure(where, member.fault or "its name leads out of the archive")
            elif not rules.exclude.films and self._is_part(member, stills):
                rules.passed_over.film_parts += 1
            elif rules.admit(f"{self._name}/{relative}", head=self._head(member)):
                yield self._candidate(member, relative, (), apart.sidecars_of(member, {}))
        for member in apart.unused():
            self._pass_over(member, rules)

    def _candidate(
        self, member: Member, relative: str, words: tuple[Member, ...], beside: Sequence[Member]
    ) -> Candidate:
        # A sidecar's stamp is that of its content alone: that an archive was written anew is no news of it.
        is_settled = self._time >= 0
        stamps = {_last(each.name): Stamp(each.size, each.mark if is_settled else -1) for each in beside}
        origin = ArchiveMember(self, member, words, tuple(beside))
        return candidate(origin, f"{self._name}/{relative}", self.member_stamp(member), sidecars=stamps)

    def _head(self, member: Member) -> bytes | None:
        with suppress(UnreadableImageError):
            return self.bytes_of(member, HEAD_BYTES)
        return None

    def _pass_over(self, member: Member, rules: Rules) -> None:
        if relative := relative_name(member.name):
            rules.admit(f"{self._name}/{relative}")

    def _is_part(self, film: Member, stills: Sequence[Member]) -> bool:
        if not stills or film.size > LARGEST_PART:
            return False
        try:
            data = self.bytes_of(film, LARGEST_PART)
            return is_part_of(data, (self.bytes_of(each, LARGEST_PART) for each in stills))
        except UnreadableImageError:  # its own candidate says so
            return False

    def _open(self) -> TarReader | ZipReader:
        """Return the reader, which is made at the first call. Raises `ArchiveError`."""
        with self._lock:  # of the threads that read, the first one opens it
            return self._opened()

    def _opened(self) -> TarReader | ZipReader:
        if self._reader is None:
            self._time = self.mark()  # first: an archive that changes while it is fetched is another one
            path = self._path or self._spool(self._fetched())
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
        weakref.finalize(self, _delete, Path(name))
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


def _delete(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


@dataclass
class _Apart:
    """The members that belong to pictures which do not stand beside them in the archive.

    An archive may have its members in any order, and more of them than memory should hold: only sidecars
    apart from their pictures are kept, and the films that may be of live photos.
    """

    parts: dict[str, Member] = field(default_factory=dict)
    """names of films that may be of live photos"""
    _siblings: dict[str, Siblings] = field(default_factory=dict)
    """folder -> the sidecars in it, of those that stand apart"""
    _sidecars: dict[str, Member] = field(default_factory=dict)
    _used: set[str] = field(default_factory=set)
    _films: dict[str, list[str]] = field(default_factory=dict)
    """key of a film's name -> names of such films"""
    _stills: dict[str, list[Member]] = field(default_factory=dict)
    """name of a film -> the pictures of its name"""

    def learn(self, group: Sequence[Member]) -> None:
        """Keep those of a group that may belong to pictures of other groups."""
        for each in group:
            if is_part_name(each.name):
                self.parts[each.name] = each
                for key in part_keys(each.name):
                    self._films.setdefault(key, []).append(each.name)
        sidecars = [_last(each.name) for each in group if is_sidecar(each.name)]
        if not sidecars:
            return
        siblings = Siblings(sidecars)
        beside = {name for each in group for name in siblings.of(_last(each.name))}
        words = _captions(group)
        for each in group:
            if is_sidecar(each.name) and _last(each.name) not in beside and each not in words:
                self._siblings.setdefault(_folder(each.name), Siblings()).add(_last(each.name))
                self._sidecars[each.name] = each

    def meet(self, member: Member) -> None:
        """Note a picture that a film may belong to."""
        for key in still_keys(member.name) if self._films else ():
            for name in self._films.get(key, ()):
                self._stills.setdefault(name, []).append(member)

    def sidecars_of(self, picture: Member, own: Mapping[str, Member]) -> list[Member]:
        """Return the sidecars of a picture, from its `own` group or from elsewhere: one of each kind."""
        folder, last = _folder(picture.name), _last(picture.name)
        found = [own[name] for name in Siblings(own).of(last)]
        if siblings := self._siblings.get(folder):
            kinds = {extension(each.name) for each in found}
            there = (self._sidecars[f"{folder}{name}"] for name in siblings.of(last))
            more = [each for each in there if extension(each.name) not in kinds]
            self._used.update(each.name for each in more)
            found += more
        return sorted(found, key=lambda each: extension(each.name), reverse=True)  # XMP first

    def holds(self, sidecar: Member) -> bool:
        """Return whether a sidecar is among those that are kept."""
        return sidecar.name in self._sidecars

    def live(self) -> Iterator[tuple[Member, list[Member]]]:
        """Yield the films that may be of live photos, with the pictures of their name."""
        for name, film in self.parts.items():
            yield film, self._stills.get(name, [])

    def unused(self) -> Iterator[Member]:
        """Yield the kept sidecars that no picture has used."""
        yield from (each for name, each in self._sidecars.items() if name not in self._used)


def _groups(reader: TarReader | ZipReader) -> Iterator[list[Member]]:
    """Yield the members that stand together and have a name in common. Raises `ArchiveError`."""
    for _, group in groupby(reader.members(), key=lambda member: _key(member.name)):
        yield list(group)


def _captions(group: Sequence[Member]) -> tuple[Member, ...]:
    """Return the members with the words of the pictures in a group, if there are any."""
    if not any(extension(each.name) in EXTENSIONS or is_film_name(each.name) for each in group):
        return ()
    return tuple(each for each in group if extension(each.name) in BESIDE)


def _folder(name: str) -> str:
    """Return a member's folder, with the slash after it."""
    return name[: len(name) - len(_last(name))]


def _last(name: str) -> str:
    """Return a member's name in its folder."""
    return name.rpartition("/")[2]


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
