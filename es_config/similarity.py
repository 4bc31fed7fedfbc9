"""The similarities of a `dense_vector` field, and the way back from Elasticsearch's `_score` to them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from es_config.documents import Hit, SearchResult

if TYPE_CHECKING:
    import numpy as np

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


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Return `vectors` `[n, dims]` divided by their lengths; a zero vector stays zero."""
    import numpy as np

    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(lengths, np.finfo(np.float32).tiny)


def read_hits(answer: Mapping[str, Any], *, similarity: str | None) -> SearchResult:
    """Return the hits of an answer; with no `similarity` of a field, a hit's similarity is its score."""
    hits = []
    for hit in answer["hits"]["hits"]:
        score = float(hit.get("_score") or 0.0)
        raw = score if similarity is None else from_score(similarity, score)
        matched = tuple(hit.get("matched_queries", ()))
        hits.append(Hit(hit["_id"], score, raw, hit.get("_source", {}), matched))
    total = answer["hits"].get("total", {}).get("value", len(hits))
    return SearchResult(tuple(hits), int(total), int(answer["took"]))
