"""Writing documents in bulk: base64 vectors, refusals per document, retries when the server is overloaded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from es_config.client import blocked, engine_errors, refusal
from es_config.documents import AddResult, ImageDocument
from es_config.errors import EngineError
from es_config.mapping import IndexMeta

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

REQUEST_BYTES = 8 * 2**20
RETRY_AFTER_S = (0.5, 1.0, 2.0, 4.0, 8.0)


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


def vector_fault(document: ImageDocument, meta: IndexMeta) -> str | None:
    """Return what is wrong with the vectors of a document for an index, or None.

    Elasticsearch would take base64 of half the dims as 16-bit numbers and store a vector that nobody sent.
    """
    import numpy as np

    for vector, dims in (
        (document.image_embedding, meta.dims),
        (document.caption_embedding, meta.caption_dims),
    ):
        if vector is None:
            continue
        if vector.shape != (dims,) or vector.dtype != np.float32:
            return f"a vector is {vector.dtype} of shape {vector.shape}, the index takes float32 of ({dims},)"
        if not np.isfinite(vector).all():
            return "a vector holds a number that is not finite"
    return None


def add_documents(
    client: Elasticsearch,
    alias: str,
    documents: Sequence[ImageDocument],
    *,
    meta: IndexMeta,
    sleep: Callable[[float], None] = time.sleep,
) -> AddResult:
    """Write `documents` through `alias`; one that the index refuses is reported and does not stop the others.

    Raises EngineError when nothing can be written at all: no such index, a full disk, no connection, or a
    server that is still overloaded after the last retry.
    """
    faults = {document.image_id: vector_fault(document, meta) for document in documents}
    failed = {image_id: fault for image_id, fault in faults.items() if fault}
    for batch in _batches([document for document in documents if document.image_id not in failed]):
        pending = batch
        for pause in (*RETRY_AFTER_S, None):
            pending = _send(client, alias, pending, failed)
            if not pending:
                break
            if pause is None:
                raise EngineError(
                    f"Elasticsearch is overloaded: {len(pending)} pictures could not be indexed after "
                    f"{len(RETRY_AFTER_S)} retries; wait, or give it more memory, then run the command again."
                )
            sleep(pause)
    return AddResult(added=len(documents) - len(failed), failed=failed)


def _batches(documents: Sequence[ImageDocument]) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """Cut into requests of about 8 MB, far below what a server accepts, so that one retry repeats little."""
    batch, size = [], 0
    for document in documents:
        source = document_source(document)
        weight = 1000 + sum(len(value) for value in source.values() if isinstance(value, str))
        if batch and size + weight > REQUEST_BYTES:
            yield batch
            batch, size = [], 0
        batch.append((document.image_id, source))
        size += weight
    if batch:
        yield batch


def _send(
    client: Elasticsearch, alias: str, batch: list[tuple[str, dict[str, Any]]], failed: dict[str, str]
) -> list[tuple[str, dict[str, Any]]]:
    """Send one request; note in `failed` what the index refuses and return what is worth sending again."""
    from elasticsearch import ApiError

    lines = [line for image_id, source in batch for line in ({"index": {"_id": image_id}}, source)]
    try:
        with engine_errors():
            answer = client.bulk(index=alias, operations=lines, require_alias=True)
    except EngineError as error:
        cause = error.__cause__
        if (
            isinstance(cause, ApiError)
            and cause.status_code == 429
            and cause.error != "cluster_block_exception"
        ):
            return batch
        raise
    again = []
    # Answers come in the order of the operations: each one is matched by its position, never by what it says.
    for (image_id, source), item in zip(batch, answer["items"], strict=True):
        result = item["index"]
        if "error" in result and not _is_worth_retrying(alias, result):
            failed[image_id] = refusal(result, "refused")
        elif "error" in result:
            again.append((image_id, source))
    return again


def _is_worth_retrying(alias: str, result: dict[str, Any]) -> bool:
    """Whether a refused item may pass later; raises EngineError for a refusal that every item will meet."""
    kind = result["error"].get("type")
    if kind == "cluster_block_exception":
        raise blocked(refusal(result, ""))
    if kind == "index_not_found_exception":
        raise EngineError(
            f"There is no index '{alias}': run `glimpse index create`, then the same command again."
        )
    return result["status"] == 429
