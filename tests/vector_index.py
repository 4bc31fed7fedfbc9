"""Plain indices of vectors, not made by Glimpse, for tests of measuring."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch


def clustered(count: int, dims: int, *, seed: int = 0, clusters: int = 20) -> np.ndarray:
    """Return unit vectors, float32 `[count, dims]`, in clusters that the same `dims` always has."""
    centres = np.random.default_rng(dims).normal(size=(clusters, dims))
    random = np.random.default_rng(seed)
    vectors = centres[random.integers(clusters, size=count)] + random.normal(size=(count, dims))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def plain_index(
    client: Elasticsearch,
    name: str,
    vectors: np.ndarray,
    *,
    index_type: str = "hnsw",
    similarity: str = "cosine",
    dims: int | None = None,
    **options: int,
) -> None:
    """Create an index with the vectors in `v` under the ids 0, 1, …, and whether the id is even."""
    from elasticsearch.helpers import pack_dense_vector

    mapping = {
        "type": "dense_vector",
        "dims": dims or vectors.shape[1],
        "similarity": similarity,
        "index_options": {"type": index_type, **options},
    }
    properties = {"v": mapping, "even": {"type": "boolean"}}
    settings = {"number_of_shards": 1, "number_of_replicas": 0}
    client.indices.create(
        index=name, settings=settings, mappings={"dynamic": "strict", "properties": properties}
    )
    lines = []
    for n, vector in enumerate(vectors):
        lines += [{"index": {"_id": str(n)}}, {"v": pack_dense_vector(vector), "even": n % 2 == 0}]
    if lines:
        assert not client.bulk(index=name, operations=lines, refresh=True)["errors"]
    client.indices.forcemerge(index=name, max_num_segments=1)
    client.indices.refresh(index=name)
