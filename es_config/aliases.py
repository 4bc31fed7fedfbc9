"""The indices around a read alias, and copying documents from one into the next."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from elasticsearch import Elasticsearch
from elasticsearch.helpers import pack_dense_vector

from es_config.bulk import Action, LoadingRun, send_bulk, vector_fault
from es_config.client import engine_errors
from es_config.documents import INDEX_TYPES, VECTOR_FIELDS, IndexMeta, IndexOptions, with_options
from es_config.errors import EngineError
from es_config.index import ImageIndex, create_behind, read_documents
from es_config.meta import Meta, change_meta
from es_config.scan import PAGE, pages, read_vectors
from es_config.vector_field import sequence_numbers

CLOSED_BY = "closed_by"
"""note in `_meta`: the run that refuses writes to the index until it has switched"""
SETTLE_S = 1.0
"""pause in writes after a switch: a request sent just before it must not reach the other index"""


@dataclass(frozen=True)
class Switched:
    """Names of indices after a switch."""

    now: str
    """the one behind the alias"""
    former: str
    """the one that `back` returns to"""
    left: str | None = None
    """one that no alias names any more"""


class Alias:
    """A read alias with `<alias>-next` and `<alias>-former` beside it. Every method raises EngineError.

    Which index is which is written in Elasticsearch alone, and one request changes all of it.
    """

    def __init__(self, client: Elasticsearch, *, alias: str = "images") -> None:
        self._client = client
        self.name, self.next, self.former = alias, f"{alias}-next", f"{alias}-former"
        self._replaced: set[str] = set()
        """names of indices that another took the place of here"""

    def current(self) -> ImageIndex:
        """Return the index that answers, held by its name."""
        index = ImageIndex(self._client, alias=self.name)
        if index.name() == self.name:
            raise EngineError(
                f"'{self.name}' is an index, not an alias, so nothing can be put in its place: name the alias"
                " with --index, or ingest into another one with `glimpse ingest --index`."
            )
        return index.pinned()

    def behind(self, alias: str) -> str | None:
        """Return the name of the index behind one of the three aliases, or None."""
        with engine_errors():
            found = self._client.options(ignore_status=404).indices.get_alias(name=alias)
        return None if found.meta.status == 404 else min(found.body)

    def begin(self, meta: IndexMeta, options: IndexOptions) -> ImageIndex:
        """Create the next index, which no search sees, and return it."""
        try:
            create_behind(self._client, self.next, self.name, with_options(meta, options), options)
        except EngineError:
            if begun := self.behind(self.next):
                raise EngineError(
                    f"{begun} is the next index already: run the same command again, which goes on with it."
                ) from None
            raise
        return ImageIndex(self._client, alias=self.next)

    def switch(self) -> Switched:
        """Put the next index behind the alias in the place of the current one, which becomes the former."""
        now, then = self._known(self.next), self._known(self.name)
        left = self.behind(self.former)
        actions = [*self._move(then, now), _remove(now, self.next)]
        if left:
            actions.append(_remove(left, self.former))
        self._flip(now, then, actions)
        return Switched(now, then, left)

    def back(self) -> Switched:
        """Put the former index behind the alias in the place of the current one, which becomes the former."""
        if self.behind(self.former) is None:
            raise EngineError(
                f"There is no former index to go back to: '{self.former}' names none. Nothing was put in its"
                " place yet, or it was deleted."
            )
        now, then = self._known(self.former), self._known(self.name)
        self._flip(now, then, [_remove(now, self.former), *self._move(then, now)])
        return Switched(now, then)

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Refuse writes to the current index, until a `switch` or else until the end of the context."""
        name = self._known(self.name)
        with ExitStack() as undo:
            self._block(name, undo)
            try:
                yield
            finally:
                if name in self._replaced:
                    undo.pop_all()

    def _move(self, then: str, now: str) -> list[dict[str, Any]]:
        added = ((now, self.name), (then, self.former))
        return [
            _remove(then, self.name),
            *({"add": {"index": index, "alias": each, "is_write_index": True}} for index, each in added),
        ]

    def _flip(self, now: str, then: str, actions: list[dict[str, Any]]) -> None:
        """Change the aliases in one request, while neither index takes writes."""
        with ExitStack() as undo:
            self._block(then, undo)
            with ExitStack() as reopen:
                self._block(now, reopen)
                with engine_errors():
                    self._client.indices.update_aliases(actions=actions)
                self._replaced.add(then)
                undo.pop_all()  # the former index stays closed: a late write would be lost there
                time.sleep(SETTLE_S)

    def _known(self, alias: str) -> str:
        name = self.behind(alias)
        if name is None:
            raise EngineError(f"There is no index behind '{alias}'.")
        return name

    def _block(self, name: str, undo: ExitStack) -> None:
        """Refuse writes to an index until `undo` ends, and wait for those under way."""
        undo.push(partial(self._unblock, name))  # first: a request that failed may have been heard
        run = asdict(LoadingRun.of_this_process())
        with suppress(EngineError):  # without the note, only a person can lift the block after a kill
            change_meta(self._client, name, lambda meta: {**meta, CLOSED_BY: run})
        with engine_errors():
            self._client.indices.add_block(index=name, block="write")

    def _unblock(self, name: str, _: object, error: BaseException | None, __: object) -> None:
        """Let writes in again. After another error, a failure of this becomes a note of that error."""
        try:
            _let_writes_in(self._client, name)
        except EngineError as failed:
            sentence = (
                f"{name} still refuses writes: once Elasticsearch answers, lift the block with"
                f' `PUT {name}/_settings {{"index.blocks.write": null}}`.'
            )
            if error is None:
                raise EngineError(f"{failed} {sentence}") from failed
            error.add_note(sentence)


def lift_dead_block(client: Elasticsearch, alias: str) -> tuple[LoadingRun | None, bool]:
    """Return the run that noted itself as refusing writes, and True if it was killed and they are let in.

    A block without a note is a person's, and stays. Raises EngineError.
    """
    with engine_errors():
        found = client.options(ignore_status=404).indices.get(index=alias)
    if found.meta.status == 404 or len(found.body) != 1:
        return None, False
    ((name, index),) = found.body.items()
    note = index["mappings"].get("_meta", {}).get(CLOSED_BY)
    blocked = index["settings"]["index"].get("blocks", {}).get("write") == "true"
    if not note or not blocked:
        return None, False
    run = LoadingRun(**note)
    if run.may_be_running():
        return run, False
    _let_writes_in(client, name)
    return run, True


def _let_writes_in(client: Elasticsearch, name: str) -> None:
    with engine_errors():
        client.indices.put_settings(index=name, settings={"index.blocks.write": None})

    def without_note(meta: Meta) -> Meta:
        return {key: value for key, value in meta.items() if key != CLOSED_BY}

    with suppress(EngineError):  # a note without a block says nothing
        change_meta(client, name, without_note)


def _remove(index: str, alias: str) -> dict[str, Any]:
    return {"remove": {"index": index, "alias": alias, "must_exist": True}}


def options_of(client: Elasticsearch, index: str) -> IndexOptions:
    """Return the vector options, shards and replicas of an index. Raises EngineError."""
    with engine_errors():
        (found,) = client.indices.get(index=index).body.values()
    settings = found["settings"]["index"]
    graph = found["mappings"]["properties"]["image_embedding"].get("index_options", {})
    default = IndexOptions()
    return IndexOptions(
        type=graph["type"] if graph.get("type") in INDEX_TYPES else default.type,
        m=graph.get("m", default.m),
        ef_construction=graph.get("ef_construction", default.ef_construction),
        shards=int(settings["number_of_shards"]),
        replicas=int(settings["number_of_replicas"]),
    )


CAPTION_VECTOR = "caption_embedding"


@dataclass(frozen=True)
class Document:
    """One document of the index that is copied."""

    image_id: str
    source: Mapping[str, Any]
    """everything but the vectors"""
    caption_embedding: np.ndarray | None
    """float32 `[caption_dims]`"""


class ReindexReader:
    """Reads the index that is copied. Every method raises EngineError when Elasticsearch cannot do it."""

    def __init__(self, client: Elasticsearch, index: ImageIndex) -> None:
        self._client = client
        self.index = index

    def checkpoint(self) -> int:
        """Return a sequence number up to which every change is done, then make these changes searchable."""
        done = min(each["local_checkpoint"] for each in sequence_numbers(self._client, self.index.target))
        self.index.refresh()
        return done

    def pages(self, *, since: int = -1) -> Iterator[list[Document]]:
        """Yield documents that changed after a checkpoint, in the order of ids, as far as searchable."""
        body = {
            "query": {"bool": {"filter": [{"range": {"_seq_no": {"gt": since}}}]}},
            "sort": [{"image_id": "asc"}],
            "size": PAGE,
            "docvalue_fields": [{"field": CAPTION_VECTOR, "format": "binary"}],
        }
        for hits in pages(self._client, self.index.target, body):
            yield [_document(hit) for hit in hits]


@dataclass(frozen=True)
class CopiedDocument:
    """One document to write: whole, or only its changes from `known`, its source in the next index."""

    document: Document
    known: Mapping[str, Any] | None
    vectors: Mapping[str, np.ndarray]
    """float32 `[dims]` by field: those that are written"""


class ReindexWriter:
    """Writes the next index. Every method raises EngineError when Elasticsearch cannot do it."""

    def __init__(self, client: Elasticsearch, index: ImageIndex) -> None:
        self._client = client
        self.index = index

    def known(self, image_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return the sources, without vectors, of those of `image_ids` that exist."""
        found = read_documents(self._client, self.index.target, image_ids)
        return {image_id: _plain(each["_source"]) for image_id, each in found.items()}

    def write(self, copies: Iterable[CopiedDocument]) -> dict[str, str]:
        """Write documents and return the reason for each refusal, by image id."""
        meta = self.index.meta()
        failed, actions = {}, []
        for copy in copies:
            faults = (
                vector_fault(vector, getattr(meta, VECTOR_FIELDS[field]))
                for field, vector in copy.vectors.items()
            )
            if fault := next(filter(None, faults), None):
                failed[copy.document.image_id] = fault
            else:
                actions.append(_action(copy))
        return failed | send_bulk(self._client, self.index.write_target(), actions)

    def drop_absent(self, source: ImageIndex) -> int:
        """Delete the documents that `source` no longer has, and return their number."""
        self.index.refresh()
        source.refresh()
        body = {"query": {"match_all": {}}, "sort": [{"image_id": "asc"}], "size": PAGE, "_source": False}
        dropped = 0
        for hits in pages(self._client, self.index.target, body):
            ids = [hit["_id"] for hit in hits]
            absent = sorted(set(ids) - source.listed(ids).keys())
            actions = [{"_op_type": "delete", "_id": each} for each in absent]
            dropped += len(actions) - len(send_bulk(self._client, self.index.write_target(), actions))
        return dropped


def _document(hit: dict[str, Any]) -> Document:
    has_vector = CAPTION_VECTOR in hit.get("fields", {})
    vector = read_vectors([hit], CAPTION_VECTOR)[0] if has_vector else None
    return Document(hit["_id"], _plain(hit["_source"]), vector)


def _plain(source: Mapping[str, Any]) -> dict[str, Any]:
    """Return a source without vectors and without nulls, which only updates leave."""
    return {name: each for name, each in source.items() if name not in VECTOR_FIELDS and each is not None}


def _action(copy: CopiedDocument) -> Action:
    action: Action = {"_id": copy.document.image_id}
    packed = {field: pack_dense_vector(vector) for field, vector in copy.vectors.items()}
    body = {**copy.document.source, **packed}
    if copy.known is None:
        return {"_op_type": "index", **action, "_source": body}
    gone: dict[str, None] = dict.fromkeys(copy.known.keys() - copy.document.source.keys())
    if "caption" in gone:
        gone[CAPTION_VECTOR] = None
    return {"_op_type": "update", **action, "doc": {**gone, **body}}
