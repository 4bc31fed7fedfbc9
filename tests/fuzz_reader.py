"""Damaged pictures of every format. `python tests/fuzz_reader.py 300` looks for five minutes.

`python tests/fuzz_reader.py 300 metadata` damages EXIF, XMP and the texts of a PNG alone, which is faster,
and `python tests/fuzz_reader.py 300 sidecars` the files beside a picture.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from picture_files import draw_picture, ink_profile, png_rgb16
from PIL import Image

if TYPE_CHECKING:
    from ingest.files.metadata import CameraData, Words

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
    from ingest.files.metadata import metadata_of

    begin = time.process_time()
    facts, words = metadata_of(image, image.getexif())
    assert time.process_time() - begin < SLOWEST_S
    _assert_sound(facts, words)
    return None if facts.taken else "no date"


def _assert_sound(facts: CameraData, words: Words) -> None:
    import math

    from es_config.documents import local_fields, name_fields

    if facts.taken:
        assert local_fields(facts.taken.instant.isoformat())["local_date"] == facts.taken.local.isoformat()
    if facts.location:
        assert all(map(math.isfinite, facts.location))
    texts = [facts.camera, facts.description, words.title, *words.tags, *words.people, *words.places]
    assert all(text.isprintable() and text for text in texts if text is not None)
    assert words.rating in (None, 1, 2, 3, 4, 5)
    named = {"relative_path": "a/b.jpg", "tags": words.tags, "people": words.people, "title": words.title}
    assert name_fields(named)["names"]["path"] == ["a/b.jpg", "b.jpg"]


SIDECARS = {
    ".xmp": [
        b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
        <rdf:Description xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:exif="http://ns.adobe.com/exif/1.0/"
        xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="4"
        exif:DateTimeOriginal="2011-02-03T04:05:06+02:00" exif:GPSLatitude="47,30.5N"
        exif:GPSLongitude="8,30.25E" xmp:CreateDate="2011:02:03">
        <dc:subject><rdf:Bag><rdf:li>boat</rdf:li><rdf:li>Z\xc3\xbcrich</rdf:li></rdf:Bag></dc:subject>
        <dc:description><rdf:Alt><rdf:li xml:lang="x-default">On the pier</rdf:li></rdf:Alt></dc:description>
        </rdf:Description></rdf:RDF></x:xmpmeta>""",
        b'<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]>' + XMP.replace(b"boat", b"&b;"),
        XMP.decode().encode("utf-16"),
    ],
    ".json": [
        b"""{"title": "x.jpg", "description": "typed by hand", "photoTakenTime": {"timestamp": "1060699034"},
        "geoData": {"latitude": 48.5, "longitude": 9.5}, "geoDataExif": {"latitude": 0.0, "longitude": 0.0},
        "people": [{"name": "Ada Example"}, {}]}""",
        b'{"photoTakenTime": {"timestamp": 1e400}, "people": "x", "geoData": [], "description": "\\ud800"}',
        b"[[[[{}]]]]",
    ],
}
PIECES = [b"<", b">", b"</rdf:li>", b"&#0;", b"&a;", b"<![CDATA[", b"-" * 40, b"1" * 5000, b"\\u0000", b"NaN"]
PIECES += [
    b"[" * 3000,
    b"<a>" * 3000,
    b"\xff\xfe",
    b'"',
    b"null",
    b"1e999",
    b"\xed\xa0\x80",
    b"0001-01-01T00:00:00",
]


@st.composite
def sidecar(draw: st.DrawFn) -> tuple[str, bytes]:
    """Return the extension and the content of a sidecar after a few accidents."""
    extension = draw(st.sampled_from(sorted(SIDECARS)))
    data = bytearray(draw(st.sampled_from(SIDECARS[extension])))
    for _ in range(draw(st.integers(0, 6))):
        place, length = draw(st.integers(0, len(data))), draw(st.integers(0, 40))
        accident = draw(st.sampled_from(["flip", "cut", "drop", "double", "insert", "piece"]))
        if accident == "flip" and place < len(data):
            data[place] ^= 1 << draw(st.integers(0, 7))
        elif accident == "cut":
            del data[place:]
        elif accident == "drop":
            del data[place : place + length]
        elif accident == "double":
            data[place:place] = data[place : place + length]
        elif accident == "insert":
            data[place:place] = draw(st.one_of(st.binary(max_size=20), st.text(max_size=20).map(_utf8)))
        elif accident == "piece":
            data[place:place] = draw(st.sampled_from(PIECES))
    return extension, bytes(data)


def _utf8(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def check_sidecar(found: tuple[str, bytes]) -> str | None:
    """Join a sidecar with a picture as ingest does: sound values or a fault in words, soon."""
    from ingest.errors import Fault
    from ingest.files.metadata import CameraData, Words, camera_data
    from ingest.files.sidecars import joined, parse_takeout, parse_xmp_sidecar

    extension, data = found
    begin = time.process_time()
    facts = (parse_xmp_sidecar if extension == ".xmp" else parse_takeout)(data)
    assert time.process_time() - begin < SLOWEST_S
    if isinstance(facts, Fault):
        assert facts.lasting
        assert facts.reason.isprintable()
        return facts.reason
    tags = Image.Exif()
    tags.get_ifd(0x8769).update({36867: "2003:08:12 16:37:14"})
    for exif in (camera_data(tags), CameraData()):
        _assert_sound(*joined(exif, Words(tags=("own",)), facts))
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
    targets: dict[str, tuple[Callable[[], st.SearchStrategy[Any]], Callable[[Any], str | None]]] = {
        "pictures": (damaged, check),
        "metadata": (metadata, check_metadata),
        "sidecars": (sidecar, check_sidecar),
    }
    inputs, look_at = targets[kind]

    @settings(max_examples=500, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(inputs())
    def look(data: Any) -> None:
        reason = look_at(data)
        tried["reasons" if reason else "pictures"] += 1

    while time.monotonic() < end:
        look()
    print(tried)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    main(float(sys.argv[1]), *sys.argv[2:])
