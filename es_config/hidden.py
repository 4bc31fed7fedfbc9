"""Pictures that were put away: their whole documents, in an index beside the pictures where no search looks.

A move is a copy and then a deletion, so that a picture is always in one of the two indices at least. The note
`put_away` of a copy says which way it moves: whoever finds a picture in both knows which of the two is to go.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import numpy as np
from elasticsearch.helpers import pack_dense_vector

from es_config.bulk import Action, Meanwhile, send_bulk
from es_config.client import engine_errors, raise_item_error
from es_config.documents import TEMPLATE, VECTOR_FIELDS, IndexMeta
from es_config.errors import EngineError
from es_config.index import CONFLICT_RETRIES, ImageIndex, PathsChanged, read_documents
from es_config.scan import PAGE, pages

NOTE = "put_away"
UNDO = timedelta(minutes=10)
"""for how long an upload that was removed can be restored"""
TOGETHER = 200
"""documents with their vectors that are moved at once"""
LAST_FIRST = [{f"{NOTE}.at": "desc"}, {"image_id": "asc"}]
HEADERS = {"accept": "application/json", "content-type": "application/json"}
ROLE_OF = {"image_embedding": "image", "caption_embedding": "caption_text"}
"""vector field -> the role of the model that makes its vectors"""


class Away(StrEnum):
    """The state of a picture that was put away."""

    HIDDEN = "hidden"
    """stays away until somebody restores it"""
    REMOVED = "removed"
    """an upload, which is deleted for good when its time is over"""
    RETURNING = "returning"
    """is being restored: whoever finds it goes on with that"""
    LEAVING = "leaving"
    """is being deleted for good, and cannot be restored any more"""


@dataclass(frozen=True)
class HiddenPicture:
    """A picture that was put away."""

    image_id: str
    state: Away
    source: Mapping[str, Any]
    """its document, without vectors"""
    at: str
    """ISO 8601, UTC"""
    by: str | None = None
    """the name of the person who was signed in"""
    until: str | None = None
    """when it is deleted for good, ISO 8601, UTC"""


@dataclass(frozen=True)
class Moves:
    """The outcome of putting away or restoring pictures, by image id."""

    done: tuple[str, ...] = ()
    absent: frozenset[str] = frozenset()
    """there is no such picture to move"""
    failed: dict[str, str] = field(default_factory=dict)


Vectors = Mapping[str, np.ndarray]
"""float32 `[dims]` by field"""


class StaleVectorsError(EngineError):
    """A picture was put away before the models of the index were changed, and cannot be embedded here."""


class HiddenPictures:
    """Pictures put away from an `ImageIndex`. Every method raises EngineError when Elasticsearch cannot.

    It lies in the index `<alias>-hidden-1`, whose vectors are in no graph. It is made when it is needed, and
    marked as hidden, so that a search of `images*` does not meet it.
    """

    def __init__(self, index: ImageIndex) -> None:
        self._client = index.client
        self.index = index
        self.documents = ImageIndex(index.client, alias=f"{index.alias}-hidden")
        """the index of what was put away, for paths and lists"""

    def exists(self) -> bool:
        """Return whether anything was ever put away."""
        return self.documents.exists()

    def put_away(
        self,
        image_ids: Sequence[str],
        *,
        state: Away = Away.HIDDEN,
        by: str | None = None,
        now: datetime | None = None,
    ) -> Moves:
        """Move pictures out of the reach of searches, with all that is known of them.

        Those that are away already stay as they are and count as absent.
        """
        now = now or datetime.now(UTC)
        note = {"state": state, "at": now.isoformat(timespec="seconds"), "by": by}
        if state is Away.REMOVED:
            note["until"] = (now + UNDO).isoformat(timespec="seconds")
        self._make()
        for some in _some(self.index.moments_of(image_ids)):  # a film goes with its moments
            self._away(some, note)
        moves = [self._away(some, note) for some in _some(image_ids)]
        self._refresh()
        return _together(moves)

    def _away(self, image_ids: Sequence[str], note: Mapping[str, Any]) -> Moves:
        meta, target = self.index.meta(), self.index.write_target()
        made_by = {"profile": meta.profile, "revisions": json.dumps(meta.revisions, sort_keys=True)}
        noted = {NOTE: {**note, **made_by}}
        waiting, failed = list(dict.fromkeys(image_ids)), dict[str, str]()
        absent: set[str] = set()
        done: list[str] = []
        for _ in range(CONFLICT_RETRIES):
            whole = self._whole(waiting)
            absent.update(set(waiting) - whole.keys())
            copies = [
                {
                    "_op_type": "index",
                    "_id": each,
                    "_source": _packed(found["_source"]) | noted,
                }
                for each, found in whole.items()
            ]
            refused = send_bulk(self._client, self.documents.alias, copies)
            deletions = [_deletion(each, found) for each, found in whole.items() if each not in refused]
            kept = send_bulk(self._client, target, deletions, held=self.index.held)
            # Changed meanwhile, it is copied again; gone meanwhile, somebody else put it away.
            waiting = [each for each, reason in kept.items() if reason is Meanwhile.CHANGED]
            failed |= refused | {each: why for each, why in kept.items() if not isinstance(why, Meanwhile)}
            done += [each for each in whole if each not in failed and each not in waiting]
            if not waiting:
                break
        failed |= dict.fromkeys(waiting, str(Meanwhile.CHANGED))
        return Moves(tuple(done), frozenset(absent), failed)

    def _whole(self, image_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return documents with their vectors, searchable or not yet."""
        if not image_ids:
            return {}
        with engine_errors():
            # The client's own `mget` has no parameter for the vectors.
            answer = self._client.perform_request(
                "POST",
                f"/{self.index.target}/_mget",
                params={"_source_exclude_vectors": "false"},
                headers=HEADERS,
                body={"ids": list(image_ids)},
            )
            for each in answer.body["docs"]:
                raise_item_error(each, answer.meta)
        return {each["_id"]: each for each in answer.body["docs"] if each.get("found")}

    def restore(
        self,
        image_ids: Sequence[str],
        *,
        embed: Callable[[str, Mapping[str, Any], Sequence[str]], Vectors] | None = None,
    ) -> Moves:
        """Move pictures back, so that searches find them.

        `embed` makes those vectors, named by their fields, that belong to models which the index no longer
        has. Without it, or where it raises `StaleVectorsError`, such a picture stays away and counts as
        failed. One that is being deleted for good counts as absent.
        """
        if not self.exists():
            return Moves(absent=frozenset(image_ids))
        moments = self.documents.moments_of(image_ids)
        moves = [self._back(some, embed) for some in _some(image_ids)]
        for some in _some(moments):
            self._back(some, embed)
        self._refresh()
        return _together(moves)

    def _back(
        self,
        image_ids: Sequence[str],
        embed: Callable[[str, Mapping[str, Any], Sequence[str]], Vectors] | None,
    ) -> Moves:
        entries = self._entries(image_ids)
        absent = set(image_ids) - entries.keys()
        meta, failed, fresh = self.index.meta(), dict[str, str](), dict[str, dict[str, str]]()
        for each, entry in entries.items():
            try:
                fresh[each] = _new_vectors(each, entry["_source"], meta, embed)
            except StaleVectorsError as error:
                failed[each] = str(error)
        marks = [
            _change(each, entries[each], {"state": Away.RETURNING}) for each in fresh if each not in failed
        ]
        failed |= send_bulk(self._client, self.documents.alias, marks)
        # Read again: their versions, and whether somebody has put them away anew.
        marked = {
            each: entry
            for each, entry in self._entries([each for each in fresh if each not in failed]).items()
            if entry["_source"][NOTE]["state"] == Away.RETURNING
        }
        written = [
            {"_op_type": "create", "_id": each, "_source": _bare(entry["_source"]) | fresh[each]}
            for each, entry in marked.items()
        ]
        refused = send_bulk(self._client, self.index.write_target(), written, held=self.index.held)
        # One that is there already was written by a move that was killed.
        refused = {each: reason for each, reason in refused.items() if reason is not Meanwhile.CHANGED}
        deletions = [_deletion(each, entry) for each, entry in marked.items() if each not in refused]
        send_bulk(self._client, self.documents.alias, deletions)
        failed |= refused
        return Moves(tuple(each for each in marked if each not in refused), frozenset(absent), failed)

    def _entries(self, image_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return copies with their versions, without those that are being deleted for good."""
        found = read_documents(self._client, self.documents.alias, image_ids)
        return {
            each: entry for each, entry in found.items() if entry["_source"][NOTE]["state"] != Away.LEAVING
        }

    def get(self, image_id: str) -> HiddenPicture | None:
        """Return a picture that was put away, or None."""
        if not self.exists():
            return None
        source = self.documents.get(image_id)
        return None if source is None else _picture(image_id, source)

    def known(self, image_ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Return the relative paths of those of `image_ids` that were put away, searchable or not yet.

        Asked after the pictures themselves, it misses none that is on its way from them.
        """
        return self.documents.known(image_ids) if image_ids and self.exists() else {}

    def listed(self, image_ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Return the same as `known` for refreshed pictures, quickly from columns."""
        return self.documents.listed(image_ids) if image_ids and self.exists() else {}

    def add_paths(self, paths: Mapping[str, Sequence[str]]) -> PathsChanged:
        """Add paths to pictures that were put away, as `ImageIndex.add_paths` does."""
        if not paths or not self.exists():
            return PathsChanged(absent=frozenset(paths))
        return self.documents.add_paths(paths)

    def drop_paths(self, paths: Mapping[str, Sequence[str]]) -> PathsChanged:
        """Take paths from pictures that were put away, as `ImageIndex.drop_paths` does."""
        if not paths or not self.exists():
            return PathsChanged(absent=frozenset(paths))
        return self.documents.drop_paths(paths)

    def page(self, *, size: int, from_: int = 0) -> tuple[tuple[HiddenPicture, ...], int]:
        """Return pictures that were put away, the last one first, and how many there are in all."""
        if not self.exists():
            return (), 0
        body = {
            "query": _in_states(Away.HIDDEN, Away.REMOVED, Away.RETURNING),
            "sort": LAST_FIRST,
            "size": size,
            "from": from_,
            "_source": {"excludes": list(VECTOR_FIELDS)},
            "track_total_hits": True,
        }
        result = self.documents.search(body)
        return tuple(_picture(hit.image_id, hit.source) for hit in result.hits), result.total

    def all(self) -> Iterator[HiddenPicture]:
        """Yield every picture that was put away, the last one first."""
        if not self.exists():
            return
        body = {
            "query": _in_states(Away.HIDDEN, Away.REMOVED, Away.RETURNING),
            "sort": LAST_FIRST,
            "size": PAGE,
            "_source": {"excludes": list(VECTOR_FIELDS)},
        }
        for hits in pages(self._client, self.documents.alias, body):
            yield from (_picture(hit["_id"], hit["_source"]) for hit in hits)

    def ids(self) -> Iterator[str]:
        """Yield the ids of pictures that nobody is to see, as far as the last refresh."""
        if self.exists():
            for some in self._ids(_in_states(Away.HIDDEN, Away.REMOVED, Away.LEAVING)):
                yield from some

    def state(self) -> tuple[object, ...]:
        """Return values of which one changes with everything that is put away or comes back."""
        if not self.exists():
            return ()
        with engine_errors():
            settings = self._client.indices.get_settings(index=self.documents.alias, name="index.uuid")
        latest = {"latest": {"max": {"field": "_seq_no"}}}  # a deletion has none, and lowers the count
        found = self.documents.aggregate({"size": 0, "track_total_hits": True, "aggs": latest})
        return (
            settings.body,
            found["hits"]["total"]["value"],
            found["aggregations"]["latest"]["value"],
        )

    def count(self) -> int:
        """Return how many pictures are away, as far as the last refresh."""
        return self.documents.count() if self.exists() else 0

    def of_path(self, path: str) -> tuple[str, ...]:
        """Return the ids of pictures that were put away and have this relative path."""
        return self.documents.of_path(path) if self.exists() else ()

    def claim_expired(self, *, now: datetime | None = None) -> tuple[str, ...]:
        """Mark the removed pictures whose time is over as leaving, and return all that are so marked.

        Whoever claims deletes their files and then calls `forget`. A claim that nobody has finished is
        returned again.
        """
        if not self.exists():
            return ()
        over = {"range": {f"{NOTE}.until": {"lte": (now or datetime.now(UTC)).isoformat()}}}
        query = {"bool": {"filter": [_in_states(Away.REMOVED), over]}}
        self.claim([each for some in self._ids(query) for each in some])
        self.documents.refresh()
        return tuple(each for some in self._ids(_in_states(Away.LEAVING)) for each in some)

    def claim(self, image_ids: Sequence[str]) -> Moves:
        """Mark removed pictures as leaving, whatever their time. Hidden ones count as absent."""
        if not self.exists():
            return Moves(absent=frozenset(image_ids))
        found = {
            each: entry
            for each, entry in self._entries(image_ids).items()
            if entry["_source"][NOTE]["state"] == Away.REMOVED
        }
        marks = [_change(each, entry, {"state": Away.LEAVING}) for each, entry in found.items()]
        failed = send_bulk(self._client, self.documents.alias, marks)
        done = tuple(each for each in found if each not in failed)
        return Moves(done, frozenset(set(image_ids) - found.keys()), failed)

    def forget(self, image_ids: Sequence[str]) -> None:
        """Delete for good the pictures that are leaving. Others stay."""
        found = read_documents(self._client, self.documents.alias, image_ids, fields=[NOTE])
        leaving = [
            _deletion(each, entry)
            for each, entry in found.items()
            if entry["_source"][NOTE]["state"] == Away.LEAVING
        ]
        send_bulk(self._client, self.documents.alias, leaving)
        self.documents.refresh()

    def finish(
        self, *, embed: Callable[[str, Mapping[str, Any], Sequence[str]], Vectors] | None = None
    ) -> int:
        """Complete the moves that were killed, or that a switch of the index undid, and return how many."""
        if not self.exists() or not self.index.exists():
            return 0
        self.documents.refresh()
        finished = 0
        for ids in self._ids(_in_states(Away.RETURNING)):
            finished += len(self._back(ids, embed).done)
        for ids in self._ids(_in_states(Away.HIDDEN, Away.REMOVED)):
            both = sorted(self.index.known(ids))
            finished += len(self._again(both)) if both else 0
        if finished:
            self._refresh()
        return finished

    def _again(self, image_ids: Sequence[str]) -> tuple[str, ...]:
        """Put pictures away again that a killed move left or a switch brought back, with their notes."""
        notes = read_documents(self._client, self.documents.alias, image_ids, fields=[NOTE])
        done: list[str] = []
        for each, entry in notes.items():
            note = {name: entry["_source"][NOTE].get(name) for name in ("state", "at", "by", "until")}
            done += self._away([each], {name: value for name, value in note.items() if value}).done
        return tuple(done)

    def _ids(self, query: dict[str, Any]) -> Iterator[list[str]]:
        body = {"query": query, "sort": [{"image_id": "asc"}], "size": PAGE, "_source": False}
        for hits in pages(self._client, self.documents.alias, body):
            yield [hit["_id"] for hit in hits]

    def _refresh(self) -> None:
        self.documents.refresh()
        self.index.refresh()

    def _make(self) -> None:
        if self.exists():
            self._complete()
            return
        with engine_errors():
            (found,) = self._client.indices.get_settings(index=self.index.target).body.values()
        replicas = int(found["settings"]["index"].get("number_of_replicas", 0))
        try:
            with engine_errors():
                self._client.indices.create(
                    index=f"{self.documents.alias}-1",
                    aliases={self.documents.alias: {"is_write_index": True, "is_hidden": True}},
                    settings={"number_of_shards": 1, "number_of_replicas": replicas, "hidden": True},
                    mappings=hidden_mappings(),
                )
        except EngineError:
            if not self.documents.exists():  # somebody else was not faster
                raise

    def _complete(self) -> None:
        """Add the fields that a later version has, without which a document of it would be refused."""
        # A refusal is reported for the document that needs the field.
        with suppress(EngineError), engine_errors():
            self._client.indices.put_mapping(
                index=self.documents.alias, properties=hidden_mappings()["properties"]
            )


def hidden_mappings() -> dict[str, Any]:
    """Return the mapping of hidden pictures: that of the index, with vectors that nobody can search.

    As bytes, they may have any dims: what was put away stays as it was when the models are changed.
    """
    mappings: dict[str, Any] = json.loads(TEMPLATE.read_text(encoding="utf-8"))["mappings"]
    note = {"state", "by", "profile"}
    mappings["properties"] |= {name: {"type": "binary"} for name in VECTOR_FIELDS}
    mappings["properties"][NOTE] = {
        "properties": {
            **{name: {"type": "keyword"} for name in sorted(note)},
            "at": {"type": "date"},
            "until": {"type": "date"},
            "revisions": {"type": "keyword", "index": False, "doc_values": False},
        }
    }
    return {"dynamic": "strict", "properties": mappings["properties"]}


def _in_states(*states: Away) -> dict[str, Any]:
    return {"terms": {f"{NOTE}.state": [str(each) for each in states]}}


def _some(image_ids: Sequence[str]) -> Iterable[Sequence[str]]:
    return (image_ids[start : start + TOGETHER] for start in range(0, len(image_ids), TOGETHER))


def _together(moves: Sequence[Moves]) -> Moves:
    return Moves(
        tuple(each for some in moves for each in some.done),
        frozenset(each for some in moves for each in some.absent),
        {each: reason for some in moves for each, reason in some.failed.items()},
    )


def _packed(source: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document with its vectors as bytes, and without nulls, which only updates leave."""
    vectors = {
        name: pack_dense_vector(np.asarray(source[name], np.float32))
        for name in VECTOR_FIELDS
        if source.get(name) is not None
    }
    return {name: each for name, each in source.items() if each is not None} | vectors


def _bare(source: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document as it goes back, with its vectors as they are."""
    return {name: each for name, each in source.items() if name != NOTE and each is not None}


def _new_vectors(
    image_id: str,
    source: Mapping[str, Any],
    meta: IndexMeta,
    embed: Callable[[str, Mapping[str, Any], Sequence[str]], Vectors] | None,
) -> dict[str, str]:
    """Return packed vectors in the place of those that other models made. Raises `StaleVectorsError`."""
    note = source[NOTE]
    then: dict[str, str] = json.loads(note.get("revisions", "{}"))
    stale = [
        name
        for name, role in ROLE_OF.items()
        if source.get(name) is not None
        and (note.get("profile") != meta.profile or then.get(role) != meta.revisions.get(role))
    ]
    if not stale:
        return {}
    if embed is None:
        raise StaleVectorsError(
            "it was put away before the models of the index were changed: restore it with `glimpse restore`"
        )
    plain = {name: each for name, each in _bare(source).items() if name not in VECTOR_FIELDS}
    return {name: pack_dense_vector(vector) for name, vector in embed(image_id, plain, stale).items()}


def _change(image_id: str, entry: Mapping[str, Any], note: Mapping[str, Any]) -> Action:
    version = {"if_seq_no": entry["_seq_no"], "if_primary_term": entry["_primary_term"]}
    return {"_op_type": "update", "_id": image_id, **version, "doc": {NOTE: dict(note)}}


def _deletion(image_id: str, entry: Mapping[str, Any]) -> Action:
    version = {"if_seq_no": entry["_seq_no"], "if_primary_term": entry["_primary_term"]}
    return {"_op_type": "delete", "_id": image_id, **version}


def _picture(image_id: str, source: Mapping[str, Any]) -> HiddenPicture:
    note = source[NOTE]
    plain = {name: each for name, each in source.items() if name not in VECTOR_FIELDS and name != NOTE}
    return HiddenPicture(
        image_id, Away(note["state"]), plain, note["at"], by=note.get("by"), until=note.get("until")
    )
