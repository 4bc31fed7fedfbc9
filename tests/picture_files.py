"""Builders of good and bad picture files, and a way to be refused by file permissions even as root."""

from __future__ import annotations

import os
import random
import shutil
import struct
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

NOBODY = 65534


@contextmanager
def unprivileged() -> Iterator[Path]:
    """Yield a fresh folder, with root's power over permissions given up until the end."""
    folder = Path(tempfile.mkdtemp(prefix="glimpse-test-"))
    as_root = os.geteuid() == 0
    if as_root:
        os.chown(folder, NOBODY, -1)
        os.seteuid(NOBODY)
    try:
        yield folder
    finally:
        if as_root:
            os.seteuid(0)
        folder.chmod(0o700)
        for path in folder.rglob("*"):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o700)
        shutil.rmtree(folder)


def draw_picture(seed: int, *, size: tuple[int, int] = (160, 120), mode: str = "RGB") -> Image.Image:
    """Draw shapes that no other seed draws."""
    dice = random.Random(seed)
    image = Image.new("RGB", size, tuple(dice.randrange(256) for _ in range(3)))
    pen = ImageDraw.Draw(image)
    for _ in range(6):
        x, y = dice.randrange(size[0]), dice.randrange(size[1])
        corner = (x + dice.randrange(5, 80), y + dice.randrange(5, 80))
        pen.ellipse([(x, y), corner], fill=tuple(dice.randrange(256) for _ in range(3)))
    return image.convert(mode)


def save_picture(path: Path, seed: int, **options: object) -> Path:
    """Write the picture of `seed` in the format of the path's extension."""
    path.parent.mkdir(parents=True, exist_ok=True)
    size = options.pop("size", (160, 120))
    draw_picture(seed, size=size).save(path, **options)
    return path


def png_header(width: int, height: int) -> bytes:
    """Return a PNG that claims a size and holds almost no data."""
    return _png(width, height, bits=8, rows=b"\0" * 1000)


def png_rgb16(values: np.ndarray) -> bytes:
    """Return a PNG of big-endian 16-bit `[height, width, 3]`, which Pillow reads and does not write."""
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    return _png(values.shape[1], values.shape[0], bits=16, rows=rows)


def _png(width: int, height: int, *, bits: int, rows: bytes) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


def ink_profile() -> bytes:
    """Return a colour profile of four inks that prints green wherever there is ink, and white elsewhere."""
    white, green = bytes((255, 128, 128)), bytes((140, 98, 158))  # CIELAB in 8 bits
    inputs = bytes(range(256)) * 4
    outputs = bytes(range(256)) * 3
    identity = struct.pack(">9i", *(65536, 0, 0, 0, 65536, 0, 0, 0, 65536))
    table = b"mft1" + bytes(4) + bytes((4, 3, 2, 0)) + identity + inputs + white + green * 15 + outputs
    text = b"desc" + bytes(4) + struct.pack(">I", 5) + b"inks\0" + bytes(78)
    point = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    tags, data, place = b"", b"", 128 + 4 + 4 * 12
    for name, body in (
        (b"desc", text),
        (b"cprt", b"text" + bytes(4) + b"none\0"),
        (b"wtpt", point),
        (b"A2B0", table),
    ):
        padded = body + bytes(-len(body) % 4)
        tags += name + struct.pack(">II", place + len(data), len(body))
        data += padded
    body = struct.pack(">I", 4) + tags + data
    header = struct.pack(">I4sI4s4s4s", 128 + len(body), bytes(4), 0x02400000, b"prtr", b"CMYK", b"Lab ")
    header += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + body


def truncate(path: Path, share: float = 0.5) -> Path:
    """Cut a file after `share` of its bytes."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path
