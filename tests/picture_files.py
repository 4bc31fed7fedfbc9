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


def xmp_keywords(*words: str) -> bytes:
    """Return an XMP sidecar with keywords."""
    spaces = (
        'xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"'
    )
    items = "".join(f"<rdf:li>{word}</rdf:li>" for word in words)
    return (
        f"<rdf:RDF {spaces}><rdf:Description><dc:subject><rdf:Bag>{items}</rdf:Bag></dc:subject>"
        "</rdf:Description></rdf:RDF>"
    ).encode()


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
    rights = b"text" + bytes(4) + b"none\0"
    tags = [(b"desc", text), (b"cprt", rights), (b"wtpt", point), (b"A2B0", table)]
    return _profile(b"prtr", b"CMYK", b"Lab ", tags)


def tiff_of_planes(width: int, height: int, data: bytes, *, bits: int, sample_format: int) -> bytes:
    """Return a TIFF of three planes one behind the other, uncompressed, in little-endian samples."""
    shorts, longs, end = 3, 4, 8 + 2 + 12 * 11 + 4
    size = len(data) // 3
    extra = struct.pack("<3H", bits, bits, bits) + struct.pack("<3H", *[sample_format] * 3)
    strips = struct.pack("<3I", *(end + 36 + size * plane for plane in range(3)))
    entries = [
        (256, longs, 1, width),
        (257, longs, 1, height),
        (258, shorts, 3, end),
        (259, shorts, 1, 1),
        (262, shorts, 1, 2),
        (273, longs, 3, end + 12),
        (277, shorts, 1, 3),
        (278, longs, 1, height),
        (279, longs, 3, end + 24),
        (284, shorts, 1, 2),
        (339, shorts, 3, end + 6),
    ]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *each) for each in entries)
    counts = struct.pack("<3I", size, size, size)
    return b"II*\0" + struct.pack("<I", 8) + directory + bytes(4) + extra + strips + counts + data


def truncate(path: Path, share: float = 0.5) -> Path:
    """Cut a file after `share` of its bytes."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


WIDE_COLOURS = {
    "Display P3": (
        2.2,
        (0.51512, 0.24120, -0.00105),
        (0.29198, 0.69225, 0.04189),
        (0.15710, 0.06657, 0.78407),
    ),
    "Adobe RGB": (2.2, (0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)),
    "ProPhoto RGB": (1.8, (0.79767, 0.28804, 0.0), (0.13519, 0.71188, 0.0), (0.03134, 0.00008, 0.82491)),
}
"""exponent of the curve, and red, green and blue in CIEXYZ adapted to D50, from the specifications"""


def rgb_profile(name: str, *, swapped: bool = False) -> bytes:
    """Return the colour profile of one of `WIDE_COLOURS`, with red and green exchanged if `swapped`."""
    gamma, red, green, blue = WIDE_COLOURS[name]
    if swapped:
        red, green = green, red

    def xyz(*values: float) -> bytes:
        return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(value * 65536) for value in values))

    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256))
    tags = [
        (b"desc", b"desc" + bytes(4) + struct.pack(">I", 5) + b"wide\0" + bytes(78)),
        (b"cprt", b"text" + bytes(4) + b"none\0"),
        (b"wtpt", xyz(0.9642, 1.0, 0.8249)),
        (b"rXYZ", xyz(*red)),
        (b"gXYZ", xyz(*green)),
        (b"bXYZ", xyz(*blue)),
        *((name, curve) for name in (b"rTRC", b"gTRC", b"bTRC")),
    ]
    return _profile(b"mntr", b"RGB ", b"XYZ ", tags)


def _profile(kind: bytes, colours: bytes, connection: bytes, tags: list[tuple[bytes, bytes]]) -> bytes:
    table, data, place = b"", b"", 128 + 4 + 4 * 3 * len(tags)
    for name, body in tags:
        table += name + struct.pack(">II", place + len(data), len(body))
        data += body + bytes(-len(body) % 4)
    body = struct.pack(">I", len(tags)) + table + data
    header = struct.pack(">I4sI4s4s4s", 128 + len(body), bytes(4), 0x02400000, kind, colours, connection)
    header += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + body
