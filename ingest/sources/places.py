"""Turn the words of a command line, and noted addresses, into sources and their content."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ingest.errors import IngestError, UnreadableImageError
from ingest.files.picture import FileContent, read_content
from ingest.files.sidecars import Sidecar
from ingest.files.walk import Origin, is_address, is_film_name
from ingest.sources.archive import ARCHIVE_SCHEME, ArchiveSource, archive_source
from ingest.sources.bucket import BucketObject, BucketSource, ObjectSource, is_one_object
from ingest.sources.listed import AddressSource, ListSource
from ingest.sources.source import (
    ARCHIVES,
    INSIDE,
    ExternalSource,
    FilmCopy,
    content_of_origin,
    film_copy,
)
from ingest.sources.web import WebLimits, WebObject, WebReader
from storage.errors import StorageError
from storage.s3 import open_objects

SCHEME = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]*)://")


@dataclass(frozen=True)
class NamedPlaces:
    """The places of pictures that a command names: paths of this machine, and other sources."""

    paths: tuple[Path, ...]
    sources: tuple[ExternalSource, ...]


def open_places(words: Sequence[str], *, limits: WebLimits | None = None) -> NamedPlaces:
    """Return the places that the words of a command line name. Raises `IngestError` and `StorageError`."""
    paths: list[Path] = []
    sources: list[ExternalSource] = []
    for word in words:
        if word.startswith("@") and not Path(word).exists():
            sources.append(_list(word[1:], limits))
        elif SCHEME.match(word):
            sources.append(_remote(word, limits))
        elif word.lower().endswith(ARCHIVES) and Path(word).is_file():
            sources.append(archive_source(Path(word)))
        elif Path(word).exists() or Path(word).is_symlink():
            paths.append(Path(word))
        else:
            raise IngestError(f"There is no file or folder '{word}'.")
    return NamedPlaces(tuple(paths), tuple(sources))


def is_place(word: str) -> bool:
    """Return whether a word of a command line names no path of this machine but another source."""
    return bool(word.startswith("@") or SCHEME.match(word) or word.lower().endswith(ARCHIVES))


def _list(word: str, limits: WebLimits | None) -> ListSource:
    path, column = Path(word), None
    if not path.exists() and ":" in word:
        name, _, column = word.rpartition(":")
        path = Path(name)
    return ListSource(path, column=column, limits=limits)


def _remote(word: str, limits: WebLimits | None) -> ExternalSource:
    parts = urlsplit(word)
    scheme = parts.scheme.lower()
    if scheme in ("http", "https") and parts.hostname:
        return AddressSource(word, limits=limits)
    if scheme != "s3" or not parts.netloc:
        raise IngestError(
            f"'{word}' cannot be read: pictures come from folders, archives, s3://bucket/prefix, https://"
            " addresses and @lists of them."
        )
    bucket, key = parts.netloc, word.partition("://")[2].partition("/")[2]
    objects = open_objects(bucket)
    if key.lower().endswith(ARCHIVES):
        name = key.rpartition("/")[2]
        return ArchiveSource(
            None, address=f"s3://{bucket}/{key}", name=name, fetch=lambda: objects.stream(key)
        )
    if is_one_object(key):
        return ObjectSource(objects, bucket=bucket, key=key)
    return BucketSource(objects, bucket=bucket, prefix=key)


def open_archive(address: str) -> ArchiveSource:
    """Return the archive at an address. Raises `UnreadableImageError` and `StorageError`."""
    place = address.removesuffix(INSIDE)
    if place.startswith(ARCHIVE_SCHEME):
        return archive_source(Path(place.removeprefix(ARCHIVE_SCHEME)))
    source = _remote(place, None)
    if not isinstance(source, ArchiveSource):
        raise UnreadableImageError("its archive cannot be opened")
    return source


def content_of(path: bytes) -> FileContent:
    """Return the content that a noted path or address leads to now. Raises as `read_address` does."""
    if not is_address(path):
        return read_content(Path(os.fsdecode(path)))
    address = os.fsdecode(path)
    with open_origin(address) as origin:
        return content_of_origin(origin, name=address)[0]


@dataclass(frozen=True)
class FoundFile:
    """A picture or film that was ingested, as it lies there now."""

    content: FileContent
    path: Path
    """of a film, a file of this machine"""
    copy: FilmCopy | None = None
    """the temporary file of a film, which goes with this object"""


class NotedFiles:
    """Opens the files and objects that notes lead to. Thread-safe.

    The latest film of an archive, a bucket or the web stays in a temporary file: one film has many moments.
    """

    def __init__(self) -> None:
        self._film: FilmCopy | None = None
        self._lock = threading.Lock()

    def open(self, path: bytes, image_id: str) -> FoundFile | None:
        """Return the file or object of a note, or None if it is away or has another content."""
        place = Path(os.fsdecode(path))
        try:
            if is_address(path) and is_film_name(place.name):
                copy = self._copy(os.fsdecode(path), image_id)
                return FoundFile(copy.content, copy.path, copy)
            content = content_of(path)
            if content.image_id != image_id:
                return None
            if content.film is not None and is_address(path):
                copy = self._copy(os.fsdecode(path), image_id)
                return FoundFile(copy.content, copy.path, copy)
        except (UnreadableImageError, StorageError, ValueError):  # a path with a null byte is not usable
            return None
        return FoundFile(content, place)

    def _copy(self, address: str, image_id: str) -> FilmCopy:
        with self._lock:
            if self._film is None or self._film.content.image_id != image_id:
                with open_origin(address) as origin:
                    self._film = film_copy(origin, image_id)
            return self._film


def noted_sidecar(address: str) -> Sidecar:
    """Return a sidecar that lies at a noted address."""

    def read(most: int) -> bytes | None:
        try:
            with open_origin(address) as origin:
                data, _ = origin.read()
        except (UnreadableImageError, StorageError):  # like a file that is gone
            return None
        if len(data) > most:
            raise UnreadableImageError(f"larger than {most >> 20} MiB", lasting=True)
        return data

    return Sidecar(address, read)


@contextmanager
def open_origin(address: str) -> Iterator[Origin]:
    """Open the object that a noted address names.

    Raises `UnreadableImageError`, and `StorageError` where no object of its place can be read.
    """
    place, inside, member = address.partition(INSIDE)
    if inside:
        with closing(open_archive(place)) as source:
            yield source.find(member)
        return
    parts = urlsplit(address)
    if parts.scheme == "s3":
        key = address.partition("://")[2].partition("/")[2]
        yield BucketObject(open_objects(parts.netloc), parts.netloc, key)
    elif parts.scheme in ("http", "https"):
        with closing(WebReader()) as reader:
            yield WebObject(reader, address)
    else:
        raise UnreadableImageError("its address cannot be read here")
