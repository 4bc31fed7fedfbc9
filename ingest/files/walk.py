"""Finding picture files: folders become candidates, in an order that never changes by itself."""

from __future__ import annotations

import errno
import os
from collections import deque
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from ingest.names import EXTENSIONS, valid_unicode
from ingest.parts import Part
from ingest.stamp import Stamp

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

EVERYTHING = Part()


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
    part: Part = EVERYTHING,
) -> Iterator[Candidate | Failure]:
    """Yield the pictures of folders and every file named explicitly, folder by folder in the order of names.

    Hidden names are passed over; `exclude` holds globs for a name or for a whole relative path. Links are
    followed, each folder is visited once, and real folders are visited before links to them. Of all that,
    only what belongs to `part`: files by their relative path, failures by their path; and at most `limit`
    files.
    """
    files = 0
    for found in _walk(paths, exclude):
        if isinstance(found, Entrance):
            continue
        if part.holds(found.relative_path if isinstance(found, Candidate) else found.path):
            files += isinstance(found, Candidate)
            if limit is not None and files > limit:
                return
            yield found


def entrances(paths: Sequence[Path], *, exclude: Sequence[str] = ()) -> list[Entrance]:
    """Return where a walk goes in, in its order: a file that can be reached twice is named by the first."""
    return [found for found in _walk(paths, exclude) if isinstance(found, Entrance)]


def _walk(paths: Sequence[Path], exclude: Sequence[str]) -> Iterator[Candidate | Failure | Entrance]:
    visited: set[tuple[int, int]] = set()
    for path in paths:
        if os.path.isdir(path):  # noqa: PTH112 - false, not an error, where a folder is closed
            yield from _walk_folder(path, exclude, visited)
        elif not is_excluded(path.name, valid_unicode(path.name), exclude):
            yield Entrance(path, valid_unicode(path.name))
            yield Candidate(path, valid_unicode(path.name))


def _walk_folder(
    root: Path, exclude: Sequence[str], visited: set
) -> Iterator[Candidate | Failure | Entrance]:
    # Folders with the (device, inode) of those above them, which a link must not lead back to.
    real, links = deque(), deque([(Entrance(root, ""), ())])
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
        below = []
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


def _entries(folder: Path) -> list[os.DirEntry]:
    with os.scandir(folder) as entries:
        visible = [entry for entry in entries if not entry.name.startswith(".")]
    return sorted(visible, key=lambda entry: os.fsencode(entry.name))


def _kind(entry: os.DirEntry) -> str | OSError:
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


def identity_of(folder: Path) -> tuple[int, int]:
    """Return what tells a folder from others wherever it is mounted. Raises `OSError`."""
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
