"""Documents that are copied from one index into another, by what they say and not by when they came."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from es_config.bulk import BulkItem, send_bulk, vector_fault
from es_config.mapping import VECTOR_FIELDS
from es_config.paths import read_documents
from es_config.scan import pages, read_vectors
from es_config.vector_field import sequence_numbers

if TYPE_CHECKING:
    import numpy as np
    from elasticsearch import Elasticsearch

    from es_config.index import ImageIndex

PAGE = 500
CAPTION_VECTOR = "caption_embedding"


@dataclass(frozen=True)
class Document:
    """One document of the index that is copied."""

    image_id: str
    source: Mapping[str, Any]
    """everything but the vectors"""
    caption_embedding: np.ndarray | None
    """float32 `[caption_dims]`"""


@dataclass(frozen=True)
class Copy:
    """One document to write, whole, or only what changed where `known` is what the other index has of it."""

    document: Document
    known: Mapping[str, Any] | None
    vectors: Mapping[str, np.ndarray]
    """float32 `[dims]` by field: those that are written"""


class Copies:
    """Reads `old` and writes `new`. Every method raises EngineError when Elasticsearch cannot do it."""

    def __init__(self, client: Elasticsearch, *, old: ImageIndex, new: ImageIndex) -> None:
        self._client = client
        self.old, self.new = old, new

    def checkpoint(self) -> int:
        """Return a sequence number up to which every change of `old` is done, then make these searchable."""
        done = min(each["local_checkpoint"] for each in sequence_numbers(self._client, self.old.target))
        self.old.refresh()
        return done

    def pages(self, *, since: int = -1) -> Iterator[list[Document]]:
        """Yield what changed in `old` after a checkpoint, in the order of ids, as far as it is searchable."""
        body = {
            "query": {"bool": {"filter": [{"range": {"_seq_no": {"gt": since}}}]}},
            "sort": [{"image_id": "asc"}],
            "size": PAGE,
            "docvalue_fields": [{"field": CAPTION_VECTOR, "format": "binary"}],
        }
        for hits in pages(self._client, self.old.target, body):
            yield [_document(hit) for hit in hits]

    def known(self, image_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return what `new` has of those of `image_ids` that it has, without vectors."""
        found = read_documents(self._client, self.new.target, image_ids)
        return {image_id: _plain(each["_source"]) for image_id, each in found.items()}

    def write(self, copies: Iterable[Copy]) -> dict[str, str]:
        """Write into `new`; return why those failed that it refuses, by image id."""
        meta = self.new.meta()
        failed, items = {}, []
        for copy in copies:
            faults = (vector_fault(vector, getattr(meta, VECTOR_FIELDS[field]))
                      for field, vector in copy.vectors.items())  # fmt: skip
            if fault := next(filter(None, faults), None):
                failed[copy.document.image_id] = fault
            else:
                items.append(_item(copy))
        return failed | send_bulk(self._client, self.new.write_target(), items)

    def drop_absent(self) -> int:
        """Delete from `new` what `old` has no more; return how many."""
        self.new.refresh()
        self.old.refresh()
        body = {"query": {"match_all": {}}, "sort": [{"image_id": "asc"}], "size": PAGE, "_source": False}
        dropped = 0
        for hits in pages(self._client, self.new.target, body):
            ids = [hit["_id"] for hit in hits]
            absent = set(ids) - self.old.listed(ids).keys()
            items = [BulkItem(each, {"delete": {"_id": each}}, None) for each in sorted(absent)]
            dropped += len(items) - len(send_bulk(self._client, self.new.write_target(), items))
        return dropped


def _document(hit: dict[str, Any]) -> Document:
    has_vector = CAPTION_VECTOR in hit.get("fields", {})
    vector = read_vectors([hit], CAPTION_VECTOR)[0] if has_vector else None
    return Document(hit["_id"], _plain(hit["_source"]), vector)


def _plain(source: Mapping[str, Any]) -> dict[str, Any]:
    """Return a source without vectors, and without what is none: an update can only write null."""
    return {name: each for name, each in source.items() if name not in VECTOR_FIELDS and each is not None}


def _item(copy: Copy) -> BulkItem:
    from elasticsearch.helpers import pack_dense_vector

    image_id = copy.document.image_id
    packed = {field: pack_dense_vector(vector) for field, vector in copy.vectors.items()}
    body = {**copy.document.source, **packed}
    if copy.known is None:
        return BulkItem(image_id, {"index": {"_id": image_id}}, body)
    gone = dict.fromkeys(copy.known.keys() - copy.document.source.keys())
    if "caption" in gone:
        gone[CAPTION_VECTOR] = None
    return BulkItem(image_id, {"update": {"_id": image_id}}, {"doc": {**gone, **body}})
