"""The index of pictures: the only place that sends requests about its documents."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self

import numpy as np
from elasticsearch import Elasticsearch
from elasticsearch.helpers import pack_dense_vector

from es_config.bulk import (
    Action,
    BulkLoad,
    Meanwhile,
    add_documents,
    add_stored,
    facts_of,
    send_bulk,
    switched,
    vector_fault,
)
from es_config.client import FOR_VISITORS, engine_errors, raise_item_error
from es_config.documents import (
    NAMES_EDITION,
    AddResult,
    ImageDocument,
    IndexMeta,
    IndexOptions,
    SearchResult,
    StoredDocument,
    content_id,
    index_body,
    lacking_fields,
    local_fields,
    moment_id,
    name_fields,
    paths_of,
    read_hits,
    read_meta,
    read_point,
    with_options,
)
from es_config.errors import EngineError
from es_config.meta import Meta, change_meta
from es_config.scan import PAGE, pages, read_sample, read_vectors, vectors_body

META_SECONDS = 10.0
"""for how long an index's name and `_meta` are believed before they are read again"""
CONFLICT_RETRIES = 5


@dataclass(frozen=True)
class Removed:
    """A document that had no path left."""

    image_id: str
    caption: str | None = None
    """of a person, if one had written any"""
    content_id: str = ""
    """of the file that it came from: of a film's moment that is the film's"""


@dataclass(frozen=True)
class PathsChanged:
    """The outcome of changed paths, by image id."""

    removed: tuple[Removed, ...] = ()
    absent: frozenset[str] = frozenset()
    """there is no such document"""
    failed: dict[str, str] = field(default_factory=dict)


def create_behind(
    client: Elasticsearch, alias: str, name: str, meta: IndexMeta, options: IndexOptions
) -> str:
    """Create the first free of `<name>-<profile>-1`, `-2`, … with `alias` on it, and return its name.

    Of several who do so at once, one succeeds: an alias has one write index at most. Raises EngineError.
    """
    with engine_errors():
        taken = client.indices.get(index=f"{name}-{meta.profile}-*", features="aliases").body
        names = (f"{name}-{meta.profile}-{n}" for n in range(1, len(taken) + 2))
        free = next(each for each in names if each not in taken)
        aliases = {alias: {"is_write_index": True}}
        client.indices.create(index=free, aliases=aliases, **index_body(meta, options))
    return free


def read_documents(
    client: Elasticsearch, index: str, ids: Sequence[str], *, fields: Sequence[str] | None = None
) -> dict[str, dict[str, Any]]:
    """Return those of `ids` that exist, searchable or not yet, with their versions and `fields`, or all.

    Raises EngineError.
    """
    found: dict[str, dict[str, Any]] = {}
    for start in range(0, len(ids), PAGE):
        some = list(ids[start : start + PAGE])
        with engine_errors():
            answer = client.mget(index=index, ids=some, source_includes=fields)
            for document in answer["docs"]:
                raise_item_error(document, answer.meta)
        found |= {document["_id"]: document for document in answer["docs"] if document.get("found")}
    return found


class ImageIndex:
    """Pictures behind a read alias. Every method raises EngineError when Elasticsearch cannot do it."""

    def __init__(self, client: Elasticsearch, *, alias: str = "images", held: str | None = None) -> None:
        self._client = client
        self.alias = alias
        self.held = held
        """name of the index that is read and written; None follows the alias"""
        self._seen: tuple[float, str, IndexMeta] | None = None
        self.rejections = 0
        """documents that Elasticsearch turned away for the moment, and that were sent again"""

    @property
    def client(self) -> Elasticsearch:
        """The client, for other indices beside this one."""
        return self._client

    @property
    def target(self) -> str:
        """The name that is read: that of the held index, else the alias."""
        return self.held or self.alias

    def pinned(self) -> Self:
        """Return the same index, held by its name: for work during which the alias may be switched.

        It reads on from this index then, and its writes are refused.
        """
        return type(self)(self._client, alias=self.alias, held=self.name())

    def write_target(self) -> str:
        """Return the alias, through which everything is written, if it still stands for this index.

        It may be switched while a request is on its way: `send_bulk` looks again where the request went.
        """
        if self.held is not None:
            with engine_errors():
                behind = self._client.options(ignore_status=404).indices.get_alias(index=self.alias)
            if behind.meta.status != 404 and self.held not in behind.body:
                raise switched(self.alias, held=self.held, now=min(behind.body))
        return self.alias

    def exists(self) -> bool:
        """Return whether an index is behind the alias."""
        with engine_errors():
            return bool(self._client.indices.exists(index=self.target))

    def name(self) -> str:
        """Return the name of the index behind the alias."""
        return self._read()[0]

    def uuid(self) -> str:
        """Return the id that no other index has, not even a later one of the same name."""
        with engine_errors():
            answer = self._client.indices.get_settings(index=self.name(), name="index.uuid")
        (settings,) = answer.body.values()
        return str(settings["settings"]["index"]["uuid"])

    def uuids(self) -> frozenset[str] | None:
        """Return the uuids of all visible indexes of this Elasticsearch, or None if not all are shown.

        To an API key for some indexes Elasticsearch shows these alone, and does not say so.
        """
        everywhere = {"names": ["*"], "privileges": ["view_index_metadata"]}
        with engine_errors():
            # Without security there is no such route.
            able = self._client.options(ignore_status=[400, 404, 405]).security.has_privileges(
                index=[everywhere]
            )
            answer = self._client.indices.get_settings(index="_all", name="index.uuid")
        if not able.body.get("has_all_requested", True):
            return None
        return frozenset(each["settings"]["index"]["uuid"] for each in answer.body.values())

    def meta(self) -> IndexMeta:
        """Return the index's `_meta`, at most ten seconds old."""
        return self._read()[1]

    def mappings(self) -> dict[str, Any]:
        """Return the mapping as Elasticsearch has it."""
        with engine_errors():
            answer = self._client.options(ignore_status=404).indices.get_mapping(index=self.target)
        if answer.meta.status == 404:
            raise EngineError(
                f"There is no index '{self.alias}': run `glimpse index create` or `glimpse ingest FOLDER`.",
                for_visitors=FOR_VISITORS["index_not_found_exception"],
            )
        if len(answer.body) != 1:
            raise EngineError(
                f"The alias '{self.alias}' points at {', '.join(sorted(answer.body))}: leave it on one."
            )
        return dict(answer.body)

    def choose_profile(self, asked: str | None, *, default: str) -> str:
        """Return the name of the profile that the index holds vectors of, or of a new index.

        Without an index that is `asked`, or else `default`. Raises EngineError when another one is `asked`.
        """
        if not self.exists():
            return asked or default
        own = self.meta().profile
        if asked not in (None, own):
            raise self._other_profile(own, str(asked))
        return own

    def _other_profile(self, own: str, asked: str) -> EngineError:
        return EngineError(
            f"The index '{self.alias}' holds vectors of profile '{own}', not '{asked}': leave --profile out,"
            f" or make vectors of the other one with `glimpse reindex --profile {asked}`."
        )

    def check_profile(
        self,
        profile_name: str,
        dims: int,
        *,
        text_revision: str | None = None,
        matches: Callable[[str], bool] | None = None,
    ) -> None:
        """Raise EngineError unless the index holds vectors of this profile and of this many dims.

        With `text_revision`, the text tower must be the one noted in the index, if one is. `matches` says
        whether a noted one is the same by an older name.
        """
        meta = self.meta()
        if meta.profile != profile_name:
            raise self._other_profile(meta.profile, profile_name)
        if meta.dims != dims:
            raise EngineError(
                f"The index '{self.alias}' holds vectors of {meta.dims} dims, and profile '{profile_name}' "
                f"makes {dims} now: use the models that it was made with, or run `glimpse index delete` "
                "and ingest the pictures again."
            )
        noted = meta.revisions.get("text")
        if text_revision and noted and noted != text_revision and not (matches and matches(noted)):
            raise EngineError(
                f"The index '{self.alias}' was made with other weights of profile '{profile_name}' "
                f"(text {noted}, here {text_revision}): use the models that it was made with (--model-dir)."
            )

    def claim_revision(self, tower: str, revision: str) -> str:
        """Note the weights that make the vectors, unless some are noted, and return the noted ones.

        Several callers with different weights all get the same ones.
        """
        noted = self.meta().revisions.get(tower)
        if noted is None:
            self.note("revisions", {tower: revision}, only_new=True)
            noted = self.meta().revisions[tower]
        return noted

    def note(
        self,
        section: str,
        entries: Mapping[str, Any],
        *,
        only_new: bool = False,
        seen: Mapping[str, Any] | None = None,
    ) -> bool:
        """Merge `entries` into one section of `_meta`, such as `operating_points`, and keep the rest.

        With `only_new`, entries that are there stay. With `seen`, return False and write nothing unless the
        section still holds just that.
        """
        taken = True

        def change(meta: Meta) -> Meta:
            nonlocal taken
            there = meta.get(section, {})
            taken = seen is None or there == seen
            if not taken:
                return meta
            return {**meta, section: {**entries, **there} if only_new else {**there, **entries}}

        (name,) = self.mappings()
        change_meta(self._client, name, change)
        self._seen = None
        return taken

    def create(self, meta: IndexMeta, options: IndexOptions) -> str:
        """Create `<alias>-<profile>-<n>` with the alias on it, and return its name."""
        chosen = with_options(meta, options)
        self._refuse_another()
        try:
            return create_behind(self._client, self.alias, self.alias, chosen, options)
        except EngineError:
            self._refuse_another()  # somebody else was faster
            raise
        finally:
            self._seen = None

    def _refuse_another(self) -> None:
        if self.exists():
            raise EngineError(
                f"The index '{self.alias}' exists already: use it, or run `glimpse index delete` first."
            )

    def count(self) -> int:
        """Return the number of pictures, as far as the last refresh."""
        with engine_errors():
            return int(self._client.count(index=self.target)["count"])

    def has_places(self) -> bool:
        """Whether a picture has the name of a place."""
        query = {"exists": {"field": "names.place"}}
        with engine_errors():
            found = self._client.count(index=self.target, query=query, terminate_after=1)
            return int(found["count"]) > 0

    def delete(self) -> None:
        """Delete the index, and with it the alias."""
        name = self.name()
        self._seen = None
        with engine_errors():
            self._client.indices.delete(index=name)

    def add(self, documents: Sequence[ImageDocument], *, only_new: bool = False) -> AddResult:
        """Write documents under their `image_id`, and report those that the index refuses.

        With `only_new`, existing documents stay and are reported as `Meanwhile.CHANGED`.
        """
        target, meta = self.write_target(), self.meta()

        def turned_away(number: int) -> None:
            self.rejections += number

        return add_documents(
            self._client,
            target,
            documents,
            meta=meta,
            only_new=only_new,
            held=self.held,
            turned_away=turned_away,
        )

    def add_stored(self, documents: Sequence[StoredDocument]) -> AddResult:
        """Write documents with their vectors as they are. Existing ones stay: `Meanwhile.CHANGED`."""
        target, meta = self.write_target(), self.meta()
        return add_stored(self._client, target, documents, meta=meta, held=self.held)

    def add_paths(self, paths: Mapping[str, Sequence[str]]) -> PathsChanged:
        """Add paths to pictures, by image id, and leave their vectors alone."""
        return self._change_paths(paths, lambda old, more: list(dict.fromkeys((*old, *more))))

    def drop_paths(self, paths: Mapping[str, Sequence[str]]) -> PathsChanged:
        """Take paths from pictures, by image id, and delete a picture without a path."""
        return self._change_paths(paths, lambda old, gone: [path for path in old if path not in gone])

    def _change_paths(
        self,
        paths: Mapping[str, Sequence[str]],
        change: Callable[[Sequence[str], Sequence[str]], list[str]],
    ) -> PathsChanged:
        target = self.write_target()
        removed: list[Removed] = []
        absent: set[str] = set()
        failed: dict[str, str] = {}
        ids = list(paths)
        for start in range(0, len(ids), PAGE):
            waiting = ids[start : start + PAGE]
            # Another writer may change a document between our reading and writing.
            for _ in range(CONFLICT_RETRIES):
                documents = read_documents(
                    self._client,
                    target,
                    waiting,
                    fields=["relative_path", "caption", "caption_source", "names.path", "film"],
                )
                if moments := _moments_of(documents):  # first: no kill leaves a moment without its film
                    done = self._change_paths(
                        {moment: paths[film] for moment, film in moments.items()}, change
                    )
                    removed += done.removed
                    failed |= {moments[each]: reason for each, reason in done.failed.items()}
                    documents = {each: found for each, found in documents.items() if each not in failed}
                absent.update(image_id for image_id in waiting if image_id not in documents)
                actions = {}
                for image_id, document in documents.items():
                    old = paths_of(document["_source"])
                    if (new := change(old, paths[image_id])) != list(old):
                        actions[image_id] = _paths_action(document, new)
                refused = send_bulk(self._client, target, actions.values(), held=self.held)
                removed += [
                    _removed(documents[image_id])
                    for image_id, action in actions.items()
                    if action["_op_type"] == "delete" and image_id not in refused
                ]
                waiting = [image_id for image_id, reason in refused.items() if reason is Meanwhile.CHANGED]
                failed |= {
                    image_id: reason
                    for image_id, reason in refused.items()
                    if reason is not Meanwhile.CHANGED
                }
                if not waiting:
                    break
            failed |= dict.fromkeys(waiting, Meanwhile.CHANGED)
        return PathsChanged(tuple(removed), frozenset(absent), failed)

    def change_facts(self, documents: Sequence[ImageDocument]) -> AddResult:
        """Give pictures the facts of these documents, which have no vector, and leave the rest alone.

        A caption takes the place of a model's and of the former description, if it has its vector. Captions
        and keywords that a person wrote on the page stay. A picture that is not there is reported as
        "deleted meanwhile". The moments of a film get the facts of the film.
        """
        target = self.write_target()
        waiting = {each.image_id: each for each in documents}
        failed: dict[str, str] = {}
        moments = self._moments(list(waiting))
        if moments:  # first: no kill leaves a moment behind its film
            of_moments = [replace(waiting[film], image_id=moment) for moment, film in moments.items()]
            done = self.change_facts(of_moments)
            failed |= {moments[each]: reason for each, reason in done.failed.items()}
            waiting = {each: found for each, found in waiting.items() if each not in failed}
        # Another writer may change a document between our reading and writing.
        for _ in range(CONFLICT_RETRIES):
            found = read_documents(self._client, target, list(waiting), fields=FACTS)
            failed |= dict.fromkeys(waiting.keys() - found.keys(), Meanwhile.DELETED)
            actions = [_facts_action(each, waiting[image_id]) for image_id, each in found.items()]
            refused = send_bulk(self._client, target, actions, held=self.held)
            failed |= {
                image_id: reason for image_id, reason in refused.items() if not isinstance(reason, Meanwhile)
            }
            waiting = {key: waiting[key] for key, reason in refused.items() if reason is Meanwhile.CHANGED}
            if not waiting:
                break
        failed |= dict.fromkeys(waiting, Meanwhile.CHANGED)
        return AddResult(added=len(documents) - len(failed), failed=failed)

    def captions_of(self, image_ids: Sequence[str]) -> dict[str, str | None]:
        """Return the captions of those of `image_ids` that are in the index, searchable or not yet."""
        found = read_documents(self._client, self.target, image_ids, fields=["caption"])
        return {image_id: each["_source"].get("caption") for image_id, each in found.items()}

    def known(self, image_ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Return the relative paths of those of `image_ids` that are in the index, searchable or not yet."""
        found = read_documents(self._client, self.target, image_ids, fields=["relative_path"])
        return {image_id: paths_of(each["_source"]) for image_id, each in found.items()}

    def of_path(self, path: str) -> tuple[str, ...]:
        """Return the ids of pictures that have this relative path, as far as the last refresh."""
        body = {"query": {"term": {"relative_path": path}}, "size": PAGE, "_source": False}
        return tuple(hit.image_id for hit in self.search(body).hits)

    def films(self, image_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return `film` of those of `image_ids` that are films, searchable or not yet."""
        found = read_documents(self._client, self.target, image_ids, fields=["film"])
        return {
            image_id: each["_source"]["film"] for image_id, each in found.items() if "film" in each["_source"]
        }

    def moments_of(self, image_ids: Sequence[str]) -> list[str]:
        """Return the ids of the moments of those of `image_ids` that are films, searchable or not yet."""
        return list(self._moments(image_ids))

    def _moments(self, image_ids: Sequence[str]) -> dict[str, str]:
        """Return the ids of the moments of films, with the ids of their films."""
        return _moments_of(read_documents(self._client, self.target, image_ids, fields=["film"]))

    def set_moments(self, moments: Mapping[str, Sequence[int]]) -> dict[str, str]:
        """Note the times of films' moments, which are written already, and return the refusals."""
        actions = [
            {"_op_type": "update", "_id": film_id, "doc": {"film": {"moments": list(times)}}}
            for film_id, times in moments.items()
        ]
        return send_bulk(self._client, self.write_target(), actions, held=self.held)

    def listed(self, image_ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Return the same as `known` for searchable pictures only, quickly from columns."""
        found: dict[str, tuple[str, ...]] = {}
        for start in range(0, len(image_ids), PAGE):
            some = list(image_ids[start : start + PAGE])
            with engine_errors():
                answer = self._client.search(
                    index=self.target,
                    query={"terms": {"image_id": some}},
                    size=len(some),
                    source=False,
                    stored_fields="_none_",
                    docvalue_fields=[{"field": "image_id"}, {"field": "relative_path"}],
                    track_total_hits=False,
                )
            for hit in answer["hits"]["hits"]:
                found[hit["fields"]["image_id"][0]] = tuple(hit["fields"].get("relative_path", ()))
        return found

    def bulk_load(self) -> BulkLoad:
        """Return a context in which much is written: settings are changed for that and put back after."""
        return BulkLoad(self._client, alias=self.alias)

    def refresh(self) -> None:
        """Make everything that was written visible to searches."""
        with engine_errors():
            self._client.indices.refresh(index=self.target)

    def search(self, body: dict[str, Any]) -> SearchResult:
        """Send a search. Similarities are recovered from scores that come from kNN alone."""
        with engine_errors():
            answer = self._client.search(index=self.target, body=body)
        return self._result(body, answer)

    def search_many(self, bodies: Sequence[dict[str, Any]]) -> list[SearchResult]:
        """Send several searches as one `_msearch` request, which fails if one of them fails."""
        lines = [line for body in bodies for line in ({}, body)]
        with engine_errors():
            answer = self._client.msearch(index=self.target, searches=lines)
            for each in answer["responses"]:
                raise_item_error(each, answer.meta)
        rows = zip(bodies, answer["responses"], strict=True)
        return [self._result(body, each) for body, each in rows]

    def aggregate(self, body: dict[str, Any]) -> dict[str, Any]:
        """Send a request for counts and return its answer, which the server keeps until the index changes."""
        with engine_errors():
            answer = self._client.search(index=self.target, body=body, request_cache=True)
        return dict(answer.body)

    def captions(self) -> Captions:
        """Return the captions of this index, to list and write them."""
        return Captions(self._client, index=self)

    def words(self) -> PictureWords:
        """Return the text in the pictures of this index, to list and write it."""
        return PictureWords(self._client, index=self)

    def complete_mapping(self) -> tuple[str, ...]:
        """Add the fields of the contract that an index of an earlier version lacks, and return their names.

        Vectors are never added: their options belong to the creation of an index.
        """
        ((name, found),) = self.mappings().items()
        lacking = lacking_fields(found["mappings"])
        if lacking:
            with engine_errors():
                self._client.indices.put_mapping(index=name, properties=lacking)
        return tuple(lacking)

    def complete_documents(self, places: PlaceNames | None = None) -> int:
        """Give documents of an earlier version the fields that follow from their others, and return how many.

        These are `names`, the local dates and, with `places`, the names of places by their coordinates.
        Vectors and captions stay as they are; a document that changes meanwhile is left for the next time.
        """
        former: list[dict[str, Any]] = [{"bool": {"must_not": [{"term": {"names.edition": NAMES_EDITION}}]}}]
        if places is not None:
            located = [{"exists": {"field": "exif.location"}}]
            unnamed = [{"exists": {"field": "exif.places_by"}}]
            former.append({"bool": {"filter": located, "must_not": unnamed}})
        lacking = {"bool": {"should": former, "minimum_should_match": 1}}
        body = {
            "query": {"bool": {"filter": [{"exists": {"field": "relative_path"}}, lacking]}},
            "sort": [{"image_id": "asc"}],
            "size": PAGE,
            "_source": NAMED_BY,
            "seq_no_primary_term": True,
        }
        completed = 0
        for hits in pages(self._client, self.target, body):
            actions = _completing_actions(hits, places)
            refused = send_bulk(self._client, self.write_target(), actions, held=self.held)
            completed += len(actions) - len(refused)
        if completed:
            self.refresh()
        return completed

    def get(self, image_id: str) -> dict[str, Any] | None:
        """Return the `_source` of a picture, which holds no vectors, or None without such a picture."""
        return self._source(image_id)

    def vector(self, image_id: str, field: str = "image_embedding") -> np.ndarray | None:
        """Return a stored vector, float32 `[dims]`, or None without the picture or its vector."""
        source = self._source(image_id, source_includes=[field], source_exclude_vectors=False)
        values = (source or {}).get(field)
        return None if values is None else np.asarray(values, dtype=np.float32)

    def vectors(self, image_ids: Sequence[str], field: str = "image_embedding") -> dict[str, np.ndarray]:
        """Return the stored vectors, float32 `[dims]`, of those pictures that have one, in one request."""
        body = vectors_body(image_ids, field=field)
        with engine_errors():
            hits = self._client.search(index=self.target, body=body)["hits"]["hits"]
        found = dict(zip((hit["_id"] for hit in hits), read_vectors(hits, field), strict=True))
        for image_id in set(image_ids) - set(found):  # added since the last refresh
            if (vector := self.vector(image_id, field)) is not None:
                found[image_id] = vector
        return found

    def sample_vectors(self, field: str, size: int) -> np.ndarray:
        """Return the vectors, float32 `[n, dims]`, of the pictures that `read_sample` draws."""
        return read_sample(self._client, self.name(), fields=[field], size=size).vectors[field]

    def _result(self, body: dict[str, Any], answer: Any) -> SearchResult:
        is_knn = "knn" in body and "query" not in body
        return read_hits(answer, similarity=self.meta().similarity if is_knn else None)

    def _source(self, image_id: str, **options: Any) -> dict[str, Any] | None:
        """Return a document's `_source`, or None if the index lacks it."""
        with engine_errors():
            answer = self._client.options(ignore_status=404).get(index=self.target, id=image_id, **options)
        if answer.meta.status == 404 and "error" in answer.body:
            self.mappings()  # raises for an index that is not there
        source: dict[str, Any] | None = answer.body.get("_source")
        return source

    def _read(self) -> tuple[str, IndexMeta]:
        if self._seen is None or time.monotonic() - self._seen[0] > META_SECONDS:
            ((name, found),) = self.mappings().items()
            self._seen = (time.monotonic(), name, read_meta(name, found["mappings"]))
        return self._seen[1:]


def _human_caption(document: dict[str, Any]) -> str | None:
    source = document["_source"]
    return source.get("caption") if source.get("caption_source") == "human" else None


def _removed(document: dict[str, Any]) -> Removed:
    image_id = document["_id"]
    return Removed(image_id, _human_caption(document), content_id(image_id, document["_source"]))


def _moments_of(documents: Mapping[str, dict[str, Any]]) -> dict[str, str]:
    """Return the ids of the moments of films among documents, with the ids of their films."""
    return {
        moment_id(film_id, time_ms): film_id
        for film_id, document in documents.items()
        for time_ms in (document["_source"].get("film") or {}).get("moments") or ()
    }


def _paths_action(document: dict[str, Any], paths: list[str]) -> Action:
    """Return the update of a document's paths, and of the names that they give it, if it has any."""
    version = {"if_seq_no": document["_seq_no"], "if_primary_term": document["_primary_term"]}
    doc: dict[str, Any] = {"relative_path": paths}
    if paths and paths[:1] != list(paths_of(document["_source"])[:1]):
        doc["image_name"] = paths[0].rsplit("/", 1)[-1]
    if "names" in document["_source"]:
        of_paths = name_fields(doc)["names"]
        doc["names"] = {name: of_paths.get(name) for name in PATH_NAMES}
    change = {"_op_type": "update", "doc": doc} if paths else {"_op_type": "delete"}
    return {"_id": document["_id"], **version, **change}


FACTS = ["relative_path", "tags", "people", "title", "places", "rating", "exif", "names"]
FACTS += ["caption", "caption_source", "tags_source"]


def _facts_action(document: dict[str, Any], facts: ImageDocument) -> Action:
    """Return the update of a document to these facts, with an empty value for each that it no longer has."""
    source = document["_source"]
    doc = facts_of(facts)
    if source.get("tags_source") == "human":
        doc["tags"] = source.get("tags") or []
    before = source.get("exif") or {}
    doc["exif"] = {name: doc["exif"].get(name) for name in before.keys() | doc["exif"].keys()}
    names = name_fields({**source, **doc})["names"]
    doc["names"] = {name: names.get(name) for name in (source.get("names") or {}).keys() | names.keys()}
    doc = {name: value for name, value in doc.items() if value or source.get(name)}
    by, vector = source.get("caption_source"), facts.caption_embedding
    if by != "human":
        if facts.caption and vector is not None:
            doc |= {"caption": facts.caption, "caption_source": facts.caption_source}
            doc["caption_embedding"] = pack_dense_vector(vector)
        elif not facts.caption and by == "description":
            doc |= dict.fromkeys(("caption", "caption_source", "caption_embedding"))
    version = {"if_seq_no": document["_seq_no"], "if_primary_term": document["_primary_term"]}
    return {"_op_type": "update", "_id": document["_id"], **version, "doc": doc}


NAMED_BY = ["relative_path", "tags", "people", "title", "places", "exif"]
"""the fields that `names` and the local date follow from"""
PATH_NAMES = ("file", "folders", "path", "within", "format")
"""those of `names` that follow from the paths alone"""


class PlaceNames(Protocol):
    """A list of places that names coordinates."""

    @property
    def source(self) -> str:
        """Return its name and version."""

    def names(self, points: Sequence[tuple[float, float]]) -> list[tuple[str, ...]]:
        """Return for each (latitude, longitude) the names of its place, the nearest first."""


def _completing_actions(hits: Sequence[dict[str, Any]], places: PlaceNames | None) -> list[Action]:
    points: dict[str, tuple[float, float]] = {}
    for hit in hits:
        exif = hit["_source"].get("exif") or {}
        if (
            places is not None
            and exif.get("places_by") is None
            and (point := read_point(exif.get("location")))
        ):
            points[hit["_id"]] = point
    named = dict(zip(points, places.names(list(points.values())), strict=True)) if places else {}
    return [_completing_action(hit, named.get(hit["_id"]), places) for hit in hits]


def _completing_action(
    hit: dict[str, Any], named: tuple[str, ...] | None, places: PlaceNames | None
) -> Action:
    source = hit["_source"]
    exif = dict(source.get("exif") or {})
    more: dict[str, Any] = {}
    if exif.get("date") and exif.get("local_date") is None:
        with suppress(ValueError):  # a date that somebody else wrote, in another form
            more |= local_fields(exif["date"])
    if places is not None and exif.get("location") and exif.get("places_by") is None:
        more |= {"places_by": places.source, **({"places": list(named)} if named else {})}
    doc = name_fields({**source, "exif": exif | more}) | ({"exif": more} if more else {})
    version = {"if_seq_no": hit["_seq_no"], "if_primary_term": hit["_primary_term"]}
    return {"_op_type": "update", "_id": hit["_id"], **version, "doc": doc}


LISTED_TOGETHER = 200
"""pictures that one request lists: few, so that their versions are fresh when their turn comes"""
NEWEST_FIRST = [{"indexed_at": "desc"}, {"image_id": "asc"}]


@dataclass(frozen=True)
class CaptionUpdate:
    """A caption to write. With `seq_no` and `primary_term`, only if nothing has changed since."""

    image_id: str
    caption: str
    caption_embedding: np.ndarray
    """float32 `[caption_dims]`, unit length"""
    source: str
    """who wrote it: `model`, `description` or `human`"""
    seq_no: int | None = None
    primary_term: int | None = None


@dataclass(frozen=True)
class WordsUpdate:
    """The text of a picture to write, only if nothing has changed since."""

    image_id: str
    fields: Mapping[str, Any]
    """from `words_fields` or `words_fault`"""
    seq_no: int
    primary_term: int


@dataclass(frozen=True)
class WaitingPicture:
    """A picture that waits for a caption or for its text to be read, with the version of its document."""

    image_id: str
    relative_paths: tuple[str, ...]
    size: tuple[int, int]
    """(width, height) in pixels of the whole picture, upright"""
    seq_no: int
    primary_term: int
    content_id: str
    """of its file: of a film's moment that is the film's"""
    time_ms: int = 0
    """in its film"""

    @property
    def relative_path(self) -> str:
        """The path that names it in messages."""
        return (self.relative_paths or (self.image_id,))[0]


class WaitingList:
    """Pictures of an index whose documents lack something, the newest first."""

    fields: tuple[str, ...]
    """of which a document has one when its picture waits no more"""

    def __init__(self, client: Elasticsearch, *, index: ImageIndex) -> None:
        self._client = client
        self._index = index

    def _waiting(self, query: dict[str, Any]) -> Iterator[list[WaitingPicture]]:
        body = {
            "query": query,
            "sort": NEWEST_FIRST,
            "size": LISTED_TOGETHER,
            "_source": ["relative_path", "width", "height", "film.id", "film.time_ms"],
            "seq_no_primary_term": True,
        }
        for hits in pages(self._client, self._index.target, body):
            yield [_waiting_picture(hit) for hit in hits]

    def _count(self, query: dict[str, Any]) -> int:
        with engine_errors():
            return int(self._client.count(index=self._index.target, query=query)["count"])

    def served(self, listed: Sequence[WaitingPicture]) -> dict[str, dict[str, Any]]:
        """Return the `fields` of pictures that have got them since they were listed, by image id."""
        versions = {each.image_id: (each.seq_no, each.primary_term) for each in listed}
        found = read_documents(self._client, self._index.target, list(versions), fields=self.fields)
        return {
            image_id: each["_source"]
            for image_id, each in found.items()
            if (each["_seq_no"], each["_primary_term"]) != versions[image_id]
            and any(each["_source"].values())
        }


class Captions(WaitingList):
    """The captions of an `ImageIndex`. Every method raises EngineError when Elasticsearch cannot do it."""

    fields = ("caption_source",)

    def write(self, updates: Sequence[CaptionUpdate]) -> AddResult:
        """Write captions, and leave the rest of the documents alone.

        A document that changed after its `seq_no` is left alone and reported as "changed meanwhile", one
        that is gone as "deleted meanwhile", and one that the index refuses with its reason.
        """
        dims = self._index.meta().caption_dims
        faults = {update.image_id: vector_fault(update.caption_embedding, dims) for update in updates}
        failed = {image_id: fault for image_id, fault in faults.items() if fault}
        actions = [_caption_action(update) for update in updates if update.image_id not in failed]
        failed |= send_bulk(self._client, self._index.write_target(), actions, held=self._index.held)
        return AddResult(added=len(updates) - len(failed), failed=failed)

    def write_human(self, image_id: str, caption: str, caption_embedding: np.ndarray) -> None:
        """Write a person's caption in the place of any other. Raises EngineError without such a picture."""
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

    def missing(self, *, every: bool) -> Iterator[list[WaitingPicture]]:
        """Yield pictures without a caption, newest first, in lists of up to 200, as far as the last refresh.

        With `every`, pictures whose caption a model wrote come too; those of people and of files never do.
        """
        return self._waiting(_without_caption(every=every))

    def count_missing(self, *, every: bool) -> int:
        """Return how many pictures `missing` would yield now."""
        return self._count(_without_caption(every=every))


class PictureWords(WaitingList):
    """The text in the pictures of an `ImageIndex`. Every method raises EngineError as `Captions` does."""

    fields = ("words_by", "words_fault", "words")

    def write(self, updates: Sequence[WordsUpdate]) -> AddResult:
        """Write the text of pictures, and leave the rest of the documents alone, as `Captions.write` does."""
        actions = [
            {
                "_op_type": "update",
                "_id": each.image_id,
                "doc": dict(each.fields),
                "if_seq_no": each.seq_no,
                "if_primary_term": each.primary_term,
            }
            for each in updates
        ]
        failed = send_bulk(self._client, self._index.write_target(), actions, held=self._index.held)
        return AddResult(added=len(updates) - len(failed), failed=failed)

    def missing(self, *, every: bool, again: bool = False) -> Iterator[list[WaitingPicture]]:
        """Yield pictures whose text nobody has read, newest first, as far as the last refresh.

        Those that failed come `again` or not. With `every`, all pictures come.
        """
        return self._waiting(_unread(every=every, again=again))

    def count_missing(self, *, every: bool, again: bool = False) -> int:
        """Return how many pictures `missing` would yield now."""
        return self._count(_unread(every=every, again=again))


def _unread(*, every: bool, again: bool) -> dict[str, Any]:
    if every:
        return {"match_all": {}}
    done = ["words_by"] if again else ["words_by", "words_fault"]
    return {"bool": {"must_not": [{"exists": {"field": field}} for field in done]}}


def _without_caption(*, every: bool) -> dict[str, Any]:
    """Return the query for pictures that a captioner may write about."""
    nobody = {
        "bool": {"must_not": [{"exists": {"field": "caption"}}, {"exists": {"field": "caption_source"}}]}
    }
    by_model = {"term": {"caption_source": "model"}}
    return {"bool": {"filter": [{"bool": {"should": [nobody, by_model]}} if every else nobody]}}


def _waiting_picture(hit: dict[str, Any]) -> WaitingPicture:
    source = hit["_source"]
    size = (source.get("width", 0), source.get("height", 0))
    version = (hit["_seq_no"], hit["_primary_term"])
    time_ms = int((source.get("film") or {}).get("time_ms") or 0)
    return WaitingPicture(
        hit["_id"], paths_of(source), size, *version, content_id(hit["_id"], source), time_ms
    )


def _caption_action(update: CaptionUpdate) -> Action:
    doc = {
        "caption": update.caption,
        "caption_source": update.source,
        "caption_embedding": pack_dense_vector(update.caption_embedding),
    }
    action: Action = {"_op_type": "update", "_id": update.image_id, "doc": doc}
    if update.seq_no is not None:
        action |= {"if_seq_no": update.seq_no, "if_primary_term": update.primary_term}
    return action
