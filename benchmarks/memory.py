"""Resident memory of an ingest from its 10 000th picture to its last, and the second run over the same files.

`GLIMPSE_BENCH_FILES` sets how many pictures there are; the targets are for 100 000, a tenth of them before
memory is first looked at.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from benchmarks.again import draw
from benchmarks.engine import fresh_index, node
from benchmarks.report import Figure, show

FILES = int(os.environ.get("GLIMPSE_BENCH_FILES", "100000"))
EVERY_S = 0.5
MIB = 2**20
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))


def main() -> bool:
    """Measure and print."""
    from crashes import start_ingest
    from model_folders import save_pair

    with tempfile.TemporaryDirectory(prefix="glimpse-bench-") as folder, node() as (client, url):
        root = Path(folder)
        draw(root / "pictures", FILES)
        with fresh_index(client) as index:
            given = {
                "url": url,
                "home": root / "home",
                "models": save_pair(root / "pair"),
                "alias": index.alias,
            }
            runs = [
                _run(start_ingest(root / "pictures", **given, batch_size=32), client, index.alias)
                for _ in range(2)
            ]
            return show(f"memory, {FILES} pictures of 24 px, tiny model", _figures(*runs))


def _run(process, client, alias: str) -> tuple[dict, list[tuple[int, int]], float]:
    """Wait for a run. Return its summary, samples of (documents written, resident bytes), and its seconds."""
    samples, begin = [], time.perf_counter()
    out: list[str] = []
    reading = threading.Thread(target=lambda: out.append(process.communicate()[0]))
    reading.start()
    watched = psutil.Process(process.pid)
    while reading.is_alive():
        if written := _written(client, alias):
            with contextlib.suppress(psutil.Error):
                samples.append((written, watched.memory_info().rss))
        reading.join(EVERY_S)
    return json.loads(out[0]), [each for each in samples if each[1]], time.perf_counter() - begin


def _written(client, alias: str) -> int:
    """Return how many documents were written, searchable or not."""
    if not client.indices.exists(index=alias):
        return 0
    total = client.indices.stats(index=alias, metric="indexing")["_all"]["total"]
    return total.get("indexing", {}).get("index_total", 0)  # no shard is there for a moment


def _figures(first, second) -> list[Figure]:
    (done, samples, _), (again, _, seconds) = first, second
    assert done["indexed"] == FILES, done
    early = next(rss for written, rss in samples if written >= FILES // 10)
    late = [rss for written, rss in samples if written >= FILES // 10]
    return [
        Figure("first run", done["seconds"], "s"),
        Figure(f"resident memory at picture {FILES // 10}", early / MIB, "MiB"),
        Figure("growth from there to the last", (late[-1] - early) / MIB, "MiB", "≤ 50"),
        Figure("growth from there to the largest", (max(late) - early) / MIB, "MiB"),
        Figure("second run, the whole command", seconds, "s", "≤ 60"),
        Figure("pictures embedded in the second run", again["embedded"], "", "≤ 0"),
    ]
