"""Whether vectors of one precision may stand beside those of another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

COSINE = 0.999
OVERLAP = 0.98
NEIGHBOURS = 10
FEWEST_TO_RANK = 32
"""pictures; among fewer, ten neighbours are no choice and their overlap says nothing"""
EVEN = 1e-6
"""similarities that differ by less are a draw"""


@dataclass(frozen=True)
class Agreement:
    """How near vectors are to the exact ones of the same pictures."""

    pictures: int
    cosine: float
    """the smallest of all pictures: a mean would hide the one whose vector is ruined"""
    overlap: float | None
    """mean share of the ten nearest that stay among the ten; None for too few pictures"""

    @property
    def passed(self) -> bool:
        """Whether both limits are kept; without any picture nothing is known and nothing has passed."""
        enough = self.overlap is None or self.overlap >= OVERLAP
        return self.pictures > 0 and self.cosine >= COSINE and enough

    def __str__(self) -> str:
        if self.pictures == 0:
            return "there is no picture to compare"
        overlap = "" if self.overlap is None else f" and top-{NEIGHBOURS} overlap {self.overlap:.3f}"
        return f"smallest cosine {self.cosine:.5f}{overlap} on {self.pictures} of your pictures"

    def as_note(self) -> dict[str, float | int | None]:
        """Return the figures as an index notes them."""
        return {"cosine": self.cosine, "overlap": self.overlap, "pictures": self.pictures}


def agreement(exact: np.ndarray, other: np.ndarray) -> Agreement:
    """Compare unit vectors `[n, dims]` of the same pictures, row by row.

    Neighbours are asked for with the exact vector, as a search does, and looked for among the other ones.
    """
    import numpy as np

    count = len(exact)
    if count == 0:
        return Agreement(0, 0.0, None)
    if not np.isfinite(other).all():
        return Agreement(count, -1.0, None)
    cosine = float((exact * other).sum(axis=1).min())
    return Agreement(count, min(cosine, 1.0), _overlap(exact, other) if count >= FEWEST_TO_RANK else None)


def from_note(note: Mapping[str, float | int | None]) -> Agreement:
    """Return what an index noted. The exact vectors themselves carry no figures."""
    return Agreement(int(note.get("pictures") or 0), float(note.get("cosine") or 0.0), note.get("overlap"))


def _overlap(exact: np.ndarray, other: np.ndarray) -> float:
    import numpy as np

    truth, found = exact @ exact.T, exact @ other.T
    np.fill_diagonal(truth, -np.inf)
    np.fill_diagonal(found, -np.inf)
    tenth = np.partition(truth, -NEIGHBOURS, axis=1)[:, -NEIGHBOURS]
    ten = np.argpartition(-found, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
    return float((np.take_along_axis(truth, ten, axis=1) >= tenth[:, None] - EVEN).mean())
