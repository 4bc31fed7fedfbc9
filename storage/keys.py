"""The keys under which Glimpse keeps bytes, and the files they stand for."""

from __future__ import annotations

import re

from storage.errors import NoSuchKeyError

IMAGE_ID = re.compile(r"[0-9a-f]{64}")
UPLOADS = "uploads/"
"""beginning of the relative path of an uploaded picture, before its safe file name"""
ORIGINAL_TYPES = {
    "jpg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "gif": "image/gif",
    "bmp": "image/bmp",
    "tiff": "image/tiff",
    "heic": "image/heic",
    "avif": "image/avif",
    "jxl": "image/jxl",
}
"""extensions of the originals that are kept, with their media types: none that a browser would run"""
ALIASES = {"jpeg": "jpg", "jpe": "jpg", "tif": "tiff", "heif": "heic", "hif": "heic"}


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


def media_type(key: str) -> str:
    """Return the media type of a key, by its extension, or that of bytes for any other."""
    return ORIGINAL_TYPES.get(key.rpartition(".")[2], "application/octet-stream")


def key_parts(key: str) -> list[str]:
    """Return the parts of a key. Raises `NoSuchKeyError` for anything but a plain relative path."""
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
