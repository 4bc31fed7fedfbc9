"""Write in bulk: packed vectors, refusals per document, retries, and settings for the time of a load.

A run that writes much puts an alias on the index that says so and that it renews. The last one to leave puts
the settings back; after a run that was killed, the next run or `glimpse doctor` does. What was set before
stands in the setting itself, as an hour and the former milliseconds: aliases and settings change at once and
whole, so neither a crash nor several machines can lose it. Replicas are put off only where somebody asked
for that when the index was created, see `IndexMeta.bulk_load`.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Self

from es_config.client import blocked, engine_errors, refusal
from es_config.documents import AddResult, ImageDocument
from es_config.errors import EngineError
from es_config.mapping import IndexMeta
from es_config.meta import change_meta

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
    batch: list[BulkItem] = []
    size = 0
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
    status: int = result["status"]
    return status == 429 or status >= 500  # a shard or a master is being chosen


MANY = 1000
"""pictures that a run writes before it changes settings: a small one is searchable soon anyway"""
BEAT_S = 60.0
STALE_S = 600.0
"""seconds after which a run on another machine that no longer renews its alias has ended"""
HOUR_MS = 3_600_000
UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000}


class BulkLoad:
    """One run's part in it, as a context. It never raises: writing goes on with the settings as they are."""

    def __init__(self, client: Elasticsearch, *, alias: str, now: Callable[[], float] = time.time) -> None:
        self._client = client
        self._index = alias
        self._now = now
        self._written = 0
        self._beaten = 0.0
        self._mine: str | None = None

    def __enter__(self) -> Self:
        with contextlib.suppress(EngineError):
            if put_back(self._client, self._index, now=self._now):
                with engine_errors():
                    self._client.indices.refresh(index=self._index)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(EngineError):
            if self._mine:
                _change_aliases(self._client, self._index, remove=[self._mine])
            put_back(self._client, self._index, now=self._now)

    def wrote(self, pictures: int) -> None:
        """Count pictures; after the thousandth the index is set for bulk, and kept so."""
        self._written += pictures
        if self._written >= MANY and self._now() - self._beaten > BEAT_S:
            self._beaten = self._now()
            with contextlib.suppress(EngineError):
                self._hold()

    def _hold(self) -> None:
        state = _read(self._client, self._index)
        self._index = state.name  # an alias may point elsewhere when the run ends
        mine = f"{state.name}-loading-{_host()}-{os.getpid()}-{int(self._now())}"
        _change_aliases(self._client, state.name, add=mine, remove=[self._mine] if self._mine else [])
        self._mine = mine
        if (interval := bulk_interval(state.interval)) is not None:
            _put(self._client, state.name, {"refresh_interval": interval})


def put_back(client: Elasticsearch, index: str, *, now: Callable[[], float] = time.time) -> bool:
    """Put back what was set before runs that have ended; return whether there was anything.

    Nothing is changed while a run still writes. Raises EngineError.
    """
    state = _read(client, index)
    if any(_is_alive(holder, now()) for holder in state.holders):
        return False
    changes: dict[str, Any] = {}
    if state.interval is not None and is_bulk(state.interval):
        changes["refresh_interval"] = former_interval(state.interval)
    if state.replicas is not None:
        changes["number_of_replicas"] = state.replicas
    if changes:
        _put(client, state.name, changes)
    if state.replicas is not None:
        change_meta(client, state.name, lambda meta: {**meta, "bulk_load": {}})
    if state.holders:
        _change_aliases(client, state.name, remove=state.holders)
    return bool(changes)


def is_loading(client: Elasticsearch, index: str) -> bool:
    """Whether a run holds the index set for bulk. Raises EngineError."""
    return is_bulk(_read(client, index).interval)


def bulk_interval(interval: str | None) -> str | None:
    """Return the `refresh_interval` for bulk in the place of `interval`; None where that is to stay.

    It stays when it is for bulk already, switched off, longer than an hour or written in a rare unit.
    """
    if interval is None:
        return f"{HOUR_MS}ms"
    match = re.fullmatch(r"(\d+)(ms|s|m)", interval)
    milliseconds = int(match[1]) * UNITS_MS[match[2]] if match else 0
    return f"{HOUR_MS + milliseconds}ms" if 0 < milliseconds < HOUR_MS else None


def is_bulk(interval: str | None) -> bool:
    """Whether an interval is one that `bulk_interval` returns."""
    match = re.fullmatch(r"(\d{7})ms", interval or "")
    return match is not None and HOUR_MS <= int(match[1]) < 2 * HOUR_MS


def former_interval(interval: str) -> str | None:
    """Return what a bulk interval took the place of; None is Elasticsearch's own default."""
    milliseconds = int(interval.removesuffix("ms")) - HOUR_MS
    if milliseconds % 1000:
        return f"{milliseconds}ms"
    return f"{milliseconds // 1000}s" if milliseconds else None


@dataclass(frozen=True)
class _State:
    name: str
    interval: str | None
    holders: list[str]
    meta: dict[str, Any]

    @property
    def replicas(self) -> int | None:
        """Copies that are to be made once loading is over."""
        replicas: int | None = self.meta.get("bulk_load", {}).get("number_of_replicas")
        return replicas


def _read(client: Elasticsearch, index: str) -> _State:
    with engine_errors():
        name, found = next(iter(client.indices.get(index=index, flat_settings=True).body.items()))
    holders = [each for each in found["aliases"] if each.startswith(f"{name}-loading-")]
    interval = found["settings"].get("index.refresh_interval")
    return _State(name, interval, holders, found["mappings"].get("_meta", {}))


def _is_alive(holder: str, now: float) -> bool:
    import psutil

    host, pid, since = holder.rsplit("-", 3)[1:]
    return now - int(since) < STALE_S and (host != _host() or psutil.pid_exists(int(pid)))


def _host() -> str:
    return sha256(socket.gethostname().encode()).hexdigest()[:8]


def _put(client: Elasticsearch, name: str, settings: dict[str, Any]) -> None:
    with engine_errors():
        client.indices.put_settings(index=name, settings={"index": settings})


def _change_aliases(client: Elasticsearch, name: str, *, remove: list[str], add: str | None = None) -> None:
    actions = [{"remove": {"index": name, "alias": each, "must_exist": False}} for each in remove]
    actions += [{"add": {"index": name, "alias": add, "is_hidden": True}}] if add else []
    with engine_errors():
        client.indices.update_aliases(actions=actions)
