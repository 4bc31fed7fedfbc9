"""An index of vectors for the time of a measurement; it is deleted however the measurement ends."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from es_config.client import engine_errors
from es_config.errors import EngineError, afterwards
from es_config.requests import knn_body
from es_config.mapping import IndexOptions

if TYPE_CHECKING:
    import numpy as np
    from elasticsearch import Elasticsearch

FIELD = "vector"
PREFIX = "glimpse-compare"


class TemporaryIndex:
    """Vectors under ids. Every method raises EngineError when Elasticsearch cannot do it."""

    def __init__(self, client: Elasticsearch, name: str) -> None:
        self._client = client
        self.name = name

    def create(self, *, dims: int, similarity: str, index_options: Mapping[str, Any]) -> None:
        """Create the index, empty, with one shard; it is refreshed only by `add`."""
        field = {"type": "dense_vector", "dims": dims, "similarity": similarity}
        properties = {FIELD: {**field, "index_options": dict(index_options)}}
        settings = {"number_of_shards": 1, "number_of_replicas": 0, "refresh_interval": "-1"}
        with engine_errors():
            self._client.indices.create(
                index=self.name, settings=settings, mappings={"dynamic": "strict", "properties": properties}
            )

    def add(self, ids: Sequence[str], vectors: np.ndarray) -> None:
        """Write float32 `[n, dims]` vectors and make them searchable, as one segment."""
        from elasticsearch.helpers import bulk, pack_dense_vector

        documents = (
            {"_index": self.name, "_id": each, FIELD: pack_dense_vector(vector)}
            for each, vector in zip(ids, vectors, strict=True)
        )
        with engine_errors():
            _, refused = bulk(self._client, documents, raise_on_error=False)
            if refused:
                reason = refused[0]["index"]["error"]["reason"]
                raise EngineError(f"The index {self.name} refused vectors: {reason}")
            self._client.indices.refresh(index=self.name)
            self._client.indices.forcemerge(index=self.name, max_num_segments=1)

    def nearest(self, vector: np.ndarray, *, k: int, num_candidates: int) -> list[str]:
        """Return the ids of the `k` nearest vectors, nearest first."""
        body = knn_body(field=FIELD, query_vector=vector, k=k, num_candidates=num_candidates)
        with engine_errors():
            answer = self._client.search(index=self.name, body={**body, "_source": False})
        return [hit["_id"] for hit in answer["hits"]["hits"]]

    def size_bytes(self) -> int:
        """Return the bytes that the index takes on disk."""
        with engine_errors():
            self._client.indices.flush(index=self.name)
            stats = self._client.indices.stats(index=self.name, metric="store")
        return int(stats["_all"]["primaries"]["store"]["size_in_bytes"])


@contextmanager
def temporary_index(
    client: Elasticsearch, *, label: str, dims: int, similarity: str, options: IndexOptions | None = None
) -> Iterator[TemporaryIndex]:
    """Give an empty index `glimpse-compare-<uuid>-<label>`, gone after the `with` statement."""
    name = f"{PREFIX}-{uuid.uuid4()}-{_safe(label)}"
    index = TemporaryIndex(client, name)

    def delete() -> None:
        # By name, whether or not the request to create it was answered before the interruption.
        with engine_errors():
            client.options(ignore_status=404).indices.delete(index=name)

    with afterwards(delete):
        index.create(dims=dims, similarity=similarity, index_options=(options or IndexOptions()).graph)
        yield index


def _safe(label: str) -> str:
    """Return a label as an index name may hold it."""
    kept = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in label.lower())
    return kept[:40] or "profile"
