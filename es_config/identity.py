"""Which index stands behind the alias, and what it says that it holds."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from es_config.bulk import switched
from es_config.client import engine_errors
from es_config.errors import EngineError
from es_config.mapping import IndexMeta, read_meta
from es_config.meta import Meta, change_meta

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

META_SECONDS = 10.0
"""for how long an index's name and `_meta` are believed before they are read again"""


class IndexIdentity:
    """The one index behind an alias. Every method raises EngineError when Elasticsearch cannot do it."""

    def __init__(self, client: Elasticsearch, *, alias: str = "images", held: str | None = None) -> None:
        self._client = client
        self.alias = alias
        self._held = held
        self._seen: tuple[float, str, IndexMeta] | None = None

    @property
    def target(self) -> str:
        """Where everything is read: the index by its name where it is held, else the alias."""
        return self._held or self.alias

    def pinned(self) -> Self:
        """Return the same index, held by its name: for work during which the alias may be switched.

        It reads on from this index then, and its writes are refused.
        """
        return type(self)(self._client, alias=self.alias, held=self.name())

    @property
    def held(self) -> str | None:
        """The name by which the index is held; None when it is whatever is behind the alias."""
        return self._held

    def write_target(self) -> str:
        """Return the alias, through which everything is written, if it still stands for this index.

        It may be switched while a request is on its way: `send_bulk` looks again where the request went.
        """
        if self._held is not None:
            with engine_errors():
                behind = self._client.options(ignore_status=404).indices.get_alias(index=self.alias)
            if behind.meta.status != 404 and self._held not in behind.body:
                raise switched(self.alias, held=self._held, now=min(behind.body))
        return self.alias

    def exists(self) -> bool:
        """Whether there is an index behind the alias."""
        with engine_errors():
            return bool(self._client.indices.exists(index=self.target))

    def name(self) -> str:
        """Return the name of the index behind the alias."""
        return self._read()[0]

    def uuid(self) -> str:
        """Return what tells the index from every other, also from a later one of the same name."""
        with engine_errors():
            answer = self._client.indices.get_settings(index=self.name(), name="index.uuid")
        (settings,) = answer.body.values()
        return settings["settings"]["index"]["uuid"]

    def uuids(self) -> frozenset[str]:
        """Return the uuids of all indexes of this Elasticsearch that may be seen."""
        with engine_errors():
            answer = self._client.indices.get_settings(index="_all", name="index.uuid")
        return frozenset(each["settings"]["index"]["uuid"] for each in answer.body.values())

    def meta(self) -> IndexMeta:
        """Return what the index says that it holds; at most ten seconds old."""
        return self._read()[1]

    def mappings(self) -> dict[str, Any]:
        """Return the mapping as Elasticsearch has it."""
        with engine_errors():
            answer = self._client.options(ignore_status=404).indices.get_mapping(index=self.target)
        if answer.meta.status == 404:
            raise EngineError(
                f"There is no index '{self.alias}': run `glimpse index create` or `glimpse ingest`."
            )
        if len(answer.body) != 1:
            raise EngineError(
                f"The alias '{self.alias}' points at {', '.join(sorted(answer.body))}: leave it on one."
            )
        return answer.body

    def check_profile(self, profile_name: str, dims: int, *, text_revision: str | None = None) -> None:
        """Raise EngineError unless the index holds vectors of this profile and of this many dims.

        With `text_revision`, the text tower must be the one noted in the index, if one is.
        """
        meta = self.meta()
        if meta.profile != profile_name:
            raise EngineError(
                f"The index '{self.alias}' holds vectors of profile '{meta.profile}', not '{profile_name}': "
                f"use --profile {meta.profile}, or run `glimpse index delete` and ingest the pictures again."
            )
        if meta.dims != dims:
            raise EngineError(
                f"The index '{self.alias}' holds vectors of {meta.dims} dims, and profile '{profile_name}' "
                f"makes {dims} now: use the models that it was made with, or run `glimpse index delete` "
                "and ingest the pictures again."
            )
        noted = meta.revisions.get("text")
        if text_revision and noted and noted != text_revision:
            raise EngineError(
                f"The index '{self.alias}' was made with other weights of profile '{profile_name}' "
                f"(text {noted}, here {text_revision}): use the models that it was made with (--model-dir)."
            )

    def claim_revision(self, tower: str, revision: str) -> str:
        """Note which weights make the vectors, unless the index notes some; return those that it notes then.

        Of several callers with different weights, all are told the same ones.
        """
        noted = self.meta().revisions.get(tower)
        if noted is None:
            self.note("revisions", {tower: revision}, only_new=True)
            noted = self.meta().revisions[tower]
        return noted

    def note_revision(self, tower: str, revision: str) -> None:
        """Note which weights are used now, in the place of others."""
        self.note("revisions", {tower: revision})

    def note(
        self,
        section: str,
        entries: Mapping[str, Any],
        *,
        only_new: bool = False,
        seen: Mapping[str, Any] | None = None,
    ) -> bool:
        """Merge `entries` into one section of `_meta`, such as `operating_points`; the rest stays.

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

    def _read(self) -> tuple[str, IndexMeta]:
        if self._seen is None or time.monotonic() - self._seen[0] > META_SECONDS:
            ((name, found),) = self.mappings().items()
            self._seen = (time.monotonic(), name, read_meta(name, found["mappings"]))
        return self._seen[1:]
