"""From the moment that a new file is closed until a search finds it: `glimpse ingest --watch`, 30 files."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.engine import fresh_index, node
from benchmarks.report import Figure, percentile, show

FILES = 30
PAUSE_S = 0.5
"""between a file that is found and the next"""
PATIENCE_S = 120
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))


def main() -> bool:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="glimpse-bench-") as folder, node() as (client, url):
        root = Path(folder)
        _draw(root / "pictures", range(1))
        with fresh_index(client) as index:
            watch = _start(root, url, index.alias)
            try:
                _wait(lambda: "Watching" in (root / "err").read_text(), watch)
                seconds = [_seconds(root, number, index, watch) for number in range(1, FILES + 1)]
            finally:
                watch.terminate()
                watch.wait(60)
    return show(
        "watch",
        [
            Figure(f"from closed to found, {FILES} files one by one, p50", percentile(seconds, 50), "s"),
            Figure("the same, p95", percentile(seconds, 95), "s", "≤ 5"),
            Figure("the same, longest", max(seconds), "s"),
        ],
    )


def _start(root: Path, url: str, alias: str) -> subprocess.Popen:
    environ = os.environ | {
        "ELASTICSEARCH_URL": url,
        "GLIMPSE_HOME": str(root / "home"),
        "GLIMPSE_INDEX": alias,
    }
    command = [sys.executable, "-m", "glimpse", "ingest", str(root / "pictures"), "--watch"]
    with (root / "err").open("w") as err:
        return subprocess.Popen(
            command, cwd=Path(__file__).parent.parent, env=environ, stdout=subprocess.DEVNULL, stderr=err
        )


def _seconds(root: Path, number: int, index, watch: subprocess.Popen) -> float:
    """Return how long a search did not find a file that had been closed."""
    time.sleep(PAUSE_S)
    _draw(root / "pictures", [number])
    begin = time.perf_counter()
    query = {"query": {"term": {"relative_path": f"{number}.jpg"}}, "size": 0}
    _wait(lambda: index.search(query).total, watch)
    return time.perf_counter() - begin


def _wait(condition, watch: subprocess.Popen) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert watch.poll() is None, "the watch ended"
        assert time.monotonic() < deadline, "the watch does nothing"
        time.sleep(0.02)


def _draw(folder: Path, numbers) -> None:
    from picture_files import save_picture

    for number in numbers:
        save_picture(folder / f"{number}.jpg", number, size=(640, 480))
