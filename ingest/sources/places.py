"""Turn the words of a command line, and noted addresses, into sources and their content."""

from __future__ import annotations

import os
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ingest.errors import IngestError, UnreadableImageError
from ingest.files.picture import FileContent, read_content
from ingest.files.sidecars import Sidecar
from ingest.files.walk import Origin, is_address, is_film_name
from ingest.sources.archive import ARCHIVE_SCHEME, ArchiveSource, archive_source
from ingest.sources.bucket import (
    BucketObject,
    BucketSource,
    ObjectSource,
    is_one_object,
    stamp_of_object,
)
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
from storage.buckets import SCHEMES, BucketObjects, open_objects
from storage.errors import NoSuchKeyError, StorageError, UnansweredError

KEPT_ARCHIVES = 2
"""archives that stay open, with their temporary files, while their members are asked for"""
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
    if scheme not in SCHEMES or not parts.netloc:
        raise IngestError(
            f"'{word}' cannot be read: pictures come from folders, archives, s3://, gs:// and az://"
            " buckets, https:// addresses and @lists of them."
        )
    key, objects = key_of(word), open_objects(f"{scheme}://{parts.netloc}")
    if key.lower().endswith(ARCHIVES):
        name = key.rpartition("/")[2]
        return ArchiveSource(
            None,
            address=f"{objects.place}/{key}",
            name=name,
            fetch=lambda: objects.stream(key),
            mark=lambda: _mark_of(objects, key),
        )
    if is_one_object(key):
        return ObjectSource(objects, key=key)
    return BucketSource(objects, prefix=key)


def key_of(address: str) -> str:
    """Return the key in the address of an object of a bucket."""
    return address.partition("://")[2].partition("/")[2]


def _mark_of(objects: BucketObjects, key: str) -> int:
    try:
        return stamp_of_object(objects.look_up(key)).mtime_ns
    except (NoSuchKeyError, UnansweredError):  # fetching it says so
        return -1


def open_archive(address: str) -> ArchiveSource:
    """Return the archive at an address. Raises `UnreadableImageError` and `StorageError`."""
    place = address.removesuffix(INSIDE)
    if place.startswith(ARCHIVE_SCHEME):
        return archive_source(Path(place.removeprefix(ARCHIVE_SCHEME)))
    source = _remote(place, None)
    if not isinstance(source, ArchiveSource):
        raise UnreadableImageError("its archive cannot be opened")
    return source


class NotedPlaces:
    """Opens the objects of noted addresses over kept connections. Thread-safe.

    The latest archives stay open: whoever asks for a member often asks for another one.
    """

    def __init__(self) -> None:
        self._buckets: dict[str, BucketObjects] = {}
        self._archives: OrderedDict[str, tuple[int, ArchiveSource]] = OrderedDict()
        self._web = WebReader()
        self._lock = threading.Lock()

    def origin(self, address: str) -> Origin:
        """Return the object of an address.

        Raises `UnreadableImageError`, and `StorageError` where no object of its place can be read.
        """
        place, inside, member = address.partition(INSIDE)
        if inside:
            return self._archive(place).find(member)
        parts = urlsplit(address)
        if parts.scheme in SCHEMES:
            return BucketObject(self._bucket(f"{parts.scheme}://{parts.netloc}"), key_of(address))
        if parts.scheme in ("http", "https"):
            return WebObject(self._web, address)
        raise UnreadableImageError("its address cannot be read here")

    def content(self, path: bytes) -> FileContent:
        """Return the content that a noted path or address leads to now. Raises as `origin` does."""
        address = os.fsdecode(path)
        if not is_address(path):
            return read_content(Path(address))
        return content_of_origin(self.origin(address), name=address)[0]

    def _bucket(self, place: str) -> BucketObjects:
        with self._lock:
            if place not in self._buckets:
                self._buckets[place] = open_objects(place)
            return self._buckets[place]

    def _archive(self, place: str) -> ArchiveSource:
        now = open_archive(place)
        mark = now.mark()
        with self._lock:
            before, known = self._archives.pop(place, (-1, now))
            found = known if mark >= 0 and mark == before else now
            self._archives[place] = mark, found
            while len(self._archives) > KEPT_ARCHIVES:
                self._archives.popitem(last=False)  # whoever reads it still has it
            return found


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
        self.places = NotedPlaces()
        self._film: FilmCopy | None = None
        self._lock = threading.Lock()

    def open(self, path: bytes, image_id: str) -> FoundFile | None:
        """Return the file or object of a note, or None if it is away or has another content."""
        place = Path(os.fsdecode(path))
        try:
            if is_address(path) and is_film_name(place.name):
                copy = self._copy(os.fsdecode(path), image_id)
                return FoundFile(copy.content, copy.path, copy)
            content = self.places.content(path)
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
                self._film = film_copy(self.places.origin(address), image_id)
            return self._film


def noted_sidecar(address: str) -> Sidecar:
    """Return a sidecar that lies at a noted address."""

    def read(most: int) -> bytes | None:
        try:
            data, _ = NotedPlaces().origin(address).read()
        except (UnreadableImageError, StorageError):  # like a file that is gone
            return None
        if len(data) > most:
            raise UnreadableImageError(f"larger than {most >> 20} MiB", lasting=True)
        return data

    return Sidecar(address, read)
