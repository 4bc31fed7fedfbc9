"""Judge a hit beside the scores of the same query on a fixed sample of the index.

No cut-off is the same for every query: a hit must clear a bar that is made for its query, from the mean and
the deviation of the query's own scores over the sample. A test of the gap above the mean is the bar with
`mean` 1 and `deviation` 0, a z-score of t the one with `mean` 1 and `deviation` t; `glimpse calibrate` fits
both numbers, since models differ in which of them tells more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from es_config.documents import unit_rows

SAMPLE_SIZE = 512
STRONG, WEAK, NONE = "strong", "weak", "none"
MARKS = (NONE, WEAK, STRONG)
"""from the lowest to the highest"""


@dataclass(frozen=True)
class Calibration:
    """The bars of one mode: `strong + mean * m + deviation * s`, and the same with `weak`."""

    mean: float
    deviation: float
    strong: float
    weak: float
    sample: int = SAMPLE_SIZE
    """pictures whose scores give m and s"""
    figures: dict[str, Any] = field(default_factory=dict)
    """measured by calibrating: rates, queries, pictures, time"""

    def bars(self, m: float, s: float) -> tuple[float, float]:
        """Return the weak and the strong bar of a query with mean `m` and deviation `s` over the sample."""
        own = self.mean * m + self.deviation * s
        return self.weak + own, self.strong + own

    def marks(self, scores: Sequence[float], m: float, s: float) -> list[str]:
        """Return `strong`, `weak` or `none` for each score of that query's hits."""
        weak, strong = self.bars(m, s)
        return [STRONG if score >= strong else WEAK if score >= weak else NONE for score in scores]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for the index's `_meta`."""
        return asdict(self)


def read_calibration(relevance: Mapping[str, Any], mode: str) -> Calibration | None:
    """Return the calibration of a mode from `IndexMeta.relevance`, or None without a complete one."""
    found = relevance.get(mode, {})
    try:
        return Calibration(**{each.name: found[each.name] for each in fields(Calibration)})
    except (KeyError, TypeError):
        return None


def comparable(vectors: np.ndarray, similarity: str) -> np.ndarray:
    """Return sampled vectors, float32 `[n, dims]`, ready for `scores_of`: unit length where that counts."""
    return unit_rows(vectors) if similarity == "cosine" else vectors


def scores_of(queries: np.ndarray, vectors: np.ndarray, similarity: str) -> np.ndarray:
    """Return float32 `[queries, n]`, the higher the nearer: the similarity, or minus it for `l2_norm`.

    `vectors` come from `comparable`; `queries` are float32 `[queries, dims]`.
    """
    if similarity == "l2_norm":
        squares = (queries**2).sum(axis=1)[:, None] + (vectors**2).sum(axis=1)[None, :]
        distances: np.ndarray = np.sqrt(np.maximum(squares - 2 * queries @ vectors.T, 0))
        return -distances
    similarities: np.ndarray = comparable(queries, similarity) @ vectors.T
    return similarities


def oriented(similarity: str, value: float) -> float:
    """Return a hit's similarity as `scores_of` counts it: a distance becomes negative."""
    return -value if similarity == "l2_norm" else value
