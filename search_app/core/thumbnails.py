"""Thumbnails of the store, and smaller ones that are drawn from them when they are asked for."""

from __future__ import annotations

import io
from collections import OrderedDict
from threading import Lock

from PIL import Image

from storage.keys import thumbnail_key
from storage.store import Storage

EDGES = (192, 320)
"""pixels of the longer edge of the smaller ones; the stored one has 512"""
ROOM = 32_000_000
"""bytes of drawn thumbnails that are kept in memory: some 4 000"""


class Thumbnails:
    """Gives thumbnails in several sizes. Thread-safe, with bounded memory."""

    def __init__(self, storage: Storage, *, room: int = ROOM) -> None:
        self._storage, self._room = storage, room
        self._drawn: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._size = 0
        self._lock = Lock()

    def get(self, image_id: str, edge: int | None = None) -> bytes:
        """Return the WebP of a picture, its longer edge at most `edge`, one of `EDGES`, or as it is stored.

        Raises `NoSuchKeyError` and `StorageError` as the store does.
        """
        if edge is None:
            return self._storage.get(thumbnail_key(image_id))
        key = (image_id, edge)
        with self._lock:
            known = self._drawn.get(key)
            if known is not None:
                self._drawn.move_to_end(key)
        # One that was deleted, by whichever program, must not outlive its file here.
        if known is not None and self._storage.exists(thumbnail_key(image_id)):
            return known
        drawn = reduced(self._storage.get(thumbnail_key(image_id)), edge)
        self._keep(key, drawn)
        return drawn

    def _keep(self, key: tuple[str, int], drawn: bytes) -> None:
        with self._lock:
            self._size += len(drawn) - len(self._drawn.get(key, b""))
            self._drawn[key] = drawn
            while self._size > self._room:
                self._size -= len(self._drawn.popitem(last=False)[1])


def reduced(data: bytes, edge: int) -> bytes:
    """Return a stored thumbnail with a longer edge of at most `edge` pixels, or as it is if it is damaged."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            if max(image.size) <= edge:
                return data
            image.thumbnail((edge, edge), Image.Resampling.BICUBIC)
            written = io.BytesIO()
            image.save(written, "WEBP", quality=77, method=0)
    except (OSError, ValueError):  # damaged in the store: the browser says so where it is shown
        return data
    return written.getvalue()
