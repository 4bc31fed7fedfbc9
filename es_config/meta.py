"""Change the `_meta` of an index without losing notes that others write at the same moment.

Elasticsearch replaces `_meta` whole, and cannot compare it before. Writers therefore take turns. Each puts a
hidden alias of its own on the index, then reads the index, and writes only when no other writer's alias is
there. Of two who read too early to see each other, none can have written: an alias is acknowledged once every
node knows it, so the later of the two reads shows both. The mapping is written through the alias: a
writer that was taken for dead has lost its alias, and its late request finds no index.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from elasticsearch import Elasticsearch

from es_config.client import engine_errors
from es_config.errors import EngineError

Meta = dict[str, Any]
LEASE_S = 60.0
"""seconds after which a writer whose alias is still there is taken for dead; a change takes 0.1 s"""
GIVE_UP_S = 300.0
POLL_S = 0.05


def change_meta(client: Elasticsearch, index: str, change: Callable[[Meta], Meta]) -> None:
    """Replace the `_meta` of an index by the result of `change`, whose errors are passed on.

    `index` is the name of the index itself. Needs the privilege `manage` on `<index>*`. Raises EngineError.
    """
    turns = _Turns(client, index)
    deadline = time.monotonic() + GIVE_UP_S
    while time.monotonic() < deadline:
        turns.wait_until_free()
        mine = turns.announce()
        try:
            meta = turns.wait_alone(mine)
            if meta is not None and turns.write(mine, meta, change(meta)):
                return
        finally:
            turns.withdraw(mine)
        time.sleep(random.uniform(0, 2 * POLL_S))
    raise EngineError(
        f"Others have been writing notes into the index {index} for {GIVE_UP_S:g} s: try again when they are"
        " done."
    )


class _Turns:
    """The turns of several writers of the `_meta` of one index."""

    def __init__(self, client: Elasticsearch, index: str) -> None:
        self._client, self._index = client, index
        self._prefix = f"{index}-noting-"
        self._since: dict[str, float] = {}
        """the aliases of others, and when each was first seen here: clocks of machines differ"""

    def wait_until_free(self) -> None:
        while self._read()[1]:
            time.sleep(POLL_S)

    def announce(self) -> str:
        """Put an alias of our own on the index and return it, once every node knows it."""
        mine = f"{self._prefix}{uuid.uuid4().hex}"
        try:
            self._change_aliases([{"add": {"index": self._index, "alias": mine, "is_hidden": True}}])
        except EngineError:
            self.withdraw(mine)
            raise
        return mine

    def wait_alone(self, mine: str) -> Meta | None:
        """Return `_meta` once no other writer is there, or None if it is another's turn."""
        while True:
            meta, holders = self._read()
            if mine not in holders:
                return None
            others = holders - {mine}
            if not others:
                return meta
            if min(others) < mine:  # all but one withdraw, so that somebody goes on
                return None
            time.sleep(POLL_S)

    def write(self, mine: str, meta: Meta, wanted: Meta) -> bool:
        """Write `wanted` if it is news, and return False if our alias was taken away meanwhile."""
        if wanted == meta:
            return True
        with engine_errors():
            done = self._client.options(ignore_status=404).indices.put_mapping(index=mine, meta=wanted)
        if done.meta.status == 404:
            return False
        self._check(done.body)
        return True

    def withdraw(self, mine: str) -> None:
        """Take our alias away. When that fails, others do so after a minute: it hides no other error."""
        try:
            self._change_aliases([self._removal(mine)])
        except EngineError:
            return

    def _read(self) -> tuple[Meta, set[str]]:
        """Return `_meta` and the aliases of living writers."""
        with engine_errors():
            found = self._client.indices.get(index=self._index, features="aliases,mappings")[self._index]
        now = time.monotonic()
        holders = {alias for alias in found["aliases"] if alias.startswith(self._prefix)}
        self._since = {alias: self._since.get(alias, now) for alias in holders}
        dead = {alias for alias, since in self._since.items() if now - since > LEASE_S}
        if dead:
            self._change_aliases([self._removal(alias) for alias in sorted(dead)])
        return found["mappings"].get("_meta", {}), holders - dead

    def _removal(self, alias: str) -> dict[str, Any]:
        return {"remove": {"index": self._index, "alias": alias, "must_exist": False}}

    def _change_aliases(self, actions: list[dict[str, Any]]) -> None:
        with engine_errors():
            self._check(self._client.indices.update_aliases(actions=actions).body)

    def _check(self, answer: Mapping[str, Any]) -> None:
        if not answer["acknowledged"]:
            raise EngineError(
                f"Not every node of Elasticsearch took a note into the index {self._index} in time: see its"
                " log, then run the same command again."
            )
