"""The paths of pictures in an index: many are added or taken away with few requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from es_config.bulk import BulkItem, Meanwhile, send_bulk
from es_config.client import engine_errors, raise_item_error
from es_config.documents import paths_of

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

PAGE = 500
CONFLICT_RETRIES = 5
FIELDS = ["relative_path", "caption", "caption_source"]


@dataclass(frozen=True)
class Removed:
    """A document that had no path left."""

    image_id: str
    caption: str | None = None
    """what a person had written about it, if somebody had"""


@dataclass(frozen=True)
class PathsChanged:
    """What became of changes of paths, by image id."""

    removed: tuple[Removed, ...] = ()
    absent: frozenset[str] = frozenset()
    """there is no such document"""
    failed: dict[str, str] = field(default_factory=dict)


def add_paths(
    client: Elasticsearch, alias: str, paths: Mapping[str, Sequence[str]], *, held: str | None = None
) -> PathsChanged:
    """Add relative paths to documents, by image id; their vectors stay as they are. Raises EngineError."""
    return _change(client, alias, paths, _with, held)


def drop_paths(
    client: Elasticsearch, alias: str, paths: Mapping[str, Sequence[str]], *, held: str | None = None
) -> PathsChanged:
    """Take relative paths from documents; one that has none left is deleted. Raises EngineError."""
    return _change(client, alias, paths, _without, held)


def _with(old: Sequence[str], more: Sequence[str]) -> list[str]:
    return list(dict.fromkeys((*old, *more)))


def _without(old: Sequence[str], gone: Sequence[str]) -> list[str]:
    return [path for path in old if path not in gone]


def _change(
    client: Elasticsearch,
    alias: str,
    paths: Mapping[str, Sequence[str]],
    change: Any,
    held: str | None,
) -> PathsChanged:
    removed, absent, failed = [], set(), {}
    ids = list(paths)
    for start in range(0, len(ids), PAGE):
        waiting = ids[start : start + PAGE]
        for _ in range(CONFLICT_RETRIES):  # somebody else may change a document between reading and writing
            documents = read_documents(client, alias, waiting, fields=FIELDS)
            absent.update(image_id for image_id in waiting if image_id not in documents)
            items = {}
            for image_id, document in documents.items():
                old = list(paths_of(document["_source"]))
                if (new := change(old, paths[image_id])) != old:
                    items[image_id] = _item(document, new)
            refused = send_bulk(client, alias, items.values(), held=held)
            removed += [
                Removed(image_id, _human_caption(documents[image_id]))
                for image_id, item in items.items()
                if "delete" in item.action and image_id not in refused
            ]
            waiting = [image_id for image_id, reason in refused.items() if reason is Meanwhile.CHANGED]
            failed |= {
                image_id: reason for image_id, reason in refused.items() if reason is not Meanwhile.CHANGED
            }
            if not waiting:
                break
        failed |= dict.fromkeys(waiting, Meanwhile.CHANGED)
    return PathsChanged(tuple(removed), frozenset(absent), failed)


def read_documents(
    client: Elasticsearch, index: str, ids: Sequence[str], *, fields: Sequence[str] | None = None
) -> dict[str, dict[str, Any]]:
    """Return those of `ids` that exist, searchable or not yet, with their versions and `fields`, or all.

    Raises EngineError.
    """
    found = {}
    for start in range(0, len(ids), PAGE):
        some = list(ids[start : start + PAGE])
        with engine_errors():
            answer = client.mget(index=index, ids=some, source_includes=fields)
            for document in answer["docs"]:
                raise_item_error(document, answer.meta)
        found |= {document["_id"]: document for document in answer["docs"] if document.get("found")}
    return found


def _human_caption(document: dict[str, Any]) -> str | None:
    source = document["_source"]
    return source.get("caption") if source.get("caption_source") == "human" else None


def _item(document: dict[str, Any], paths: list[str]) -> BulkItem:
    version = {"if_seq_no": document["_seq_no"], "if_primary_term": document["_primary_term"]}
    action = {"_id": document["_id"], **version}
    if not paths:
        return BulkItem(document["_id"], {"delete": action}, None)
    return BulkItem(document["_id"], {"update": action}, {"doc": {"relative_path": paths}})
