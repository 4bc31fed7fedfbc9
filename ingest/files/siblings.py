"""Tell by their names which files beside a picture are its sidecars: XMP, and the JSON of Google Takeout."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

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


class Siblings:
    """The sidecars in one folder."""

    def __init__(self, names: Iterable[str]) -> None:
        """Take the names of all that is in the folder."""
        self._by_key = {_key(name): name for name in sorted(names) if is_sidecar(name)}

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
