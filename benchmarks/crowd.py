"""Measure crowds at the door of `glimpse serve`: silent connections, and searches of a hung engine."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report import Figure
from benchmarks.serving import glimpse_serve
from demo.gallery import draw_gallery
from es_config.local_node.node import LocalNode

PICTURES = 100
IDLE, SILENT, DRIPPING = 1000, 200, 200
SEARCHES = 60
LONGEST_S = 60.0
ASK = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
UPLOAD = b"POST /api/v1/images HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n\r\n"


@dataclass(frozen=True)
class Served:
    """A server over a node of its own, with drawn pictures."""

    port: int
    node_pid: int
    server_pid: int

    def get(self, path: str) -> tuple[int, float]:
        """Return the status of a request and the seconds that it took."""
        begun = time.perf_counter()
        try:
            address = f"http://127.0.0.1:{self.port}{path}"
            with urllib.request.urlopen(address, timeout=LONGEST_S) as answer:
                answer.read()
                status = answer.status
        except urllib.error.HTTPError as refused:
            status = refused.code
        except OSError:
            status = 0
        return status, time.perf_counter() - begun


@contextmanager
def served() -> Iterator[Served]:
    """Run `glimpse serve` over a node in a temporary home, and end both afterwards."""
    with tempfile.TemporaryDirectory(prefix="glimpse-bench-") as folder, ExitStack() as ending:
        home = Path(folder) / "home"
        environ = {**os.environ, "GLIMPSE_HOME": str(home)}
        local = LocalNode(home, environ=environ)
        ending.callback(local.down)
        node = local.up(heap_mb=512).node
        pictures = Path(folder) / "pictures"
        draw_gallery(pictures, PICTURES)
        command = [sys.executable, "-m", "glimpse"]
        ingest = [*command, "ingest", str(pictures), "--captions", "off"]
        subprocess.run(ingest, env=environ, check=True, capture_output=True)
        port, pid = ending.enter_context(glimpse_serve(home, "--text-lane", "local"))
        yield Served(port, node.pid, pid)


def connections(server: Served) -> list[Figure]:
    """Measure the next visitor's answer among idle, silent and dripping connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, hard), hard))
    ended = threading.Event()
    with ExitStack() as opened:
        try:
            idle = [opened.enter_context(_connect(server.port)) for _ in range(IDLE)]
            for each in idle:
                each.sendall(ASK)
                each.recv(4096)
            for _ in range(SILENT):
                opened.enter_context(_connect(server.port))
            dripping = [opened.enter_context(_connect(server.port)) for _ in range(DRIPPING)]
            for each in dripping:
                each.sendall(UPLOAD)
            drip = threading.Thread(target=_drip, args=(dripping, ended))
            drip.start()
            opened.callback(drip.join)
            opened.callback(ended.set)
            worst = max(server.get("/?q=a+red+boat")[1] for _ in range(5))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    title = f"next visitor among {IDLE} idle, {SILENT} silent, {DRIPPING} dripping"
    return [Figure(title, worst, "s", "≤ 1")]


def _connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=LONGEST_S)


def _drip(connections: list[socket.socket], ended: threading.Event) -> None:
    while not ended.wait(1.0):
        for each in connections:
            try:
                each.sendall(b"x")
            except OSError:
                continue


def hung_engine(server: Served) -> list[Figure]:
    """Measure health, searches and the recovery while Elasticsearch is stopped under searches."""
    answers: list[tuple[int, float]] = []
    threads = [
        threading.Thread(
            target=lambda number=number: answers.append(server.get(f"/api/v1/search?q=boat+{number}"))
        )
        for number in range(SEARCHES)
    ]
    os.kill(server.node_pid, signal.SIGSTOP)
    try:
        for each in threads:
            each.start()
        time.sleep(1)
        health = max(server.get("/healthz")[1] for _ in range(5))
        for each in threads:
            each.join()
    finally:
        os.kill(server.node_pid, signal.SIGCONT)
    continued = time.perf_counter()
    while server.get("/api/v1/search?q=boat")[0] != 200 and time.perf_counter() - continued < LONGEST_S:
        time.sleep(0.1)
    well = time.perf_counter() - continued
    return [
        Figure("hung Elasticsearch: /healthz", health, "s", "≤ 0.2"),
        Figure("hung Elasticsearch: longest search", max(seconds for _, seconds in answers), "s", "≤ 10"),
        Figure(
            "hung Elasticsearch: answered 503",
            sum(status == 503 for status, _ in answers),
            "",
            f"≥ {SEARCHES}",
        ),
        Figure("hung Elasticsearch: well again after", well, "s", "≤ 5"),
    ]
