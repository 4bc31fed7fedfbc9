"""How long the local node takes to turn green, and commands to answer: `--help`, searches, a server."""

from __future__ import annotations

import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.report import Figure, show
from demo.gallery import draw_gallery
from es_config.local_node.install import fetch_jars
from es_config.local_node.node import LocalNode

RUNS = 3
HELP_RUNS = 9
SEARCH_RUNS = 5
PICTURES = 40
THROUGH_TORCH = (
    "from models.encoders import load_text_encoder; from models.profiles import get_profile;"
    " load_text_encoder(get_profile('pocket')).embed_texts(['a red boat'])"
)
"""the same text embedded by torch, without a search: what each search began with before"""


def main() -> bool:
    """Measure and print."""
    fetch_jars()
    with tempfile.TemporaryDirectory(prefix="glimpse-bench-") as home:
        local = LocalNode(Path(home), environ=os.environ)
        seconds = [_up_and_down(local) for _ in range(RUNS)]
        local.up()
        try:
            searches = _searches(Path(home))
        finally:
            local.down()
    helps = [_seconds([_glimpse(), "--help"], os.environ)[0] for _ in range(HELP_RUNS)]
    return show(
        "start",
        [
            Figure("local node until green, first start", seconds[0], "s", "≤ 15"),
            Figure("local node until green, with its data", statistics.median(seconds[1:]), "s", "≤ 15"),
            Figure("glimpse --help, median", statistics.median(helps), "s", "≤ 0.3"),
            *searches,
        ],
    )


def _up_and_down(local: LocalNode) -> float:
    try:
        return local.up().seconds
    finally:
        local.down()


def _searches(home: Path) -> list[Figure]:
    """Run searches and the way through torch in turn, after one search that keeps the models."""
    environ = {**os.environ, "GLIMPSE_HOME": str(home), "GLIMPSE_PROFILE": "pocket"}
    pictures = home / "pictures"
    draw_gallery(pictures, PICTURES)
    subprocess.run(
        [_glimpse(), "ingest", str(pictures), "--captions", "off"],
        env=environ,
        check=True,
        capture_output=True,
    )
    picture = str(next(pictures.rglob("*.jpg")))
    commands = {
        "words": [_glimpse(), "search", "a", "red", "boat"],
        "picture": [_glimpse(), "search", picture],
        "torch": [sys.executable, "-c", THROUGH_TORCH],
    }
    first = {name: _seconds(command, environ)[0] for name, command in commands.items()}
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(SEARCH_RUNS):
        for name, command in commands.items():
            runs[name].append(_seconds(command, environ))
    wall, cpu = (
        {name: statistics.median(each[part] for each in done) for name, done in runs.items()}
        for part in (0, 1)
    )
    return [
        Figure("search by words, the first, which keeps the model", first["words"], "s"),
        Figure("search by words, median", wall["words"], "s", "≤ 1.2"),
        Figure("search by words, CPU", cpu["words"], "s"),
        Figure("search by a picture, median", wall["picture"], "s", "≤ 1.2"),
        Figure("search by a picture, CPU", cpu["picture"], "s"),
        Figure("the same words embedded by torch alone, median", wall["torch"], "s"),
        Figure("the same words embedded by torch alone, CPU", cpu["torch"], "s"),
        Figure("glimpse serve until it answers, median", _serve_seconds(environ), "s", "≤ 5"),
    ]


def _serve_seconds(environ: dict[str, str]) -> float:
    taken = []
    for _ in range(RUNS):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        begin = time.perf_counter()
        with subprocess.Popen(
            [_glimpse(), "serve", "--port", str(port)], env=environ, stderr=subprocess.PIPE, text=True
        ) as server:
            assert server.stderr
            for line in server.stderr:
                if line.startswith("Glimpse is at"):
                    break
            taken.append(time.perf_counter() - begin)
            server.terminate()
    return statistics.median(taken)


def _glimpse() -> str:
    return str(Path(sys.executable).parent / "glimpse")


def _seconds(command: Sequence[str], environ: dict[str, str] | os._Environ[str]) -> tuple[float, float]:
    """Return the seconds that a command takes, and those of the processors."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, env=environ, check=True, capture_output=True)
    taken, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    return taken, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
