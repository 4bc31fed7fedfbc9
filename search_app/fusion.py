"""Reciprocal rank fusion: several rankings of the same pictures become one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum

RANK_CONSTANT = 60
"""the k of Cormack, Clarke and Büttcher (2009): the larger, the less the first places differ"""


@dataclass(frozen=True)
class Fused:
    """One picture of the fused ranking."""

    image_id: str
    score: float
    """the sum of weight / (RANK_CONSTANT + rank) over the rankings that hold it"""
    ranks: dict[str, int]
    """its rank, from 1, by the name of each ranking that holds it"""


def fuse(rankings: Mapping[str, Sequence[str]], *, weights: Mapping[str, float]) -> list[Fused]:
    """Return every picture of the rankings (image ids, best first, by name), best first.

    Pictures of equal score are ordered by their best rank, and then by id, so that the same rankings always
    give the same order. A ranking that is empty changes nothing.
    """
    ranks: dict[str, dict[str, int]] = {}
    for name, image_ids in rankings.items():
        for rank, image_id in enumerate(image_ids, 1):
            ranks.setdefault(image_id, {}).setdefault(name, rank)
    fused = [Fused(image_id, _score(places, weights), places) for image_id, places in ranks.items()]
    return sorted(fused, key=lambda each: (-each.score, min(each.ranks.values()), each.image_id))


def _score(ranks: Mapping[str, int], weights: Mapping[str, float]) -> float:
    # fsum rounds once, so that equal sums are equal in whatever order their parts come.
    return fsum(weights[name] / (RANK_CONSTANT + rank) for name, rank in ranks.items())
