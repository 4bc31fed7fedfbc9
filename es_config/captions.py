"""The captions of an index: which pictures lack one, and writing them beside the vectors of the pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from es_config.bulk import BulkItem, Meanwhile, send_bulk, vector_fault
from es_config.client import engine_errors
from es_config.documents import AddResult, shown_path
from es_config.errors import EngineError
from es_config.scan import pages

if TYPE_CHECKING:
    import numpy as np
    from elasticsearch import Elasticsearch

    from es_config.index import ImageIndex

PAGE = 200
"""pictures that one request lists: few, so that what it says of them is fresh when their turn comes"""
NEWEST_FIRST = [{"indexed_at": "desc"}, {"image_id": "asc"}]
CONFLICT_RETRIES = 5


@dataclass(frozen=True)
class CaptionUpdate:
    """A caption to write; with `seq_no` and `primary_term`, only if nothing has changed since."""

    image_id: str
    caption: str
    caption_embedding: np.ndarray
    """float32 `[caption_dims]`, unit length"""
    source: str
    """who wrote it: `model`, `description` or `human`"""
    seq_no: int | None = None
    primary_term: int | None = None


@dataclass(frozen=True)
class Uncaptioned:
    """A picture that waits for a caption, with the version of its document."""

    image_id: str
    relative_path: str
    seq_no: int
    primary_term: int


class Captions:
    """The captions of an `ImageIndex`. Every method raises EngineError when Elasticsearch cannot do it."""

    def __init__(self, client: Elasticsearch, *, index: ImageIndex) -> None:
        self._client = client
        self._index = index

    def write(self, updates: Sequence[CaptionUpdate]) -> AddResult:
        """Write captions; all else of the documents stays, the vectors of the pictures above all.

        A document that changed after its `seq_no` is left alone and reported as "changed meanwhile", one
        that is gone as "deleted meanwhile", and whatever the index refuses with its reason.
        """
        dims = self._index.meta().caption_dims
        faults = {update.image_id: vector_fault(update.caption_embedding, dims) for update in updates}
        failed = {image_id: fault for image_id, fault in faults.items() if fault}
        items = [_item(update) for update in updates if update.image_id not in failed]
        failed |= send_bulk(self._client, self._index.write_target(), items, held=self._index.held)
        return AddResult(added=len(updates) - len(failed), failed=failed)

    def write_human(self, image_id: str, caption: str, caption_embedding: np.ndarray) -> None:
        """Write what a person says of a picture, whatever was there. EngineError without such a picture."""
        update = CaptionUpdate(image_id, caption, caption_embedding, source="human")
        # A conflict is another change of the same moment, such as one more path: both are to stay.
        for _ in range(CONFLICT_RETRIES):
            reason = self.write([update]).failed.get(image_id)
            if reason is not Meanwhile.CHANGED:
                break
        if reason is Meanwhile.DELETED:
            raise EngineError(f"The index '{self._index.alias}' holds no picture {image_id}.")
        if reason:
            raise EngineError(f"The caption of {image_id} was not written: {reason}; try again.")

    def missing(self, *, every: bool) -> Iterator[list[Uncaptioned]]:
        """Yield pictures without a caption, newest first, in lists of up to 200, as far as the last refresh.

        With `every`, pictures whose caption a model wrote come too; those of people and of files never do.
        """
        body = {
            "query": _waiting(every=every),
            "sort": NEWEST_FIRST,
            "size": PAGE,
            "_source": ["relative_path"],
            "seq_no_primary_term": True,
        }
        for hits in pages(self._client, self._index.target, body):
            yield [_uncaptioned(hit) for hit in hits]

    def count_missing(self, *, every: bool) -> int:
        """Return how many pictures `missing` would yield now."""
        with engine_errors():
            return int(self._client.count(index=self._index.target, query=_waiting(every=every))["count"])


def _waiting(*, every: bool) -> dict[str, Any]:
    """Return the query for pictures that a captioner may write about."""
    nobody = {
        "bool": {"must_not": [{"exists": {"field": "caption"}}, {"exists": {"field": "caption_source"}}]}
    }
    by_model = {"term": {"caption_source": "model"}}
    return {"bool": {"filter": [{"bool": {"should": [nobody, by_model]}} if every else nobody]}}


def _uncaptioned(hit: dict[str, Any]) -> Uncaptioned:
    path = shown_path(hit["_source"], hit["_id"])
    return Uncaptioned(hit["_id"], path, hit["_seq_no"], hit["_primary_term"])


def _item(update: CaptionUpdate) -> BulkItem:
    from elasticsearch.helpers import pack_dense_vector

    action: dict[str, Any] = {"_id": update.image_id}
    if update.seq_no is not None:
        action |= {"if_seq_no": update.seq_no, "if_primary_term": update.primary_term}
    doc = {
        "caption": update.caption,
        "caption_source": update.source,
        "caption_embedding": pack_dense_vector(update.caption_embedding),
    }
    return BulkItem(update.image_id, {"update": action}, {"doc": doc})
