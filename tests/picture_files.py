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

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


def truncate(path: Path, share: float = 0.5) -> Path:
    """Cut a file after `share` of its bytes."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path
