"""Find picture files in folders, in a stable order, with names that JSON and terminals can take."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import time
import unicodedata
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from ingest.errors import IngestError

LONGEST_STEM = 100
"""characters that are kept of an uploaded file's name"""
RAW_EXTENSIONS = frozenset(
    {".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mrw", ".nef", ".nrw"}
    | {".orf", ".pef", ".raf", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"}
)
"""of cameras' RAW files, whose previews `rawpy` reads"""
EXTENSIONS = RAW_EXTENSIONS | frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib"}
    | {".tif", ".tiff", ".heic", ".heif", ".hif", ".avif"}
)


def valid_unicode(name: str) -> str:
    r"""Return a name as valid Unicode: bytes that are no UTF-8 become `\xNN`, all else stays as it is.

    Two different names in one folder keep different texts unless one spells out the other's `\xNN`.
    """
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return os.fsencode(name).decode("utf-8", "backslashreplace")
    return name


def safe_name(name: str, extension: str) -> str:
    """Return the safe name of a file of this name and content: no folders, nothing that a shell obeys.

    Names come from strangers; `extension` is that of the content, and replaces a picture's extension.
    """
    last = unicodedata.normalize("NFC", re.split(r"[/\\]", name)[-1])
    stem, dot, suffix = last.rpartition(".")
    stem = stem if dot and f".{suffix.lower()}" in EXTENSIONS else last
    kept = "".join(char if char.isprintable() and char not in '<>:"|?*' else "_" for char in stem)
    return f"{kept[:LONGEST_STEM].strip(' ._') or 'picture'}.{extension}"


SETTLED_NS = 2_000_000_000
"""a file changed as lately as this may change again within one tick of its clock (two seconds on FAT)"""


@dataclass(frozen=True)
class Stamp:
    """Size and time of a file. The same stamp twice means the same content."""

    size: int
    """bytes"""
    mtime_ns: int
    """nanoseconds; -1 for a file that was changed too lately to be told by it, which no file ever has"""

    @property
    def is_settled(self) -> bool:
        """Whether the stamp can stand for the content."""
        return self.mtime_ns >= 0


def stamp_of(path: Path) -> Stamp | None:
    """Return the present stamp of a regular file, or None for anything else and on errors."""
    try:
        status = os.stat(path)  # noqa: PTH116 - this is called once for every file of a run
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    settled = status.st_mtime_ns < time.time_ns() - SETTLED_NS
    return Stamp(status.st_size, status.st_mtime_ns if settled else -1)


def is_gone(path: str | bytes | Path) -> bool:
    """Whether there is certainly no such file: a closed folder or a failing disk proves nothing."""
    try:
        os.stat(path)  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        return False
    return False


def device_of(folder: str) -> int | None:
    """Return the number of the device that holds a folder, or None if the folder cannot be asked."""
    try:
        return os.stat(folder).st_dev  # noqa: PTH116
    except (OSError, ValueError):
        return None


SHAPE = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")


@dataclass(frozen=True)
class Shard:
    """The `number`-th of `of` shares, counted from 1."""

    number: int = 1
    of: int = 1

    def holds(self, name: str) -> bool:
        """Whether a relative path belongs to this shard: by its hash, so nobody needs a list of all files."""
        if self.of == 1:
            return True
        digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        return int.from_bytes(digest, "big") % self.of == self.number - 1


def parse_shard(text: str) -> Shard:
    """Read `3/16`, the third of sixteen parts. Raises `IngestError`."""
    match = SHAPE.fullmatch(text.strip())
    number, of = (int(each) for each in match.groups()) if match else (0, 0)
    if not 1 <= number <= of:
        raise IngestError(f"'{text}' is no part: write 3/16 for the third of sixteen.")
    return Shard(number, of)


EVERYTHING = Shard()


@dataclass(frozen=True)
class Candidate:
    """A file that may be a picture."""

    path: Path
    relative_path: str
    """below the folder that was named, forward slashes, readable whatever bytes the name holds"""
    stamp: Stamp | None = None
    """of the file before it was read, where somebody asked"""


@dataclass(frozen=True)
class Failure:
    """A file or a folder that could not be used, and why."""

    path: str
    reason: str


Identity = tuple[int, int]
"""device and inode of a folder"""


@dataclass(frozen=True)
class Entrance:
    """Where a walk goes in: a folder or file that was named, or a link to a folder that it follows."""

    path: Path
    relative: str
    """what the relative paths below begin with: nothing, or names that end in a slash; a file's own name"""


def walk(
    paths: Sequence[Path],
    *,
    exclude: Sequence[str] = (),
    limit: int | None = None,
    shard: Shard = EVERYTHING,
) -> Iterator[Candidate | Failure]:
    """Yield the pictures of folders and every file named explicitly, folder by folder in the order of names.

    Hidden names are passed over; `exclude` holds globs for a name or for a whole relative path. Links are
    followed, each folder is visited once, and real folders are visited before links to them. Of all that,
    only what belongs to `shard`: files by their relative path, failures by their path; and at most `limit`
    files.
    """
    files = 0
    for found in _walk(paths, exclude):
        if isinstance(found, Entrance):
            continue
        if shard.holds(found.relative_path if isinstance(found, Candidate) else found.path):
            files += isinstance(found, Candidate)
            if limit is not None and files > limit:
                return
            yield found


def entrances(paths: Sequence[Path], *, exclude: Sequence[str] = ()) -> list[Entrance]:
    """Return where a walk goes in, in its order: a file that can be reached twice is named by the first."""
    return [found for found in _walk(paths, exclude) if isinstance(found, Entrance)]


def _walk(paths: Sequence[Path], exclude: Sequence[str]) -> Iterator[Candidate | Failure | Entrance]:
    visited: set[Identity] = set()
    for path in paths:
        if os.path.isdir(path):  # noqa: PTH112 - false, not an error, where a folder is closed
            yield from _walk_folder(path, exclude, visited)
        elif not is_excluded(path.name, valid_unicode(path.name), exclude):
            yield Entrance(path, valid_unicode(path.name))
            yield Candidate(path, valid_unicode(path.name))


def _walk_folder(
    root: Path, exclude: Sequence[str], visited: set[Identity]
) -> Iterator[Candidate | Failure | Entrance]:
    # Folders with the (device, inode) of those above them, which a link must not lead back to.
    real: deque[tuple[Entrance, tuple[Identity, ...]]] = deque()
    links: deque[tuple[Entrance, tuple[Identity, ...]]] = deque([(Entrance(root, ""), ())])
    while real or links:
        enters = not real
        folder, ancestors = (real or links).popleft()
        try:
            identity = identity_of(folder.path)
            if identity in ancestors:
                raise OSError(errno.ELOOP, "loop")
            entries = [] if identity in visited else _entries(folder.path)
        except OSError as error:
            yield Failure(valid_unicode(str(folder.path)), why(error, kind="folder"))
            continue
        if enters and identity not in visited:
            yield folder
        visited.add(identity)
        below: list[tuple[Entrance, tuple[Identity, ...]]] = []
        for entry in entries:
            relative = folder.relative + valid_unicode(entry.name)
            kind = "excluded" if is_excluded(entry.name, relative, exclude) else _kind(entry)
            if isinstance(kind, OSError):
                yield Failure(valid_unicode(entry.path), why(kind))
            elif kind == "picture":
                yield Candidate(Path(entry.path), relative)
            elif kind in ("folder", "link"):
                child = Entrance(Path(entry.path), f"{relative}/")
                (below if kind == "folder" else links).append((child, (*ancestors, identity)))
        real.extendleft(reversed(below))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        visible = [entry for entry in entries if not entry.name.startswith(".")]
    return sorted(visible, key=lambda entry: os.fsencode(entry.name))


def _kind(entry: os.DirEntry[str]) -> str | OSError:
    try:
        if entry.is_dir():
            return "link" if entry.is_symlink() else "folder"
    except OSError as error:
        return error
    return "picture" if os.path.splitext(entry.name)[1].lower() in EXTENSIONS else "other"  # noqa: PTH122


def outermost(folders: Iterable[Path]) -> list[Path]:
    """Return the folders that are below no other, so that no file counts twice."""
    whole = {Path(os.path.abspath(folder)) for folder in folders}  # noqa: PTH100 - links stay as they are named
    return sorted(folder for folder in whole if not whole & set(folder.parents))


def identity_of(folder: Path) -> Identity:
    """Return the identity of a folder, wherever it is mounted. Raises `OSError`."""
    status = os.stat(folder)  # noqa: PTH116 - follows a link
    return status.st_dev, status.st_ino


def is_excluded(name: str, relative: str, exclude: Sequence[str]) -> bool:
    """Whether a glob fits the name or the whole relative path of a file or folder."""
    return any(fnmatchcase(valid_unicode(name), glob) or fnmatchcase(relative, glob) for glob in exclude)


def why(error: OSError, *, kind: str = "file") -> str:
    """Say in words why a file or folder cannot be read."""
    known = {
        errno.EACCES: "permission denied",
        errno.EPERM: "permission denied",
        errno.ENOENT: f"the {kind} vanished before it was read",
        errno.ELOOP: "a symbolic link that leads back to itself",
        errno.ENXIO: "not a regular file",
    }
    return known.get(error.errno or 0, error.strerror or str(error))
