"""Find pictures that an index holds several times: the same content, or near-duplicates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from es_config.documents import one_line
from es_config.scan import HashedImage

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


@dataclass(frozen=True)
class ExactDuplicates:
    """One content with several paths."""

    image_id: str
    paths: tuple[str, ...]


@dataclass(frozen=True)
class NearDuplicate:
    """One picture of a group whose pictures look the same."""

    image_id: str
    paths: tuple[str, ...]
    distance: int
    """bits, 0 to 64, in which its hash differs from that of the group's first picture"""


@dataclass(frozen=True)
class Duplicates:
    """Groups of duplicates. Each near group has two pictures or more."""

    pictures: int
    """documents that were compared"""
    distance: int
    exact: tuple[ExactDuplicates, ...]
    near: tuple[tuple[NearDuplicate, ...], ...]

    def as_dict(self) -> dict[str, object]:
        """Return the JSON object of `glimpse duplicates --json`."""
        return asdict(self)

    def in_words(self) -> str:
        """Return the groups for people, each with its paths, and a last line that sums up."""
        lines = []
        for exact in self.exact:
            lines += [
                f"exact, {len(exact.paths)} paths",
                *(f"  {one_line(path)}" for path in exact.paths),
                "",
            ]
        for group in self.near:
            lines.append(f"near, {len(group)} pictures")
            for each in group:
                lines += [f"  {each.distance:2} bits  {one_line(path)}" for path in each.paths]
            lines.append("")
        sums = f"{self.pictures} pictures: {len(self.exact)} exact and {len(self.near)} near groups"
        return "\n".join([*lines, sums])


def find_duplicates(
    blocks: Iterable[Sequence[HashedImage]],
    *,
    paths_of: Callable[[list[str]], Mapping[str, tuple[str, ...]]],
    distance: int = DEFAULT_DISTANCE,
) -> Duplicates:
    """Group the pictures of an index.

    Only the id and hash of each picture are kept, about 100 bytes; `paths_of` returns the paths of those that
    are in a group. Pictures of one colour are left out, because their hashes do not tell them apart.
    """
    pictures, exact, ids, hashes = _read(blocks)
    groups = [
        list(zip(ids[places], hashes[places], strict=True))
        for places in group_near_duplicates(hashes, distance=distance)
    ]
    known = paths_of([name.decode() for group in groups for name, _ in group])
    near = (_near([(name.decode(), int(phash)) for name, phash in group], known) for group in groups)
    return Duplicates(
        pictures,
        distance,
        tuple(sorted(exact, key=lambda copies: copies.paths)),
        tuple(sorted((group for group in near if len(group) > 1), key=lambda group: group[0].paths)),
    )


def _near(
    group: Sequence[tuple[str, int]], known: Mapping[str, tuple[str, ...]]
) -> tuple[NearDuplicate, ...]:
    """Return a group sorted by paths, without pictures that have left the index meanwhile."""
    members = sorted((known[name], name, phash) for name, phash in group if name in known)
    return tuple(
        NearDuplicate(name, paths, (phash ^ members[0][2]).bit_count()) for paths, name, phash in members
    )


def _read(
    blocks: Iterable[Sequence[HashedImage]],
) -> tuple[int, list[ExactDuplicates], np.ndarray, np.ndarray]:
    """Return the number of pictures, exact duplicates, and ids and hashes of pictures of several colours."""
    pictures, exact, ids, hashes = 0, [], [np.zeros(0, "S64")], [np.zeros(0, np.uint64)]
    for block in blocks:
        pictures += len(block)
        exact += [ExactDuplicates(each.image_id, each.paths) for each in block if len(each.paths) > 1]
        comparable = [
            (each.image_id.encode(), each.phash)
            for each in block
            if each.phash is not None and FEWEST_BITS <= each.phash.bit_count() <= 64 - FEWEST_BITS
        ]
        ids.append(np.array([image_id for image_id, _ in comparable], "S"))
        hashes.append(np.array([phash for _, phash in comparable], np.uint64))
    return pictures, exact, np.concatenate(ids), np.concatenate(hashes)
