"""The index of pictures: the only place that sends requests about documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from es_config.bulk import add_documents
from es_config.bulk_load import BulkLoad
from es_config.client import engine_errors, raise_item_error
from es_config.documents import AddResult, ImageDocument, SearchResult, paths_of
from es_config.errors import EngineError
from es_config.identity import IndexIdentity
from es_config.mapping import IndexMeta, IndexOptions, index_body, with_options
from es_config.paths import PathsChanged, add_paths, drop_paths, read_documents
from es_config.similarity import read_hits

if TYPE_CHECKING:
    import numpy as np
    from elasticsearch import Elasticsearch

    from es_config.captions import Captions

PAGE = 1000


def free_name(client: Elasticsearch, alias: str, profile: str) -> str:
    """Return the first of `<alias>-<profile>-1`, `-2`, … that no index has."""
    taken = client.indices.get(index=f"{alias}-{profile}-*", features="aliases").body
    return next(name for n in range(1, len(taken) + 2) if (name := f"{alias}-{profile}-{n}") not in taken)


def create_behind(
    client: Elasticsearch, alias: str, name: str, meta: IndexMeta, options: IndexOptions
) -> str:
    """Create `<name>-<profile>-<n>` with `alias` on it, and return its name.

    Of several who do so at once, one succeeds: an alias has one write index at most. Raises EngineError.
    """
    with engine_errors():
        free = free_name(client, name, meta.profile)
        aliases = {alias: {"is_write_index": True}}
        client.indices.create(index=free, aliases=aliases, **index_body(meta, options))
    return free


class ImageIndex(IndexIdentity):
    """Pictures behind a read alias. Every method raises EngineError when Elasticsearch cannot do it."""

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

    def delete(self) -> None:
        """Delete the index, and with it the alias."""
        name = self.name()
        self._seen = None
        with engine_errors():
            self._client.indices.delete(index=name)

    def add(self, documents: Sequence[ImageDocument], *, only_new: bool = False) -> AddResult:
        """Write documents under their `image_id`; what the index refuses is reported, the rest is written.

        With `only_new`, what is there already stays and is reported as `Meanwhile.CHANGED`.
        """
        return add_documents(
            self._client,
            self.write_target(),
            documents,
            meta=self.meta(),
            only_new=only_new,
            held=self.held,
        )

    def add_paths(self, paths: Mapping[str, Sequence[str]]) -> PathsChanged:
        """Note more paths of many pictures, by image id; their vectors stay as they are."""
        return add_paths(self._client, self.write_target(), paths, held=self.held)

    def drop_paths(self, paths: Mapping[str, Sequence[str]]) -> PathsChanged:
        """Take paths from pictures, by image id; a picture without a path is deleted."""
        return drop_paths(self._client, self.write_target(), paths, held=self.held)

    def known(self, image_ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Return the relative paths of those of `image_ids` that are in the index, searchable or not yet."""
        found = read_documents(self._client, self.target, image_ids, fields=["relative_path"])
        return {image_id: paths_of(each["_source"]) for image_id, each in found.items()}

    def listed(self, image_ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Return what `known` does, of pictures that searches find already: quickly, from columns."""
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
                    docvalue_fields=["image_id", "relative_path"],
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
        """Send a search; similarities are recovered from the scores when these come from kNN alone."""
        with engine_errors():
            answer = self._client.search(index=self.target, body=body)
        return self._result(body, answer)

    def search_many(self, bodies: Sequence[dict[str, Any]]) -> list[SearchResult]:
        """Send several searches as one `_msearch` request; if one of them fails, all do."""
        lines = [line for body in bodies for line in ({}, body)]
        with engine_errors():
            answer = self._client.msearch(index=self.target, searches=lines)
            for each in answer["responses"]:
                raise_item_error(each, answer.meta)
        rows = zip(bodies, answer["responses"], strict=True)
        return [self._result(body, each) for body, each in rows]

    def captions(self) -> Captions:
        """Return what writes the captions of this index."""
        from es_config.captions import Captions

        return Captions(self._client, index=self)

    def get(self, image_id: str) -> dict[str, Any] | None:
        """Return the `_source` of a picture, which holds no vectors; None when there is no such picture."""
        return self._get(image_id, {})

    def vector(self, image_id: str, field: str = "image_embedding") -> np.ndarray | None:
        """Return a stored vector, float32 `[dims]`; None when the picture or its vector does not exist."""
        import numpy as np

        source = self._get(image_id, {"source_includes": [field], "source_exclude_vectors": False})
        values = (source or {}).get(field)
        return None if values is None else np.asarray(values, dtype=np.float32)

    def _result(self, body: dict[str, Any], answer: Any) -> SearchResult:
        is_knn = "knn" in body and "query" not in body
        return read_hits(answer, similarity=self.meta().similarity if is_knn else None)

    def _get(self, image_id: str, options: dict[str, Any]) -> dict[str, Any] | None:
        return (self._document(image_id, options) or {}).get("_source")

    def _document(self, image_id: str, options: dict[str, Any]) -> dict[str, Any] | None:
        """Return a document with its sequence number; None when there is an index but not this document."""
        with engine_errors():
            answer = self._client.options(ignore_status=404).get(index=self.target, id=image_id, **options)
        if answer.meta.status == 404 and "error" in answer.body:
            self.mappings()
        return answer.body if answer.body.get("found") else None
