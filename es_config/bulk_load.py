"""Settings while much is written: new pictures become searchable late, and what was set comes back after.

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
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Self

from es_config.client import engine_errors
from es_config.errors import EngineError
from es_config.meta import change_meta

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

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
    if is_bulk(state.interval):
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
    return bool(match) and HOUR_MS <= int(match[1]) < 2 * HOUR_MS


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
        return self.meta.get("bulk_load", {}).get("number_of_replicas")


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
