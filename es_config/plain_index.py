"""Any index with a `dense_vector` field, made by whomever: nearest documents of a vector."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from es_config.client import engine_errors
from es_config.errors import EngineError
from es_config.exact import exact_by_sequence
from es_config.requests import knn_body
from es_config.vector_field import read_extent, read_vector_field

if TYPE_CHECKING:
    import numpy as np
    from elasticsearch import Elasticsearch

    from es_config.vector_field import VectorField

MGET_SIZE = 1000


class PlainIndex:
    """Documents by their vectors. Every method raises EngineError when Elasticsearch cannot do it."""

    def __init__(self, client: Elasticsearch, *, index: str, field: str) -> None:
        """Take the index and the field; raises EngineError when kNN cannot search it."""
        self._client = client
        self.field: VectorField = read_vector_field(client, index, field)

    def nearest(self, vector: np.ndarray, *, k: int, num_candidates: int, exact: bool) -> list[str]:
        """Return the ids of the `k` nearest documents of a float32 `[dims]` vector, nearest first."""
        if len(vector) != self.field.dims:
            raise EngineError(
                f"A vector has {len(vector)} dims, and {self.field.name} of {self.field.index} has"
                f" {self.field.dims}: use queries of the model that made the index."
            )
        name = self.field.name
        if exact:
            body = exact_by_sequence(field=name, query_vector=vector, k=k, last_sequence=self._last_sequence)
        else:
            body = knn_body(field=name, query_vector=vector, k=k, num_candidates=num_candidates)
        with engine_errors():
            answer = self._client.search(index=self.field.index, body={**body, "_source": False})
        return [hit["_id"] for hit in answer["hits"]["hits"]]

    def known(self, ids: Sequence[str]) -> set[str]:
        """Return those of `ids` that exist."""
        found: set[str] = set()
        for start in range(0, len(ids), MGET_SIZE):
            some = list(ids[start : start + MGET_SIZE])
            with engine_errors():
                answer = self._client.mget(index=self.field.index, ids=some, source=False)
            found |= {document["_id"] for document in answer["docs"] if document.get("found")}
        return found

    @cached_property
    def _last_sequence(self) -> int:
        return read_extent(self._client, self.field.index).last_sequence
