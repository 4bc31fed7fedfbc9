"""The seam between a run and the places of pictures: a source yields candidates that open themselves."""

from __future__ import annotations

import hashlib
import io
import os
import re
import tempfile
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from ingest.errors import UnreadableImageError
from ingest.files.picture import MAX_BYTES, MAX_FILM_BYTES, FileContent, read_content
from ingest.files.walk import (
    EVERYTHING,
    EXTENSIONS,
    HEAD_BYTES,
    OTHER_EXTENSIONS,
    SIGNATURE,
    Candidate,
    Exclusions,
    Failure,
    Origin,
    PassedOver,
    Shard,
    Stamp,
    container_of,
    is_film_name,
    stamp_of_sidecars,
    valid_unicode,
    walk,
)
from storage.errors import StorageError

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".zip")
"""ends of the names of archives that are opened where they are named"""
FETCHERS, FETCHES_AHEAD = 16, 32
"""threads that read objects of sources that are far away, and objects that they hold ahead at most"""
READ_BYTES = 1 << 16
"""bytes that a file of an object hands out at once"""
INSIDE = "!/"
"""stands in an address between an archive and the name of a member"""


class ExternalSource(Protocol):
    """A place of pictures that is no folder of this machine."""

    @property
    def address(self) -> str:
        """Return the beginning of all its addresses."""

    @property
    def is_complete(self) -> bool:
        """Whether all was listed in this run, so that an object that was not is gone. No list proves that."""

    @property
    def is_far(self) -> bool:
        """Whether each object takes its time, so that many are read at once."""

    def candidates(self, rules: Rules) -> Iterator[Candidate | Failure]:
        """Yield the objects in a stable order, as they are listed. Raises `StorageError`."""

    def close(self) -> None:
        """Give back connections and temporary files."""


@dataclass(frozen=True)
class Rules:
    """The choice of objects that a source yields."""

    exclude: Exclusions
    passed_over: PassedOver

    def admit(self, relative: str, *, head: bytes | None = None, named: bool = False) -> bool:
        """Return whether an object is taken: by the patterns, its extension, or the `head` of its content.

        An object that somebody `named` is taken whatever its extension is. Others are counted.
        """
        if rule := self._rule(relative):
            self.passed_over.add_rule(rule)
            return False
        if named or extension(relative) in EXTENSIONS:
            return True
        films = not self.exclude.films
        if films and is_film_name(relative):
            return True
        if head is not None and is_picture_head(head, relative, films=films):
            return True
        self.passed_over.add_kinds([relative])
        return False

    def _rule(self, relative: str) -> str | None:
        parts = relative.split("/")
        for number in range(1, len(parts)):
            if rule := self.exclude.rule("/".join(parts[:number]), folder=True):
                return rule
        return self.exclude.rule(relative, folder=False)


def extension(name: str) -> str:
    """Return the extension of a name in lower case, with its dot."""
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - a name, no path


def is_picture_head(head: bytes, name: str, *, films: bool) -> bool:
    """Return whether content begins like a picture, or one of the `films`, where its name says nothing."""
    if extension(name) in OTHER_EXTENSIONS or is_film_name(name):
        return False
    return SIGNATURE.match(head) is not None or (films and container_of(head) is not None)


def stamp_by(tag: str, size: int) -> Stamp:
    """Return the stamp of content that a server tells by a tag: the time is a hash of it."""
    digest = hashlib.blake2b(tag.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return Stamp(size, int.from_bytes(digest, "big") >> 1)


def relative_name(name: str) -> str | None:
    """Return a name as a relative path, or None for one that would lead out of its archive or list."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    if not parts or ".." in parts or name.startswith(("/", "\\")) or re.match(r"[a-zA-Z]:[\\/]", name):
        return None
    return valid_unicode("/".join(parts))


def candidate(
    origin: Origin, relative: str, stamp: Stamp | None, *, sidecars: Mapping[str, Stamp] | None = None
) -> Candidate:
    """Return the candidate of an object, with the stamps of its sidecars by their names.

    Of its path only the name is meant.
    """
    beside = sidecars or {}
    return Candidate(
        Path(relative.rpartition("/")[2]),
        relative,
        stamp,
        sidecars=tuple(beside),
        sidecars_stamp=stamp_of_sidecars(beside),
        origin=origin,
    )


@dataclass(frozen=True)
class ReadCandidate:
    """The content of a candidate, and the candidate with the stamp of that content."""

    candidate: Candidate
    content: FileContent


def read_candidate(found: Candidate) -> ReadCandidate:
    """Read a file, or let an object read itself.

    Raises `UnreadableImageError`, and `StorageError` where no object of the same place can be read.
    """
    if found.origin is None:
        return ReadCandidate(found, read_content(found.path))
    content, stamp = content_of_origin(found.origin, name=found.path.name)
    return ReadCandidate(replace(found, stamp=stamp) if stamp else found, content)


def content_of_origin(origin: Origin, *, name: str) -> tuple[FileContent, Stamp | None]:
    """Read an object whole and hash it, with its stamp if reading tells it. A film is hashed only.

    Raises as `Origin.read` does.
    """
    if is_film_name(name):
        pieces, stamp = origin.stream()
        size, digest, container = 0, hashlib.sha256(), None
        for piece in pieces:
            container = container or container_of(piece[:HEAD_BYTES])
            if container is None:
                break
            size += len(piece)
            digest.update(piece)
            _check_film(size)
        if container:
            return FileContent(b"", digest.hexdigest(), container, size), stamp
    data, stamp = origin.read()
    digest = hashlib.sha256(data)
    if container := container_of(data[:HEAD_BYTES]):
        return FileContent(b"", digest.hexdigest(), container, len(data)), stamp
    return FileContent(data, digest.hexdigest()), stamp


def _check_film(size: int) -> None:
    if size > MAX_FILM_BYTES:
        raise UnreadableImageError(f"a film larger than {MAX_FILM_BYTES >> 30} GiB", lasting=True)


class _FarFile(io.RawIOBase):
    """Content that comes in pieces from wherever it is read."""

    def __init__(self, pieces: Callable[[int], Iterator[bytes]], size: int) -> None:
        super().__init__()
        self._pieces, self._size = pieces, size
        self._place = 0
        self._coming: Iterator[bytes] | None = None
        self._piece = memoryview(b"")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        if start + offset != self._place:
            self._stop()
            self._place = max(0, start + offset)
        return self._place

    def readinto(self, buffer: Any) -> int:
        left = self._size - self._place
        if left <= 0:
            return 0
        if not self._piece:
            self._piece = memoryview(self._next())
        taken = self._piece[: min(len(buffer), left)]
        buffer[: len(taken)] = taken
        self._piece = self._piece[len(taken) :]
        self._place += len(taken)
        return len(taken)

    def close(self) -> None:
        self._stop()
        super().close()

    def _next(self) -> bytes:
        if self._coming is None:
            self._coming = self._pieces(self._place)
        try:
            piece = next((each for each in self._coming if each), None)
        except (UnreadableImageError, StorageError) as error:
            raise OSError(str(error)) from error
        if piece is None:
            raise OSError("it is cut short")
        return piece

    def _stop(self) -> None:
        """Give back the connection that pieces came from."""
        if isinstance(self._coming, Generator):
            self._coming.close()
        self._coming, self._piece = None, memoryview(b"")


def far_file(pieces: Callable[[int], Iterator[bytes]], size: int) -> BinaryIO:
    """Return content of `size` bytes as a file. `pieces` yields it from an offset on, and raises as `read`.

    A file that is cut short raises `OSError`.
    """
    return cast(BinaryIO, io.BufferedReader(_FarFile(pieces, size), READ_BYTES))


@dataclass(frozen=True)
class FilmCopy:
    """A film in a file of this machine, which is deleted with this object if it is a temporary one."""

    path: Path
    content: FileContent


def local_film(found: Candidate, content: FileContent) -> FilmCopy:
    """Return the file of a film: where it lies, or a temporary copy. Raises as `film_copy` does."""
    return (
        FilmCopy(found.path, content) if found.origin is None else film_copy(found.origin, content.image_id)
    )


def film_copy(origin: Origin, image_id: str) -> FilmCopy:
    """Put a film into a temporary file.

    Raises `UnreadableImageError` for another content than `image_id`, and where the disk has no room, and as
    `Origin.read` does.
    """
    pieces, _ = origin.stream()
    descriptor, name = tempfile.mkstemp(prefix="glimpse-film-")
    path, digest, size, head = Path(name), hashlib.sha256(), 0, b""
    try:
        with os.fdopen(descriptor, "wb") as file:
            for piece in pieces:
                head = head or piece[:HEAD_BYTES]
                size += len(piece)
                digest.update(piece)
                _check_film(size)
                try:
                    file.write(piece)
                except OSError as error:
                    reason = f"it does not fit into {path.parent} ({error.strerror})"
                    raise UnreadableImageError(reason) from error
        if digest.hexdigest() != image_id:
            raise UnreadableImageError("it changed while it was read")
    except BaseException:
        _delete(path)
        raise
    copy = FilmCopy(path, FileContent(b"", image_id, container_of(head) or "mov", size))
    weakref.finalize(copy, _delete, path)
    return copy


def _delete(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


def too_large(size: int) -> str | None:
    """Return why an object of so many bytes is not read, or None."""
    return f"larger than {MAX_BYTES >> 20} MiB" if size > MAX_BYTES else None


def gather(
    paths: Sequence[Path],
    sources: Iterable[ExternalSource],
    *,
    exclude: Exclusions,
    limit: int | None = None,
    shard: Shard = EVERYTHING,
    passed_over: PassedOver,
) -> Iterator[Candidate | Failure]:
    """Yield the files below `paths`, and then the objects of the sources, as one walk.

    Raises `StorageError` where a source cannot be listed.
    """
    found = walk(paths, exclude=exclude, limit=limit, shard=shard, passed_over=passed_over)
    files = 0
    for each in found:
        files += isinstance(each, Candidate)
        yield each
    rules = Rules(exclude, passed_over)
    for source in sources:
        for each in source.candidates(rules):
            if not shard.holds(each.relative_path if isinstance(each, Candidate) else each.path):
                continue
            files += isinstance(each, Candidate)
            if limit is not None and files > limit:
                return
            yield each
