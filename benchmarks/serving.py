"""Run the product's server beside a benchmark, in a thread or as a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
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


@contextmanager
def glimpse_serve(home: Path, *options: str) -> Iterator[tuple[int, int]]:
    """Run `glimpse serve` with a GLIMPSE_HOME until the end, and give its port and its process id."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    command = [sys.executable, "-m", "glimpse", "serve", "--port", str(port), "--voice-model", "off"]
    environ = {**os.environ, "GLIMPSE_HOME": str(home)}
    process = subprocess.Popen([*command, *options], env=environ, stdout=subprocess.DEVNULL)
    try:
        while not _is_ready(port):
            if process.poll() is not None:
                raise RuntimeError("glimpse serve has ended")
            time.sleep(0.2)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait()


def _is_ready(port: int) -> bool:
    with (
        suppress(OSError),  # also every answer but 200
        urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=60) as answer,
    ):
        return answer.status == 200
    return False
