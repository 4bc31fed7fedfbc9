"""Bound the time and the memory of one picture, and of all pictures at once."""

from __future__ import annotations

import ctypes
import re
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from PIL.Image import Image

from models.pixels import MAX_PIXELS, MAX_REQUEST_PIXELS, PictureError, draft_factor

EXPANDING = ("WEBP", "PNG", "GIF")
"""formats that store a picture of one colour in some dozen bytes, however large it is"""
MAX_SCANS = 100
"""of a JPEG: an encoder writes about ten, and each costs the time of all pixels"""
MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")
"""of a JPEG, except those without a length between compressed data"""
SEQUENTIAL = (0xC0, 0xC1)
END_OF_IMAGE, START_OF_SCAN, WITHOUT_LENGTH = 0xD9, 0xDA, (0x01, 0xD8)
PLAIN_TIFF = ("raw", "packbits", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "zstd", "group3", "group4")
"""compressions of TIFF whose time follows from the number of pixels"""
DEAR_PIXELS, DEAR_JPEG = 16_000_000, 400_000_000
"""pixels, and of a JPEG pixels times scans, from which on a picture is decoded in a process of its own"""
MEGABYTE = 1 << 20


class NoRoomError(Exception):
    """The budget is used up, and as many wait for room as may."""


class Budget:
    """A weighted semaphore: bytes that all pictures under way may take together, first come, first served.

    `waiting` threads may wait for room, each at most `seconds`. None means without a bound. A picture counts
    at least `least`, and one that is larger than the budget takes all of it.
    """

    def __init__(
        self, size: int, *, least: int = 0, waiting: int | None = None, seconds: float | None = None
    ) -> None:
        self._size, self._least, self._waiting, self._seconds = size, least, waiting, seconds
        self._free = size
        self._line: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def room(self, weight: int) -> Iterator[None]:
        """Wait for room and hold it. Raises `NoRoomError`."""
        weight = min(max(weight, self._least), self._size)
        with self._changed:
            self._wait(weight)
            self._free -= weight
        try:
            yield
        finally:
            with self._changed:
                self._free += weight
                self._changed.notify_all()

    def _wait(self, weight: int) -> None:
        if not self._line and self._free >= weight:
            return
        if self._waiting is not None and len(self._line) >= self._waiting:
            raise NoRoomError
        ticket = object()
        self._line.append(ticket)
        try:
            if not self._changed.wait_for(
                lambda: self._line[0] is ticket and self._free >= weight, self._seconds
            ):
                raise NoRoomError
        finally:
            self._line.remove(ticket)
            self._changed.notify_all()


@dataclass(frozen=True)
class Limits:
    """The limits of one picture, and the budget that it shares with others."""

    pixels: int
    expanding_pixels: int
    """of the formats in `EXPANDING`"""
    side: int
    seconds: float
    """for decoding, where that is done in a process of its own"""
    always_apart: bool
    """whether every picture is decoded there, or only one that looks dear"""
    budget: Budget

    def check(self, image: Image, data: bytes) -> None:
        """Raise `PictureError` when an opened picture is over a limit. `data` is the file's content."""
        pixels, limit = image.width * image.height, self.pixels
        if image.format in EXPANDING:
            limit = min(limit, self.expanding_pixels)
        if pixels > limit:
            raise PictureError("too many pixels", pixels=pixels, limit=limit)
        if max(image.size) > self.side:
            raise PictureError(f"a side of {max(image.size)} pixels is over the limit of {self.side}")
        if scans_of(image, data) > MAX_SCANS:
            raise PictureError(f"a JPEG of more than {MAX_SCANS} scans; save it again with another program")

    def is_apart(self, image: Image, data: bytes) -> bool:
        """Return whether an opened picture is decoded in a process of its own."""
        return self.always_apart or is_dear(image, data)


FILES = Limits(
    pixels=MAX_PIXELS,
    expanding_pixels=MAX_PIXELS,
    side=65_535,
    seconds=60,
    always_apart=False,
    budget=Budget(4096 * MEGABYTE),
)
"""of files in folders, for --max-pixels moves the first two"""
REQUESTS = Limits(
    pixels=MAX_REQUEST_PIXELS,
    expanding_pixels=MAX_REQUEST_PIXELS // 2,
    side=30_000,
    seconds=15,
    always_apart=True,
    budget=Budget(900 * MEGABYTE, least=100 * MEGABYTE, waiting=24, seconds=20),
)
"""of pictures that requests bring, to search with and to add: the budget is that of the whole server"""


def scans_of(image: Image, data: bytes) -> int:
    """Return the number of scans of an opened JPEG, about, and 1 for other formats."""
    if image.format not in ("JPEG", "MPO"):
        return 1
    scans = image.info.get("scans")
    if not isinstance(scans, int):
        # Previews in the metadata have scans, too, and what follows the picture: this is never too low.
        scans = 1 if has_one_scan(data) else data.count(b"\xff\xda")
        image.info["scans"] = scans = count_scans(data) if scans > MAX_SCANS else scans
    return scans


def has_one_scan(data: bytes) -> bool:
    """Return whether a JPEG has only one scan, by its header: that takes no time however long the file is."""
    position = components = 0
    for _ in range(1_000):
        match = MARKER.search(data, position)
        if match is None:
            return False
        marker, position = match[1][0], match.end()
        if marker in SEQUENTIAL:
            components = int.from_bytes(data[position + 7 : position + 8], "big")
        elif marker == START_OF_SCAN:
            return data[position + 2 : position + 3] == bytes([components]) != b"\0"
        if marker not in WITHOUT_LENGTH:
            position += max(2, int.from_bytes(data[position : position + 2], "big"))
    return False


def count_scans(data: bytes) -> int:
    """Return the scans of a JPEG by walking its segments, or `MAX_SCANS` + 1 when it has more."""
    position = scans = 0
    while scans <= MAX_SCANS and (match := MARKER.search(data, position)):
        marker, position = match[1][0], match.end()
        if marker == END_OF_IMAGE:
            break
        if marker in WITHOUT_LENGTH:
            continue
        scans += marker == START_OF_SCAN
        position += max(2, int.from_bytes(data[position : position + 2], "big"))
    return scans


def is_dear(image: Image, data: bytes) -> bool:
    """Return whether the header of an opened picture promises no short time of decoding."""
    pixels = image.width * image.height
    if image.format in ("JPEG", "MPO"):
        return pixels * scans_of(image, data) > DEAR_JPEG
    if image.format in ("HEIF", "AVIF"):  # what is inside may be larger than the header says
        return True
    if image.format == "TIFF" and image.info.get("compression") not in PLAIN_TIFF:
        return True
    return pixels > DEAR_PIXELS


def memory_of(image: Image, data: bytes) -> int:
    """Return about how many bytes it takes to decode an opened picture, by its header."""
    pixels = image.width * image.height
    if image.format in ("JPEG", "MPO"):
        each = 6 if scans_of(image, data) > 3 else 0
        if image.mode in ("RGB", "L"):
            return pixels * each + 8 * pixels // min(draft_factor(image), 8) ** 2
        return pixels * (each + 12)
    if image.format == "WEBP":
        return pixels * 20
    if image.format in ("HEIF", "AVIF"):
        return pixels * 12
    return pixels * (6 if image.mode in ("RGB", "L", "1") and not image.has_transparency_data else 16)


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
"""names of glibc's malloc.h"""
ARENAS = 2


def give_memory_back() -> None:
    """Tell glibc to give large blocks back to the system as soon as they are free.

    Otherwise each thread that decodes keeps the memory of its largest picture. To be called before threads
    start. Other C libraries are left as they are.
    """
    if sys.platform != "linux":
        return
    with suppress(OSError, AttributeError):  # musl has no mallopt
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, 8 * MEGABYTE)
        mallopt(M_TRIM_THRESHOLD, 64 * MEGABYTE)  # with less, each picture costs 6 % more
        mallopt(M_ARENA_MAX, ARENAS)
