"""Tell the films of live photos, which belong to a picture, from films of their own, and find a picture's."""

from __future__ import annotations

import io
import os
import re
import stat
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

FILM_PARTS = (".mov", ".mp4", ".m4v", ".mp", ".mv")
"""extensions that phones give to the moving part of a picture"""
STILLS = (".heic", ".heif", ".hif", ".jpg", ".jpeg", ".avif", ".dng", ".png")
LONGEST_S = 6.0
"""seconds; phones film about three around a picture"""
IDENTIFIER = b"com.apple.quicktime.content.identifier"
UUID = re.compile(rb"[0-9A-F]{8}-(?:[0-9A-F]{4}-){3}[0-9A-F]{12}")
"""by which Apple's two files know each other: in the film's metadata, and in the picture's maker note"""
MOVIE_BYTES = 4 << 20
"""of a film's description that are read"""
HEAD, TAIL = 1 << 20, 1 << 18
"""bytes of a picture in which its identifier is looked for"""
MOST_ATOMS = 64
MOST_OTHERS = 64
"""films of other names in a folder that are asked for Apple's identifier of one picture"""
MOST_STARTS, MOST_PARTS = 64, 1024
"""places of a picture in which a film is looked for, and parts that it may have"""
MOTION = re.compile(rb"\xff\xd8\xff|....ftyp", re.DOTALL)
"""how pictures begin that may have a film inside: JPEG, HEIC, AVIF"""
ATOMS = frozenset(
    (
        b"ftyp",
        b"moov",
        b"mdat",
        b"free",
        b"skip",
        b"wide",
        b"uuid",
        b"udta",
        b"meta",
        b"moof",
        b"mfra",
        b"sidx",
    )
)
"""parts of a film"""


@dataclass(frozen=True)
class _Movie:
    seconds: float | None
    identifier: bytes | None

    @property
    def is_short(self) -> bool:
        return self.seconds is not None and self.seconds <= LONGEST_S

    def belongs(self, identifiers: Iterable[frozenset[bytes]]) -> bool:
        """Return whether no picture of its name, each with its identifiers, denies a film."""
        if self.identifier is None:
            return True
        own = [each for each in identifiers if each]
        return not own or any(self.identifier in each for each in own)


def film_parts(folder: Path, names: Iterable[str]) -> frozenset[str]:
    """Return those of the `names` in a folder that are the films of live photos there.

    A film belongs to a picture if both hold the same identifier of Apple, or if it is short and has the
    picture's name (`IMG_1.MOV`, or `PXL_1.MP` beside `PXL_1.MP.jpg`) and neither denies it.
    """
    names = list(names)
    films = [name for name in names if is_part_name(name)]
    if not films:
        return frozenset()
    stills = [name for name in names if _extension(name) in STILLS]
    by_stem: dict[str, list[str]] = {}
    for name in stills:
        for key in still_keys(name):
            by_stem.setdefault(key, []).append(name)
    found, elsewhere = set(), _Seen()
    for film in films:
        partners = [name for key in part_keys(film) for name in by_stem.get(key, ())]
        movie = _movie(_open(folder / film)) if partners or stills else None
        if movie is None or not movie.is_short:
            continue
        if not partners:
            is_part = movie.identifier is not None and movie.identifier in elsewhere.of(folder, stills)
        else:
            is_part = movie.belongs(_identifiers(_open(folder / name)) for name in partners)
        if is_part:
            found.add(film)
    return frozenset(found)


@dataclass
class _Seen:
    """The identifiers of all pictures of a folder, read once if a film asks for them."""

    known: frozenset[bytes] | None = None

    def of(self, folder: Path, stills: Iterable[str]) -> frozenset[bytes]:
        if self.known is None:
            self.known = frozenset().union(*(_identifiers(_open(folder / name)) for name in stills))
        return self.known


def is_film_part(path: Path) -> bool:
    """Return whether a file is the film of a live photo in its folder."""
    if not is_part_name(path.name):
        return False
    try:
        return path.name in film_parts(path.parent, [each.name for each in path.parent.iterdir()])
    except OSError:
        return False


def part_beside(still: Path) -> Path | None:
    """Return the film that belongs to a picture of a live photo, or None: as `film_parts` pairs them."""
    keys = still_keys(still.name)
    if not keys:
        return None
    try:
        with os.scandir(still.parent) as entries:
            films = sorted(each.name for each in entries if is_part_name(each.name))
    except OSError:
        return None
    named = [name for name in films if not set(keys).isdisjoint(part_keys(name))]
    own = _identifiers(_open(still)) if films else frozenset()
    others = [name for name in films if name not in named and not name.startswith(".")] if own else []
    for name in [*named, *others[:MOST_OTHERS]]:
        movie = _movie(_open(still.parent / name))
        if movie is None or not movie.is_short:
            continue
        if movie.belongs([own]) if name in named else movie.identifier in own:
            return still.parent / name
    return None


def film_inside(picture: bytes) -> tuple[int, int] | None:
    """Return the position and the length of the film in the file of a motion photo, in bytes, or None.

    Phones put it behind the picture (Google, Samsung, with something of their own behind it) or into a box
    of its HEIC.
    """
    if not may_have_film(picture):
        return None
    found = 4
    for _ in range(MOST_STARTS):
        found = picture.find(b"ftyp", found + 4)
        if found < 0:
            break
        start = end = found - 4
        kinds = set()
        for _ in range(MOST_PARTS):
            if (atom := _atom_at(picture, end)) is None:
                break
            kinds.add(atom[0])
            end = atom[1]
        if {b"moov", b"mdat"} <= kinds:
            return start, end - start
    return None


def may_have_film(head: bytes) -> bool:
    """Return whether a file that begins so is of a kind that may have a film inside."""
    return MOTION.match(head) is not None


def _atom_at(data: bytes, at: int) -> tuple[bytes, int] | None:
    """Return the name of a film's part that begins there, and its end, or None where none does."""
    if at + 8 > len(data):
        return None
    length, kind = struct.unpack_from(">I4s", data, at)
    if length == 1 and at + 16 <= len(data):
        (length,) = struct.unpack_from(">Q", data, at + 8)
    elif length == 0:
        length = len(data) - at
    return (kind, at + length) if kind in ATOMS and 8 <= length <= len(data) - at else None


def is_part_name(name: str) -> bool:
    """Return whether a film may be one of a live photo, by its name or path."""
    return _extension(name) in FILM_PARTS


def part_keys(film: str) -> tuple[str, ...]:
    """Return the keys of a film's name, one of which a picture with its name has too."""
    return os.path.splitext(film)[0].casefold(), film.casefold()  # noqa: PTH122


def still_keys(name: str) -> tuple[str, ...]:
    """Return the keys by which a film finds the picture of this name or path: none if it is no picture."""
    if _extension(name) not in STILLS:
        return ()
    stem = os.path.splitext(name)[0].casefold()  # noqa: PTH122
    return (stem, stem.removesuffix(".mp")) if stem.endswith(".mp") else (stem,)


def is_part_of(film: bytes, stills: Iterable[bytes]) -> bool:
    """Return whether a film is one of a live photo, by its content and that of the pictures of its name."""
    movie = _movie(io.BytesIO(film))
    if movie is None or not movie.is_short:
        return False
    return movie.belongs(_identifiers(io.BytesIO(still)) for still in stills)


def _extension(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - called for every name of a walk


def _open(path: Path) -> BinaryIO | None:
    """Open a regular file, or return None for anything else and on errors."""
    try:
        # Without O_NONBLOCK, opening a named pipe waits for somebody to write into it.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    return os.fdopen(descriptor, "rb")


def _movie(file: BinaryIO | None) -> _Movie | None:
    """Return the length and the identifier of an MP4 or MOV, by its own description. Close it."""
    if file is None:
        return None
    with file:
        try:
            data = _description(file)
        except OSError:
            return None
    if data is None:
        return None
    marked = IDENTIFIER in data
    found = UUID.search(data, data.index(IDENTIFIER)) if marked else None
    return _Movie(_seconds(data), found[0] if found else None)


def _description(file: BinaryIO) -> bytes | None:
    """Return the `moov` atom of a film, or None without one."""
    size, position = file.seek(0, os.SEEK_END), 0
    for _ in range(MOST_ATOMS):
        file.seek(position)
        head = file.read(16)
        if len(head) < 8:
            return None
        length, kind = struct.unpack_from(">I4s", head)
        if length == 1 and len(head) == 16:
            (length,) = struct.unpack_from(">Q", head, 8)
        elif length == 0:
            length = size - position
        if kind == b"moov":
            file.seek(position)
            return file.read(min(length, MOVIE_BYTES))
        if length < 8:
            return None
        position += length
    return None


def _seconds(data: bytes) -> float | None:
    """Return the length that the `mvhd` atom in a film's description tells."""
    at = data.find(b"mvhd")
    try:
        if at < 0:
            return None
        if data[at + 4] == 1:
            scale, length = struct.unpack_from(">IQ", data, at + 24)
        else:
            scale, length = struct.unpack_from(">II", data, at + 16)
    except (struct.error, IndexError):
        return None
    return length / scale if scale else None


def _identifiers(file: BinaryIO | None) -> frozenset[bytes]:
    """Return the texts that may be Apple's identifier in a picture. Close it."""
    if file is None:
        return frozenset()
    with file:
        try:
            data = file.read(HEAD)
            size = file.seek(0, os.SEEK_END)
            if size > HEAD:
                file.seek(max(HEAD, size - TAIL))
                data += file.read(TAIL)
        except OSError:
            return frozenset()
    return frozenset(UUID.findall(data)) if b"Apple" in data else frozenset()
