"""Trust: the harm of small files and many visitors to a server, on loopback, bounded in number and time."""

from __future__ import annotations

import io
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection

import psutil
from PIL import Image

from benchmarks.crowd import connections, hung_engine, served
from benchmarks.engine import fresh_index, node
from benchmarks.faults import broken_place, every_route, faults
from benchmarks.report import Figure, show
from ingest.wiring import create_index
from models.pixels import REQUESTS, memory_of
from models.profiles import get_profile

PATIENCE_S = 120
SAMPLE_S = 0.02
MB = 1_000_000
HEAD = b'--b\r\nContent-Disposition: form-data; name="image"; filename="p"\r\n\r\n'
FORM = {"Content-Type": "multipart/form-data; boundary=b"}


@dataclass(frozen=True)
class Server:
    """A running `glimpse serve`, with the processes that it starts."""

    port: int
    process: psutil.Process

    def memory(self) -> int:
        """Return the resident bytes of the server and of its children together."""
        total = 0
        for each in (self.process, *self.process.children(recursive=True)):
            with suppress(psutil.Error):
                total += each.memory_info().rss
        return total

    def post_picture(self, picture: bytes) -> int:
        """Search by a picture and return the status."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        connection.request("POST", "/picture", HEAD + picture + b"\r\n--b--\r\n", FORM)
        status = connection.getresponse().status
        connection.close()
        return status

    @contextmanager
    def peak(self) -> Iterator[list[int]]:
        """Give a list that holds the largest `memory` of the block at its end."""
        largest, end = [0], threading.Event()

        def watch() -> None:
            while not end.wait(SAMPLE_S):
                largest[0] = max(largest[0], self.memory())

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield largest
        finally:
            end.set()
            thread.join()


def main() -> bool:
    """Print the figures and return whether the targets are met."""
    with node() as (client, url), fresh_index(client) as index:
        create_index(index, get_profile("pocket"))
        with _serving(url, index.alias) as server:
            for number in range(4):
                server.post_picture(_one_colour(800, number, "JPEG"))
            pictures_met = show(
                "Trust: pictures that cost most", [each for figure in FIGURES for each in figure(server)]
            )
    with served() as crowded:
        figures = [*connections(crowded), *hung_engine(crowded)]
    crowds_met = show("Trust: crowds at the door", figures)
    with broken_place() as place:
        faults_met = show("Trust: faults under load", faults(place))
        routes_met = show("Trust: every route", every_route(place))
    return pictures_met and crowds_met and faults_met and routes_met


def memory_kept(server: Server) -> list[Figure]:
    """Post pictures of one colour, of some dozen bytes each, one after the other."""
    figures = []
    for side, number, name in ((9_400, 100, "refused by its header"), (_largest_side(), 20, "let in")):
        picture, before, begin = _one_colour(side, 1), server.memory(), time.perf_counter()
        statuses = {server.post_picture(picture) for _ in range(number)}
        seconds = (time.perf_counter() - begin) / number
        grown = (server.memory() - before) / MB
        what = f"{number} WebP of {side}², {name} ({', '.join(map(str, statuses))})"
        figures += [
            Figure(f"{what}: memory kept", grown, "MB", "≤ 200"),
            Figure(f"{what}: each", seconds, "s"),
        ]
    return figures


def memory_at_once(server: Server) -> list[Figure]:
    """Post ten such pictures at once."""
    figures = []
    for side in (9_400, _largest_side(), 4_000):
        pictures = [_one_colour(side, 100 + number) for number in range(10)]
        before = server.memory()
        with server.peak() as peak, ThreadPoolExecutor(10) as pool:
            statuses = set(pool.map(server.post_picture, pictures))
        what = f"10 WebP of {side}² at once ({', '.join(map(str, statuses))})"
        figures.append(Figure(f"{what}: peak above before", (peak[0] - before) / MB, "MB", "≤ 1000"))
    return figures


def many_scans(server: Server) -> list[Figure]:
    """Post a JPEG of 2 000 scans of nothing."""
    begin = time.perf_counter()
    status = server.post_picture(_jpeg_of_scans(9_400, 2_000))
    return [Figure(f"JPEG of 2 000 scans ({status})", time.perf_counter() - begin, "s", "≤ 1")]


FIGURES: Sequence[Callable[[Server], list[Figure]]] = (many_scans, memory_kept, memory_at_once)


@contextmanager
def _serving(url: str, alias: str) -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    code = "from glimpse import main; main()"
    with tempfile.TemporaryDirectory(prefix="glimpse-bench-") as home:
        environ = {**os.environ, "GLIMPSE_HOME": home, "ELASTICSEARCH_URL": url}
        options = ["--port", str(port), "--index", alias, "--voice-model", "off"]
        process = subprocess.Popen([sys.executable, "-c", code, "serve", *options], env=environ)
        try:
            _wait(port, process)
            yield Server(port, psutil.Process(process.pid))
        finally:
            process.terminate()
            process.wait()


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.1)
    raise RuntimeError("glimpse serve does not answer")


def _largest_side() -> int:
    """Return the side of the largest square WebP that a request may bring."""
    with Image.open(io.BytesIO(_one_colour(10, 0))) as image:
        each = memory_of(image, b"") // 100
    return int((REQUESTS.budget.size // each) ** 0.5)


def _one_colour(side: int, number: int, form: str = "WEBP") -> bytes:
    data = io.BytesIO()
    colour = (number % 256, number // 256, 7)
    if form == "WEBP":
        options = {"lossless": True, "quality": 0, "method": 0}
        Image.new("RGBA", (side, side), (*colour, 200)).save(data, form, **options)
    else:
        Image.new("RGB", (side, side), colour).save(data, form)
    return data.getvalue()


def _jpeg_of_scans(side: int, scans: int) -> bytes:
    """Return a gray progressive JPEG of empty scans: each costs its decoder the time of all pixels."""

    def segment(marker: int, body: bytes) -> bytes:
        return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body

    table = bytes([1] + [0] * 15)
    frame = struct.pack(">BHHB", 8, side, side, 1) + b"\1\x11\0"
    head = segment(0xDB, bytes([0] + [1] * 64)) + segment(0xC2, frame)
    codes = segment(0xC4, b"\0" + table + b"\0") + segment(0xC4, b"\x10" + table + b"\xe0")
    first, other = (segment(0xDA, bytes([1, 1, 0, *band, 0])) for band in ((0, 0), (1, 63)))
    return b"\xff\xd8" + head + codes + first + other * (scans - 1) + b"\xff\xd9"
