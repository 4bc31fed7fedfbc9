"""Fits the bar between queries that the index answers and queries that it does not."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from es_config.relevance import Calibration
from evaluation.errors import EvaluationError

if TYPE_CHECKING:
    import numpy as np

PENALTY = 0.01
WEAK_FACTOR = 8
"""how many times the rate of strong hits that of hits with any mark is"""
MISS_RATE = 0.05
"""share of answered queries that may be told that nothing good was found"""


@dataclass(frozen=True)
class Scored:
    """Queries by the score of their best hit, and by mean and deviation over the sample; float64 `[n]`."""

    best: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray

    def columns(self) -> np.ndarray:
        """Return float64 `[n, 3]`."""
        import numpy as np

        return np.stack([self.best, self.mean, self.deviation], axis=1)

    def rows(self, chosen: np.ndarray) -> Scored:
        """Return some of the queries."""
        return Scored(self.best[chosen], self.mean[chosen], self.deviation[chosen])

    def __len__(self) -> int:
        """Return the number of queries."""
        return len(self.best)


def fit(
    answered: Scored, unanswered: Scored, *, rate: float, sample: int, miss_rate: float = MISS_RATE
) -> Calibration:
    """Return the bars: `rate` of unanswered queries get a strong hit, eight times that a strong or weak one.

    A logistic regression on one third of the queries says how the bar follows a query's mean and deviation;
    the other two thirds say how high it is. The heights are those of split conformal prediction: of `n`
    unanswered queries the one in place ceil((n + 1)(1 - rate)), so that the next such query gets a strong hit
    with a probability of at most `rate`, whatever the distribution. Where the weak bar would cost more than
    `miss_rate` of the answered queries every mark, it is lowered: with a model that cannot tell, "nothing
    good" is seldom said rather than often wrong. Raises `EvaluationError` when there are too few queries, or
    when scores tell nothing.
    """
    import numpy as np

    needed = math.ceil(1 / rate) - 1
    third = np.arange(len(unanswered)) % 3 == 0
    if (~third).sum() < needed:
        raise EvaluationError(
            f"A rate of {rate:g} needs {math.ceil(1.5 * needed)} queries that nothing answers, and"
            f" {len(unanswered)} could be made: choose a higher rate, or caption more pictures."
        )
    weights = _regress(unanswered.rows(third), answered.rows(np.arange(len(answered)) % 3 == 0))
    if weights[0] <= 0:
        raise EvaluationError(
            "Queries that have answers score no higher than queries that have none: the captions do not"
            " describe the pictures, or the model does not know what is in them."
        )
    mean, deviation = (-weights[1:] / weights[0]).tolist()
    bare = Calibration(mean, deviation, 0, 0, sample)
    wrong = np.sort(heights_of(bare, unanswered.rows(~third)))
    right = np.sort(heights_of(bare, answered.rows(np.arange(len(answered)) % 3 != 0)))
    strong, weak = (_above(wrong, each) for each in (rate, min(0.5, WEAK_FACTOR * rate)))
    kept = float(right[max(1, math.floor((len(right) + 1) * miss_rate)) - 1])
    return replace(bare, strong=strong, weak=min(weak, kept))


def _above(heights: np.ndarray, rate: float) -> float:
    """Return a height just above the one in the place that conformal prediction names."""
    import numpy as np

    place = min(len(heights), math.ceil((len(heights) + 1) * (1 - rate)))
    return float(np.nextafter(np.float64(heights[place - 1]), np.inf))


def shares(calibration: Calibration, queries: Scored) -> dict[str, float]:
    """Return the shares of queries whose best hit is marked strong, and weak or strong."""
    height = heights_of(calibration, queries)
    return {
        "strong": round(float((height >= calibration.strong).mean()), 4),
        "weak": round(float((height >= calibration.weak).mean()), 4),
    }


def area(answered: np.ndarray, unanswered: np.ndarray) -> float:
    """Return the area under the ROC curve: how often an answered query scores above an unanswered one."""
    import numpy as np
    from scipy.stats import rankdata

    ranks = rankdata(np.concatenate([unanswered, answered]))[len(unanswered) :]
    above = ranks.sum() - len(answered) * (len(answered) + 1) / 2
    return float(above / len(answered) / len(unanswered))


def heights_of(calibration: Calibration, queries: Scored) -> np.ndarray:
    """Return how far each query's best hit is above its own bar without `strong` or `weak`, float64 `[n]`."""
    return queries.best - calibration.mean * queries.mean - calibration.deviation * queries.deviation


def _regress(unanswered: Scored, answered: Scored) -> np.ndarray:
    """Return weights `[3]` of best, mean and deviation; both kinds of queries count alike."""
    import numpy as np
    from scipy.optimize import minimize

    rows = np.concatenate([unanswered.columns(), answered.columns()])
    label = np.repeat([0.0, 1.0], [len(unanswered), len(answered)])
    share = np.repeat([0.5 / len(unanswered), 0.5 / len(answered)], [len(unanswered), len(answered)])
    centre, scale = rows.mean(axis=0), rows.std(axis=0) + 1e-9
    scaled = (rows - centre) / scale
    found = minimize(_logistic_loss(scaled, label, share), np.zeros(4), jac=True, method="L-BFGS-B").x
    return found[1:] / scale


def _logistic_loss(rows: np.ndarray, label: np.ndarray, share: np.ndarray) -> Callable:
    import numpy as np

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        logit = rows @ weights[1:] + weights[0]
        value = (share * (np.logaddexp(0, logit) - label * logit)).sum()
        error = share * (1 / (1 + np.exp(-np.clip(logit, -500, 500))) - label)
        slope = np.concatenate([[error.sum()], rows.T @ error + PENALTY * weights[1:]])
        return value + PENALTY * (weights[1:] ** 2).sum() / 2, slope

    return loss
