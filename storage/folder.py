"""A store in a folder of this machine."""

from __future__ import annotations

import errno
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from storage.errors import NoSuchKeyError, StorageError
from storage.keys import key_parts

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
