"""Find pictures that an index holds several times: the same content, or near-duplicates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import numpy as np

    from es_config.scan import HashedImage

BANDS = 4
FARTHEST = 3
"""bits; of the four bands of two hashes that differ in so few, one is the same"""
MANY_PAIRS = 1 << 20
"""pairs that are joined at once: this bounds the memory"""


def group_near_duplicates(hashes: np.ndarray, *, distance: int) -> list[np.ndarray]:
    """Return groups, of two or more, of places in uint64 `[n]` that chains of small distances join.

    Neighbours in a chain differ in at most `distance` bits, 0 to 3. Groups come by their first place, places
    rising.
    """
    import numpy as np
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

    By the pigeonhole principle, one of the four 16-bit bands of such a pair is the same: only hashes that
    share a band are compared. Pairs come in blocks of about a million; some come twice.
    """
    import numpy as np

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
    import numpy as np

    return np.concatenate([left for left, _ in pairs]), np.concatenate([right for _, right in pairs])


DEFAULT_DISTANCE = 2
"""bits: copies in another size or format are within, different pictures hardly ever; docs/pictures.md"""
FEWEST_BITS = 4
"""a hash with fewer bits set, or unset, is of a picture of one colour, which looks like every other"""


@dataclass(frozen=True)
class Copies:
    """One content with several paths."""

    image_id: str
    paths: tuple[str, ...]


@dataclass(frozen=True)
class Alike:
    """One picture of a group that looks alike."""

    image_id: str
    paths: tuple[str, ...]
    distance: int
    """bits, 0 to 64, in which its hash differs from that of the group's first picture"""


@dataclass(frozen=True)
class Duplicates:
    """What `find_duplicates` found; a group has two pictures or more."""

    pictures: int
    """documents that were looked at"""
    distance: int
    exact: tuple[Copies, ...]
    near: tuple[tuple[Alike, ...], ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object of `glimpse duplicates --json`."""
        return {
            "pictures": self.pictures,
            "distance": self.distance,
            "exact": [vars(each) for each in self.exact],
            "near": [[vars(each) for each in group] for group in self.near],
        }


def find_duplicates(
    blocks: Iterable[Sequence[HashedImage]],
    *,
    paths_of: Callable[[list[str]], Mapping[str, tuple[str, ...]]],
    distance: int = DEFAULT_DISTANCE,
) -> Duplicates:
    """Group the pictures of an index.

    Of each picture only its id and hash are kept, about 100 bytes; `paths_of` is asked for the paths of those
    that are in a group. Pictures of one colour are in no group: their hashes say nothing.
    """
    pictures, exact, ids, hashes = _read(blocks)
    groups = [
        list(zip(ids[places], hashes[places], strict=True))
        for places in group_near_duplicates(hashes, distance=distance)
    ]
    known = paths_of([name.decode() for group in groups for name, _ in group])
    near = (_alike([(name.decode(), int(phash)) for name, phash in group], known) for group in groups)
    return Duplicates(
        pictures,
        distance,
        tuple(sorted(exact, key=lambda copies: copies.paths)),
        tuple(sorted((group for group in near if len(group) > 1), key=lambda group: group[0].paths)),
    )


def _alike(group: Sequence[tuple[str, int]], known: Mapping[str, tuple[str, ...]]) -> tuple[Alike, ...]:
    """Return a group by its paths, without the pictures that are gone meanwhile."""
    members = sorted((known[name], name, phash) for name, phash in group if name in known)
    return tuple(Alike(name, paths, (phash ^ members[0][2]).bit_count()) for paths, name, phash in members)


def _read(blocks: Iterable[Sequence[HashedImage]]) -> tuple[int, list[Copies], np.ndarray, np.ndarray]:
    """Return the number of pictures, the exact copies, and ids and hashes of those whose hash tells."""
    import numpy as np

    pictures, exact, ids, hashes = 0, [], [np.zeros(0, "S64")], [np.zeros(0, np.uint64)]
    for block in blocks:
        pictures += len(block)
        exact += [Copies(each.image_id, each.paths) for each in block if len(each.paths) > 1]
        telling = [each for each in block if each.phash is not None and _tells(each.phash)]
        ids.append(np.array([each.image_id.encode() for each in telling], "S"))
        hashes.append(np.array([each.phash for each in telling], np.uint64))
    return pictures, exact, np.concatenate(ids), np.concatenate(hashes)


def _tells(phash: int) -> bool:
    return FEWEST_BITS <= phash.bit_count() <= 64 - FEWEST_BITS
