"""The second run over pictures that did not change: seconds, and that nothing is embedded or read.

`GLIMPSE_BENCH_FILES` sets how many pictures there are; the target is for 100 000.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.engine import fresh_index, node
from benchmarks.report import Figure, clock, show
from ingest.history.ingested_files import IngestHistory
from ingest.options import IngestOptions
from ingest.pipeline.run import ingest_paths
from ingest.wiring import Dependencies, create_index
from models.encoders import Lazy, load_caption_text_encoder, load_image_encoder
from models.profiles import get_profile
from storage.store import open_storage

FILES = int(os.environ.get("GLIMPSE_BENCH_FILES", "20000"))
A_FOLDER = 1000
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))


def main() -> bool:
    """Measure and print."""
    from model_folders import save_pair

    with tempfile.TemporaryDirectory(prefix="glimpse-bench-") as folder, node() as (client, _):
        root = Path(folder)
        profile = get_profile("pocket", model_dir=save_pair(root / "pair"))
        draw(root / "pictures", FILES)
        with fresh_index(client) as index:
            create_index(index, profile)
            models = {
                "image_encoder": Lazy(lambda: load_image_encoder(profile)),
                "caption_encoder": Lazy(lambda: load_caption_text_encoder(profile)),
            }
            for each in models.values():
                each.get()
            first, second = (_run(root, _Timed(index), models) for _ in range(2))
            return show("again", _figures(first, second))  # before a long cleaning up


class _Timed:
    """An index that counts the seconds of its look-ups of known pictures."""

    def __init__(self, index) -> None:
        self._index = index
        self.seconds = 0.0

    def listed(self, image_ids: list[str]) -> dict:
        begin = time.perf_counter()
        try:
            return self._index.listed(image_ids)
        finally:
            self.seconds += time.perf_counter() - begin

    def __getattr__(self, name: str) -> object:
        return getattr(self._index, name)


def _figures(first, second) -> list[Figure]:
    (_, first_spent, _), (second, second_spent, waited) = first, second
    return [
        Figure(f"first run, {FILES} pictures of 24 px, tiny model", first_spent.wall, "s"),
        Figure("second run, nothing changed", second_spent.wall, "s"),
        Figure("the same, CPU of this process", second_spent.cpu, "s"),
        Figure("the same, waiting for Elasticsearch", waited, "s"),
        Figure("second run, for 100 000 in proportion", second_spent.wall * 100_000 / FILES, "s", "≤ 60"),
        Figure("pictures embedded in the second run", second.embedded, "", "≤ 0"),
        Figure("files that the second run did not recognise", FILES - second.skipped, "", "≤ 0"),
    ]


def draw(folder: Path, count: int) -> None:
    """Write small pictures of noise, last changed an hour ago, a thousand to a folder."""
    dice, past = np.random.default_rng(1), time.time() - 3600
    for number in range(count):
        path = folder / f"{number // A_FOLDER:03}" / f"{number:06}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(dice.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(path, compress_level=0)
        os.utime(path, (past, past))


def _run(root: Path, index, models: dict):
    options = IngestOptions()
    history = IngestHistory(root / "ingested.sqlite", index=index.uuid(), max_pixels=options.max_pixels)
    with clock() as spent:
        dependencies = Dependencies(
            index=index, storage=open_storage(f"file:{root / 'store'}"), **models, captioner=None
        )
        summary = ingest_paths(
            [root / "pictures"], dependencies=dependencies, options=options, history=history
        )
        history.close()
    assert not summary.failures, summary.failures[:3]
    return summary, spent, index.seconds
