"""Read sidecars, and join their facts and words with the metadata in the picture."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any

from ingest.errors import Fault, UnreadableImageError
from ingest.files.metadata import (
    EXIF,
    FILE_NAME,
    LONGEST_PACKET,
    MOST_TAGS,
    TAKEOUT,
    XMP_DATES,
    XMP_SIDECAR,
    CameraData,
    Taken,
    Words,
    as_caption,
    clean_tags,
    date_in_name,
    first_date,
    on_earth,
    plain_text,
    read_xmp,
    words_of_xmp,
    xmp_location,
)
from ingest.files.picture import ImageFile, read_bytes
from ingest.files.siblings import XMP

LONGEST_JSON = 1 << 20
"""bytes; Takeout writes about a thousand"""
FARTHEST = timedelta(hours=15)
"""from UTC, of any clock: a date of Takeout that is nearer to the camera's is the same moment"""
QUARTER = timedelta(minutes=15)
"""of which the distance of every zone is a multiple"""


@dataclass(frozen=True)
class SidecarFacts:
    """The facts and words of one sidecar."""

    source: str
    """`XMP sidecar` or `Google Takeout`"""
    taken: Taken | None = None
    location: tuple[float, float] | None = None
    words: Words = field(default_factory=Words)
    is_location_given: bool = True
    """whether somebody may have set the place: else it repeats that of the picture"""
    is_date_given: bool = True
    """whether the date is that of the taking: else it is the best guess of a program"""


NOTHING = SidecarFacts("")


def with_sidecars(
    picture: ImageFile, paths: Sequence[Path], *, name: str
) -> tuple[ImageFile, list[tuple[Path, Fault]]]:
    """Return a picture with the facts and words of its sidecars, and the unreadable sidecars.

    The first one counts most. The `name` is that of the picture's file, which may say a date.

    Of a title, a description, a rating, a place and names of places, what a sidecar says counts more than
    what is in the picture; keywords and people are joined. A sidecar that is gone says nothing.
    """
    faults = []
    words = picture.words
    exif = replace(picture.exif, taken=picture.exif.taken or date_in_name(name))
    found = []
    for path in paths:
        facts = read_sidecar(path)
        if isinstance(facts, Fault):
            faults.append((path, facts))
        else:
            found.append(facts)
    for facts in reversed(found):  # the first has the last word
        exif, words = joined(exif, words, facts)
    return replace(picture, exif=exif, words=words), faults


def read_sidecar(path: Path) -> SidecarFacts | Fault:
    """Read a sidecar: its facts, none for the JSON of another program, or a fault."""
    is_xmp = path.suffix.lower() == XMP
    try:
        data = read_bytes(path, most=LONGEST_PACKET if is_xmp else LONGEST_JSON)
    except UnreadableImageError as error:
        return error.fault if error.fault.lasting or path.exists() else NOTHING
    return parse_xmp_sidecar(data) if is_xmp else parse_takeout(data)


def parse_xmp_sidecar(data: bytes) -> SidecarFacts | Fault:
    """Read the facts of an XMP sidecar, or the fault in it."""
    xmp, fault = read_xmp(data)
    if fault:
        return Fault(f"as XMP: {fault}", lasting=True)
    taken = first_date(xmp.all(*XMP_DATES[:2]), XMP_SIDECAR)
    return SidecarFacts(
        XMP_SIDECAR,
        taken or first_date(xmp.all(*XMP_DATES), XMP_SIDECAR),
        xmp_location(xmp),
        words_of_xmp(xmp),
        is_date_given=taken is not None,
    )


def parse_takeout(data: bytes) -> SidecarFacts | Fault:
    """Read the facts in the JSON of Google Takeout, none from other JSON, or the fault in it."""
    try:
        read = json.loads(data)
    except RecursionError:
        return Fault("as JSON: nested too deep", lasting=True)
    except ValueError:
        return Fault("as JSON: damaged or cut short", lasting=True)
    if not isinstance(read, dict) or not isinstance(read.get("photoTakenTime"), dict):
        return NOTHING
    place, own = _place(read.get("geoData")), _place(read.get("geoDataExif"))
    people = read.get("people")
    people = people[: 10 * MOST_TAGS] if isinstance(people, list) else []
    names = [each.get("name") for each in people if isinstance(each, dict)]
    said = read.get("description")
    return SidecarFacts(
        TAKEOUT,
        taken=_moment(read["photoTakenTime"].get("timestamp")),
        location=place or own,
        words=Words(
            people=clean_tags(name for name in names if isinstance(name, str)),
            description=as_caption(plain_text(said)) if isinstance(said, str) else None,
        ),
        is_location_given=place is not None and place != own,
    )


def _place(value: object) -> tuple[float, float] | None:
    if not isinstance(value, Mapping):
        return None
    try:
        return on_earth(*(round(float(value[name]), 7) for name in ("latitude", "longitude")))
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _moment(value: Any) -> Taken | None:
    """Return the moment of a timestamp, seconds since 1970 as text, which Takeout gives without its zone."""
    try:
        seconds = float(value)
        # No picture is of the second from which clocks count: there was no date.
        if not math.isfinite(seconds) or not seconds:
            return None
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=int(seconds))
    except (TypeError, ValueError, OverflowError):
        return None
    return Taken(moment.replace(tzinfo=None), timedelta(), TAKEOUT)


def joined(exif: CameraData, words: Words, facts: SidecarFacts) -> tuple[CameraData, Words]:
    """Join the facts of a sidecar with those of its picture, or with those of it and another sidecar."""
    said = facts.words
    location = facts.location if facts.is_location_given else exif.location or facts.location
    exif = replace(
        exif,
        taken=_date(exif.taken, facts),
        location=location or exif.location,
        description=said.description or exif.description,
    )
    words = replace(
        words,
        tags=clean_tags((*said.tags, *words.tags)),
        description=said.description or words.description,
        title=said.title or words.title,
        people=clean_tags((*said.people, *words.people)),
        places=said.places or words.places,
        rating=said.rating or words.rating,
    )
    return exif, words


def _date(own: Taken | None, facts: SidecarFacts) -> Taken | None:
    """Join the dates of a picture and a sidecar: the sidecar's, with the local day of the picture."""
    said = facts.taken
    if own is None or said is None:
        return said or own
    if not facts.is_date_given:
        return own if own.source != FILE_NAME else said
    if said.source == TAKEOUT:
        return _with_moment(own, said)
    if said.local == own.local and said.offset is None:
        return own  # it has the offset, if anything has
    return said


def _with_moment(own: Taken, said: Taken) -> Taken:
    """Return the picture's date if Takeout means the same moment, with the offset that follows from it.

    Takeout has no local day. A date that is farther off was set by a person.
    """
    if own.offset is not None:
        return own if abs(own.instant - said.instant) <= FARTHEST else said
    offset = own.local - said.local
    if own.source == FILE_NAME and own.local.time() == time():  # the name says a day alone
        return said if said.local.date() == own.local.date() or abs(offset) > 2 * FARTHEST else own
    if abs(offset) > FARTHEST:
        return said
    return replace(own, offset=offset) if own.source in (EXIF, FILE_NAME) and not offset % QUARTER else own
