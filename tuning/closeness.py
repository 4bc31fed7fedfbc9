"""How near a vector is to a query, by the similarity of the field: larger is nearer."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

TOLERANCE = 1e-6
"""closeness that differs by less is a tie, for float32 says no more"""


def closeness(queries: np.ndarray, vectors: np.ndarray, similarity: str) -> np.ndarray:
    """Return float32 or float64 `[queries, vectors]` from float32 `[n, dims]` of both.

    The cosine for `cosine`, the dot product for `dot_product` and `max_inner_product`, and the negative
    squared distance for `l2_norm`, in float64 since large squares are subtracted.
    """
    import numpy as np

    if similarity == "cosine":
        return unit(queries) @ unit(vectors).T
    if similarity == "l2_norm":
        wide, many = queries.astype(np.float64), vectors.astype(np.float64)
        squares = (wide**2).sum(axis=1)[:, None] + (many**2).sum(axis=1)[None, :]
        return np.minimum(2 * wide @ many.T - squares, 0)
    return queries @ vectors.T


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return the vectors, `[n, dims]`, scaled to length 1; one of zeros stays."""
    import numpy as np

    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def tie_width(nearest: np.ndarray, similarity: str) -> np.ndarray:
    """Return for each query, `[n, depth]` of finite closeness, what counts as the same.

    Between unit vectors float32 errs by about 1e-7 whatever the angle; between others, by that share of the
    numbers.
    """
    import numpy as np

    largest = np.abs(nearest).max(axis=1)
    return TOLERANCE * (np.maximum(largest, 1) if similarity in ("cosine", "dot_product") else largest)


def from_scores(scores: np.ndarray, similarity: str) -> np.ndarray:
    """Return closeness for the `_score` of an exact search."""
    import numpy as np

    if similarity == "l2_norm":
        return 1 - 1 / scores
    if similarity == "max_inner_product":
        return np.where(scores >= 1, scores - 1, 1 - 1 / np.minimum(scores, 1))
    return 2 * scores - 1
