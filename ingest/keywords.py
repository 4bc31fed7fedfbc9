"""What people wrote into a picture with their photo software: keywords and a description, as XMP and IPTC."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ingest.files.metadata import as_caption, plain_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from PIL.Image import Image

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
    """Return what XMP and IPTC say, XMP first; what is damaged says nothing and costs nothing else."""
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
    from xml.parsers.expat import ExpatError

    packet = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
    packet = packet.encode() if isinstance(packet, str) else packet
    found = _Found()
    if isinstance(packet, bytes) and 0 < len(packet) <= LONGEST_PACKET:
        with suppress(ExpatError, _ForbiddenXmlError, ValueError, LookupError):  # what came before is kept
            _parse(packet.strip(b"\0 \r\n\t"), found)
    return found


def _parse(packet: bytes, found: _Found) -> None:
    """Collect `dc:subject` and `dc:description`. No document type, and so no entity, is accepted."""
    from xml.parsers.expat import ParserCreate

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
    from PIL.IptcImagePlugin import getiptcinfo

    try:
        records: Mapping[tuple[int, int], Any] = getiptcinfo(image) or {}
    except Exception:  # Pillow raises whatever damaged records lead it to
        return _Found()
    keywords, caption = records.get(IPTC_KEYWORDS, []), records.get(IPTC_CAPTION, [])
    return _Found(*(value if isinstance(value, list) else [value] for value in (keywords, caption)))
