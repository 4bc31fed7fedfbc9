"""Read the metadata of a picture: EXIF, XMP, IPTC, the text of a PNG, and dates in names of files."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any, SupportsFloat, TypeVar
from xml.parsers.expat import ExpatError, ParserCreate

from PIL.Image import Exif, Image
from PIL.ImageFile import ImageFile as PillowFile
from PIL.IptcImagePlugin import getiptcinfo

Fact = TypeVar("Fact")

IMAGE_DESCRIPTION, MAKE, MODEL, ORIENTATION = 270, 271, 272, 274
USER_COMMENT, RATING = 37510, 18246
XP_TITLE, XP_COMMENT, XP_KEYWORDS, XP_SUBJECT = 40091, 40092, 40094, 40095
EXIF_IFD, GPS_IFD = 0x8769, 0x8825
GPS_TIME, GPS_DATE = 7, 29
TAKEN, DIGITIZED, LAST_CHANGE = (EXIF_IFD, 36867, 36881), (EXIF_IFD, 36868, 36882), (None, 306, 36880)
"""(folder, date, offset)"""
DATE = re.compile(
    r"""\s*(?: (?P<year>\d{4})
                 (?: [:\-/.](?P<month>\d{1,2})[:\-/.](?P<day>\d{1,2}) | (?P<mm>\d\d)(?P<dd>\d\d) )
             | (?P<first>\d{1,2})(?P<mark>[./-])(?P<second>\d{1,2})(?P=mark)(?P<last>\d{4}) )
    (?: (?:\s*T\s*|\s+) (?P<hour>\d{1,2})
            (?: :(?P<minute>\d{1,2})(?::(?P<s>\d{1,2}))? | (?P<mi>\d\d)(?P<se>\d\d)? )
        (?:[.,]\d+)? (?:\s*(?P<half>[ap])\.?m\b\.?)? \s* (?P<zone>.*) | \s* | (?!\d).* )""",
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
"""a day, and perhaps a time and its distance from UTC, in the forms that programs write"""
ZONE = re.compile(r"(?:UTC|GMT)?\s*([+-])(\d{1,2})(?::?(\d\d))?", re.IGNORECASE)
ZERO_ZONE = re.compile(r"Z|UTC|GMT", re.IGNORECASE)
FARTHEST_ZONE = timedelta(hours=15)
NAMED_DATE = re.compile(
    r"""(?<!\d) (19[5-9]\d|20\d\d) ([-_.]?) (0[1-9]|1[0-2]) \2 (0[1-9]|[12]\d|3[01])
    (?: (?:[-_\ T.]{1,3}|\ at\ )? ([01]\d|2[0-3]) ([-_.:h]?) ([0-5]\d) \6 ([0-5]\d)
        (?:[-_.]?\d{3})? )? (?!\d)""",
    re.VERBOSE,
)
"""as in `IMG-20190422-WA0004` and `Screenshot_2021-03-04-05-06-07`"""
UTC_NAMES = re.compile(r"PXL_\d{8}_")
"""of Pixel phones, which name their files by UTC"""
EXIF, GPS, XMP, IPTC, PNG, FILE_NAME = "EXIF", "GPS", "XMP", "IPTC", "PNG", "file name"
XMP_SIDECAR, TAKEOUT = "XMP sidecar", "Google Takeout"
"""the sources of a date"""
BOILERPLATE = re.compile(
    r"""[\W\d_]* | (?:sony|nikon|minolta)\ dsc | exif[_ ]jpeg.* | jpe?g(?:\ (?:image|picture))? | dcim.*
    | default | untitled | title | image(?:\ description)? | picture | photo | none | null | undefined | ascii
    | no\ description | user\ comments? | my\ beautiful\ picture | <.*(?:kenox|digimax).*>
    | (?:(?:olympus|konica|minolta|pentax|kodak|samsung|hp|sony|ricoh|casio|panasonic|epson|fujifilm
           |benq|canon|nikon|sanyo|toshiba|polaroid|vivitar|leica|jvc|lg|nokia|motorola)\ )*
      (?:digital\ )?(?:still\ )?camera(?:\ pictures?)?
    | binary.* | lead\ technologies.* | (?:created|processed|edited)\ with\ .* | charset=.*
    | (?:cof|ptr|hdr|mde|edf|dav|sdr|rhdr|rbt|fbt|nor|oznor(?:wo|hdr)?|hdrpl)(?:_\w+)?
    | (?:img|dsc|dscn|dscf|pict|p|wp|screenshot|photo|image|untitled|slide|scan|page|frame|video|vid|pxl)
      [\W_]*\d[\W\d_]*(?:\.\w+)?
    | (?:screen[\ -]?shot|bildschirmfoto|capture\ d.[ée]cran|captura\ de\ pantalla)(?:[\W_]*\d[\W\w]*)?
    | [A-Z]{1,4}_?\d{5,}(?:\.\w{2,4})? | imagej=.* | {.*} | \[\s*[\[{"\d].*\] | <[?!/\w].*>
    | fbmd[0-9a-f]{10,} | [0-9a-f]{16,} | [0-9a-f-]{36}
    | (?:adobe\ )?(?:photoshop|lightroom|illustrator|imageready)(?:\ [\w.\ ()-]*)?
    | instagram | snapchat | whatsapp | facebook | picasa | gimp | canva | vsco(?:cam)? | hipstamatic | skitch
    | (?:optimized|file\ written)\ by\ .*""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
"""what cameras and programs write into every picture"""
LONGEST_CAPTION = 10_000
"""characters"""


@dataclass(frozen=True)
class Taken:
    """When a picture was taken, by the clocks of that place."""

    local: datetime
    """without a time zone"""
    offset: timedelta | None
    """of those clocks from UTC, None if nothing says it"""
    source: str
    """such as `EXIF` or `file name`"""

    @property
    def instant(self) -> datetime:
        """The moment, aware. Without an offset, the clocks are taken to have shown UTC."""
        return self.local.replace(tzinfo=timezone(self.offset) if self.offset is not None else UTC)

    @property
    def offset_text(self) -> str | None:
        """The offset as in `+02:00`, None without one."""
        shown = self.instant.isoformat()
        return None if self.offset is None else shown[len(self.local.isoformat()) :]

    def in_zone(self, zone: tzinfo) -> Taken:
        """Return the same for clocks in `zone`, if nothing but UTC is known of them."""
        with suppress(OverflowError, ValueError):  # at the ends of the calendar
            if self.offset is None:
                return replace(self, offset=zone.utcoffset(self.local))
            if not self.offset and self.source in (GPS, FILE_NAME, TAKEOUT):  # always in UTC
                there = self.instant.astimezone(zone)
                return replace(self, local=there.replace(tzinfo=None), offset=there.utcoffset())
        return self


@dataclass(frozen=True)
class CameraData:
    """The facts about the taking of one picture, None for each that is missing or makes no sense."""

    taken: Taken | None = None
    location: tuple[float, float] | None = None
    """(latitude, longitude) in degrees, WGS 84"""
    camera: str | None = None
    description: str | None = None

    @property
    def date(self) -> datetime | None:
        """The moment, aware. A camera that wrote no offset is taken to have meant UTC."""
        return self.taken.instant if self.taken else None


def camera_data(exif: Exif) -> CameraData:
    """Read the facts of EXIF, each by itself: one that is damaged does not hide the others."""
    return CameraData(
        taken=_or_none(_taken, exif),
        location=_or_none(_location, exif),
        camera=_or_none(_camera, exif),
        description=_or_none(_description, exif),
    )


def _or_none(read: Callable[[Exif], Fact | None], exif: Exif) -> Fact | None:
    try:
        return read(exif)
    except Exception:  # anything can be written into EXIF, and Pillow raises whatever that leads to
        return None


def _taken(exif: Exif) -> Taken | None:
    return _dated(exif, TAKEN) or _dated(exif, DIGITIZED) or _dated(exif, LAST_CHANGE) or _gps_date(exif)


def _dated(exif: Exif, place: tuple[int | None, int, int]) -> Taken | None:
    folder, date_tag, offset_tag = place
    tags = exif if folder is None else exif.get_ifd(folder)
    taken = parse_date(plain_text(tags.get(date_tag)), source=EXIF)
    if taken and taken.offset is None:
        return replace(taken, offset=_zone(plain_text(exif.get_ifd(EXIF_IFD).get(offset_tag))))
    return taken


def _gps_date(exif: Exif) -> Taken | None:
    """Return the day of a satellite's clock, which shows UTC, and the time, if it is there."""
    gps = exif.get_ifd(GPS_IFD)
    day = parse_date(plain_text(gps.get(GPS_DATE)), source=GPS)
    if day is None:
        return None
    parts = gps.get(GPS_TIME) or ()
    hours, minutes, seconds = (float(part) for part in parts) if len(parts) == 3 else (0.0, 0.0, 0.0)
    time = hours * 3600 + minutes * 60 + seconds
    if not 0 <= time < 86_400:  # false for NaN too
        time = 0.0
    return Taken(
        day.local.replace(hour=0, minute=0, second=0) + timedelta(seconds=int(time)), timedelta(), GPS
    )


def parse_date(text: str, *, source: str) -> Taken | None:
    """Return the date that a text begins with, or None. `24:00` is the next day."""
    found = DATE.match(text)
    if found is None:
        with suppress(ValueError, TypeError, IndexError, OverflowError):  # Fri, 05 Apr 2013 06:07:08 +0200
            read = parsedate_to_datetime(text)
            return Taken(read.replace(tzinfo=None), read.utcoffset(), source)
        return None
    if found["year"]:
        year, month, day = found["year"], found["month"] or found["mm"], found["day"] or found["dd"]
    else:
        year, (day, month) = found["last"], (found["first"], found["second"])
        if int(month) > 12:
            day, month = month, day
        elif found["mark"] == "/" and int(day) <= 12 and day != month:
            return None  # 03/04/2012 is April in one country and March in another
    hour, minute = int(found["hour"] or 0), int(found["minute"] or found["mi"] or 0)
    second = int(found["s"] or found["se"] or 0)
    if half := found["half"]:
        hour = hour % 12 + (12 if half.lower() == "p" else 0)
    if hour > 24 or minute > 59 or second > 60 or (hour == 24 and (minute or second)):
        return None
    with suppress(ValueError, OverflowError):  # 0000:00:00 is what a camera without a clock writes
        local = datetime(int(year), int(month), int(day))
        local += timedelta(
            hours=hour, minutes=minute, seconds=min(second, 59)
        )  # a leap second stays that day
        return Taken(local, _zone(found["zone"] or ""), source)
    return None


def _zone(text: str) -> timedelta | None:
    """Return the distance from UTC that `+02:00`, `+2`, `UTC+2` and `Z` mean, or None."""
    text = text.strip()
    if ZERO_ZONE.fullmatch(text):
        return timedelta()
    if match := ZONE.fullmatch(text):
        distance = timedelta(hours=int(match[2]), minutes=int(match[3] or 0))
        if distance <= FARTHEST_ZONE:
            return -distance if match[1] == "-" else distance
    return None


def date_in_name(name: str) -> Taken | None:
    """Return the date in a file's name, as phones and messengers give them."""
    found = NAMED_DATE.search(name)
    if found is None:
        return None
    year, _, month, day, hour, _, minute, second = found.groups(default="0")
    with suppress(ValueError):  # there is no 30 February
        local = datetime(int(year), int(month), int(day), int(hour), int(minute), int(second))
        return Taken(local, timedelta() if UTC_NAMES.match(name) else None, FILE_NAME)
    return None


def _location(exif: Exif) -> tuple[float, float] | None:
    gps = exif.get_ifd(GPS_IFD)
    return on_earth(
        _degrees(gps.get(2), negative=plain_text(gps.get(1)).upper().startswith("S")),
        _degrees(gps.get(4), negative=plain_text(gps.get(3)).upper().startswith("W")),
    )


def on_earth(latitude: float, longitude: float) -> tuple[float, float] | None:
    """Return a place as (latitude, longitude), or None for one that cannot be, or means "no fix"."""
    if not (abs(latitude) <= 90 and abs(longitude) <= 180):  # false for NaN too
        return None
    return (latitude, longitude) if (latitude, longitude) != (0, 0) else None


def _degrees(parts: Sequence[SupportsFloat] | SupportsFloat | None, *, negative: bool) -> float:
    if not parts:
        return math.nan
    parts = parts if isinstance(parts, Sequence) else [parts]
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
    """Return a person's description of a picture, or None for text of cameras and programs."""
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
LONGEST_TITLE = 300
LONGEST_PACKET = 4 << 20
"""bytes; a larger XMP packet holds the history of an edit, or is an attack"""
DEEPEST = 100
"""elements of XML inside each other; XMP has about a dozen"""
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
RDF_ITEM = "http://www.w3.org/1999/02/22-rdf-syntax-ns# li"
FORMS = {
    "dc": "http://purl.org/dc/elements/1.1/",
    "lr": "http://ns.adobe.com/lightroom/1.0/",
    "digiKam": "http://www.digikam.org/ns/1.0/",
    "mwg": "http://www.metadataworkinggroup.com/schemas/regions/",
    "mp": "http://ns.microsoft.com/photo/1.0/",
    "mpreg": "http://ns.microsoft.com/photo/1.2/t/Region#",
    "ext": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "core": "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "exif": "http://ns.adobe.com/exif/1.0/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
}
"""short names here of the vocabularies of XMP"""
READ = """dc:subject dc:description dc:title lr:hierarchicalSubject digiKam:TagsList mp:LastKeywordXMP
mwg:Name mpreg:PersonDisplayName ext:PersonInImage core:Location photoshop:City photoshop:State
photoshop:Country photoshop:Headline photoshop:DateCreated exif:DateTimeOriginal exif:DateTimeDigitized
xmp:CreateDate xmp:Rating exif:GPSLatitude exif:GPSLongitude exif:UserComment"""
REGION_TYPE, PEOPLE_REGIONS = f"{FORMS['mwg']} Type", ("face", "pet", "")
XMP_DATES = ("exif:DateTimeOriginal", "photoshop:DateCreated", "exif:DateTimeDigitized", "xmp:CreateDate")
XMP_DEGREES = re.compile(r"(\d+(?:\.\d+)?)(?:,(\d+(?:\.\d+)?))?(?:,(\d+(?:\.\d+)?))?([NSEW])", re.IGNORECASE)
KINDS_OF_PEOPLE = """people person persons personen leute menschen personnes gens personas gente faces"""
OTHER_KINDS = """places place locations orte lieux lugares events keywords tags themes themen"""
PEOPLE_ROOTS, OTHER_ROOTS = frozenset(KINDS_OF_PEOPLE.split()), frozenset(OTHER_KINDS.split())
"""the first names of hierarchies that only say their kind"""
MACHINE_ROOTS = frozenset({"darktable", "_digikam_root_tag_", "_digikam_internal_tags_"})
"""the first names of hierarchies that programs keep for themselves"""
MACHINE_TAG = re.compile(
    r"""imagej=.* | {.*} | \[\s*[\[{"\d].*\] | <[?!/\w].*> | fbmd[0-9a-f]{10,} | [0-9a-f]{16,} | [0-9a-f-]{36}
    | charset=.* | (?:xmp|uuid|adobe)[.:]\S+ | \w+://\S+ | (?:darktable|_digikam_\w+)(?:[|/].*)?""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
"""keywords that programs write, and no person"""
PROMPT_END = re.compile(r"\s*(?:Negative prompt:|,?\s*Steps:\s*\d).*", re.DOTALL)
"""in the text of a picture from a model: the settings after the words that a person gave it"""
PLACES = ("core:Location", "photoshop:City", "photoshop:State", "photoshop:Country")


@dataclass(frozen=True)
class Words:
    """Words that people gave a picture, wherever their programs wrote them."""

    tags: tuple[str, ...] = ()
    """keywords, at most 100 of at most 100 characters each"""
    description: str | None = None
    """one line"""
    title: str | None = None
    people: tuple[str, ...] = ()
    """names, in the same bounds"""
    places: tuple[str, ...] = ()
    """names, the nearest first"""
    rating: int | None = None
    """1 to 5"""


class Properties(dict[str, list[object]]):
    """Values of metadata by the short name of their property, in the order in which they were found."""

    def add(self, name: str, value: object) -> None:
        """Add a value, unless there are very many."""
        values = self.setdefault(name, [])
        if len(values) < 10 * MOST_TAGS:
            values.append(value)

    def all(self, *names: str) -> list[object]:
        """Return the values of several properties."""
        return [value for name in names for value in self.get(name, ())]


def metadata_of(image: Image, exif: Exif) -> tuple[CameraData, Words]:
    """Return the facts and the words of a picture, each without its damaged parts."""
    xmp, iptc, png = _xmp(image), _iptc(image), _png(image)
    facts = camera_data(exif)
    words = _words(xmp, iptc, png, exif)
    original = _or_none(lambda each: _dated(each, TAKEN), exif)
    others = (
        first_date(xmp.all(*XMP_DATES), XMP),
        first_date(_iptc_dates(iptc), IPTC),
        facts.taken,  # the last change, or the satellite's clock
        first_date(png.all("Creation Time"), PNG),
    )
    taken = original or next(filter(None, others), None)
    return (
        replace(
            facts,
            taken=taken,
            location=facts.location or xmp_location(xmp),
            description=facts.description or words.description,
        ),
        words,
    )


def words_of(image: Image) -> Words:
    """Return the words of XMP, IPTC and the text of a PNG, the best first, without damaged ones."""
    return _words(_xmp(image), _iptc(image), _png(image), None)


def words_of_xmp(xmp: Properties) -> Words:
    """Return the words of the properties of XMP alone."""
    return _words(xmp, Properties(), Properties(), None)


def _words(xmp: Properties, iptc: Properties, png: Properties, exif: Exif | None) -> Words:
    own = Properties() if exif is None else _or_none(_exif_words, exif) or Properties()
    hierarchies = [_parts(value) for value in xmp.all("lr:hierarchicalSubject", "digiKam:TagsList")]
    hierarchies = [(root, parts) for root, parts in hierarchies if root not in MACHINE_ROOTS]
    named = [part for root, parts in hierarchies if root in PEOPLE_ROOTS for part in parts]
    chains = [part for _, parts in hierarchies for part in reversed(parts)]
    keywords = [*xmp.all("dc:subject", "mp:LastKeywordXMP"), *iptc.all("keywords"), *own.all("keywords")]
    said = [
        *xmp.all("dc:description"),
        *iptc.all("caption"),
        *xmp.all("exif:UserComment"),
        *own.all("comment"),
        *png.all("Description", "Comment", "parameters"),
    ]
    titles = [
        *xmp.all("dc:title", "photoshop:Headline"),
        *iptc.all("title"),
        *own.all("title"),
        *png.all("Title"),
    ]
    ratings = (_rating(value) for value in [*xmp.all("xmp:Rating"), *own.all("rating")])
    title = _first_caption(titles)
    return Words(
        tags=clean_tags([*keywords, *chains]),
        description=_first_caption(said),
        title=title[:LONGEST_TITLE] if title else None,
        people=clean_tags([*xmp.all("ext:PersonInImage", "mwg:Name", "mpreg:PersonDisplayName"), *named]),
        places=clean_tags([*xmp.all(*PLACES), *iptc.all("places")]),
        rating=next((rating for rating in ratings if rating), None),
    )


def _first_caption(values: Iterable[object]) -> str | None:
    said = (as_caption(PROMPT_END.sub("", plain_text(value))) for value in values)
    return next((text for text in said if text), None)


def _parts(value: object) -> tuple[str, list[str]]:
    """Return the first name of `Places|Portugal|Lisbon`, and the names but the first if it says the kind."""
    parts = [part for part in re.split(r"[|/]", plain_text(value)) if part.strip()]
    root = parts[0].strip().casefold() if len(parts) > 1 else ""
    return root, parts[1:] if root in PEOPLE_ROOTS | OTHER_ROOTS else parts


def _rating(value: object) -> int | None:
    with suppress(ValueError, TypeError, OverflowError):
        stars = int(float(str(value)))
        return stars if 1 <= stars <= 5 else None
    return None


def first_date(values: Iterable[object], source: str) -> Taken | None:
    """Return the first value that is a date, or None."""
    return next(filter(None, (parse_date(plain_text(value), source=source) for value in values)), None)


def clean_tags(values: Iterable[object]) -> tuple[str, ...]:
    """Return keywords as text on one line, each once whatever its case, in their order."""
    tags: dict[str, str] = {}
    for value in values:
        tag = plain_text(value)[:LONGEST_TAG].strip()
        if tag and not MACHINE_TAG.fullmatch(tag):
            tags.setdefault(tag.casefold(), tag)
        if len(tags) == MOST_TAGS:
            break
    return tuple(tags.values())


def _exif_words(exif: Exif) -> Properties:
    """Return the words in EXIF beside its description: those of Windows, in UTF-16, and the comment."""
    found = Properties()
    for keyword in _utf16(exif.get(XP_KEYWORDS)).split(";"):
        found.add("keywords", keyword)
    found.add("title", _utf16(exif.get(XP_TITLE)))
    comments = (_user_comment(exif.get_ifd(EXIF_IFD).get(USER_COMMENT)), _utf16(exif.get(XP_COMMENT)))
    for comment in (*comments, _utf16(exif.get(XP_SUBJECT))):
        found.add("comment", comment)
    found.add("rating", exif.get(RATING))
    return found


def _utf16(value: object, order: str = "le") -> str:
    if isinstance(value, tuple):
        value = bytes(part for part in value if isinstance(part, int) and 0 <= part < 256)
    return value.decode(f"utf-16-{order}", errors="replace") if isinstance(value, bytes) else ""


def _user_comment(value: object) -> str:
    """Return the text of a `UserComment`, which begins with the name of its coding."""
    if not isinstance(value, bytes):
        return str(value or "")
    coding, text = value[:8].rstrip(b"\0 ").upper(), value[8:]
    if coding == b"UNICODE":  # in the order of the file, as some say, and in their own, as others do
        big = text.startswith(b"\xfe\xff") or text[::2].count(0) > text[1::2].count(0)
        return _utf16(text, "be" if big else "le").lstrip("\ufeff")
    if coding == b"JIS":
        return text.decode("iso2022_jp", errors="replace")
    return plain_text(text if coding in (b"ASCII", b"") else value)


@cache
def properties() -> dict[str, str]:
    """Return for each name, as the parser gives it, the short one under which its values are collected."""
    parts = ((name, *name.split(":")) for name in READ.split())
    return {f"{FORMS[space]} {local}": name for name, space, local in parts}


class _ForbiddenXmlError(Exception):
    """The packet declares a document type or nests too deep, which sound XMP never does."""


def _xmp(image: Image) -> Properties:
    return parse_xmp(image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b"")


def parse_xmp(packet: object) -> Properties:
    """Return the known properties of a packet, as far as it is sound."""
    packet = packet.encode(errors="replace") if isinstance(packet, str) else packet
    return read_xmp(packet)[0] if isinstance(packet, bytes) and packet else Properties()


def read_xmp(packet: bytes) -> tuple[Properties, str | None]:
    """Return the known properties of a packet, as far as it is sound, and why the rest is not read."""
    found = Properties()
    if len(packet) > LONGEST_PACKET:
        return found, f"larger than {LONGEST_PACKET >> 20} MiB"
    try:
        _parse(packet.strip(b"\0 \r\n\t") if packet[:2] not in UTF_16 else packet, found)
    except _ForbiddenXmlError as error:
        return found, str(error)
    except (ExpatError, ValueError, LookupError) as error:  # what came before is kept
        return found, f"no sound XML: {error}"
    return found, None


def _parse(packet: bytes, found: Properties) -> None:
    """Collect the `properties`. No document type, and so no entity, is accepted."""
    parser = ParserCreate(namespace_separator=" ")
    known = properties()
    inside: list[str] = []
    text: list[str] = []

    def start(name: str, attributes: Mapping[str, str]) -> None:
        inside.append(name)
        if len(inside) > DEEPEST:
            raise _ForbiddenXmlError(f"nested more than {DEEPEST} deep")
        text.clear()
        is_person = attributes.get(REGION_TYPE, "").casefold() in PEOPLE_REGIONS
        for qualified, value in attributes.items():  # the short form
            if (short := known.get(qualified)) and (is_person or short != "mwg:Name"):
                found.add(short, value)

    def end(name: str) -> None:
        inside.pop()
        value = "".join(text)
        text.clear()
        if name != RDF_ITEM:
            if name in known and value.strip():
                found.add(known[name], value)
        elif holder := next((each for each in reversed(inside) if each in known), None):
            found.add(known[holder], value)

    def forbid(*_: object) -> None:
        raise _ForbiddenXmlError("it declares a document type, which XMP never does")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = text.append
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = forbid
    parser.Parse(packet, True)


def xmp_location(xmp: Properties) -> tuple[float, float] | None:
    """Return the place of `48,51.5N` and `2,20.9E`."""
    degrees = []
    for name in ("exif:GPSLatitude", "exif:GPSLongitude"):
        found = next(
            filter(None, (XMP_DEGREES.fullmatch(plain_text(value)) for value in xmp.all(name))), None
        )
        if found is None:
            return None
        parts = [float(part or 0) for part in found.groups()[:3]]
        degrees.append(_degrees(parts, negative=found[4].upper() in "SW"))
    return on_earth(*degrees)


IPTC_RECORDS = {
    (2, 25): "keywords",
    (2, 120): "caption",
    (2, 5): "title",
    (2, 92): "places",
    (2, 90): "places",
    (2, 95): "places",
    (2, 101): "places",
    (2, 55): "date",
    (2, 60): "time",
}


def _iptc(image: Image) -> Properties:
    found = Properties()
    try:
        records = (getiptcinfo(image) if isinstance(image, PillowFile) else None) or {}
    except Exception:  # Pillow raises whatever damaged records lead it to
        return found
    for key, name in IPTC_RECORDS.items():
        values = records.get(key, [])
        for value in values if isinstance(values, list) else [values]:
            found.add(name, value)
    return found


def _iptc_dates(iptc: Properties) -> list[str]:
    """Return the date with its time, as one text."""
    times = [plain_text(value) for value in iptc.all("time")] or [""]
    return [f"{plain_text(day)} {times[0]}".strip() for day in iptc.all("date")[:1]]


def _png(image: Image) -> Properties:
    """Return the texts of a PNG."""
    found = Properties()
    if image.format == "PNG":
        texts: Mapping[Any, Any] = image.info
        for name in ("Title", "Description", "Comment", "parameters", "Creation Time"):
            if isinstance(value := texts.get(name), str):
                found.add(name, value)
    return found
