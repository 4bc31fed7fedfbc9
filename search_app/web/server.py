"""The production server: granian reads requests, bulkheads of threads run the Flask application."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import IO, Any

import psutil
from flask import Flask

from search_app.errors import ServeError
from search_app.web.hosts import BehindProxy, Network
from search_app.web.http import AT_ONCE, MAX_FILES, PROBLEM_TYPE, WAITING, body_limit, problem
from search_app.web.tls import Tls
from search_app.web.voice import MAX_BODY

MAX_CONNECTIONS = 5000
HEADER_S = 20
"""seconds for a request's header; an idle connection is closed after as long"""
BODY_S, BODY_RATE = 30, 20_000
"""seconds for a body, and one more for each so many bytes: a phone's upload passes, a dripping one ends"""
BODIES = 1_000_000_000
"""bytes of bodies that are being received, all requests together"""
ARCHIVE = "application/zip"
"""media type of answers whose length nobody knows before they are sent"""
LARGEST_IN_MEMORY = 4 << 20
"""bytes of an answer; a larger one is sent piece by piece"""
SEARCHES_WAITING = 256
THREADS_END_S = 0.5
RETRY_AFTER_S = 2

Headers = list[tuple[str, str]]
Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Answer = tuple[int, list[tuple[bytes, bytes]], "bytes | WholeFile"]


def check_port(host: str, port: int) -> None:
    """Raise `ServeError` when `port` cannot be listened on, before models are loaded in vain."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except socket.gaierror as error:
        raise ServeError(f"'{host}' is no address of this machine; use --host 127.0.0.1.") from error
    except OSError as error:
        raise ServeError(
            f"Port {port} on {host} cannot be used ({error.strerror}); choose another with --port."
        ) from error


class WholeFile:
    """The body of an answer that is too large for the memory, piece by piece. It has to be closed."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks, self._next = chunks, iter(chunks)

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the pieces. A slow reader holds no thread."""
        while piece := await asyncio.to_thread(next, self._next, b""):
            yield piece

    def close(self) -> None:
        """Close the file."""
        if close := getattr(self._chunks, "close", None):
            close()


class Bulkhead:
    """Threads for one kind of request: kinds cannot take each other's. A context that ends the threads."""

    def __init__(self, name: str, *, threads: int, waiting: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._room = threads + waiting

    async def run(self, work: Callable[[], Answer]) -> Answer | None:
        """Run `work` in a thread when one is free and return its answer, or None when too many wait."""
        if self._room <= 0:
            return None
        self._room -= 1  # only the event loop's thread counts
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._room += 1

    def close(self) -> None:
        """Wait for running requests, and drop waiting ones."""
        self._pool.shutdown(cancel_futures=True)


class RefusedBodyError(Exception):
    """A body that is not read to its end. The arguments are a status and a sentence."""

    def __init__(self, status: HTTPStatus, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class WsgiBridge:
    """An ASGI application that runs a Flask application.

    A request takes a thread only when its whole body is here: idle, silent and dripping connections cost a
    few kilobytes each. Health, files, whole pictures, searches, and what takes seconds (recordings, uploads)
    each have threads of their own.
    """

    def __init__(self, app: Flask, options: ListenOptions) -> None:
        self._application = BehindProxy(app.wsgi_app, prefix=options.prefix, proxies=options.proxies)
        self._log_access = options.log_access
        self._largest = max(MAX_BODY, body_limit(app.config["MAX_UPLOAD"], files=MAX_FILES))
        self._receiving = 0
        self._health = Bulkhead("health", threads=1, waiting=1024)
        self._files = Bulkhead("files", threads=4, waiting=1024)
        self._originals = Bulkhead("originals", threads=4, waiting=SEARCHES_WAITING)
        self._searches = Bulkhead("search", threads=options.threads, waiting=SEARCHES_WAITING)
        self._slow = Bulkhead("slow", threads=2 * (AT_ONCE + WAITING), waiting=0)

    def close(self) -> None:
        """Wait for the requests that are being answered."""
        for bulkhead in (self._health, self._files, self._originals, self._searches, self._slow):
            bulkhead.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        begun = time.monotonic()
        headers = {name.lower(): value for name, value in scope["headers"]}
        with tempfile.SpooledTemporaryFile(max_size=MAX_BODY) as body:
            try:
                is_first_http = scope["http_version"].startswith("1")
                size = await self._receive(headers, receive, body, is_first_http=is_first_http)
            except RefusedBodyError as refused:
                answer: Answer | None = _problem(refused.status, str(refused))
            else:
                body.seek(0)
                environ = _environ(scope, body, size)
                bulkhead = self._bulkhead(scope["method"], scope["path"])
                answer = await bulkhead.run(lambda: self._run(environ))
        status, answer_headers, content = answer or _problem(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "Too many requests are waiting; try again in a moment.",
            retry_after_s=RETRY_AFTER_S,
        )
        start = {"type": "http.response.start", "status": status, "headers": answer_headers}
        if isinstance(content, bytes):
            if self._log_access:
                _log(scope, status, len(content), time.monotonic() - begun)
            await send(start)
            await send({"type": "http.response.body", "body": content})
            return
        size = 0
        try:
            await send(start)
            async for piece in content.pieces():
                size += len(piece)
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:  # also when the reader has gone
            content.close()
            if self._log_access:
                _log(scope, status, size, time.monotonic() - begun)

    def _bulkhead(self, method: str, path: str) -> Bulkhead:
        if path.endswith("/healthz"):
            return self._health
        is_slow = method == "POST" and path.endswith(("/transcribe", "/images", "/add"))
        if is_slow or path.endswith("/rendering"):
            return self._slow
        if "/static/" in path or path.endswith(("/thumbnail", "/metrics")):
            return self._files
        if path.endswith(("/original", "/film")):  # Elasticsearch says first which file it is
            return self._originals
        return self._searches

    async def _receive(
        self, headers: dict[bytes, bytes], receive: Receive, body: IO[bytes], *, is_first_http: bool
    ) -> int:
        """Write a request's body to `body` and return its size in bytes.

        In the first version of HTTP the header says whether there is any; in the second one a body may come
        unannounced.

        Raises `RefusedBodyError` for a body that is too large, too slow, damaged or one too many.
        """
        stated = headers.get(b"content-length", b"0")
        if stated == b"0" and b"transfer-encoding" not in headers and is_first_http:
            return 0
        size, begun = 0, time.monotonic()
        too_large = RefusedBodyError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"The request is over the limit of {self._largest / 1_000_000:.3g} MB;"
            " send fewer or smaller files.",
        )
        if stated.isdigit() and int(stated) > self._largest:
            raise too_large
        more = True
        try:
            while more:
                left = begun + BODY_S + size / BODY_RATE - time.monotonic()
                message = await asyncio.wait_for(receive(), max(left, 0))
                if message["type"] == "http.disconnect":
                    # Its sender has gone, and reads no answer, or its chunks are not written as HTTP wants.
                    raise RefusedBodyError(HTTPStatus.BAD_REQUEST, "The body is damaged or cut short.")
                chunk = message.get("body", b"")
                size += len(chunk)
                self._receiving += len(chunk)
                if size > self._largest:
                    raise too_large
                if self._receiving > BODIES:
                    raise RefusedBodyError(
                        HTTPStatus.SERVICE_UNAVAILABLE,
                        "Too much is being sent at once; try again in a moment.",
                    )
                body.write(chunk)
                more = message.get("more_body", False)
        except TimeoutError as error:
            raise RefusedBodyError(
                HTTPStatus.REQUEST_TIMEOUT, "The request came too slowly; try again on a faster connection."
            ) from error
        finally:
            self._receiving -= size
        return size

    def _run(self, environ: dict[str, Any]) -> Answer:
        started: list[tuple[str, Headers]] = []

        def start_response(
            status: str, headers: list[tuple[str, str]], _: Any = None
        ) -> Callable[[bytes], Any]:
            started.append((status, headers))
            return _no_write

        chunks = self._application(environ, start_response)
        if started and _is_large(started[-1][1]) and environ["REQUEST_METHOD"] != "HEAD":
            status, headers = started[-1]
            return int(status[:3]), _encoded(headers), WholeFile(chunks)
        try:
            content = b"".join(chunks)
        finally:
            if close := getattr(chunks, "close", None):
                close()
        status, headers = started[-1]
        return int(status[:3]), _encoded(headers), content


def _is_large(headers: Headers) -> bool:
    """Return whether an answer is sent from its file, not from memory, or is made while it is sent."""
    known = {name.lower(): value for name, value in headers}
    length = known.get("content-length", "0" if known.get("content-type") != ARCHIVE else str(sys.maxsize))
    return length.isdigit() and int(length) > LARGEST_IN_MEMORY


def _encoded(headers: Headers) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]


def _log(scope: Scope, status: int, size: int, seconds: float) -> None:
    asked = {"method": scope["method"], "path": scope["path"], "status": status, "bytes": size}
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    address = scope["client"][0] if scope.get("client") else ""
    line = {"time": now, "address": address, **asked, "ms": round(1000 * seconds, 1)}
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def _no_write(_: bytes) -> None:
    raise NotImplementedError("Flask returns its answers")


def _problem(status: HTTPStatus, sentence: str, *, retry_after_s: int = 0) -> Answer:
    body = json.dumps(problem(status, sentence)[0]).encode()
    headers = [
        (b"content-type", PROBLEM_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"x-content-type-options", b"nosniff"),
    ]
    if retry_after_s:
        headers.append((b"retry-after", str(retry_after_s).encode()))
    return int(status), headers, body


def _environ(scope: Scope, body: IO[bytes], size: int) -> dict[str, Any]:
    """Return the environment of PEP 3333. The body is whole: its size is known, however it was sent."""
    host, port = scope["server"]
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": scope["path"].encode().decode("latin-1"),
        "RAW_URI": scope["raw_path"].decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_NAME": host,
        "SERVER_PORT": str(port),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "REMOTE_ADDR": scope["client"][0] if scope.get("client") else "",
        "CONTENT_LENGTH": str(size),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.input": body,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").upper().replace("-", "_"), raw_value.decode("latin-1")
        if name == "CONTENT_TYPE":
            environ[name] = value
        elif name not in ("CONTENT_LENGTH", "TRANSFER_ENCODING"):
            key = f"HTTP_{name}"
            separator = "; " if name == "COOKIE" else ","
            environ[key] = f"{environ[key]}{separator}{value}" if key in environ else value
    return environ


@dataclass(frozen=True)
class ListenOptions:
    """Where and how a server listens."""

    host: str = "127.0.0.1"
    port: int = 5000
    threads: int = 8
    """searches at a time"""
    tls: Tls | None = None
    prefix: str = ""
    """the path that the page is served below, such as `/glimpse`"""
    proxies: tuple[Network, ...] = ()
    """whose `X-Forwarded-…` is believed"""
    log_access: bool = False
    """whether each answer is written to stdout, as one JSON object a line"""


class PageServer:
    """Serves a Flask application on one address until it is stopped."""

    def __init__(self, app: Flask, options: ListenOptions) -> None:
        self._app, self._options = app, options
        self._stop: Callable[[], None] = lambda: None

    def run(self, *, ready: Callable[[], None] = lambda: None) -> None:
        """Serve until `stop`, SIGINT or SIGTERM. Call `ready` once the port is open.

        Signals are heard in the main thread only. Raises `ServeError` when the port is taken.
        """
        check_port(self._options.host, self._options.port)
        raise_file_limit()
        before = _threads()
        try:
            asyncio.run(self._serve(ready))
        finally:
            _outlive_others(before)

    def stop(self) -> None:
        """End `run`, from any thread. Requests that run are answered."""
        self._stop()

    async def _serve(self, ready: Callable[[], None]) -> None:
        from granian.constants import Interfaces
        from granian.http import HTTP1Settings
        from granian.server.embed import Server

        options = self._options
        bridge = WsgiBridge(self._app, options)
        server = Server(
            bridge,
            address=options.host,
            port=options.port,
            interface=Interfaces.ASGINL,
            websockets=False,
            backlog=2048,
            backpressure=MAX_CONNECTIONS,
            http1_settings=HTTP1Settings(header_read_timeout=HEADER_S * 1000),
            log_enabled=False,
            ssl_cert=options.tls.certificate if options.tls else None,
            ssl_key=options.tls.key if options.tls else None,
        )
        loop = asyncio.get_running_loop()
        self._stop = lambda: _call_soon(loop, server.stop)
        with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):  # Windows; another thread
            for each in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(each, server.stop)
        announcing = asyncio.create_task(self._announce(ready))
        try:
            await server.serve()
        finally:
            announcing.cancel()
            bridge.close()

    async def _announce(self, ready: Callable[[], None]) -> None:
        """Call `ready` once the port takes connections: granian does not tell."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._options.host, self._options.host)
        while True:
            try:
                _, writer = await asyncio.open_connection(host, self._options.port)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return ready()


def _threads() -> set[int]:
    """Return the threads of this process that Python did not start, by the system's numbers."""
    started = {each.native_id for each in threading.enumerate()}
    return {each.id for each in psutil.Process().threads()} - started


def _outlive_others(before: set[int]) -> None:
    """Wait until granian's threads have ended.

    It says that it has stopped before they have, and one that wants the interpreter when that is shut down
    aborts the process: every sixth stop was a crash. Threads of other libraries stay, so this has an end.
    """
    deadline = time.monotonic() + THREADS_END_S
    while _threads() - before and time.monotonic() < deadline:
        time.sleep(0.01)


def _call_soon(loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended
        loop.call_soon_threadsafe(call)


def raise_file_limit() -> None:
    """Let this process open as many files as connections need, as far as the system allows."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MAX_CONNECTIONS if hard == resource.RLIM_INFINITY else min(2 * MAX_CONNECTIONS, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    if wanted < MAX_CONNECTIONS:
        logging.getLogger(__name__).warning("Only %d files may be open; see `ulimit -n`.", wanted)
