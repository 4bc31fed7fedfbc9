"""The plan of a training run, and the decay of its learning rate."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """The length and data of a training run.

    `pairs` are scenes with their siblings, and `batch` counts pairs.
    """

    steps: int = 2000
    pairs: int = 24_000
    batch: int = 80
    rate: float = 1e-3
    warm_up: int = 100
    averaging: float = 0.99
    seed: int = 0
    threads: int = 2


def cosine_decay(done: float) -> float:
    """Return the factor of the learning rate after a share `done` of a run, 0 to 1: half a cosine to 0.02."""
    return 0.02 + 0.98 * (1 + math.cos(math.pi * done)) / 2
