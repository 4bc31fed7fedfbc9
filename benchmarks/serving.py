"""Run the product's server in a thread of a benchmark."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from search_app.web.server import ListenOptions, PageServer

if TYPE_CHECKING:
    from flask import Flask


@contextmanager
def serving(app: Flask, *, threads: int = 8) -> Iterator[int]:
    """Serve an application on loopback and give its port."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    server = PageServer(app, ListenOptions(port=port, threads=threads))
    started = threading.Event()
    thread = threading.Thread(target=server.run, kwargs={"ready": started.set}, daemon=True)
    thread.start()
    started.wait()
    try:
        yield port
    finally:
        server.stop()
        thread.join()
