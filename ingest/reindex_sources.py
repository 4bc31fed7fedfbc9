"""Finding the whole picture behind a document: never its thumbnail, and never another content."""

from __future__ import annotations

import os
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from es_config.documents import paths_of
from ingest.errors import UnreadableImageError
from ingest.files.picture import FileContent, ImageFile, decode, read_content
from storage.store import find_original

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ingest.history.ingested_files import Notes
    from storage.store import Storage

NO_LIMIT = 1 << 40
"""pixels; what is in the index was let in before, and is recognised by its content"""


@dataclass(frozen=True, kw_only=True)
class WholePictures:
    """Reads pictures by image id: from where they were ingested, from given folders, from the store.

    Thread-safe. Every method raises `StorageError` when the store cannot be asked.
    """

    notes: Notes | None
    folders: Sequence[Path]
    storage: Storage

    def read(self, image_id: str, source: Mapping) -> tuple[ImageFile, bool]:
        """Return the decoded picture of a document, and whether a copy of it was read.

        Raises `UnreadableImageError` when the picture is nowhere, or cannot be used.
        """
        paths = paths_of(source)
        content, path = self._file(image_id, paths) or self._kept(image_id, paths)
        file = decode(content, path=path, max_pixels=NO_LIMIT)
        return file, content.image_id != image_id

    def _file(self, image_id: str, paths: Sequence[str]) -> tuple[FileContent, Path] | None:
        for path in self._places(image_id, paths):
            try:
                content = read_content(path)
            except (UnreadableImageError, ValueError):  # a path with a null byte is none
                continue
            if content.image_id == image_id:
                return content, path
        return None

    def _places(self, image_id: str, paths: Sequence[str]) -> Iterator[Path]:
        if self.notes:
            yield from (Path(os.fsdecode(note.path)) for note in self.notes.of_image(image_id))
        for folder in self.folders:
            yield from (folder / path for path in paths)

    def _kept(self, image_id: str, paths: Sequence[str]) -> tuple[FileContent, Path]:
        key = find_original(self.storage, image_id, names=paths)
        if key is None:
            raise UnreadableImageError("its file is not where it was, and the store keeps no original")
        data = self.storage.get(key)
        content = FileContent(data, sha256(data).hexdigest())
        if content.image_id != image_id and not key.endswith(".webp"):
            raise UnreadableImageError("its file is not where it was, and the store's original is damaged")
        return content, Path(key)
