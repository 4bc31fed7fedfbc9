"""Turn the words of a command line, and noted addresses, into sources and their content."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ingest.errors import IngestError, UnreadableImageError
from ingest.files.picture import FileContent, read_content
from ingest.files.walk import is_address
from ingest.sources.archive import ARCHIVE_SCHEME, ArchiveSource, archive_source
from ingest.sources.bucket import BucketObject, BucketSource, ObjectSource, is_one_object
from ingest.sources.listed import AddressSource, ListSource
from ingest.sources.source import ARCHIVES, INSIDE, ExternalSource
from ingest.sources.web import WebLimits, WebObject, WebReader
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
    data = read_address(os.fsdecode(path))
    return FileContent(data, hashlib.sha256(data).hexdigest())


def read_address(address: str) -> bytes:
    """Return the content that a noted address leads to now.

    Raises `UnreadableImageError`, and `StorageError` where no object of its place can be read.
    """
    place, inside, member = address.partition(INSIDE)
    if inside:
        with closing(open_archive(place)) as source:
            return source.find(member)
    parts = urlsplit(address)
    if parts.scheme == "s3":
        key = address.partition("://")[2].partition("/")[2]
        return BucketObject(open_objects(parts.netloc), parts.netloc, key).read()[0]
    if parts.scheme in ("http", "https"):
        with closing(WebReader()) as reader:
            return WebObject(reader, address).read()[0]
    raise UnreadableImageError("its address cannot be read here")
