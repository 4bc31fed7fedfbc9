"""Damaged pictures of every format. `python tests/fuzz_reader.py 300` looks for five minutes.

`python tests/fuzz_reader.py 300 metadata` damages EXIF, XMP and the texts of a PNG alone, which is faster.
"""

from __future__ import annotations

import io
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

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


ANYTHING = st.one_of(
    st.none(),
    st.integers(-(2**31), 2**31),
    st.floats(),
    st.text(max_size=40),
    st.binary(max_size=40),
    st.from_regex(r"\d{1,4}[:/. -]\d{1,4}[:/. -]\d{1,4}[T ]?\d{0,2}:?\d{0,2}:?\d{0,2}[+-]?\d{0,2}:?\d{0,4}"),
    st.lists(st.one_of(st.integers(-10, 10**9), st.floats()), max_size=4).map(tuple),
)
"""values that a damaged file may give to any tag"""


@st.composite
def metadata(draw: st.DrawFn) -> Image.Image:
    """Return a picture whose EXIF, XMP and PNG texts hold anything."""
    from ingest.files.metadata import properties

    image = Image.new("RGB", (1, 1))
    image.format = "PNG"
    exif = image.getexif()
    for folder, tags in (
        (None, (270, 271, 272, 306, 18246, 40091, 40092, 40094, 40095)),
        (0x8769, (36867, 36868, 36880, 36881, 36882, 37510)),
        (0x8825, (1, 2, 3, 4, 7, 29)),
    ):
        place = exif if folder is None else exif.get_ifd(folder)
        place.update({tag: draw(ANYTHING) for tag in tags if draw(st.booleans())})
    for name in ("Title", "Description", "Comment", "parameters", "Creation Time"):
        image.info[name] = draw(ANYTHING)
    parts = ["<rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'>"]
    for name in draw(st.lists(st.sampled_from(sorted(properties())), max_size=8)):
        space, local = name.split(" ")
        value = draw(st.one_of(st.text(max_size=40), ANYTHING.map(str)))
        parts.append(f"<x:{local} xmlns:x='{space}'><rdf:li>{value}</rdf:li></x:{local}>")
    packet = bytearray("".join([*parts, "</rdf:RDF>"]).encode(errors="replace"))
    if draw(st.booleans()):
        del packet[draw(st.integers(0, len(packet))) :]
    image.info["xmp"] = bytes(packet)
    return image


def check_metadata(image: Image.Image) -> str | None:
    """Read metadata as ingest does, to a document that the index takes: sound values or none."""
    import math

    from es_config.documents import local_fields, name_fields
    from ingest.files.metadata import metadata_of

    begin = time.process_time()
    facts, words = metadata_of(image, image.getexif())
    assert time.process_time() - begin < SLOWEST_S
    if facts.taken:
        assert local_fields(facts.taken.instant.isoformat())["local_date"] == facts.taken.local.isoformat()
    if facts.location:
        assert all(map(math.isfinite, facts.location))
    texts = [facts.camera, facts.description, words.title, *words.tags, *words.people, *words.places]
    assert all(text.isprintable() and text for text in texts if text is not None)
    assert words.rating in (None, 1, 2, 3, 4, 5)
    named = {"relative_path": "a/b.jpg", "tags": words.tags, "people": words.people, "title": words.title}
    assert name_fields(named)["names"]["path"] == ["a/b.jpg", "b.jpg"]
    return None if facts.taken else "no date"


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
    assert len(picture.words.tags) <= 100
    assert thumbnail(picture.image)
    return None


def main(seconds: float, kind: str = "pictures") -> None:
    """Look for `seconds`, and say how many files were tried and how many were pictures still."""
    end = time.monotonic() + seconds
    tried = {"pictures": 0, "reasons": 0}

    @settings(max_examples=500, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(metadata() if kind == "metadata" else damaged())
    def look(data: Any) -> None:
        reason = check_metadata(data) if kind == "metadata" else check(data)
        tried["reasons" if reason else "pictures"] += 1

    while time.monotonic() < end:
        look()
    print(tried)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    main(float(sys.argv[1]), *sys.argv[2:])
