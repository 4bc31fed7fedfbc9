"""The client's transport refuses half answers, waits for no hung engine, and follows the local node."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from elastic_transport import ConnectionError, ConnectionTimeout, NodeConfig, Transport, Urllib3HttpNode

from es_config.errors import EngineError
from es_config.home import find_running, process_file

FAILURES = 3
"""requests in a row that end without an answer before the next ones are not sent"""
PAUSE_S = 1.0
"""then one request is sent for each so many seconds, until one is answered"""
LATE_S = 1.0
"""once a request has ended without an answer, others that wait for longer count as such, too"""
READING = ("_search", "_msearch", "_count")
"""ends of paths whose answers may lack parts of the index"""

_accepts_partial: ContextVar[bool] = ContextVar("accepts_partial", default=False)


class PartialAnswerError(EngineError):
    """A part of an index did not answer, where only the whole decides."""

    for_visitors = (
        "A part of the pictures did not answer, so this would be half an answer: `glimpse doctor` on the"
        " server says why."
    )


@contextmanager
def accepting_partial_answers() -> Iterator[None]:
    """Let searches in the body be answered by a part of the index: for people, who are told."""
    token = _accepts_partial.set(True)
    try:
        yield
    finally:
        _accepts_partial.reset(token)


class WholeAnswers(Transport):
    """Raises `PartialAnswerError` for an answer with failures in it, which Elasticsearch sends as 200.

    It reads `_shards` and `timed_out`; a request with a `filter_path` has to ask for both.
    """

    def perform_request(self, method: str, target: str, **options: Any) -> Any:
        """Send a request."""
        answer = super().perform_request(method, target, **options)
        if target.partition("?")[0].endswith(READING) and not _accepts_partial.get():
            check_whole(answer.body)
        return answer


def check_whole(body: Any) -> None:
    """Raise `PartialAnswerError` for the body of a search, a count, or several searches that lacks a part."""
    if not isinstance(body, Mapping):
        return
    for each in body.get("responses", (body,)):
        shards = each.get("_shards", {})
        if failed := int(shards.get("failed", 0)):
            names = [fault["index"] for fault in shards.get("failures", ()) if fault.get("index")]
            named = f" of '{names[0]}'" if names else ""
            raise PartialAnswerError(
                f"{failed} of {shards.get('total', 'the')} shards{named} did not answer, so a part of the"
                " pictures is missing: run `glimpse doctor`, mend that, then run the same command again."
            )
        if each.get("timed_out"):
            raise PartialAnswerError(
                "Elasticsearch stopped a search half-way, as it took too long: run the same command again."
            )


class BreakingTransport(WholeAnswers):
    """Sends nothing to servers that do not answer in time, except one request from time to time. Thread-safe.

    Without it the threads of a page all wait for the time-out of a hung Elasticsearch, one request after the
    other, and those behind them wait as often.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._lock = threading.Lock()
        self._failures = 0
        self._next_try = 0.0
        self._begun: dict[object, float] = {}
        """when the requests under way were sent"""

    def perform_request(self, method: str, target: str, **options: Any) -> Any:
        """Send a request. Raises `ConnectionTimeout` at once while the servers do not answer."""
        this = object()
        with self._lock:
            now = time.monotonic()
            if self._is_hung(now):
                if now < self._next_try:
                    raise ConnectionTimeout("Elasticsearch did not answer the requests before this one")
                self._next_try = now + PAUSE_S
            self._begun[this] = now
        try:
            answer = super().perform_request(method, target, **options)
        except ConnectionTimeout:
            with self._lock:
                self._failures += 1
                self._next_try = time.monotonic() + PAUSE_S
            raise
        finally:
            with self._lock:
                del self._begun[this]
        with self._lock:
            self._failures = 0
        return answer

    def _is_hung(self, now: float) -> bool:
        # Those that wait will end as the last one did, and whoever waited for a thread behind them has waited
        # long enough.
        waiting = sum(now - begun > LATE_S for begun in self._begun.values()) if self._failures else 0
        return self._failures + waiting >= FAILURES


class LocalHttpNode(Urllib3HttpNode):
    """Connects the client with the local node of `home`, wherever its process file says that it listens.

    When the file has changed, the next request reads it. Without a node a request fails, also if another
    program has taken the port.
    """

    home: ClassVar[Path]

    def __init__(self, config: NodeConfig) -> None:
        super().__init__(config)
        self._read_at: int | None = None
        """when the file that was read last had changed, in nanoseconds"""

    def perform_request(self, *arguments: Any, **options: Any) -> Any:
        """Send a request to the node's present address."""
        try:
            changed = process_file(self.home).stat().st_mtime_ns
        except OSError as error:
            raise ConnectionError("The local node is down") from error
        if changed != self._read_at:
            node = find_running(self.home)
            if node is None or not node.ready:
                raise ConnectionError("The local node is not ready")
            port = urlsplit(node.url).port or 0
            if port != self.pool.port:
                self.pool = Urllib3HttpNode(replace(self.config, port=port)).pool
            self._read_at = changed
        return super().perform_request(*arguments, **options)


def following(glimpse_home: Path) -> type[LocalHttpNode]:
    """Return the class of a connection that follows the node of one GLIMPSE_HOME."""
    return type("LocalHttpNode", (LocalHttpNode,), {"home": glimpse_home})
