"""Damaged pictures of every format. `python tests/fuzz_reader.py 300` looks for five minutes."""

from __future__ import annotations

import io
import sys
import time
from functools import cache
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from picture_files import draw_picture, ink_profile, png_rgb16
from PIL import Image

SLOWEST_S = 10.0
"""of the processor's time: a busy machine is no slow reader"""
MAX_PIXELS = 10_000_000
XMP = b'<x xmlns:d="http://purl.org/dc/elements/1.1/"><d:subject><li>boat</li></d:subject></x>'


@cache
def seeds() -> dict[str, bytes]:
    """Return a small file of every kind that the reader knows, with metadata where the format holds it."""
    import numpy as np

    from models.pixels import register_formats

    register_formats()
    tags = Image.Exif()
    tags.update({270: "A boat", 271: "Canon", 274: 6, 306: "2021:06:30 23:15:08"})
    tags.get_ifd(0x8825).update({1: "N", 2: (48.0, 51.0, 0.0), 3: "E", 4: (2.0, 20.0, 0.0)})
    one, two = (draw_picture(seed, size=(48, 32)) for seed in (1, 2))
    both = {"exif": tags.tobytes(), "xmp": XMP}
    moving = {"save_all": True, "append_images": [two]}
    kinds = {
        "plain.jpg": (one, "JPEG", both),
        "progressive.jpg": (one, "JPEG", {"progressive": True, "quality": 20}),
        "inks.jpg": (one.convert("CMYK"), "JPEG", {"icc_profile": ink_profile()}),
        "several.mpo": (one, "MPO", moving),
        "plain.png": (one, "PNG", {"exif": tags.tobytes()}),
        "palette.png": (one.convert("RGBA").quantize(16), "PNG", {}),
        "grey16.png": (Image.fromarray(np.full((32, 48), 40_000, np.uint16)), "PNG", {}),
        "moving.png": (one, "PNG", moving),
        "plain.webp": (one, "WEBP", both),
        "moving.webp": (one, "WEBP", moving),
        "moving.gif": (one, "GIF", moving),
        "plain.bmp": (one, "BMP", {}),
        "plain.tif": (one, "TIFF", {"exif": tags.tobytes(), "tiffinfo": {700: XMP}}),
        "packed.tif": (one, "TIFF", {"compression": "tiff_lzw"}),
        "jpeg.tif": (one, "TIFF", {"compression": "jpeg"}),
        "float.tif": (Image.fromarray(np.ones((32, 48), np.float32)), "TIFF", {}),
        "plain.heic": (one, "HEIF", both),
        "plain.avif": (one, "AVIF", both),
    }
    made = {"deep.png": png_rgb16(np.asarray(one).astype(">u2") * 257)}
    for name, (image, kind, options) in kinds.items():
        memory = io.BytesIO()
        image.save(memory, kind, **options)
        made[name] = memory.getvalue()
    return made


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Return the bytes of a seed after a few accidents."""
    data = bytearray(seeds()[draw(st.sampled_from(sorted(seeds())))])
    for _ in range(draw(st.integers(1, 6))):
        # Headers and metadata come first, and there an accident does the most.
        place = draw(st.one_of(st.integers(0, min(600, len(data))), st.integers(0, len(data))))
        length = draw(st.integers(0, 40))
        accident = draw(st.sampled_from(["flip", "set", "word", "cut", "drop", "double", "insert"]))
        if accident == "flip" and place < len(data):
            data[place] ^= 1 << draw(st.integers(0, 7))
        elif accident == "set" and place < len(data):
            data[place] = draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]))
        elif accident == "word":
            data[place : place + 4] = draw(
                st.sampled_from([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\0\0\0\1"])
            )
        elif accident == "cut":
            del data[place:]
        elif accident == "drop":
            del data[place : place + length]
        elif accident == "double":
            data[place:place] = data[place : place + length]
        elif accident == "insert":
            data[place:place] = draw(st.binary(max_size=40))
    return bytes(data)


def check(data: bytes) -> str | None:
    """Read bytes as ingest does: a picture (None) or the reason why not, soon, and nothing else."""
    from ingest.errors import UnreadableImageError
    from ingest.files.picture import FileContent, decode, pixel_limit, thumbnail

    begin = time.process_time()
    try:
        with pixel_limit(MAX_PIXELS):
            picture = decode(FileContent(data, "0" * 64), path=None, max_pixels=MAX_PIXELS)
    except UnreadableImageError as error:
        reason = str(error)
        assert reason
        assert reason.isprintable()
        return reason
    finally:
        assert time.process_time() - begin < SLOWEST_S
    assert picture.image.mode == "RGB"
    assert 0 < picture.image.width * picture.image.height <= MAX_PIXELS
    assert len(picture.phash) == 16
    assert len(picture.tags) <= 100
    assert thumbnail(picture.image)
    return None


def main(seconds: float) -> None:
    """Look for `seconds`, and say how many files were tried and how many were pictures still."""
    end = time.monotonic() + seconds
    tried = {"pictures": 0, "reasons": 0}

    @settings(max_examples=500, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(damaged())
    def look(data: bytes) -> None:
        tried["reasons" if check(data) else "pictures"] += 1

    while time.monotonic() < end:
        look()
    print(tried)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    main(float(sys.argv[1]))
