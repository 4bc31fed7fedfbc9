"""The production server: waitress around the Flask application."""

from __future__ import annotations

import ipaddress
import json
import logging
import signal
import socket
import sys
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from flask import Flask
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.server import BaseWSGIServer, MultiSocketServer, create_server
from waitress.utilities import RequestEntityTooLarge

from search_app.errors import ServeError
from search_app.web.http import AT_ONCE, MAX_FILES, PROBLEM_TYPE, WAITING, body_limit, problem
from search_app.web.voice import MAX_BODY

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


def is_loopback(host: str) -> bool:
    """Say whether only this machine can reach a server that listens on `host`."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def address_of(host: str, port: int) -> str:
    """Return the page's address, with brackets around an IPv6 host."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def trusted_hosts(host: str, named: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names that requests may use.

    On loopback only this machine's own names are taken, so that a foreign web page cannot reach the server
    under a name that it makes point here. Elsewhere every name is taken unless some are `named`.
    """
    return (*named, *LOCAL_NAMES) if named or is_loopback(host) else ()


def check_port(host: str, port: int) -> None:
    """Raise `ServeError` when `port` cannot be listened on, before models are loaded."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except socket.gaierror as error:
        raise ServeError(f"'{host}' is no address of this machine; use --host 127.0.0.1.") from error
    except OSError as error:
        raise _port_in_use(host, port, error) from error


def _port_in_use(host: str, port: int, error: OSError) -> ServeError:
    return ServeError(f"Port {port} on {host} cannot be used ({error.strerror}); choose another with --port.")


def build_server(app: Flask, *, host: str, port: int, threads: int) -> BaseWSGIServer | MultiSocketServer:
    """Return waitress around the app, listening. Raises `ServeError` when the port is taken.

    Recordings and uploads that wait for their turn have threads of their own beside the page's `threads`.
    A body over every route's limit is refused by its header; one of a recording's size stays in memory:
    waitress would else write it to a temporary file.
    """
    sockets: dict[int, Any] = {}
    largest = max(MAX_BODY, body_limit(app.config["MAX_UPLOAD"], files=MAX_FILES))
    try:
        server = create_server(
            app,
            map=sockets,
            host=host,
            port=port,
            threads=threads + 2 * (AT_ONCE + WAITING),
            inbuf_overflow=MAX_BODY,
            max_request_body_size=largest + 1,
            ident="glimpse",
        )
    except OSError as error:
        raise _port_in_use(host, port, error) from error
    for each in sockets.values():
        if isinstance(each, BaseWSGIServer):
            each.channel_class = _Channel
    return server


def run_server(app: Flask, *, host: str, port: int, threads: int, ready: Callable[[], None]) -> None:
    """Serve until interrupted, calling `ready` once the port is open. Raises `ServeError` if it is taken."""
    server = build_server(app, host=host, port=port, threads=threads)
    # A page asks for two dozen thumbnails at once, so a queue is normal.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    ready()
    server.run()  # returns after Ctrl+C or SIGTERM
    server.close()


class _TooLarge(RequestEntityTooLarge):
    def to_response(  # type: ignore[override]  # the stubs say str, and waitress writes bytes
        self, ident: str | None = None
    ) -> tuple[str, list[tuple[str, str]], bytes]:
        """Return status, headers and body, as waitress asks every error for them."""
        del ident
        body, status, _ = problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, self.body)
        headers = [("Content-Type", PROBLEM_TYPE), ("X-Content-Type-Options", "nosniff")]
        return f"{int(status)} {body['title']}", headers, json.dumps(body).encode()


class _Parser(HTTPRequestParser):
    def received(self, data: bytes) -> int:
        """Take bytes of a request. One over the limit is an error as soon as that is known."""
        consumed = super().received(data)
        if isinstance(self.error, RequestEntityTooLarge):
            megabytes = self.adj.max_request_body_size / 1_000_000
            self.error = _TooLarge(
                f"The request is over the limit of {megabytes:.3g} MB; send fewer or smaller files."
            )
        return consumed


class _Channel(HTTPChannel):
    parser_class = _Parser
