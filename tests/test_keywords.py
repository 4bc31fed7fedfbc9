"""Keywords and descriptions that people wrote with their photo software become tags and captions."""

from __future__ import annotations

import io
import struct

import pytest
from cost import processor_s
from hypothesis import given, settings
from hypothesis import strategies as st
from picture_files import draw_picture
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ingest.files.metadata import Words, clean_tags, words_of
from ingest.files.picture import read_image
from models.pixels import register_formats

PACKET = """<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:other="http://example.org/">
<dc:subject><rdf:Bag>{tags}</rdf:Bag></dc:subject>
<dc:description><rdf:Alt><rdf:li xml:lang="x-default">{description}</rdf:li></rdf:Alt></dc:description>
<dc:creator><rdf:Seq><rdf:li>Nobody</rdf:li></rdf:Seq></dc:creator>
<other:subject><rdf:Bag><rdf:li>not this</rdf:li></rdf:Bag></other:subject>
</rdf:Description></rdf:RDF></x:xmpmeta>
<?xpacket end="w"?>"""
BILLION_LAUGHS = """<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "ha">{entities}]>
<dc:subject xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:li>&z;</rdf:li></dc:subject>"""


def packet(*tags: str, description: str = "") -> bytes:
    """Return an XMP packet as photo software writes it."""
    items = "".join(f"<rdf:li>{tag}</rdf:li>" for tag in tags)
    return PACKET.format(tags=items, description=description).encode()


def said(xmp: bytes) -> Words:
    """Return the metadata of a picture that carries only this packet."""
    image = Image.new("RGB", (1, 1))
    image.info["xmp"] = xmp
    return words_of(image)


def iptc_jpeg(*records: tuple[int, int, bytes]) -> bytes:
    """Return a JPEG whose APP13 segment holds IPTC records."""
    body = b"".join(
        struct.pack(">BBBH", 0x1C, record, dataset, len(data)) + data for record, dataset, data in records
    )
    resource = b"8BIM" + struct.pack(">HHI", 0x0404, 0, len(body)) + body + b"\0" * (len(body) % 2)
    segment = b"Photoshop 3.0\0" + resource
    memory = io.BytesIO()
    draw_picture(1).save(memory, "JPEG")
    data = memory.getvalue()
    return data[:2] + b"\xff\xed" + struct.pack(">H", len(segment) + 2) + segment + data[2:]


@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "tif", "heic", "avif"])
def test_keywords_of_xmp_are_read_from_every_format_that_holds_them(tmp_path, extension):
    register_formats()
    xmp = packet("boat", "Grüße", description="A walk on the pier")
    options = {"tif": {"tiffinfo": {700: xmp}}, "png": {"pnginfo": PngInfo()}}.get(extension, {"xmp": xmp})
    if extension == "png":
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", xmp.decode())
    draw_picture(1).save(tmp_path / f"x.{extension}", **options)
    picture = read_image(tmp_path / f"x.{extension}")
    assert picture.words.tags == ("boat", "Grüße")
    assert picture.exif.description == "A walk on the pier"


def test_keywords_of_iptc_are_read_in_utf8_and_in_latin_1(tmp_path):
    records = [(2, 25, "Köln".encode()), (2, 25, "Nürnberg".encode("latin-1")), (2, 120, b"On the pier")]
    (tmp_path / "x.jpg").write_bytes(iptc_jpeg(*records))
    picture = read_image(tmp_path / "x.jpg")
    assert picture.words.tags == ("Köln", "Nürnberg")
    assert picture.exif.description == "On the pier"


def test_what_exif_says_comes_before_what_xmp_says_and_boilerplate_is_no_description(tmp_path):
    for name, in_exif, expected in (
        ("a", "From EXIF", "From EXIF"),
        ("b", "OLYMPUS DIGITAL CAMERA", "From XMP"),
    ):
        tags = Image.Exif()
        tags[270] = in_exif
        draw_picture(1).save(tmp_path / name, "JPEG", exif=tags, xmp=packet("x", description="From XMP"))
        assert read_image(tmp_path / name).exif.description == expected
    assert said(packet(description="DSC_0042")).description is None


def test_tags_are_cleaned_counted_and_named_once():
    assert clean_tags(["  Boat ", "boat", "a\nb\x1b[31m", "", "\0", None, 7]) == ("Boat", "a b [31m", "7")
    many = clean_tags(f"{number} " + "x" * 200 for number in range(1000))
    assert len(many) == 100
    assert max(map(len, many)) == 100


def test_descriptions_in_the_short_form_are_read():
    short = b"""<rdf:Description xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"
        xmlns:dc="http://purl.org/dc/elements/1.1/" dc:description="In short"/>"""
    assert said(short) == Words((), "In short")


def test_a_packet_that_defines_entities_is_not_read_and_takes_no_time():
    entities = "".join(f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 50}">' for n in range(25))
    outside = '<!ENTITY z SYSTEM "file:///etc/passwd">'

    def read_both() -> None:
        for each in (entities, outside):
            assert said(BILLION_LAUGHS.format(entities=each).encode()) == Words()

    assert processor_s(read_both) < 0.5


def test_a_damaged_packet_says_what_it_can_and_a_huge_one_nothing():
    assert said(packet("boat", "house")[:500]).tags in ((), ("boat",), ("boat", "house"))
    assert said(b"\xff\xfe\0<") == Words()
    assert said(packet("boat") + b" " * (4 << 20)) == Words()


def test_damaged_iptc_does_not_cost_the_picture(tmp_path):
    for place in range(32, 51):  # the two records
        data = bytearray(iptc_jpeg((2, 25, b"boat"), (2, 25, b"house")))
        data[place] ^= 0xFF
        (tmp_path / "x.jpg").write_bytes(bytes(data))
        assert read_image(tmp_path / "x.jpg").width == 160


@settings(max_examples=150, deadline=None)
@given(
    xmp=st.one_of(st.binary(), st.text().map(str.encode)),
    cut=st.integers(0, 900),
)
def test_whatever_a_packet_holds_there_are_words_or_none(xmp, cut):
    for data in (xmp, packet("a", "b")[:cut] + xmp):
        words = said(data)
        assert all(tag.isprintable() and tag for tag in words.tags)
