"""The folders of a watch as disks come and go."""

from __future__ import annotations

import os
from pathlib import Path


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


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(folder)  # noqa: PTH116
    except OSError:
        return None
    return status.st_dev, status.st_ino
