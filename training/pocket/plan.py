"""The plan of a training run."""

from __future__ import annotations

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
