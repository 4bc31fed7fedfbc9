"""Keywords and favourites that people give to pictures of an index, one or many at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from es_config.bulk import Meanwhile, send_bulk
from es_config.documents import name_fields, same_letters
from es_config.index import CONFLICT_RETRIES, NAMED_BY, ImageIndex, read_documents

HUMAN = "human"
"""`tags_source` of keywords that a person has edited: those of the file no longer replace them"""


@dataclass(frozen=True)
class PictureEdit:
    """Changes of a picture. Case and form of Unicode tell no keywords apart."""

    add_keywords: tuple[str, ...] = ()
    remove_keywords: tuple[str, ...] = ()
    keywords: tuple[str, ...] | None = None
    """these in the place of all"""
    favourite: bool | None = None

    def on(self, source: dict[str, Any]) -> dict[str, Any]:
        """Return the fields of a document to write, none if nothing changes."""
        changes: dict[str, Any] = {}
        if self.favourite is not None and self.favourite != bool(source.get("favourite")):
            changes["favourite"] = self.favourite or None
        old = tuple(source.get("tags") or ())
        new = self._edited(old)
        if new != old:
            named = name_fields({**source, "tags": new})["names"]
            names = {name: named.get(name) for name in ("tags", "keywords")}
            changes |= {"tags": list(new), "tags_source": HUMAN, "names": names}
        return changes

    def _edited(self, old: Sequence[str]) -> tuple[str, ...]:
        kept = {same_letters(each): each for each in (old if self.keywords is None else self.keywords)}
        for each in self.add_keywords:
            kept.setdefault(same_letters(each), each)
        for each in self.remove_keywords:
            kept.pop(same_letters(each), None)
        return tuple(kept.values())


@dataclass(frozen=True)
class Edited:
    """The outcome of an edit."""

    done: tuple[str, ...]
    """ids of pictures that are now as they were asked to be"""
    absent: frozenset[str] = frozenset()
    """ids that the index does not hold"""
    failed: dict[str, str] = field(default_factory=dict)
    """by id, the reason of a refusal"""


def edit_pictures(index: ImageIndex, image_ids: Sequence[str], edit: PictureEdit) -> Edited:
    """Change pictures, each from its present state. Vectors and captions stay.

    Searches find the changes after a refresh. Raises EngineError when nothing can be written.
    """
    target = index.write_target()
    waiting = list(dict.fromkeys(image_ids))
    absent: set[str] = set()
    failed: dict[str, str] = {}
    # Another writer may change a document between our reading and writing.
    for _ in range(CONFLICT_RETRIES):
        fields = [*NAMED_BY, "favourite"]
        documents = read_documents(index.client, target, waiting, fields=fields)
        absent.update(each for each in waiting if each not in documents)
        changes = {each: edit.on(document["_source"]) for each, document in documents.items()}
        actions = [
            {
                "_op_type": "update",
                "_id": each,
                "if_seq_no": documents[each]["_seq_no"],
                "if_primary_term": documents[each]["_primary_term"],
                "doc": doc,
            }
            for each, doc in changes.items()
            if doc
        ]
        refused = send_bulk(index.client, target, actions, held=index.held)
        waiting = [each for each, reason in refused.items() if isinstance(reason, Meanwhile)]
        failed |= {each: reason for each, reason in refused.items() if not isinstance(reason, Meanwhile)}
        if not waiting:
            break
    failed |= dict.fromkeys(waiting, str(Meanwhile.CHANGED))
    done = tuple(each for each in dict.fromkeys(image_ids) if each not in absent and each not in failed)
    return Edited(done, frozenset(absent), failed)
