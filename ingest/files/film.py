"""Read a film file: the facts about its taking, and the pictures that stand for it and for its moments."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from PIL import Image as pil
from PIL.Image import Image

from es_config.documents import FilmMoment, moment_id
from ingest.errors import UnreadableImageError
from ingest.files.metadata import (
    CameraData,
    Taken,
    Words,
    as_caption,
    date_in_name,
    on_earth,
    parse_date,
    plain_text,
)
from ingest.files.picture import FileContent, ImageFile, perceptual_hash
from models.films import Film, FilmPicture, film_picture, read_film
from models.pixels import PictureError, TooSlowError

FILM = "film"
"""the source of a date"""
DATES = ("com.apple.quicktime.creationdate", "creation_time", "date")
"""the first one has the time of the place; the others are in UTC"""
PLACES = ("com.apple.quicktime.location.iso6709", "location", "location-eng")
MAKES = ("com.apple.quicktime.make", "com.android.manufacturer", "make")
MODELS = ("com.apple.quicktime.model", "com.android.model", "model")
TITLES = ("com.apple.quicktime.title", "title")
DESCRIPTIONS = ("com.apple.quicktime.description", "description", "comment")
KEYWORDS = ("com.apple.quicktime.keywords", "keywords")
ISO_6709 = re.compile(r"([+-]\d{1,2}(?:\.\d+)?)([+-]\d{1,3}(?:\.\d+)?)(?:[+-]|/|CRS|$)")
FIRST_YEAR = 1980
"""before it, a film's date is the beginning of some calendar"""
QUARTER = timedelta(minutes=15)
MOST_KEYWORDS = LONGEST_KEYWORD = 100


@dataclass(frozen=True)
class FilmFile:
    """One film file, as far as it was decoded."""

    content: FileContent
    film: Film
    exif: CameraData
    words: Words

    def first(self) -> tuple[ImageFile, FilmMoment]:
        """Return the picture that stands for the film. Its document has the film's own id."""
        return self._picture(self.film.first, self.content.image_id, is_moment=False)

    def moments(self) -> Iterator[tuple[ImageFile, FilmMoment]]:
        """Yield the pictures of the other moments: each is unpacked when it is needed."""
        for picture in self.film.moments:
            yield self._picture(picture, moment_id(self.content.image_id, picture.time_ms), is_moment=True)

    @property
    def times(self) -> tuple[int, ...]:
        """The times of the moments, in milliseconds."""
        return tuple(each.time_ms for each in self.film.moments)

    def _picture(
        self, picture: FilmPicture, image_id: str, *, is_moment: bool
    ) -> tuple[ImageFile, FilmMoment]:
        film = self.film
        image = pil.open(io.BytesIO(picture.webp), formats=("WEBP",)).convert("RGB")
        file = ImageFile(
            image_id=image_id,
            image=image,
            width=film.width,
            height=film.height,
            size_bytes=self.content.size,
            exif=self.exif,
            words=self.words,
            phash=perceptual_hash(image),
            format=FILM,
        )
        of_film = FilmMoment(
            id=self.content.image_id,
            time_ms=picture.time_ms,
            duration_ms=film.duration_ms,
            is_moment=is_moment,
            codec=film.codec,
            has_sound=film.has_sound,
        )
        return file, of_film


def decode_film(content: FileContent, path: Path, *, moments: bool, name: str = "") -> FilmFile:
    """Return a film's facts and pictures, with those of its `moments` or only the first good one.

    The `name` is that of the film where the `path` is that of a copy. It is decoded in a process of its own,
    within bounds. Raises `UnreadableImageError`.
    """
    try:
        film = read_film(path, container=content.film or "mov", moments=moments)
    except PictureError as error:
        reason = f"a film that cannot be used: {error}"
        raise UnreadableImageError(reason, lasting=not isinstance(error, TooSlowError)) from error
    return FilmFile(content, film, *film_metadata(film.tags, name or path.name))


def decode_moment(content: FileContent, path: Path, *, time_ms: int, edge: int) -> Image:
    """Return a film's upright RGB picture at a time, its longer edge at most `edge` pixels.

    Raises `UnreadableImageError`.
    """
    try:
        return film_picture(path, container=content.film or "mov", time_ms=time_ms, edge=edge)
    except PictureError as error:
        raise UnreadableImageError(str(error), lasting=not isinstance(error, TooSlowError)) from error


def film_metadata(tags: Mapping[str, str], name: str) -> tuple[CameraData, Words]:
    """Return the facts and words that a film's metadata tells. `name` is that of its file."""
    camera = " ".join(filter(None, (_said(tags, MAKES), _said(tags, MODELS))))
    keywords = dict.fromkeys(filter(None, map(plain_text, _said(tags, KEYWORDS).split(","))))
    description, title = as_caption(_said(tags, DESCRIPTIONS)), as_caption(_said(tags, TITLES))
    facts = CameraData(
        taken=_taken(tags, name),
        location=_location(tags),
        camera=camera[:200] or None,
        description=description,
    )
    words = Words(
        tags=tuple(each[:LONGEST_KEYWORD] for each in keywords)[:MOST_KEYWORDS],
        description=description,
        title=title[:300] if title else None,
    )
    return facts, words


def _said(tags: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((text for name in names if (text := plain_text(tags.get(name)))), "")


def _taken(tags: Mapping[str, str], name: str) -> Taken | None:
    """Return when a film was taken. Its clock is UTC unless it, or the file's name, says otherwise."""
    for tag in DATES:
        found = parse_date(plain_text(tags.get(tag)), source=FILM)
        if found is None or found.local.year < FIRST_YEAR:
            continue
        if tag == DATES[0] and found.offset is not None:
            return found
        utc = Taken(found.instant.replace(tzinfo=None) - (found.offset or timedelta()), timedelta(), FILM)
        return _as_named(utc, name)
    return None


def _as_named(utc: Taken, name: str) -> Taken:
    """Return a date in UTC by the clock of the place, where the file's name tells its time."""
    named = date_in_name(name)
    if named is None or named.offset is not None:
        return utc
    offset = round((named.local - utc.local) / QUARTER) * QUARTER
    if abs(offset) > timedelta(hours=15) or named.local.time() == timedelta(0):
        return utc
    return replace(utc, local=utc.local + offset, offset=offset)


def _location(tags: Mapping[str, str]) -> tuple[float, float] | None:
    for name in PLACES:
        if match := ISO_6709.match(plain_text(tags.get(name))):
            return on_earth(float(match[1]), float(match[2]))
    return None
