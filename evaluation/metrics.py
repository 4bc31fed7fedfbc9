"""Retrieval metrics of single queries, how sure their mean is, and whether two runs differ.

ir_measures computes the metrics. Means are resampled, which assumes no distribution.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

CUTS = (1, 5, 10)
RESAMPLES = 10_000
BOOTSTRAPS = 2_000
CONFIDENCE = 0.95
CELLS = 4_000_000
"""random numbers that are held at a time"""


def metric_names(k: int) -> tuple[str, ...]:
    """Return the names of what is measured with `k` hits: recall at 1, 5, 10 and `k`, MRR and nDCG at `k`."""
    cuts = sorted({cut for cut in CUTS if cut <= k} | {k})
    return (*(f"recall@{cut}" for cut in cuts), f"mrr@{k}", f"ndcg@{k}")


def query_metrics(
    relevant: Mapping[str, Sequence[str]], ranked: Mapping[str, Sequence[str]], *, k: int
) -> dict[str, np.ndarray]:
    """Return each metric of each query of `relevant`, in its order: float64 `[queries]`, 0 to 1.

    `relevant` maps a query to the ids that answer it, `ranked` to the ids that were found, best first. A
    query that found nothing counts 0. `recall@1` of a query with two answers is at most one half.
    """
    import ir_measures
    import numpy as np
    from ir_measures import RR, Qrel, R, ScoredDoc, nDCG

    names = metric_names(k)
    kinds = {"recall": R, "mrr": RR, "ndcg": nDCG}
    measures = {kinds[name.split("@")[0]] @ int(name.split("@")[1]): name for name in names}
    rows = {key: row for row, key in enumerate(relevant)}
    values = {name: np.zeros(len(rows)) for name in names}
    qrels = [Qrel(key, each, 1) for key, ids in relevant.items() for each in ids]
    # The rank itself is the score: equal similarities keep the order that was shown.
    run = [
        ScoredDoc(key, each, -float(rank))
        for key in relevant
        for rank, each in enumerate(ranked.get(key, ()))
    ]
    for found in ir_measures.iter_calc(list(measures), qrels, run):
        values[measures[found.measure]][rows[found.query_id]] = found.value
    return values


@dataclass(frozen=True)
class Estimate:
    """A mean over queries with its two-sided 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """Mean of the second run minus mean of the first, over the same queries."""

    mean: float
    low: float
    high: float
    p_value: float
    """how often signs given by chance make a mean difference at least as large"""


def estimate(values: np.ndarray, *, seed: int = 0) -> Estimate:
    """Return the mean of float `[queries]` with its percentile bootstrap interval over the queries."""
    import numpy as np

    means = _bootstrap_means(values, seed)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(float(values.mean()), float(low), float(high))


def difference(first: np.ndarray, second: np.ndarray, *, seed: int = 0) -> Difference:
    """Compare two runs over the same queries, float `[queries]` each, by a paired randomisation test.

    Under the hypothesis that the runs are alike, each query's difference might as well have the other sign.
    The test asks how often random signs give a mean that is as far from 0. It needs neither normal
    differences, as a t test does, nor symmetric ones without ties, as Wilcoxon's: per-query recall is mostly
    ties at 0 and 1. (Smucker, Allan and Carterette, 2007, compare these for retrieval.)
    """
    import numpy as np

    pairs = second - first
    observed = abs(pairs.mean())
    rng = np.random.default_rng(seed)
    beyond, done = 0, 0
    while done < RESAMPLES:
        rows = min(RESAMPLES - done, max(1, CELLS // len(pairs)))
        signs = rng.integers(0, 2, size=(rows, len(pairs)), dtype=np.int8) * 2 - 1
        beyond += int((np.abs(signs @ pairs) / len(pairs) >= observed - 1e-12).sum())
        done += rows
    spread = estimate(pairs, seed=seed)
    return Difference(spread.mean, spread.low, spread.high, (beyond + 1) / (RESAMPLES + 1))


def _bootstrap_means(values: np.ndarray, seed: int) -> np.ndarray:
    import numpy as np

    rng = np.random.default_rng(seed)
    size = len(values)
    means: list[np.ndarray] = []
    for start in range(0, BOOTSTRAPS, step := max(1, CELLS // size)):
        rows = min(step, BOOTSTRAPS - start)
        means.append(values[rng.integers(0, size, size=(rows, size))].mean(axis=1))
    return np.concatenate(means)
