"""Find pictures that an index holds several times: the same content, or near-duplicates."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from es_config.documents import paths_of
from es_config.index import ImageIndex, read_documents
from es_config.scan import HashedImage, scan_hashes
from ingest.history.ingested_files import IngestedFile, IngestHistory
from search_app.core.duplicates import (
    Duplicates,
    ExactDuplicates,
    NearDuplicate,
    NearDuplicates,
    PictureFiles,
)

BANDS = 4
FARTHEST = 3
"""bits; two hashes that differ in no more than these have one of four bands in common"""
MANY_PAIRS = 1 << 20
"""pairs that are joined at once, which bounds the memory"""
DEFAULT_DISTANCE = 2
"""bits: copies in another size or format are within, different pictures hardly ever; docs/pictures.md"""
FEWEST_BITS = 4
"""A hash with fewer bits set, or unset, comes from a picture of one colour, which looks like every other."""


def group_near_duplicates(hashes: np.ndarray, *, distance: int) -> list[np.ndarray]:
    """Group the places in uint64 `[n]` that chains of small distances join, two or more in a group.

    Neighbours in a chain differ in at most `distance` bits, 0 to 3. Groups are sorted by their first place,
    places rise.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not 0 <= distance <= FARTHEST:
        raise ValueError(f"distance is {distance}; it must be between 0 and {FARTHEST}")
    values, inverse = np.unique(hashes, return_inverse=True)
    labels: np.ndarray = np.arange(len(values))
    for left, right in near_pairs(values, distance=distance):
        joins = (np.ones(len(left), bool), (labels[left], labels[right]))
        graph = coo_array(joins, shape=(len(values), len(values)))
        labels = connected_components(graph, directed=False)[1][labels]
    labels = labels[inverse]
    order = np.argsort(labels, kind="stable")
    cuts = np.flatnonzero(np.diff(labels[order])) + 1
    groups = [group for group in np.split(order, cuts) if len(group) > 1]
    return sorted(groups, key=lambda group: group[0])


def near_pairs(values: np.ndarray, *, distance: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (places, places) of different uint64 `[n]` that differ in at most `distance` bits, 0 to 3.

    By the pigeonhole principle, such a pair has one of four 16-bit bands in common, so only hashes that share
    a band are compared. Pairs come in blocks of about a million; some come twice.
    """
    found: list[tuple[np.ndarray, np.ndarray]] = []
    count = 0
    for band in range(BANDS):
        # Every fourth bit, so that no band has the low frequencies alone, which many pictures share.
        keys = values & np.uint64(0x1111_1111_1111_1111 << band)
        order = np.argsort(keys, kind="stable")
        keys, ordered = keys[order], values[order]
        places, step = np.arange(len(order)), 1
        while len(places := places[: np.searchsorted(places, len(order) - step)]):
            places = places[keys[places] == keys[places + step]]
            near = places[np.bitwise_count(ordered[places] ^ ordered[places + step]) <= distance]
            if len(near):
                found.append((order[near], order[near + step]))
                count += len(near)
            if count >= MANY_PAIRS:
                yield _joined(found)
                found, count = [], 0
            step += 1
    if found:
        yield _joined(found)


def _joined(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([left for left, _ in pairs]), np.concatenate([right for _, right in pairs])


def files_of(notes: Iterable[IngestedFile], relative_paths: Sequence[str]) -> PictureFiles:
    """Look at the disk for the files of a picture. `relative_paths` are those of its document."""
    found: dict[tuple[int, int], tuple[int, int, str]] = {}
    seen: set[str] = set()
    for note in notes:
        try:
            status = os.stat(note.path)  # noqa: PTH116
        except (OSError, ValueError):
            continue
        seen.add(note.relative_path)
        rank = (status.st_mtime_ns, len(note.path), note.shown)
        identity = (status.st_dev, status.st_ino)
        found[identity] = min(rank, found.get(identity, rank))
    return PictureFiles(
        tuple(path for _, _, path in sorted(found.values())),
        tuple(path for path in relative_paths if path not in seen),
    )


@dataclass(frozen=True)
class PictureFacts:
    """The parts of a document by which copies are told apart."""

    paths: tuple[str, ...]
    """relative"""
    width: int
    height: int
    size_bytes: int
    taken: str | None = None
    caption: str | None = None
    keywords: int = 0
    favourite: bool = False


def find_duplicates(
    blocks: Iterable[Sequence[HashedImage]],
    *,
    facts_of: Callable[[list[str]], Mapping[str, PictureFacts]],
    notes_of: Callable[[str], Iterable[IngestedFile]],
    distance: int = DEFAULT_DISTANCE,
) -> Duplicates:
    """Group the pictures of an index.

    Only the id and hash of each picture are kept, about 100 bytes; `facts_of` is asked for those that are in
    a group, and `notes_of` for the files of each that this machine ingested: two paths to one file are no
    duplicate. Pictures of one colour are left out, because their hashes do not tell them apart.
    """
    pictures, several, ids, hashes = _read(blocks)
    exact = [
        ExactDuplicates(each.image_id, files, files.first, WHY_OLDEST if files.paths else WHY_FIRST)
        for each in several
        if len((files := files_of(notes_of(each.image_id), each.paths)).paths + files.elsewhere) > 1
    ]
    groups = [
        list(zip(ids[places], hashes[places], strict=True))
        for places in group_near_duplicates(hashes, distance=distance)
    ]
    known = facts_of([name.decode() for group in groups for name, _ in group])
    near = (
        _near([(name.decode(), int(phash)) for name, phash in group], known, notes_of) for group in groups
    )
    return Duplicates(
        pictures,
        distance,
        tuple(sorted(exact, key=lambda copies: copies.files.first)),
        tuple(sorted(filter(None, near), key=lambda group: group.pictures[0].files.first)),
    )


WHY_OLDEST = "the oldest file"
WHY_FIRST = "the first path, since none of them is on this machine"


def _near(
    group: Sequence[tuple[str, int]],
    known: Mapping[str, PictureFacts],
    notes_of: Callable[[str], Iterable[IngestedFile]],
) -> NearDuplicates | None:
    """Return a group sorted by paths, without pictures that have left the index meanwhile."""
    members = [
        (files_of(notes_of(name), known[name].paths), name, phash) for name, phash in group if name in known
    ]
    members.sort(key=lambda member: (member[0].first, member[1]))
    if len(members) < 2:
        return None
    pictures = []
    for files, name, phash in members:
        facts = known[name]
        pictures.append(
            NearDuplicate(
                name,
                files,
                (phash ^ members[0][2]).bit_count(),
                facts.width,
                facts.height,
                facts.size_bytes,
                (facts.paths or ("",))[0],
                facts.taken,
                facts.caption,
                facts.keywords,
                facts.favourite,
            )
        )
    best, why = choose_best(pictures)
    return NearDuplicates(tuple(pictures), best.files.first, best.image_id, why)


COPY = re.compile(r"\b(copy|copi[ae]|kopie)\b|\(\d+\)", re.IGNORECASE)
"""words that programs put into the name of a copy"""
CRITERIA: tuple[tuple[str, Callable[[NearDuplicate], Any]], ...] = (
    ("the most pixels", lambda each: -each.width * each.height),
    ("the date of taking it", lambda each: each.taken is None),
    ("the largest file", lambda each: -each.size_bytes),
    ("the oldest", lambda each: each.taken or "9"),
    ("the best path", lambda each: (bool(COPY.search(each.files.first)), len(each.files.first))),
    ("the first path", lambda each: each.files.first),
)
"""reason to keep a picture, and what is smallest of the best one"""


def choose_best(pictures: Sequence[NearDuplicate]) -> tuple[NearDuplicate, str]:
    """Return the picture of a group that would be kept, and the reasons that tell it from the others."""
    left, why = list(pictures), list[str]()
    for reason, rank in CRITERIA:
        best = min(map(rank, left))
        fewer = [each for each in left if rank(each) == best]
        if len(fewer) < len(left):
            left = fewer
            why.append(reason)
    return left[0], ", then ".join(why)


def read_duplicates(index: ImageIndex, history: IngestHistory, *, distance: int) -> Duplicates:
    """Group the pictures of an index. Raises `EngineError`, and `IngestError` for unreadable notes."""
    name = index.name()

    def facts_of(ids: list[str]) -> dict[str, PictureFacts]:
        fields = ["relative_path", "width", "height", "size_bytes", "exif", "caption", "tags", "favourite"]
        found = read_documents(index.client, name, ids, fields=fields)
        return {image_id: _facts(document["_source"]) for image_id, document in found.items()}

    blocks = scan_hashes(index.client, name)
    return find_duplicates(blocks, facts_of=facts_of, notes_of=history.of_image, distance=distance)


def _facts(source: Mapping[str, Any]) -> PictureFacts:
    exif = source.get("exif") or {}
    return PictureFacts(
        paths_of(source),
        source.get("width", 0),
        source.get("height", 0),
        source.get("size_bytes", 0),
        taken=exif.get("local_date") or exif.get("date"),
        caption=source.get("caption"),
        keywords=len(source.get("tags") or ()),
        favourite=bool(source.get("favourite")),
    )


def _read(
    blocks: Iterable[Sequence[HashedImage]],
) -> tuple[int, list[HashedImage], np.ndarray, np.ndarray]:
    """Return the number of pictures, those of several paths, and ids and hashes of comparable ones."""
    pictures, several, ids, hashes = 0, [], [np.zeros(0, "S64")], [np.zeros(0, np.uint64)]
    for block in blocks:
        pictures += len(block)
        several += [each for each in block if len(each.paths) > 1]
        comparable = [
            (each.image_id.encode(), each.phash)
            for each in block
            if each.phash is not None and FEWEST_BITS <= each.phash.bit_count() <= 64 - FEWEST_BITS
        ]
        ids.append(np.array([image_id for image_id, _ in comparable], "S"))
        hashes.append(np.array([phash for _, phash in comparable], np.uint64))
    return pictures, several, np.concatenate(ids), np.concatenate(hashes)
