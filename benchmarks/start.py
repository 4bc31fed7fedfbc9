"""How long the local node takes to turn green, and `glimpse --help` to answer."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.report import Figure, show
from es_config.local_node.install import fetch_jars
from es_config.local_node.node import LocalNode

RUNS = 3
HELP_RUNS = 9


def main() -> bool:
    """Measure and print."""
    fetch_jars()
    with tempfile.TemporaryDirectory(prefix="glimpse-bench-") as home:
        local = LocalNode(Path(home), environ=os.environ)
        seconds = [_up_and_down(local) for _ in range(RUNS)]
    helps = [_help_seconds() for _ in range(HELP_RUNS)]
    return show(
        "start",
        [
            Figure("local node until green, first start", seconds[0], "s", "≤ 15"),
            Figure("local node until green, with its data", statistics.median(seconds[1:]), "s", "≤ 15"),
            Figure("glimpse --help, median", statistics.median(helps), "s", "≤ 0.3"),
        ],
    )


def _up_and_down(local: LocalNode) -> float:
    try:
        return local.up().seconds
    finally:
        local.down()


def _help_seconds() -> float:
    command = [str(Path(sys.executable).parent / "glimpse"), "--help"]
    begin = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - begin
