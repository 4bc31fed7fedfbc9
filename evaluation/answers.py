"""Which pictures of the index the labels mean: ids stay, paths are looked up."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evaluation.errors import EvaluationError

if TYPE_CHECKING:
    from evaluation.labels import LabelledQuery

IMAGE_ID = re.compile(r"[0-9a-f]{64}")
EXAMPLES = 3


@dataclass(frozen=True)
class Answers:
    """The queries that can be judged, with the ids that answer each."""

    queries: tuple[LabelledQuery, ...]
    relevant: dict[str, tuple[str, ...]]
    """ids by the query's key"""
    unknown: tuple[str, ...]
    """ids and paths of the labels that the index does not hold"""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know about labels that lead nowhere."""
        if not self.unknown:
            return ()
        some = ", ".join(f"'{name[:80]}'" for name in self.unknown[:EXAMPLES])
        return (f"{len(self.unknown)} labels name no picture of the index and are left out, such as {some}.",)


def find_answers(
    queries: Sequence[LabelledQuery], *, find: Callable[[Sequence[str]], Mapping[str, Sequence[str]]]
) -> Answers:
    """Look every label up; `find` maps those names of pictures that the index has to ids.

    A query whose pictures are all unknown is left out. Raises `EvaluationError` when none can be judged.
    """
    named = list(dict.fromkeys(name for query in queries for name in query.relevant))
    found = find(named)
    relevant = {
        query.key: tuple(dict.fromkeys(each for name in query.relevant for each in found.get(name, ())))
        for query in queries
    }
    judged = tuple(query for query in queries if relevant[query.key])
    unknown = tuple(name for name in named if name not in found)
    if not judged:
        raise EvaluationError(
            "No query has a relevant picture that the index holds"
            + (f": '{unknown[0][:80]}' is not in it" if unknown else "")
            + "; label with ids or with relative paths as `glimpse search` prints them."
        )
    return Answers(judged, {query.key: relevant[query.key] for query in judged}, unknown)


def picture_finder(
    *,
    known: Callable[[Sequence[str]], Iterable[str]],
    by_name: Callable[[Sequence[str]], Iterable[tuple[str, Sequence[str]]]],
) -> Callable[[Sequence[str]], dict[str, list[str]]]:
    """Return what `find_answers` takes, for an index of pictures.

    `known` gives those ids that exist; `by_name` gives id and relative paths of pictures with given file
    names. A label is an id, a relative path, or a path that ends in one or that one ends in.
    """

    def find(names: Sequence[str]) -> dict[str, list[str]]:
        ids = [name for name in names if IMAGE_ID.fullmatch(name)]
        found = {image_id: [image_id] for image_id in known(ids)}
        paths = {name: _parts(name) for name in names if name not in found}
        wanted = list(dict.fromkeys(parts[-1] for parts in paths.values() if parts))
        pictures: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
        for image_id, places in by_name(wanted):
            for place in places:
                parts = _parts(place)
                pictures.setdefault(parts[-1], []).append((image_id, parts))
        for name, parts in paths.items():
            matches = [
                image_id for image_id, place in pictures.get(parts[-1] if parts else "", ())
                if _same_end(parts, place)
            ]  # fmt: skip
            if matches:
                found[name] = list(dict.fromkeys(matches))
        return found

    return find


def _parts(path: str) -> tuple[str, ...]:
    return tuple(part for part in path.replace("\\", "/").split("/") if part not in ("", "."))


def _same_end(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    shared = min(len(one), len(other))
    return one[-shared:] == other[-shared:]
