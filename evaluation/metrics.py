"""Retrieval metrics of single queries, computed by ir_measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

CUTS = (1, 5, 10)


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
