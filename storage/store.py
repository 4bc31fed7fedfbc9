"""What a store is, how one is opened, and under which keys Glimpse keeps its bytes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from storage.errors import NoSuchKeyError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

IMAGE_ID = re.compile(r"[0-9a-f]{64}")
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")  # two letters or more: `C:` is a drive, not a scheme
UPLOADS = "uploads/"
"""the beginning of the relative path of an uploaded picture; the rest is its safe file name"""
ORIGINAL_TYPES = {
    "jpg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "gif": "image/gif",
    "bmp": "image/bmp",
    "tiff": "image/tiff",
    "heic": "image/heic",
    "avif": "image/avif",
}
"""extensions of the originals that are kept, with their media types: none that a browser would run"""
ALIASES = {"jpeg": "jpg", "jpe": "jpg", "tif": "tiff", "heif": "heic", "hif": "heic"}


class Storage(Protocol):
    """Bytes by key. A key is a relative path with forward slashes; no key leads out of the store."""

    def put(self, key: str, data: bytes) -> None:
        """Keep `data` under `key`, whole or not at all; replaces what was there. Raises `StorageError`."""

    def get(self, key: str) -> bytes:
        """Return the bytes under `key`; `NoSuchKeyError` when there are none."""

    def exists(self, key: str) -> bool:
        """Say whether `key` holds bytes; `StorageError` for a key that no store can have."""

    def delete(self, key: str) -> None:
        """Remove `key`; nothing happens when it is absent. Raises `StorageError`."""


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


def thumbnail_key(image_id: str) -> str:
    """Return the key of a picture's thumbnail: `thumbnails/ab/cd/<id>.webp`.

    `image_id` is the SHA-256 in lower-case hex; anything else raises `NoSuchKeyError`.
    """
    return f"thumbnails/{_spread(image_id)}.webp"


def original_key(image_id: str, extension: str) -> str:
    """Return the key of an uploaded file: `originals/ab/cd/<id>.<extension>`.

    `extension` is one of `ORIGINAL_TYPES`; anything else raises `NoSuchKeyError`, as a wrong id does.
    """
    if extension not in ORIGINAL_TYPES:
        known = ", ".join(ORIGINAL_TYPES)
        raise NoSuchKeyError(f"{extension!r} is not the extension of an original; they are: {known}.")
    return f"originals/{_spread(image_id)}.{extension}"


def find_original(storage: Storage, image_id: str, *, names: Iterable[str] = ()) -> str | None:
    """Return the key of the picture's original or of its WebP copy; None where neither is kept.

    `names` are the file names that the picture is known by: their extensions are tried first, for each
    question may be a request. Raises `StorageError` as `Storage.exists` does.
    """
    named = (name.rpartition(".")[2].lower() for name in names)
    known = [extension for each in named if (extension := ALIASES.get(each, each)) in ORIGINAL_TYPES]
    likely = dict.fromkeys([*known, "webp", *ORIGINAL_TYPES])
    keys = (original_key(image_id, extension) for extension in likely)
    return next((key for key in keys if storage.exists(key)), None)


def media_type(key: str) -> str:
    """Return the media type of what is kept under a key, by its extension; bytes for any other."""
    return ORIGINAL_TYPES.get(key.rpartition(".")[2], "application/octet-stream")


def key_parts(key: str) -> list[str]:
    """Return the parts of a key; `NoSuchKeyError` for whatever is no plain relative path."""
    parts = key.split("/")
    if "\0" in key or "\\" in key or ":" in parts[0] or any(part in ("", ".", "..") for part in parts):
        raise NoSuchKeyError(f"{key!r} is not a key: a key is a relative path with forward slashes.")
    return parts


def _spread(image_id: str) -> str:
    """Return `ab/cd/<id>`: no folder of the store grows large."""
    if not IMAGE_ID.fullmatch(image_id):
        raise NoSuchKeyError(
            f"{image_id!r} is not an image id: an id is the 64 hexadecimal digits of a SHA-256."
        )
    return f"{image_id[:2]}/{image_id[2:4]}/{image_id}"


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
