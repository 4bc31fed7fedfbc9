"""How sure a mean recall is: a lower confidence bound for few, clustered misses."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

CONFIDENCE = 0.95
ONE_MISS = 4.75
"""trials times the 95 % bound of the share of misses, after one miss"""
REACHED = 0.9
"""recall that a single query must reach to count as well served"""


def lower_bound(recalls: np.ndarray, *, k: int) -> float:
    """Return the one-sided lower bound of the mean recall of queries with `k` neighbours each.

    This is the interval of Korn and Graubard (1998) for clustered proportions near 1: the exact binomial
    bound of Clopper and Pearson, with the sample of `n * k` neighbours made smaller by the design effect,
    since misses come together in hard queries. Near 1 recalls are so skewed that a t bound or a bootstrap
    promises too much: a sample without a miss has no variance, and both would say 1. Here such a sample
    counts as if one neighbour had been missed.
    """
    import numpy as np
    from scipy.stats import beta

    trials = len(recalls) * k
    mean = min(float(np.mean(recalls)), 1 - 1 / trials)
    size = trials / design_effect(recalls, k=k)
    return float(beta.ppf(1 - CONFIDENCE, mean * size, (1 - mean) * size + 1))


def design_effect(recalls: np.ndarray, *, k: int) -> float:
    """Return by how much the variance exceeds that of `n * k` independent neighbours, at least 1."""
    import numpy as np

    mean = float(np.mean(recalls))
    if len(recalls) < 2 or mean in (0.0, 1.0):
        return 1.0
    independent = mean * (1 - mean) / (len(recalls) * k)
    observed = float(np.var(recalls, ddof=1)) / len(recalls)
    return max(1.0, observed / independent)


def best_bound(queries: int, *, k: int) -> float:
    """Return the highest bound that a sample can give, that of a perfect one."""
    import numpy as np

    return lower_bound(np.ones(queries), k=k)


def needed_queries(target: float, *, k: int) -> int:
    """Return how many queries without a miss show a target, by the rule of 4.74 for one miss."""
    return math.ceil(ONE_MISS / (k * (1 - target)))


def share_reached(recalls: np.ndarray) -> float:
    """Return the share of queries whose own recall is at least 0.9."""
    import numpy as np

    return float(np.mean(recalls >= REACHED - 1e-9))
