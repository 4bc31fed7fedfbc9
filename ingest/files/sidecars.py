"""Find the sidecars of a picture by their names, read them, and join their words with those in the picture.

They are XMP, and the JSON of Google Takeout.
"""

from __future__ import annotations

import json
import math
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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

XMP, JSON = ".xmp", ".json"
TAIL = ".supplemental-metadata"
"""what Takeout puts between the name of a picture and `.json`, often cut short"""
LONGEST_NAME = 46
"""characters of a name before `.json`, at which Takeout cuts"""
NUMBERED = re.compile(r"(.+)(\(\d{1,4}\))", re.DOTALL)
"""`IMG(1).jpg`, whose JSON is `IMG.jpg(1).json`"""
EDITED = re.compile(
    r"""(.+)-(?: edited | bearbeitet | modifi[eé] | editado | editada | ha\ editado | modificato | bewerkt
    | edytowane | redigerad | redigeret | redigert | muokattu | upraveno | szerkesztett | editat
    | düzenlendi | изменено | 編集済み | 已修改 | 수정됨 )""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
"""the end of a name that Google Photos gives to an edited copy, in its languages"""
LONGEST_JSON = 1 << 20
"""bytes; Takeout writes about a thousand"""
FARTHEST = timedelta(hours=15)
"""from UTC, of any clock: a date of Takeout that is nearer to the camera's is the same moment"""
QUARTER = timedelta(minutes=15)
"""of which the distance of every zone is a multiple"""


class Siblings:
    """The sidecars in one folder."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        """Take the names of all that is in the folder."""
        self._by_key: dict[str, str] = {}
        for name in sorted(filter(is_sidecar, names)):
            self.add(name)

    def add(self, name: str) -> None:
        """Take one more name."""
        if is_sidecar(name):
            self._by_key[_key(name)] = name

    def __bool__(self) -> bool:
        """Return whether there are any."""
        return bool(self._by_key)

    def remove(self, name: str) -> None:
        """Forget a name."""
        self._by_key.pop(_key(name), None)

    def of(self, name: str) -> tuple[str, ...]:
        """Return the names of a picture's sidecars, the one that says most first.

        An edited copy has those of the picture that it was made from, unless it has its own.
        """
        if not self._by_key or is_sidecar(name):
            return ()
        there = self._by_key
        firsts = (
            next((key for key in keys if key in there), None)
            for keys in (_xmp_names(name), _json_names(name))
        )
        return tuple(there[key] for key in firsts if key)


def is_sidecar(name: str) -> bool:
    """Return whether a file may be a sidecar, by its name or path."""
    return name[-5:].lower().endswith((XMP, JSON))


def siblings_in(folder: Path) -> Siblings:
    """Return the sidecars in a folder, none if it cannot be listed."""
    try:
        return Siblings(os.listdir(folder))  # noqa: PTH208 - names alone, of many files
    except OSError:
        return Siblings(())


def owners_of(sidecars: Iterable[str]) -> list[str]:
    """Return the paths of the files to which sidecars belong, or belonged if they are gone."""
    folders: dict[str, list[str]] = {}
    for path in sidecars:
        folder, name = os.path.split(path)
        folders.setdefault(folder, []).append(name)
    owners = []
    for folder, names in folders.items():
        siblings = Siblings(names)
        try:
            owners += [f"{folder}/{name}" for name in sorted(os.listdir(folder)) if siblings.of(name)]  # noqa: PTH208
        except OSError:
            continue
    return owners


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _xmp_names(name: str) -> Iterator[str]:
    """Yield the keys of `X.jpg.xmp` and `X.xmp`."""
    stem, extension = os.path.splitext(_key(name))  # noqa: PTH122
    for each, number in _origins(stem):
        if not number:
            yield f"{each}{extension}{XMP}"
            yield f"{each}{XMP}"


def _json_names(name: str) -> Iterator[str]:
    """Yield the keys of `X.jpg.json`, `X.jpg.supplemental-metadata.json` and their cut and numbered forms."""
    stem, extension = os.path.splitext(_key(name))  # noqa: PTH122
    for each, number in _origins(stem):
        whole = f"{each}{extension}"
        for length in range(len(TAIL), -1, -1):
            yield f"{whole}{TAIL[:length]}{number}{JSON}"
        if len(whole) > LONGEST_NAME:
            yield f"{whole[:LONGEST_NAME]}{number}{JSON}"
        yield f"{each}{number}{JSON}"


def _origins(stem: str) -> Iterator[tuple[str, str]]:
    """Yield names, each with a number that stands elsewhere: of the picture, and of that before an edit."""
    yield stem, ""
    numbered = NUMBERED.fullmatch(stem)
    if numbered:
        yield numbered[1], numbered[2]
    if edited := EDITED.fullmatch(numbered[1] if numbered else stem):
        number = numbered[2] if numbered else ""
        if number:
            yield f"{edited[1]}{number}", ""
        yield edited[1], number
        if not number and (again := NUMBERED.fullmatch(edited[1])):
            yield again[1], again[2]


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


@dataclass(frozen=True)
class Sidecar:
    """One sidecar, wherever it lies."""

    place: str
    """path or address"""
    read: Callable[[int], bytes | None]
    """returns the content of at most so many bytes, or None if it is gone; raises `UnreadableImageError`"""


def with_sidecars(
    exif: CameraData, words: Words, sidecars: Sequence[Sidecar], *, name: str
) -> tuple[CameraData, Words, list[tuple[str, Fault]]]:
    """Return a picture's facts and words with those of its sidecars, and the places of unreadable sidecars.

    The first one counts most. The `name` is that of the picture's file, which may say a date.

    Of a title, a description, a rating, a place and names of places, what a sidecar says counts more than
    what is in the picture; keywords and people are joined. A sidecar that is gone says nothing.
    """
    faults = []
    exif = replace(exif, taken=exif.taken or date_in_name(name))
    found = []
    for sidecar in sidecars:
        facts = read_sidecar(sidecar)
        if isinstance(facts, Fault):
            faults.append((sidecar.place, facts))
        else:
            found.append(facts)
    for facts in reversed(found):  # the first has the last word
        exif, words = joined(exif, words, facts)
    return exif, words, faults


def read_sidecar(sidecar: Sidecar) -> SidecarFacts | Fault:
    """Read a sidecar: its facts, none for the JSON of another program, or a fault."""
    is_xmp = sidecar.place.lower().endswith(XMP)
    try:
        data = sidecar.read(LONGEST_PACKET if is_xmp else LONGEST_JSON)
    except UnreadableImageError as error:
        return error.fault
    if data is None:
        return NOTHING
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
