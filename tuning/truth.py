"""The exact neighbours of queries: from a scan of all vectors in bounded memory, or by `script_score`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from es_config.exact import script_body
from tuning.closeness import closeness, from_scores, tie_width

if TYPE_CHECKING:
    import numpy as np

    from es_config.scan import PointInTime
    from es_config.vector_field import VectorField

MARGIN = 20
"""neighbours kept beyond `k`, to see where a tie ends"""
BLOCK = 4_000
"""vectors compared at a time"""
FEW = 50
"""queries sent at a time"""


@dataclass(frozen=True)
class Truth:
    """The `k` nearest of each query, with those that tie with the last of them."""

    k: int
    documents: int
    """that could be found"""
    limits: np.ndarray
    """float64 `[n]`: whatever is at least so close is a right answer"""
    right: tuple[frozenset[str], ...]
    """ids of the right answers of each query"""
    open_ties: np.ndarray
    """bool `[n]`: more documents tie than were kept, so an id that is not in `right` may be right, too"""

    @property
    def wanted(self) -> int:
        """How many neighbours a search can give at most."""
        return min(self.k, self.documents)

    def part(self, rows: slice) -> Truth:
        """Return the truth of some of the queries."""
        return Truth(self.k, self.documents, self.limits[rows], self.right[rows], self.open_ties[rows])


class _Nearest:
    """The nearest of what was seen so far, `depth` for each query."""

    def __init__(self, queries: int, depth: int) -> None:
        import numpy as np

        self.documents = 0
        self.close = np.full((queries, depth), -np.inf)
        self.ids = np.full((queries, depth), None, dtype=object)

    def take(self, ids: Sequence[str], close: np.ndarray) -> None:
        """Take in closeness `[queries, ids]`."""
        import numpy as np

        self.documents += len(ids)
        depth = self.close.shape[1]
        everything = np.hstack([self.close, close])
        best = np.argpartition(-everything, depth - 1, axis=1)[:, :depth]
        names = np.empty(len(ids), dtype=object)
        names[:] = ids
        fresh = names[np.maximum(best - depth, 0)]
        kept = np.take_along_axis(self.ids, np.minimum(best, depth - 1), axis=1)
        self.ids = np.where(best < depth, kept, fresh)
        self.close = np.take_along_axis(everything, best, axis=1)

    def truth(self, k: int, similarity: str) -> Truth:
        """Return what all that was taken in means."""
        import numpy as np

        order = np.argsort(-self.close, axis=1)
        return as_truth(
            np.take_along_axis(self.ids, order, axis=1),
            np.take_along_axis(self.close, order, axis=1),
            k=k,
            documents=self.documents,
            similarity=similarity,
        )


def as_truth(ids: np.ndarray, close: np.ndarray, *, k: int, documents: int, similarity: str) -> Truth:
    """Return the truth from ids and closeness, `[n, depth]`, nearest first; -inf where there is none."""
    import numpy as np

    wanted = min(k, documents)
    width = tie_width(np.where(np.isfinite(close), close, 0), similarity)
    limits = close[:, wanted - 1] - width if wanted else np.zeros(len(close))
    is_right = np.isfinite(close) & (close >= limits[:, None])
    right = tuple(frozenset(row[chosen]) for row, chosen in zip(ids, is_right, strict=True))
    return Truth(k, documents, limits, right, is_right[:, -1] & (documents > close.shape[1]))


def scanned_truth(
    blocks: Iterable[tuple[Sequence[str], np.ndarray]],
    queries: np.ndarray,
    *,
    k: int,
    similarity: str,
) -> Truth:
    """Return the truth from blocks of ids and vectors, as `scan_vectors` gives them.

    One block of 4 000 vectors is in memory at a time.
    """
    nearest = _Nearest(len(queries), k + MARGIN)
    for ids, vectors in _larger(blocks):
        nearest.take(ids, closeness(queries, vectors, similarity))
    return nearest.truth(k, similarity)


def _larger(
    blocks: Iterable[tuple[Sequence[str], np.ndarray]],
) -> Iterable[tuple[list[str], np.ndarray]]:
    """Join small blocks, as one large product is faster than many small ones."""
    import numpy as np

    ids: list[str] = []
    parts: list[np.ndarray] = []
    for some, vectors in blocks:
        ids.extend(some)
        parts.append(vectors)
        if len(ids) >= BLOCK:
            yield ids, np.concatenate(parts)
            ids, parts = [], []
    if ids:
        yield ids, np.concatenate(parts)


def scripted_truth(
    view: PointInTime,
    field: VectorField,
    queries: np.ndarray,
    *,
    k: int,
    documents: int,
    filters: Sequence[dict[str, Any]] = (),
) -> Truth:
    """Return the truth that the server's own `script_score` gives, where it runs painless."""
    common = {"field": field.name, "similarity": field.similarity, "k": k + MARGIN, "filters": filters}
    bodies = [script_body(query_vector=query, **common) for query in queries]
    answers = []
    for start in range(0, len(bodies), FEW):
        answers += view.msearch(
            bodies[start : start + FEW], filter_path=["hits.hits._id", "hits.hits._score"]
        )
    return answered_truth(answers, similarity=field.similarity, k=k, documents=documents)


def answered_truth(answers: Sequence[dict[str, Any]], *, similarity: str, k: int, documents: int) -> Truth:
    """Return the truth from the answers of exact searches for `k + 20` neighbours."""
    import numpy as np

    ids = np.full((len(answers), k + MARGIN), None, dtype=object)
    close = np.full(ids.shape, -np.inf)
    for row, answer in enumerate(answers):
        hits = answer.get("hits", {}).get("hits", [])
        ids[row, : len(hits)] = [hit["_id"] for hit in hits]
        scores = np.array([hit["_score"] for hit in hits], dtype=np.float64)
        close[row, : len(hits)] = from_scores(scores, similarity)
    return as_truth(ids, close, k=k, documents=documents, similarity=similarity)
