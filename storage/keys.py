"""What a key may be: the same rule for every store."""

from __future__ import annotations

from storage.errors import NoSuchKeyError


def key_parts(key: str) -> list[str]:
    """Return the parts of a key; `NoSuchKeyError` for whatever is no plain relative path."""
    parts = key.split("/")
    if "\0" in key or "\\" in key or ":" in parts[0] or any(part in ("", ".", "..") for part in parts):
        raise NoSuchKeyError(f"{key!r} is not a key: a key is a relative path with forward slashes.")
    return parts
