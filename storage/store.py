"""Stores of bytes by key: their protocol, a folder of this machine, and opening one by its address."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from storage.errors import NoSuchKeyError, StorageError
from storage.keys import ALIASES, ORIGINAL_TYPES, key_parts, original_key

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


WAYS_OUT = {
    errno.ENOSPC: "the disk is full; make room or choose another store with --store",
    errno.EDQUOT: "your disk quota is used up; make room or choose another store with --store",
    errno.EROFS: "the file system is read-only; choose another store with --store",
    errno.EACCES: "permission denied; change the folder's permissions or choose another store with --store",
    errno.EPERM: "permission denied; change the folder's permissions or choose another store with --store",
}


class FolderStorage:
    """Keeps each key as one file under `root`. A reader sees all of a file or none of it."""

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.abspath(root))  # noqa: PTH100 - resolve() would fail on a link loop

    def put(self, key: str, data: bytes) -> None:
        """Write a temporary file beside the target and rename it, so that a crash leaves no half file."""
        target = self._path(key)
        try:
            try:
                self._write(target, data)
            except FileNotFoundError:  # the first key of its folder
                target.parent.mkdir(parents=True, exist_ok=True)
                self._write(target, data)
        except OSError as error:
            raise self._failure("written", key, error) from error

    def get(self, key: str) -> bytes:
        """Return the bytes under `key`. Raises `NoSuchKeyError` when there are none."""
        try:
            return self._path(key).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise NoSuchKeyError(f"The store at {self.root} has nothing under '{key}'.") from error
        except OSError as error:
            raise self._failure("read", key, error) from error

    def exists(self, key: str) -> bool:
        """Say whether `key` holds bytes."""
        return os.path.isfile(self._path(key))  # noqa: PTH113 - false, not an error, whatever is in the way

    def delete(self, key: str) -> None:
        """Remove `key`, if it is there."""
        try:
            self._path(key).unlink(missing_ok=True)
        except (NotADirectoryError, IsADirectoryError):
            return
        except OSError as error:
            raise self._failure("removed", key, error) from error

    def _write(self, target: Path, data: bytes) -> None:
        descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=".", suffix=".part")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            Path(temporary).chmod(0o644)  # mkstemp makes it private; the page may run as another user
            Path(temporary).replace(target)
        except BaseException:
            with suppress(OSError):
                Path(temporary).unlink()
            raise

    def _path(self, key: str) -> Path:
        """Return the file of `key`, or raise `NoSuchKeyError` when it would lie outside the store."""
        target = self.root.joinpath(*key_parts(key))
        # A link inside the store may point out of it, so the parts are resolved before anything is opened.
        try:
            real = os.path.realpath(target)
            inside = Path(real).is_relative_to(os.path.realpath(self.root))
        except (OSError, ValueError) as error:
            raise NoSuchKeyError(f"{key!r} is not a key of the store at {self.root}: {error}.") from error
        if not inside:
            raise NoSuchKeyError(f"'{key}' leads out of the store at {self.root}; nothing was touched.")
        return target

    def _failure(self, verb: str, key: str, error: OSError) -> StorageError:
        return StorageError(f"'{key}' cannot be {verb} in the store at {self.root}: {reason(error)}.")


def reason(error: OSError) -> str:
    """Return why the folder refused, with the way out where there is one."""
    return WAYS_OUT.get(error.errno or 0, error.strerror or str(error))


DEMO_ALIAS = "demo"
"""the index of `glimpse demo`, which shares nothing with those of people's own pictures"""


def default_store(home: Path, alias: str) -> str:
    """Return the address of an index's store in GLIMPSE_HOME: `store`, or the demo's own one."""
    return f"file:{home / ('demo-store' if alias == DEMO_ALIAS else 'store')}"


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
    # file:///path and file://localhost/path are the long forms of file:/path
    path = re.sub(r"^//(localhost)?(?=/)", "", location)
    if path.startswith("//"):
        raise StorageError(f"'file:{location}' names another machine: write file:/path/to/a/folder")
    return FolderStorage(Path(path).expanduser())


def _open_bucket(location: str) -> Storage:
    from storage.s3 import open_bucket

    return open_bucket(location)


SCHEMES: dict[str, Callable[[str], Storage]] = {"file": _open_folder, "s3": _open_bucket}
