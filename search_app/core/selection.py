"""Several chosen pictures at once: their metadata as a table, and their files as one streamed archive."""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from es_config.documents import CONTROLS, paths_of, same_letters, shown_path
from es_config.index import ImageIndex, read_documents
from search_app.core.pictures import Originals
from storage.errors import NoSuchKeyError
from storage.keys import thumbnail_key
from storage.store import Storage, find_original

MOST = 1000
"""pictures that one request may choose"""
PIECE = 256 * 1024
"""bytes that are read from a file at a time"""
LONGEST_NAME = 120
UNSAFE = re.compile(r'[\\/:*?"<>|]')
"""characters that some file systems do not allow in a name"""
COLUMNS = (
    "image_id",
    "path",
    "file",
    "caption",
    "date",
    "camera",
    "latitude",
    "longitude",
    "width",
    "height",
    "size_bytes",
    "keywords",
    "people",
    "favourite",
)
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""first characters of a cell that a spreadsheet would run"""
LEFT_OUT = "left-out.txt"
"""name of the file in an archive that lists the pictures of which nothing is kept"""
FIRST_DAY = (1980, 1, 1, 0, 0, 0)
"""of an archive's clock"""


def read_chosen(index: ImageIndex, image_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the `_source` of those of `image_ids` that exist, in their order, without vectors.

    Raises `EngineError`.
    """
    fields = ["relative_path", "image_name", "caption", "caption_source", "exif", "width", "height"]
    fields += ["size_bytes", "tags", "tags_source", "people", "title", "places", "rating", "favourite"]
    found = read_documents(index.client, index.target, list(dict.fromkeys(image_ids)), fields=fields)
    return {each: found[each]["_source"] for each in dict.fromkeys(image_ids) if each in found}


def as_csv(
    sources: Mapping[str, Mapping[str, Any]], *, files_of: Callable[[str, Mapping[str, Any]], Sequence[str]]
) -> str:
    """Return pictures as comma-separated values with a header, several values in one cell by `; `.

    No cell is a formula to a spreadsheet. `files_of` returns absolute paths.
    """
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(COLUMNS)
    for image_id, source in sources.items():
        exif = source.get("exif") or {}
        latitude, longitude = _point(exif.get("location"))
        values = {
            **source,
            "image_id": image_id,
            "path": "; ".join(paths_of(source)),
            "file": "; ".join(files_of(image_id, source)),
            "date": exif.get("local_date") or exif.get("date"),
            "camera": exif.get("camera"),
            "latitude": latitude,
            "longitude": longitude,
            "keywords": "; ".join(source.get("tags") or ()),
            "people": "; ".join(source.get("people") or ()),
            "favourite": "yes" if source.get("favourite") else "",
        }
        rows.writerow([_cell(values.get(name)) for name in COLUMNS])
    return text.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, str) and value.startswith(FORMULA):
        return f"'{value}"
    return "" if value is None else value


def _point(location: object) -> tuple[float | None, float | None]:
    if isinstance(location, Mapping):
        return location.get("lat"), location.get("lon")
    if isinstance(location, Sequence) and not isinstance(location, str) and len(location) == 2:
        return location[1], location[0]
    return None, None


class Archive:
    """A ZIP archive of chosen pictures, which is made while it is read: an iterator of its bytes.

    Each picture is the file that was ingested, else what the store keeps of it whole, else its thumbnail. No
    more than a piece of a file is in the memory, or one file of the store. It has to be closed.
    """

    def __init__(
        self, sources: Mapping[str, Mapping[str, Any]], *, originals: Originals, storage: Storage
    ) -> None:
        """Take the documents by image id, and where their files may be."""
        self._sources, self._originals, self._storage = sources, originals, storage
        self._pieces = self._made()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        """Return the next piece. Raises as `Originals` and `Storage` do: the archive is then not whole."""
        return next(self._pieces)

    def close(self) -> None:
        """Close the file that is being read, if there is one."""
        with suppress(ValueError):  # a thread reads the next piece, and closes it when it is done
            self._pieces.close()

    def _made(self) -> Generator[bytes]:
        made = _Pipe()
        names: set[str] = {same_letters(LEFT_OUT)}
        left_out: list[str] = []
        with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as archive:
            for image_id, source in self._sources.items():
                found = self._open(image_id, source)
                if found is None:
                    left_out.append(shown_path(source, image_id))
                    continue
                name, stream = found
                entry = zipfile.ZipInfo(_free(name, names), _clock(source))
                entry.external_attr = 0o644 << 16
                with stream, archive.open(entry, "w", force_zip64=True) as target:
                    while piece := stream.read(PIECE):
                        target.write(piece)
                        yield from made.drain()
                yield from made.drain()
            if left_out:
                archive.writestr(LEFT_OUT, "".join(f"{path}\n" for path in left_out))
        yield from made.drain()

    def _open(self, image_id: str, source: Mapping[str, Any]) -> tuple[str, BinaryIO] | None:
        """Return a file name and the open content of a picture, or None where nothing of it is kept."""
        if opened := self._originals.open(image_id, source):
            return opened.name, opened.stream
        path = shown_path(source, image_id)
        stem = PurePosixPath(path).stem
        with suppress(NoSuchKeyError):
            key = find_original(self._storage, image_id, names=[path])
            if key is not None:
                return f"{stem}.{key.rpartition('.')[2]}", io.BytesIO(self._storage.get(key))
        with suppress(NoSuchKeyError):
            return f"{stem}.webp", io.BytesIO(self._storage.get(thumbnail_key(image_id)))
        return None


class _Pipe(io.RawIOBase):
    """A file that is written and drained: `zipfile` writes it from its beginning to its end."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def drain(self) -> Iterator[bytes]:
        """Yield all that was written since, in one piece, if there is anything."""
        if data := b"".join(self._parts):
            self._parts.clear()
            yield data


def _free(name: str, taken: set[str]) -> str:
    """Return a name that every file system takes and that no other file of the archive has."""
    path = PurePosixPath(UNSAFE.sub("_", CONTROLS.sub("_", name)).strip(" .") or "picture")
    stem, suffix = path.stem[:LONGEST_NAME], path.suffix[:10]
    number, free = 1, f"{stem}{suffix}"
    while same_letters(free) in taken:
        number += 1
        free = f"{stem} ({number}){suffix}"
    taken.add(same_letters(free))
    return free


def _clock(source: Mapping[str, Any]) -> tuple[int, int, int, int, int, int]:
    """Return when a picture was taken, as far as an archive can say it."""
    exif = source.get("exif") or {}
    try:
        taken = datetime.fromisoformat(exif.get("local_date") or exif.get("date") or "")
    except ValueError:
        return FIRST_DAY
    if not 1980 <= taken.year <= 2107:
        return FIRST_DAY
    return (taken.year, taken.month, taken.day, taken.hour, taken.minute, taken.second)
