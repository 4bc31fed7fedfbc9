"""Read the metadata of a picture: EXIF, XMP and IPTC."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from typing import SupportsFloat, TypeVar
from xml.parsers.expat import ExpatError, ParserCreate

from PIL.Image import Exif, Image
from PIL.ImageFile import ImageFile as PillowFile
from PIL.IptcImagePlugin import getiptcinfo

Fact = TypeVar("Fact")

IMAGE_DESCRIPTION, MAKE, MODEL, ORIENTATION = 270, 271, 272, 274
EXIF_IFD, GPS_IFD = 0x8769, 0x8825
DATES = ((EXIF_IFD, 36867, 36881), (EXIF_IFD, 36868, 36882), (None, 306, 36880))
"""(folder, date, offset) of the taking, the digitizing and the last change, the best first"""
DATE = re.compile(r"(\d{4})[:\-/.](\d\d)[:\-/.](\d\d)[ T](\d\d):(\d\d)(?::(\d\d))?")
BOILERPLATE = re.compile(
    r"""[\W\d_]* | (?:sony|nikon|minolta)\ dsc | exif[_ ]jpeg.* | jpe?g(?:\ (?:image|picture))? | dcim.*
    | default | untitled | title | image(?:\ description)? | picture | photo | none | null | undefined | ascii
    | no\ description | user\ comments? | my\ beautiful\ picture | <.*(?:kenox|digimax).*>
    | (?:(?:olympus|konica|minolta|pentax|kodak|samsung|hp|sony|ricoh|casio|panasonic|epson|fujifilm
           |benq|canon|nikon|sanyo|toshiba|polaroid|vivitar|leica|jvc|lg|nokia|motorola)\ )*
      (?:digital\ )?(?:still\ )?camera(?:\ pictures?)?
    | binary.* | lead\ technologies.* | (?:created|processed)\ with\ .* | charset=.*
    | (?:cof|ptr|hdr|mde|edf|dav|sdr|rhdr|rbt|fbt|nor|oznor(?:wo|hdr)?|hdrpl)(?:_\w+)?
    | (?:img|dsc|dscn|dscf|pict|p|wp|screenshot|photo|image|untitled)[\W_]*\d[\W\d_]*(?:\.\w+)?""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
"""what cameras and programs write into every picture"""
LONGEST_CAPTION = 10_000
"""characters"""


@dataclass(frozen=True)
class CameraData:
    """The EXIF values of one picture, None for each that is missing or makes no sense."""

    date: datetime | None = None
    """aware; a camera that wrote no offset is taken to have meant UTC"""
    location: tuple[float, float] | None = None
    """(latitude, longitude) in degrees, WGS 84"""
    camera: str | None = None
    description: str | None = None


def camera_data(exif: Exif) -> CameraData:
    """Read the four facts, each by itself: one that is damaged does not hide the others."""
    return CameraData(
        date=_or_none(_date, exif),
        location=_or_none(_location, exif),
        camera=_or_none(_camera, exif),
        description=_or_none(_description, exif),
    )


def _or_none(read: Callable[[Exif], Fact | None], exif: Exif) -> Fact | None:
    try:
        return read(exif)
    except Exception:  # anything can be written into EXIF, and Pillow raises whatever that leads to
        return None


def _date(exif: Exif) -> datetime | None:
    for folder, date_tag, offset_tag in DATES:
        tags = exif if folder is None else exif.get_ifd(folder)
        match = DATE.match(plain_text(tags.get(date_tag)))
        if match:
            zone = _zone(plain_text(exif.get_ifd(EXIF_IFD).get(offset_tag)))
            with suppress(ValueError):  # 0000:00:00 is what a camera without a clock writes
                year, month, day, hour, minute, second = (int(number or 0) for number in match.groups())
                return datetime(year, month, day, hour, minute, second, tzinfo=zone)
    return None


def _zone(offset: str) -> tzinfo:
    """Return the time zone of `+02:00`, or UTC if it is missing or makes no sense."""
    try:
        return datetime.strptime(offset, "%z").tzinfo or UTC
    except ValueError:
        return UTC


def _location(exif: Exif) -> tuple[float, float] | None:
    gps = exif.get_ifd(GPS_IFD)
    latitude = _degrees(gps.get(2), negative=plain_text(gps.get(1)).upper().startswith("S"))
    longitude = _degrees(gps.get(4), negative=plain_text(gps.get(3)).upper().startswith("W"))
    if not (abs(latitude) <= 90 and abs(longitude) <= 180):  # false for NaN too
        return None
    return (latitude, longitude) if (latitude, longitude) != (0, 0) else None  # 0, 0 means "no fix"


def _degrees(parts: Sequence[SupportsFloat] | None, *, negative: bool) -> float:
    if not parts:
        return math.nan
    degrees = sum((float(part) / 60.0**power for power, part in enumerate(parts)), 0.0)
    return round(-degrees if negative else degrees, 7)


def _camera(exif: Exif) -> str | None:
    make, model = plain_text(exif.get(MAKE)), plain_text(exif.get(MODEL))
    if make and model and model.split()[0].casefold() == make.split()[0].casefold():
        make = ""  # "Canon" and "Canon EOS 5D"
    return f"{make} {model}".strip()[:200] or None


def _description(exif: Exif) -> str | None:
    return as_caption(plain_text(exif.get(IMAGE_DESCRIPTION)))


def as_caption(text: str) -> str | None:
    """Return a person's description of a picture, or None for camera boilerplate."""
    return None if BOILERPLATE.fullmatch(text) else text[:LONGEST_CAPTION]


def plain_text(value: object) -> str:
    """Return a tag as text on one line. EXIF's ASCII is often UTF-8, which Pillow reads as Latin-1."""
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    text = str(value or "").split("\0")[0]
    with suppress(UnicodeError):
        text = text.encode("latin-1").decode("utf-8")
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


MOST_TAGS = LONGEST_TAG = 100
LONGEST_PACKET = 4 << 20
"""bytes; a larger XMP packet holds the history of an edit, or is an attack"""
DUBLIN_CORE, RDF_ITEM = "http://purl.org/dc/elements/1.1/", "http://www.w3.org/1999/02/22-rdf-syntax-ns# li"
SUBJECT, DESCRIPTION = f"{DUBLIN_CORE} subject", f"{DUBLIN_CORE} description"
IPTC_KEYWORDS, IPTC_CAPTION = (2, 25), (2, 120)


@dataclass(frozen=True)
class Words:
    """Keywords, at most 100 of at most 100 characters each, and a description of one line."""

    tags: tuple[str, ...] = ()
    description: str | None = None


def words_of(image: Image) -> Words:
    """Return the captions of XMP and IPTC, XMP first, without damaged ones."""
    xmp, iptc = _xmp(image), _iptc(image)
    said = (as_caption(plain_text(text)) for text in (*xmp.descriptions, *iptc.descriptions))
    return Words(clean_tags([*xmp.subjects, *iptc.subjects]), next((text for text in said if text), None))


def clean_tags(values: Iterable[object]) -> tuple[str, ...]:
    """Return keywords as text on one line, each once whatever its case, in their order."""
    tags: dict[str, str] = {}
    for value in values:
        tag = plain_text(value)[:LONGEST_TAG].strip()
        if tag:
            tags.setdefault(tag.casefold(), tag)
        if len(tags) == MOST_TAGS:
            break
    return tuple(tags.values())


@dataclass
class _Found:
    subjects: list[object] = field(default_factory=list)
    descriptions: list[object] = field(default_factory=list)


class _ForbiddenXmlError(Exception):
    """The packet declares a document type, in which entities that never end could be defined."""


def _xmp(image: Image) -> _Found:
    packet = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
    packet = packet.encode() if isinstance(packet, str) else packet
    found = _Found()
    if isinstance(packet, bytes) and 0 < len(packet) <= LONGEST_PACKET:
        with suppress(ExpatError, _ForbiddenXmlError, ValueError, LookupError):  # what came before is kept
            _parse(packet.strip(b"\0 \r\n\t"), found)
    return found


def _parse(packet: bytes, found: _Found) -> None:
    """Collect `dc:subject` and `dc:description`. No document type, and so no entity, is accepted."""
    parser = ParserCreate(namespace_separator=" ")
    inside: list[str] = []
    text: list[str] = []
    lists = {SUBJECT: found.subjects, DESCRIPTION: found.descriptions}

    def start(name: str, attributes: Mapping[str, str]) -> None:
        inside.append(name)
        text.clear()
        if DESCRIPTION in attributes:  # the short form
            found.descriptions.append(attributes[DESCRIPTION])

    def end(name: str) -> None:
        inside.pop()
        holder = next((each for each in reversed(inside) if each in lists), None)
        if name == RDF_ITEM and holder and len(lists[holder]) < 10 * MOST_TAGS:
            lists[holder].append("".join(text))
        text.clear()

    def forbid(*_: object) -> None:
        raise _ForbiddenXmlError

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = text.append
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = forbid
    parser.Parse(packet, True)


def _iptc(image: Image) -> _Found:
    try:
        records = (getiptcinfo(image) if isinstance(image, PillowFile) else None) or {}
    except Exception:  # Pillow raises whatever damaged records lead it to
        return _Found()
    found = (records.get(key, []) for key in (IPTC_KEYWORDS, IPTC_CAPTION))
    return _Found(*(list[object](each if isinstance(each, list) else [each]) for each in found))
