"""Stores: their protocol, and opening one by its address."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from storage.errors import StorageError
from storage.keys import ALIASES, ORIGINAL_TYPES, original_key

SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")  # two letters or more: `C:` is a drive, not a scheme


class Storage(Protocol):
    """Bytes by key. A key is a relative path with forward slashes that stays inside the store."""

    def put(self, key: str, data: bytes) -> None:
        """Keep `data` under `key`, whole or not at all, in place of earlier bytes. Raises `StorageError`."""

    def get(self, key: str) -> bytes:
        """Return the bytes under `key`. Raises `NoSuchKeyError` when there are none."""

    def exists(self, key: str) -> bool:
        """Return whether `key` holds bytes. Raises `StorageError` for a key that no store can have."""

    def delete(self, key: str) -> None:
        """Remove `key`, if it is there. Raises `StorageError`."""


def open_storage(uri: str) -> Storage:
    """Open the store at `file:/path`, at a plain path or at `s3://bucket/prefix`.

    A folder is made on the first `put`; a bucket is asked nothing before it.

    Raises `StorageError` naming the known schemes when the scheme is unknown.
    """
    match = SCHEME.match(uri)
    scheme = match.group(1).lower() if match else "file"
    if scheme not in SCHEMES:
        known = ", ".join(f"{name}:" for name in SCHEMES)
        raise StorageError(
            f"No store can be opened at '{uri}': use a folder or one of these schemes: {known}"
        )
    location = uri[match.end() :] if match else uri
    if not location or "\0" in location:
        raise StorageError(f"'{uri}' names no store: write file:/path/to/a/folder".replace("\0", "\\0"))
    return SCHEMES[scheme](location)


def find_original(storage: Storage, image_id: str, *, names: Iterable[str] = ()) -> str | None:
    """Return the key of the picture's original or of its WebP copy, or None when neither is kept.

    `names` are the file names that the picture is known by: their extensions are tried first, for each
    question may be a request. Raises `StorageError` as `Storage.exists` does.
    """
    named = (name.rpartition(".")[2].lower() for name in names)
    known = [extension for each in named if (extension := ALIASES.get(each, each)) in ORIGINAL_TYPES]
    likely = dict.fromkeys([*known, "webp", *ORIGINAL_TYPES])
    keys = (original_key(image_id, extension) for extension in likely)
    return next((key for key in keys if storage.exists(key)), None)


def _open_folder(location: str) -> Storage:
    from storage.folder import FolderStorage

    # file:///path and file://localhost/path are the long forms of file:/path
    path = re.sub(r"^//(localhost)?(?=/)", "", location)
    if path.startswith("//"):
        raise StorageError(f"'file:{location}' names another machine: write file:/path/to/a/folder")
    return FolderStorage(Path(path).expanduser())


def _open_bucket(location: str) -> Storage:
    from storage.s3 import open_bucket

    return open_bucket(location)


SCHEMES: dict[str, Callable[[str], Storage]] = {"file": _open_folder, "s3": _open_bucket}
