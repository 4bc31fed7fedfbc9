"""Exact search of any `dense_vector` field, with scripts and without them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from es_config.client import engine_errors
from es_config.requests import PARTITION, exact_sections

if TYPE_CHECKING:
    import numpy as np
    from elasticsearch import Elasticsearch

SCRIPTS = {
    "cosine": "(1.0 + cosineSimilarity(params.query, FIELD)) / 2",
    "dot_product": "(1.0 + dotProduct(params.query, FIELD)) / 2",
    "l2_norm": "double d = l2norm(params.query, FIELD); 1.0 / (1.0 + d * d)",
    "max_inner_product": ("double d = dotProduct(params.query, FIELD); d < 0 ? 1.0 / (1.0 - d) : d + 1.0"),
}
"""the scores that a kNN search gives, written in painless"""


def has_painless(client: Elasticsearch) -> bool:
    """Whether the server runs painless scripts, and so `script_score`; the local node does not."""
    with engine_errors():
        languages = client.get_script_languages().body.get("language_contexts", [])
    return any(each.get("language") == "painless" for each in languages)


def script_body(
    *, field: str, similarity: str, query_vector: np.ndarray, k: int, filters: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    """Return an exact search by `script_score`; its scores are those of a kNN search."""
    # A field's name is a constant of the script; the vector is a parameter, so that one script serves all.
    quoted = "'" + field.replace("\\", "\\\\").replace("'", "\\'") + "'"
    source = SCRIPTS[similarity].replace("FIELD", quoted)
    script = {"source": source, "params": {"query": [float(str(value)) for value in query_vector]}}
    matching = {"bool": {"filter": [{"exists": {"field": field}}, *filters]}}
    return {"query": {"script_score": {"query": matching, "script": script}}, "size": k, "_source": False}


def exact_by_sequence(
    *,
    field: str,
    query_vector: np.ndarray,
    k: int,
    last_sequence: int,
    filters: Sequence[dict[str, Any]] = (),
    partition: int = PARTITION,
) -> dict[str, Any]:
    """Return an exact search without scripts that needs no field but the vectors.

    It is `exact_body` with its sections cut by the sequence number that Elasticsearch gives every document;
    `last_sequence` is the highest of any shard.
    """
    from elasticsearch.helpers import pack_dense_vector

    starts = range(0, last_sequence + 1, partition)
    ranges = [{"range": {"_seq_no": {"gte": start, "lt": start + partition}}} for start in starts]
    query = {"field": field, "query_vector": pack_dense_vector(query_vector)}
    sections = exact_sections(query, k, ranges or [{"match_all": {}}], filters)
    return {"knn": sections, "size": k, "_source": False}
