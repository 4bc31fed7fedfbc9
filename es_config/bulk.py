"""Write in bulk: packed vectors, refusals per document, retries, and settings for the time of a load."""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from itertools import groupby
from typing import Any, Self

import numpy as np
import psutil
from elasticsearch import Elasticsearch
from elasticsearch.helpers import pack_dense_vector, parallel_bulk

from es_config.client import blocked, engine_errors, explain, refusal
from es_config.documents import (
    VECTOR_FIELDS,
    AddResult,
    FilmMoment,
    ImageDocument,
    IndexMeta,
    StoredDocument,
    name_fields,
)
from es_config.errors import EngineError
from es_config.meta import Meta, change_meta

REQUESTS, A_REQUEST = 2, 64
"""requests under way at the same time, as one keeps one processor of a shard busy, and the least in each"""
REQUEST_BYTES = 8 * 2**20
"""far below what a server accepts, so that one retry repeats little"""
RETRY_AFTER_S = (0.5, 1.0, 2.0, 4.0, 8.0)
TOO_LARGE = 413
"""status with which Elasticsearch, or a proxy in front of it, refuses a body by its size"""

Action = dict[str, Any]
"""one operation on one picture, as `elasticsearch.helpers` takes it: `_op_type`, `_id`, `_source` or `doc`"""


class Meanwhile(StrEnum):
    """Refusals that are no fault: another writer changed the document at the same moment."""

    CHANGED = "changed meanwhile"
    DELETED = "deleted meanwhile"


REASONS = {
    "version_conflict_engine_exception": Meanwhile.CHANGED,
    "document_missing_exception": Meanwhile.DELETED,
}
"""type of an error of Elasticsearch -> its meaning"""


def facts_of(document: ImageDocument) -> dict[str, Any]:
    """Return the fields of a document that come from metadata and sidecars."""
    location = document.exif_location
    exif = {
        "date": document.exif_date.isoformat() if document.exif_date else None,
        "location": {"lat": location[0], "lon": location[1]} if location else None,
        "camera": document.exif_camera,
        "local_date": document.exif_local_date.isoformat() if document.exif_local_date else None,
        "offset": document.exif_offset,
        "date_source": document.exif_date_source,
        "places": list(document.exif_places),
        "places_by": document.exif_places_by,
    }
    return {
        "exif": _present(exif),
        "tags": list(document.tags),
        "people": list(document.people),
        "title": document.title,
        "places": list(document.places),
        "rating": document.rating,
    }


def document_source(document: ImageDocument) -> dict[str, Any]:
    """Return the JSON document of a picture, without absent values."""
    caption_embedding = document.caption_embedding
    source = {
        "image_id": document.image_id,
        "image_name": document.image_name,
        "relative_path": list(document.relative_path),
        "image_embedding": pack_dense_vector(document.image_embedding),
        "caption": document.caption,
        "caption_source": document.caption_source,
        "caption_embedding": None if caption_embedding is None else pack_dense_vector(caption_embedding),
        "width": document.width,
        "height": document.height,
        "size_bytes": document.size_bytes,
        "phash": document.phash,
        **facts_of(document),
        **(document.words or {}),
        "film": _film(document.film) if document.film else None,
        "cut_short": document.cut_short or None,
        "indexed_at": document.indexed_at.isoformat(),
    }
    return _present({**source, **name_fields(source)})


def _film(film: FilmMoment) -> dict[str, Any]:
    """Return the film's part of a document. Of a film without moments, an empty list says so."""
    found = _present(asdict(film))
    return found if film.moments is None else {**found, "moments": list(film.moments)}


def _present(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value not in (None, [], {})}


def vector_fault(vector: np.ndarray, dims: int) -> str | None:
    """Explain why a vector does not fit a field of `dims` dims, or return None.

    Elasticsearch would take base64 of half the dims as 16-bit numbers and store a vector that nobody sent.
    """
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
    turned_away: Callable[[int], None] = lambda _: None,
) -> AddResult:
    """Write `documents` through `alias`, and report those that the index refuses.

    A refused document does not stop the others. With `only_new`, an existing document stays and is
    reported as "changed meanwhile".

    Raises EngineError when nothing can be written at all: no such index, a full disk, no connection, or a
    server that is still overloaded after the last retry.
    """
    verb = "create" if only_new else "index"
    failed = {each.image_id: fault for each in documents if (fault := _document_fault(each, meta))}
    actions = (
        {"_op_type": verb, "_id": each.image_id, "_source": document_source(each)}
        for each in documents
        if each.image_id not in failed
    )
    failed |= send_bulk(client, alias, actions, held=held, sleep=sleep, turned_away=turned_away)
    return AddResult(added=len(documents) - len(failed), failed=failed)


def add_stored(
    client: Elasticsearch,
    alias: str,
    documents: Sequence[StoredDocument],
    *,
    meta: IndexMeta,
    held: str | None = None,
) -> AddResult:
    """Write documents as they are, and report those that the index refuses.

    An existing document stays and is reported as "changed meanwhile". Raises EngineError as
    `add_documents` does.
    """
    failed: dict[str, str] = {}
    actions: list[Action] = []
    for each in documents:
        faults = (
            vector_fault(vector, getattr(meta, VECTOR_FIELDS[field]))
            for field, vector in each.vectors.items()
        )
        if fault := next(filter(None, faults), None):
            failed[each.image_id] = fault
            continue
        packed = {field: pack_dense_vector(vector) for field, vector in each.vectors.items()}
        actions.append({"_op_type": "create", "_id": each.image_id, "_source": {**each.source, **packed}})
    failed |= send_bulk(client, alias, actions, held=held)
    return AddResult(added=len(documents) - len(failed), failed=failed)


def send_bulk(
    client: Elasticsearch,
    alias: str,
    actions: Iterable[Action],
    *,
    held: str | None = None,
    require_alias: bool = True,
    sleep: Callable[[float], None] = time.sleep,
    turned_away: Callable[[int], None] = lambda _: None,
) -> dict[str, str]:
    """Send operations through `alias` and return the reason for each refusal, by image id.

    A request that is too large for the server is sent again in halves, and a single operation that is too
    large is refused. With `require_alias`, the name of an index is no alias, and no index is created.
    `turned_away` receives the number of operations that are sent again.

    Raises EngineError as `add_documents` does, and also when the alias was switched from `held` to another
    index while a request was on its way; documents that came into being there are deleted again.
    """
    failed: dict[str, str] = {}
    pending = list(actions)
    # `streaming_bulk` has retries, but would repeat for 15 s what the block of a full disk refuses at once.
    for pause in (0.0, *RETRY_AFTER_S):
        if not pending:
            return failed
        if pause:
            sleep(pause)
        again = []
        results = _results(client, alias, pending, require_alias=require_alias)
        if held is not None:
            _refuse_others(client, alias, results, held=held)
        # Answers come in the order of the operations: each is matched by its position, never by what it says.
        for action, result in zip(pending, results, strict=True):
            if "error" not in result:
                continue
            if (reason := _reason(alias, result)) is None:
                again.append(action)
            else:
                failed[action["_id"]] = reason
        pending = again
        if again:
            turned_away(len(again))
    if pending:
        raise EngineError(
            f"Elasticsearch is overloaded or has lost a disk or node: {len(pending)} pictures could "
            f"not be written after {len(RETRY_AFTER_S)} retries; see `glimpse doctor` and its log."
        )
    return failed


def _results(
    client: Elasticsearch, alias: str, actions: Sequence[Action], *, require_alias: bool
) -> list[dict[str, Any]]:
    """Send requests, two at a time, and return the result of each action, in their order."""
    answers = parallel_bulk(
        client,
        actions,
        thread_count=REQUESTS,
        chunk_size=max(A_REQUEST, -(-len(actions) // REQUESTS)),
        max_chunk_bytes=REQUEST_BYTES,
        raise_on_error=False,
        raise_on_exception=False,
        index=alias,
        require_alias=require_alias,
    )
    with engine_errors():
        results = [result for _, answer in answers for result in answer.values()]
    settled: list[dict[str, Any]] = []
    # The actions of a request that failed as a whole share one exception.
    for fault, group in groupby(results, key=lambda result: result.get("exception")):
        some = list(group)
        if fault is not None and fault.status_code == TOO_LARGE and len(some) > 1:
            sent = actions[len(settled) : len(settled) + len(some)]
            middle = len(sent) // 2
            for half in (sent[:middle], sent[middle:]):
                settled += _results(client, alias, half, require_alias=require_alias)
        else:
            settled += some
    return settled


def _reason(alias: str, result: dict[str, Any]) -> str | None:
    """Return the reason for a failure, or None if the action may pass later.

    Raises EngineError for a refusal that every other action will meet as well.
    """
    whole = result.get("exception")  # the whole request failed
    kind = whole.error if whole else result["error"].get("type")
    reason = refusal(whole.body if whole else result, "refused")
    status: int = result["status"]
    if kind == "cluster_block_exception" and status < 500:
        raise blocked(reason, status) from whole
    if kind == "index_not_found_exception":
        raise EngineError(
            f"There is no index '{alias}': run `glimpse index create`, then the same command again."
        ) from whole
    if status == 429 or status >= 500:  # overloaded, or a shard or a master is being chosen
        return None
    if whole and status == TOO_LARGE:
        return (
            "its document is larger than Elasticsearch, or a proxy in front of it, takes (413): raise the"
            " limit, such as client_max_body_size of nginx"
        )
    if whole:
        raise explain(whole) from whole
    return REASONS.get(kind) or reason


def switched(alias: str, *, held: str, now: str) -> EngineError:
    """Explain that an index was replaced while somebody worked with it."""
    return EngineError(
        f"'{alias}' was switched from {held} to {now}, and nothing was written: try again; a command may need"
        " the --profile of that index."
    )


def _refuse_others(
    client: Elasticsearch, alias: str, results: Sequence[dict[str, Any]], *, held: str
) -> None:
    """Raise EngineError when the alias led to another index than `held`, and delete new documents there."""
    others = [each for each in results if "error" not in each and each["_index"] != held]
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


MANY = 1000
"""pictures that a run writes before it changes settings: a small one is searchable soon anyway"""
BULK_REFRESH = "1h"
SHORTER = re.compile(r"\d+(ms|s)|[1-5]?\dm")
"""refresh intervals that are changed for a load, as is Elasticsearch's default; others stay"""
LONGEST_S = 24 * 3600.0
"""seconds after which a run of another machine counts as dead; a living one goes on with usual settings"""
SAME_START_S = 60.0
"""by how much the clock may be set while a process runs"""


@dataclass(frozen=True)
class LoadingRun:
    """A run that writes much, as the note `bulk_load` in `_meta` names it."""

    machine: str
    process: int
    since: str
    """ISO 8601"""

    @classmethod
    def of_this_process(cls) -> Self:
        """Return the run of the process that calls this."""
        return cls(socket.gethostname(), psutil.Process().pid, datetime.now(UTC).isoformat())

    def __str__(self) -> str:
        """Return it as people read it."""
        return f"process {self.process} on {self.machine}, since {self.since[:16]}Z"

    def may_be_running(self) -> bool:
        """Return False if a run of this machine has lost its process, or one of another machine is old."""
        since = datetime.fromisoformat(self.since).timestamp()
        if self.machine != socket.gethostname():
            return time.time() - since < LONGEST_S
        try:
            return psutil.Process(self.process).create_time() < since + SAME_START_S
        except psutil.NoSuchProcess:
            return False


class BulkLoad:
    """Settings for the time of one run, as a context. It never raises: without them, writing goes on.

    `_meta.bulk_load` notes the settings that were in force before and the runs that write. The first of
    several runs notes the settings, and the last one to end restores them. After a run that was killed, the
    next run or `glimpse doctor` does so.
    """

    def __init__(self, client: Elasticsearch, *, alias: str) -> None:
        self._client = client
        self._index = alias
        self._written = 0
        self._run: LoadingRun | None = None

    def __enter__(self) -> Self:
        with contextlib.suppress(EngineError):
            _, restored = restore_after_kill(self._client, self._index)
            if restored:
                with engine_errors():
                    self._client.indices.refresh(index=self._index)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(EngineError):
            _end(self._client, self._index, self._run)

    def wrote(self, pictures: int) -> None:
        """Count pictures, and set the index for bulk after the thousandth."""
        self._written += pictures
        if self._written >= MANY and self._run is None:
            self._run = LoadingRun.of_this_process()
            with contextlib.suppress(EngineError):
                self._begin(self._run)

    def _begin(self, run: LoadingRun) -> None:
        self._index, _ = _read(self._client, self._index)  # an alias may point elsewhere when the run ends
        interval = refresh_interval(self._client, self._index)
        changes = interval is None or SHORTER.fullmatch(interval) is not None

        def note(meta: Meta) -> Meta:
            before = {"refresh_interval": interval} if changes else {}
            noted = before | meta.get("bulk_load", {})
            return {**meta, "bulk_load": {**noted, "runs": [*noted.get("runs", ()), asdict(run)]}}

        change_meta(self._client, self._index, note)
        if changes:
            _put(self._client, self._index, {"refresh_interval": BULK_REFRESH})


def restore_after_kill(client: Elasticsearch, index: str) -> tuple[list[LoadingRun], bool]:
    """Return the noted runs, and True if all were killed and are now cleaned up. Raises EngineError."""
    name, note = _read(client, index)
    runs = _runs(note)
    if not runs or any(run.may_be_running() for run in runs):
        return runs, False
    _end(client, name, None)
    return runs, True


def refresh_interval(client: Elasticsearch, index: str) -> str | None:
    """Return the `refresh_interval` of an index, or None for the default. Raises EngineError."""
    with engine_errors():
        (found,) = client.indices.get_settings(index=index, flat_settings=True).body.values()
    interval: str | None = found["settings"].get("index.refresh_interval")
    return interval


def _end(client: Elasticsearch, index: str, ended: LoadingRun | None) -> None:
    """Take `ended` and killed runs off the note, and restore the settings when no run is left."""
    name, note = _read(client, index)
    if not note or (ended is None and any(run.may_be_running() for run in _runs(note))):
        return

    def change(meta: Meta) -> Meta:
        settings = dict(meta.get("bulk_load", {}))
        settings.pop("runs", None)
        left = [run for run in _runs(meta.get("bulk_load", {})) if run != ended and run.may_be_running()]
        if left:
            return {**meta, "bulk_load": {**settings, "runs": [asdict(run) for run in left]}}
        if refresh_interval(client, name) != BULK_REFRESH:
            settings.pop("refresh_interval", None)  # somebody has chosen another meanwhile
        if settings:  # before the note goes, so that a kill in between loses nothing
            _put(client, name, settings)
        return {**meta, "bulk_load": {}}

    # No run begins between the two steps of `change`: to note itself it needs its turn.
    change_meta(client, name, change)


def _read(client: Elasticsearch, index: str) -> tuple[str, dict[str, Any]]:
    """Return the name of the index itself, and its note."""
    with engine_errors():
        ((name, found),) = client.indices.get_mapping(index=index).body.items()
    return name, found["mappings"].get("_meta", {}).get("bulk_load", {})


def _runs(note: dict[str, Any]) -> list[LoadingRun]:
    return [LoadingRun(**run) for run in note.get("runs", ())]


def _put(client: Elasticsearch, name: str, settings: dict[str, Any]) -> None:
    with engine_errors():
        client.indices.put_settings(index=name, settings={"index": settings})
