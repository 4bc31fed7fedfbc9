"""The folders of a watch as disks come and go, and what the files in them are called in the index."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ingest.names import EXTENSIONS, valid_unicode
from ingest.files.walk import Candidate, entrances, identity_of, is_excluded

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ingest.files.walk import Entrance


class Roots:
    """What was named on the command line; for a file, the folder it is in has to be there."""

    def __init__(self, paths: list[Path]) -> None:
        self._folders = {path: path if os.path.isdir(path) else path.parent for path in paths}  # noqa: PTH112
        self._seen = {path: _identity(folder) for path, folder in self._folders.items()}

    @property
    def there(self) -> list[Path]:
        """Those whose folders were there at the last look."""
        return [path for path, identity in self._seen.items() if identity]

    def look(self) -> dict[Path, bool]:
        """Look again: return what has come or is another folder now (True), and what has gone (False)."""
        now = {path: _identity(folder) for path, folder in self._folders.items()}
        changed = {path: bool(now[path]) for path in now if now[path] != self._seen[path]}
        self._seen = now
        return changed

    def is_away(self, path: Path) -> bool:
        """Whether a path is below a folder that is away."""
        away = {folder for root, folder in self._folders.items() if not self._seen[root]}
        return bool(away & {path, *path.parents})


class Places:
    """The folders and files of a watch. Paths that go in are real: no part of them but the last is a link."""

    def __init__(self, paths: Sequence[Path], *, exclude: Sequence[str]) -> None:
        """Walk the paths once, for the links to folders that lead out of them."""
        self._exclude = exclude
        self._entrances = [(_real(each), each) for each in entrances(paths, exclude=exclude)]

    def to_watch(self) -> list[tuple[str, bool]]:
        """Return real folders, with whether what is below them counts too; none is below another."""
        whole = {real for real, each in self._entrances if not _is_file(each)}
        folders = [real for real in sorted(whole) if not any(_below(real, other) for other in whole)]
        alone = {os.path.dirname(real) for real, each in self._entrances if _is_file(each)}  # noqa: PTH120
        alone = {real for real in alone if not any(_below(f"{real}/.", other) for other in folders)}
        return [(real, True) for real in folders] + [(real, False) for real in sorted(alone)]

    def named(self, real: str, *, folder: bool = False) -> Candidate | None:
        """Return a file as a walk would name it, or None where a walk passes it over.

        A `folder` has a name too; whether there is anything at the path does not matter.
        """
        for place, entrance in self._entrances:
            if real == place and _is_file(entrance) and not folder:
                return Candidate(entrance.path, entrance.relative)
            if _below(real, place) and not _is_file(entrance):
                rest = real[len(place.rstrip("/")) + 1 :]
                relative = entrance.relative + "/".join(valid_unicode(name) for name in rest.split("/"))
                if self._admits(entrance.relative, rest, folder=folder):
                    return Candidate(entrance.path / rest, relative)
        return None

    def below(self, folder: str) -> Iterator[str]:
        """Yield the real paths below a folder that a walk would look at, and those of links to folders."""
        for here, folders, files in os.walk(folder):
            folders[:] = [each for each in folders if self.named(f"{here}/{each}", folder=True)]
            links = (each for each in folders if os.path.islink(f"{here}/{each}"))  # noqa: PTH114
            yield from (f"{here}/{each}" for each in (*files, *links))

    def _admits(self, prefix: str, rest: str, *, folder: bool) -> bool:
        names = rest.split("/")
        for number, name in enumerate(names, 1):
            relative = prefix + "/".join(map(valid_unicode, names[:number]))
            if name.startswith(".") or is_excluded(name, relative, self._exclude):
                return False
        return folder or os.path.splitext(rest)[1].lower() in EXTENSIONS  # noqa: PTH122


def _real(entrance: Entrance) -> str:
    if not _is_file(entrance):
        return os.path.realpath(entrance.path)
    return os.path.join(os.path.realpath(entrance.path.parent), entrance.path.name)  # noqa: PTH118


def _is_file(entrance: Entrance) -> bool:
    return bool(entrance.relative) and not entrance.relative.endswith("/")


def _below(real: str, folder: str) -> bool:
    return real.startswith(folder.rstrip("/") + "/")


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        return identity_of(folder)
    except OSError:
        return None
