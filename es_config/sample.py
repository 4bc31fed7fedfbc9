"""A fixed sample of an index's pictures: the same ones for every query, until pictures come or go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from es_config.scan import point_in_time, read_vectors

if TYPE_CHECKING:
    import numpy as np
    from elasticsearch import Elasticsearch

BLOCK = 1000


@dataclass(frozen=True)
class Sample:
    """Pictures with their vectors."""

    ids: tuple[str, ...]
    sources: tuple[Mapping[str, Any], ...]
    """each document's `_source`, as far as it was asked for"""
    vectors: dict[str, np.ndarray]
    """float32 `[n, dims]` by field"""


def read_sample(
    client: Elasticsearch, index: str, *, fields: Sequence[str], size: int, source: Sequence[str] = ()
) -> Sample:
    """Return up to `size` pictures that have all of the vector `fields`. Raises EngineError.

    They are the first in the order of their ids. An id is the hash of the content, so this is a sample by
    chance that needs no seed, is equal on every machine, and changes little when pictures are added.
    """
    with point_in_time(client, index) as view:
        found = chain.from_iterable(view.pages(_body(fields, source, size=min(BLOCK, size))))
        hits = list(islice(found, size))
    return Sample(
        tuple(hit["_id"] for hit in hits),
        tuple(hit.get("_source", {}) for hit in hits),
        {field: read_vectors(hits, field) for field in fields},
    )


def _body(fields: Sequence[str], source: Sequence[str], *, size: int) -> dict[str, Any]:
    return {
        "query": {"bool": {"filter": [{"exists": {"field": field}} for field in fields]}},
        "size": size,
        "sort": [{"image_id": "asc"}],
        "track_total_hits": False,
        "_source": list(source) or False,
        "docvalue_fields": [{"field": field, "format": "binary"} for field in fields],
    }
