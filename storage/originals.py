"""Finding the whole picture that a store may hold of an image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage.store import ORIGINAL_TYPES, original_key

if TYPE_CHECKING:
    from collections.abc import Iterable

    from storage.store import Storage

ALIASES = {"jpeg": "jpg", "jpe": "jpg", "tif": "tiff", "heif": "heic", "hif": "heic"}


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
