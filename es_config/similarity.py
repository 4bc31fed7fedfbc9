"""The similarities of a `dense_vector` field, and the way back from Elasticsearch's `_score` to them."""

from __future__ import annotations

import math

SIMILARITIES = ("cosine", "dot_product", "l2_norm", "max_inner_product")


def from_score(similarity: str, score: float) -> float:
    """Return the raw similarity behind a kNN `_score`: cosine, dot product, or for `l2_norm` the distance.

    The formulas are those of Elasticsearch's `dense_vector` reference, solved for the similarity.
    """
    if similarity in ("cosine", "dot_product"):
        return 2 * score - 1
    if similarity == "l2_norm":
        return math.sqrt(max(0.0, 1 / score - 1))
    if similarity == "max_inner_product":
        return score - 1 if score >= 1 else 1 - 1 / score
    raise ValueError(f"unknown similarity {similarity!r}; known: {', '.join(SIMILARITIES)}")
