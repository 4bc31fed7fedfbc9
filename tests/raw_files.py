"""Small RAW files as a camera writes them: DNG, which is TIFF with a preview and the sensor's own pixels."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
from PIL import Image

SHORT, LONG, RATIONAL, SIGNED_RATIONAL, BYTE, ASCII = 3, 4, 5, 10, 1, 2
SIZES = {SHORT: "H", LONG: "I", BYTE: "B", ASCII: "B", RATIONAL: "I", SIGNED_RATIONAL: "i"}
RGGB = (0, 1, 1, 2)


def save_dng(
    path: Path, image: Image.Image, *, preview: Image.Image | None = None, orientation: int = 1
) -> Path:
    """Write an RGB picture, of even sides, as a DNG: its pixels behind a Bayer filter, and a JPEG preview."""
    sensor = bayer(np.asarray(image)).tobytes()
    width, height = image.size
    colours = [1, 0, 0, 0, 1, 0, 0, 0, 1]
    raw = {
        254: (LONG, [0]), 256: (LONG, [width]), 257: (LONG, [height]), 258: (SHORT, [16]), 259: (SHORT, [1]),
        262: (SHORT, [32803]), 273: sensor, 277: (SHORT, [1]), 278: (LONG, [height]),
        279: (LONG, [len(sensor)]), 33421: (SHORT, [2, 2]), 33422: (BYTE, RGGB),
        50714: (LONG, [0]), 50717: (LONG, [65535]),
    }  # fmt: skip
    data = io.BytesIO()
    (preview or image.resize((16, 16))).save(data, "JPEG", quality=95)
    shown = data.getvalue()
    size = (preview or image.resize((16, 16))).size
    first = {
        254: (LONG, [1]), 256: (LONG, [size[0]]), 257: (LONG, [size[1]]), 258: (SHORT, [8, 8, 8]),
        259: (SHORT, [7]), 262: (SHORT, [6]), 271: (ASCII, b"Glimpse\0"), 272: (ASCII, b"Drawn\0"),
        273: shown, 274: (SHORT, [orientation]), 277: (SHORT, [3]), 278: (LONG, [size[1]]),
        279: (LONG, [len(shown)]), 330: raw,
        50706: (BYTE, [1, 4, 0, 0]), 50707: (BYTE, [1, 1, 0, 0]), 50708: (ASCII, b"Glimpse Drawn\0"),
        50721: (SIGNED_RATIONAL, [n for each in colours for n in (each, 1)]),
        50728: (RATIONAL, [1, 1, 1, 1, 1, 1]), 50778: (SHORT, [21]),
    }  # fmt: skip
    content = bytearray(struct.pack("<2sHI", b"II", 42, 0))
    place = _write(content, first)
    content[4:8] = struct.pack("<I", place)
    path.write_bytes(content)
    return path


def bayer(pixels: np.ndarray) -> np.ndarray:
    """Return uint16 `[height, width]`: of each pixel the colour that its filter lets through."""
    sensor = np.zeros(pixels.shape[:2], np.uint16)
    for n, colour in enumerate(RGGB):
        sensor[n // 2 :: 2, n % 2 :: 2] = pixels[n // 2 :: 2, n % 2 :: 2, colour].astype(np.uint16) * 257
    return sensor


def _write(content: bytearray, tags: dict) -> int:
    """Append an IFD with the values that its tags point to, and return its offset."""
    entries = []
    for tag, value in sorted(tags.items()):
        if isinstance(value, tuple):
            kind, numbers = value
        else:  # another IFD, or pixels
            place = _write(content, value) if isinstance(value, dict) else _append(content, value)
            kind, numbers = LONG, [place]
        packed = struct.pack(f"<{len(numbers)}{SIZES[kind]}", *numbers)
        count = len(numbers) // 2 if kind in (RATIONAL, SIGNED_RATIONAL) else len(numbers)
        field = packed.ljust(4, b"\0") if len(packed) <= 4 else struct.pack("<I", _append(content, packed))
        entries.append(struct.pack("<HHI4s", tag, kind, count, field))
    return _append(content, struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4))


def _append(content: bytearray, data: bytes) -> int:
    content += bytes(len(content) % 2)
    place = len(content)
    content += data
    return place
