"""Find pictures that an index holds several times: the same content, or near-duplicates."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import numpy as np

    from es_config.scan import HashedImage

BANDS, BAND_BITS = 4, 16
FARTHEST = 11
"""bits; farther apart, pictures are rarely alike, and the candidates become too many"""
STRIDE = 1 << 19
"""pairs that are compared together: what is needed beside the hashes is a few times as many bytes"""


def group_alike(hashes: np.ndarray, *, distance: int) -> list[np.ndarray]:
    """Return the groups, of two or more, of places in uint64 `[n]` that chains of small distances join.

    Neighbours in a chain differ in at most `distance` bits, 0 to 11. Groups come by their first place, places
    rising. A million random hashes take about a minute at the most and 100 MB.
    """
    import numpy as np

    if not 0 <= distance <= FARTHEST:
        raise ValueError(f"distance is {distance}; it must be between 0 and {FARTHEST}")
    values, inverse = np.unique(hashes, return_inverse=True)
    parent = np.arange(len(values))
    for left, right in near_pairs(values, distance=distance):
        _join(parent, left, right)
    labels = parent[inverse]
    order = np.argsort(labels, kind="stable")
    cuts = np.flatnonzero(np.diff(labels[order])) + 1
    groups = [group for group in np.split(order, cuts) if len(group) > 1]
    return sorted(groups, key=lambda group: group[0])


def near_pairs(values: np.ndarray, *, distance: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (places, places) of different uint64 `[n]` that differ in at most `distance` bits; some twice.

    By the pigeonhole principle, of the four 16-bit bands of such a pair at least one differs in at most a
    fourth of the bits: only hashes whose bands are so near are compared.
    """
    import numpy as np

    masks = [
        sum(1 << bit for bit in bits)
        for count in range(distance // BANDS + 1)
        for bits in combinations(range(BAND_BITS), count)
    ]
    for keys in _bands(values):
        order = np.argsort(keys, kind="stable")
        starts = np.searchsorted(keys[order], np.arange((1 << BAND_BITS) + 1))
        for mask in masks:
            for left, right in _candidates(keys[order], starts, mask):
                one, other = order[left], order[right]
                near = np.bitwise_count(values[one] ^ values[other]) <= distance
                if near.any():
                    yield one[near], other[near]


def _bands(values: np.ndarray) -> Iterator[np.ndarray]:
    """Yield for each band its bits as numbers; every fourth bit, so that no band has the dull ones alone."""
    import numpy as np

    for band in range(BANDS):
        keys = np.zeros(len(values), np.int32)
        for bit in range(BAND_BITS):
            keys |= ((values >> np.uint64(BANDS * bit + band)) & np.uint64(1)).astype(np.int32) << bit
        yield keys


def _candidates(keys: np.ndarray, starts: np.ndarray, mask: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield places of the sorted `keys` whose keys differ by exactly `mask`, each pair once."""
    import numpy as np

    others = keys ^ mask
    left = np.flatnonzero(others >= keys)
    begin = left + 1 if mask == 0 else starts[others[left]]
    sizes = starts[others[left] + 1] - begin
    left, begin, sizes = left[sizes > 0], begin[sizes > 0], sizes[sizes > 0]
    ends = np.cumsum(sizes)
    done = 0
    while done < len(left):
        base = ends[done - 1] if done else 0
        upto = max(done + 1, int(np.searchsorted(ends, base + STRIDE, side="right")))
        counts = sizes[done:upto]
        first = np.repeat(np.cumsum(counts) - counts, counts)
        yield (
            np.repeat(left[done:upto], counts),
            np.repeat(begin[done:upto], counts) + np.arange(counts.sum()) - first,
        )
        done = upto


def _join(parent: np.ndarray, left: np.ndarray, right: np.ndarray) -> None:
    """Make the trees of each pair one; afterwards every entry of `parent` is a root."""
    import numpy as np

    while len(left):
        one, other = parent[left], parent[right]
        apart = one != other
        left, right, one, other = left[apart], right[apart], one[apart], other[apart]
        np.minimum.at(parent, np.maximum(one, other), np.minimum(one, other))
        while len(left) and (parent[parent] != parent).any():
            parent[:] = parent[parent]


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
        for places in group_alike(hashes, distance=distance)
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
