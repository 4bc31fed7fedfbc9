"""What a camera wrote into a picture: when, where, with what, and what it shows."""

from __future__ import annotations

import contextlib
import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Exif

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
    """What the EXIF of one picture says; None where it says nothing that makes sense."""

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


def _or_none(read, exif: Exif):
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
            with contextlib.suppress(ValueError):  # 0000:00:00 is what a camera without a clock writes
                return datetime(*(int(part or 0) for part in match.groups()), tzinfo=zone)
    return None


def _zone(offset: str) -> tzinfo:
    """Return the time zone of `+02:00`; UTC where it is missing or makes no sense."""
    try:
        return datetime.strptime(offset, "%z").tzinfo
    except ValueError:
        return UTC


def _location(exif: Exif) -> tuple[float, float] | None:
    gps = exif.get_ifd(GPS_IFD)
    latitude = _degrees(gps.get(2), negative=plain_text(gps.get(1)).upper().startswith("S"))
    longitude = _degrees(gps.get(4), negative=plain_text(gps.get(3)).upper().startswith("W"))
    if not (abs(latitude) <= 90 and abs(longitude) <= 180):  # false for NaN too
        return None
    return (latitude, longitude) if (latitude, longitude) != (0, 0) else None  # 0, 0 means "no fix"


def _degrees(parts: tuple | None, *, negative: bool) -> float:
    if not parts:
        return math.nan
    degrees = sum(float(part) / 60**power for power, part in enumerate(parts))
    return round(-degrees if negative else degrees, 7)


def _camera(exif: Exif) -> str | None:
    make, model = plain_text(exif.get(MAKE)), plain_text(exif.get(MODEL))
    if make and model and model.split()[0].casefold() == make.split()[0].casefold():
        make = ""  # "Canon" and "Canon EOS 5D"
    return f"{make} {model}".strip()[:200] or None


def _description(exif: Exif) -> str | None:
    return as_caption(plain_text(exif.get(IMAGE_DESCRIPTION)))


def as_caption(text: str) -> str | None:
    """Return what a person wrote of a picture; None for what cameras write into every one."""
    return None if BOILERPLATE.fullmatch(text) else text[:LONGEST_CAPTION]


def plain_text(value: object) -> str:
    """Return a tag as text on one line; EXIF's ASCII is often UTF-8, which Pillow reads as Latin-1."""
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    text = str(value or "").split("\0")[0]
    with contextlib.suppress(UnicodeError):
        text = text.encode("latin-1").decode("utf-8")
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())
