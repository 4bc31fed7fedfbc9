"""Writing in bulk: base64 vectors, refusals per document, retries when the server is overloaded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from es_config.client import blocked, engine_errors, refusal
from es_config.documents import AddResult, ImageDocument
from es_config.errors import EngineError
from es_config.mapping import IndexMeta

if TYPE_CHECKING:
    import numpy as np
    from elasticsearch import Elasticsearch

REQUESTS, A_REQUEST = 2, 64
"""requests under way at the same time, as one keeps one processor of a shard busy, and the least in each"""
REQUEST_BYTES = 8 * 2**20
RETRY_AFTER_S = (0.5, 1.0, 2.0, 4.0, 8.0)


class Meanwhile(StrEnum):
    """Refusals that are nobody's fault: somebody else wrote at the same moment."""

    CHANGED = "changed meanwhile"
    DELETED = "deleted meanwhile"


REASONS = {
    "version_conflict_engine_exception": Meanwhile.CHANGED,
    "document_missing_exception": Meanwhile.DELETED,
}
"""type of an error of Elasticsearch -> what it means"""


@dataclass(frozen=True)
class BulkItem:
    """One operation on one picture."""

    image_id: str
    action: dict[str, Any]
    """the first line, such as `{"index": {"_id": …}}`"""
    body: dict[str, Any] | None
    """the second line: a document, or `{"doc": …}` with the fields to change; None for a deletion"""


def document_source(document: ImageDocument) -> dict[str, Any]:
    """Return the JSON document of a picture; absent values are left out."""
    from elasticsearch.helpers import pack_dense_vector

    location = document.exif_location
    exif = {
        "date": document.exif_date.isoformat() if document.exif_date else None,
        "location": {"lat": location[0], "lon": location[1]} if location else None,
        "camera": document.exif_camera,
    }
    caption_embedding = document.caption_embedding
    source = {
        "image_id": document.image_id,
        "image_name": document.image_name,
        "relative_path": list(document.relative_path),
        "image_embedding": pack_dense_vector(document.image_embedding),
        "caption": document.caption,
        "caption_source": document.caption_source,
        "caption_embedding": None if caption_embedding is None else pack_dense_vector(caption_embedding),
        "exif": _present(exif),
        "width": document.width,
        "height": document.height,
        "size_bytes": document.size_bytes,
        "phash": document.phash,
        "tags": list(document.tags),
        "indexed_at": document.indexed_at.isoformat(),
    }
    return _present(source)


def _present(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value not in (None, [], {})}


def vector_fault(vector: np.ndarray, dims: int) -> str | None:
    """Return what is wrong with a vector for a field of `dims` dims, or None.

    Elasticsearch would take base64 of half the dims as 16-bit numbers and store a vector that nobody sent.
    """
    import numpy as np

    if vector.shape != (dims,) or vector.dtype != np.float32:
        return f"a vector is {vector.dtype} of shape {vector.shape}, the index takes float32 of ({dims},)"
    return None if np.isfinite(vector).all() else "a vector holds a number that is not finite"


def _document_fault(document: ImageDocument, meta: IndexMeta) -> str | None:
    pairs = ((document.image_embedding, meta.dims), (document.caption_embedding, meta.caption_dims))
    faults = (vector_fault(vector, dims) for vector, dims in pairs if vector is not None)
    return next((fault for fault in faults if fault), None)


def add_documents(
    client: Elasticsearch,
    alias: str,
    documents: Sequence[ImageDocument],
    *,
    meta: IndexMeta,
    only_new: bool = False,
    held: str | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> AddResult:
    """Write `documents` through `alias`; one that the index refuses is reported and does not stop the others.

    With `only_new`, a document that is there already stays and is reported as "changed meanwhile".

    Raises EngineError when nothing can be written at all: no such index, a full disk, no connection, or a
    server that is still overloaded after the last retry.
    """
    verb = "create" if only_new else "index"
    faults = {document.image_id: _document_fault(document, meta) for document in documents}
    failed = {image_id: fault for image_id, fault in faults.items() if fault}
    good = [document for document in documents if document.image_id not in failed]
    size = max(A_REQUEST, -(-len(good) // REQUESTS))
    shares = [good[start : start + size] for start in range(0, len(good), size)]

    def send(share: Sequence[ImageDocument]) -> dict[str, str]:
        items = (
            BulkItem(each.image_id, {verb: {"_id": each.image_id}}, document_source(each)) for each in share
        )
        return send_bulk(client, alias, items, held=held, sleep=sleep)

    with ThreadPoolExecutor(REQUESTS) as pool:
        for refused in pool.map(send, shares):
            failed |= refused
    return AddResult(added=len(documents) - len(failed), failed=failed)


def send_bulk(
    client: Elasticsearch,
    alias: str,
    items: Iterable[BulkItem],
    *,
    held: str | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, str]:
    """Send operations through `alias`; return why those failed that the index refuses, by image id.

    Raises EngineError as `add_documents` does. So it does when the alias was switched from `held` to another
    index while a request was on its way; documents that came into being there are deleted again.
    """
    failed: dict[str, str] = {}
    for batch in _batches(items):
        pending = batch
        for pause in (*RETRY_AFTER_S, None):
            pending = _send(client, alias, pending, failed, held=held)
            if not pending:
                break
            if pause is None:
                raise EngineError(
                    f"Elasticsearch is overloaded or has lost a disk or node: {len(pending)} pictures could "
                    f"not be written after {len(RETRY_AFTER_S)} retries; see `glimpse doctor` and its log."
                )
            sleep(pause)
    return failed


def _batches(items: Iterable[BulkItem]) -> Iterator[list[BulkItem]]:
    """Cut into requests of about 8 MB, far below what a server accepts, so that one retry repeats little."""
    batch, size = [], 0
    for item in items:
        body = item.body or {}
        fields = body.get("doc", body)
        weight = 1000 + sum(len(value) for value in fields.values() if isinstance(value, str))
        if batch and size + weight > REQUEST_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += weight
    if batch:
        yield batch


def switched(alias: str, *, held: str, now: str) -> EngineError:
    """Explain that an index was replaced while somebody worked with it."""
    return EngineError(
        f"'{alias}' was switched from {held} to {now}, and nothing was written: try again; a command may need"
        " the --profile of that index."
    )


def _send(
    client: Elasticsearch,
    alias: str,
    batch: list[BulkItem],
    failed: dict[str, str],
    *,
    held: str | None,
) -> list[BulkItem]:
    """Send one request; note in `failed` what the index refuses and return what is worth sending again."""
    from elasticsearch import ApiError

    lines = [line for item in batch for line in (item.action, item.body) if line is not None]
    try:
        with engine_errors():
            answer = client.bulk(index=alias, operations=lines, require_alias=True)
    except EngineError as error:
        cause = error.__cause__
        full = isinstance(cause, ApiError) and cause.error == "cluster_block_exception"
        if isinstance(cause, ApiError) and (
            cause.status_code >= 500 or (cause.status_code == 429 and not full)
        ):
            return batch
        raise
    if held is not None:
        _refuse_others(client, alias, answer["items"], held=held)
    again = []
    # Answers come in the order of the operations: each one is matched by its position, never by what it says.
    for item, answered in zip(batch, answer["items"], strict=True):
        (result,) = answered.values()
        if "error" in result and not _is_worth_retrying(alias, result):
            kind = result["error"].get("type")
            failed[item.image_id] = REASONS.get(kind) or refusal(result, "refused")
        elif "error" in result:
            again.append(item)
    return again


def _refuse_others(
    client: Elasticsearch, alias: str, answers: Sequence[dict[str, Any]], *, held: str
) -> None:
    """Raise EngineError when the alias led to another index than `held`; delete what is new there."""
    results = [result for answer in answers for result in answer.values() if "error" not in result]
    others = [result for result in results if result["_index"] != held]
    if not others:
        return
    new = [
        {
            "delete": {
                "_index": each["_index"],
                "_id": each["_id"],
                "if_seq_no": each["_seq_no"],
                "if_primary_term": each["_primary_term"],
            }
        }
        for each in others
        if each.get("result") == "created"
    ]
    error = switched(alias, held=held, now=others[0]["_index"])
    if new:
        try:
            with engine_errors():
                client.bulk(operations=new)
        except EngineError as failed:
            error.add_note(f"{len(new)} pictures of other models are in {others[0]['_index']}: {failed}")
    raise error


def _is_worth_retrying(alias: str, result: dict[str, Any]) -> bool:
    """Whether a refused item may pass later; raises EngineError for a refusal that every item will meet."""
    kind = result["error"].get("type")
    if kind == "cluster_block_exception" and result["status"] < 500:
        raise blocked(refusal(result, ""), result["status"])
    if kind == "index_not_found_exception":
        raise EngineError(
            f"There is no index '{alias}': run `glimpse index create`, then the same command again."
        )
    return result["status"] == 429 or result["status"] >= 500  # a shard or a master is being chosen
