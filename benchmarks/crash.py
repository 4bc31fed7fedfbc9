"""Ingest of 5 000 files, killed twenty times at random moments, beside a run that nobody disturbs."""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
from pathlib import Path

from benchmarks.again import draw
from benchmarks.engine import fresh_index, node
from benchmarks.report import Figure, show

FILES = int(os.environ.get("GLIMPSE_BENCH_FILES", "5000"))
KILLS = 20
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))


def main() -> bool:
    """Measure and print."""
    from crashes import contents, differences, kill_after, start_ingest
    from model_folders import save_pair

    with tempfile.TemporaryDirectory(prefix="glimpse-bench-") as folder, node() as (client, url):
        root = Path(folder)
        given = {"url": url, "models": save_pair(root / "pair")}
        draw(root / "pictures", FILES)
        with fresh_index(client) as killed, fresh_index(client) as whole:

            def start(name: str, index):
                return start_ingest(root / "pictures", home=root / name, alias=index.alias, **given)

            for moment in sorted(random.Random(20).sample(range(1, FILES - 100), KILLS)):
                assert kill_after(start("killed", killed), root / "killed", stored=moment) == -9
            runs = [start("killed", killed), start("whole", whole)]
            last, undisturbed = (json.loads(each.communicate()[0]) for each in runs)
            assert undisturbed["indexed"] == FILES
            found, wanted = contents(client, killed.alias), contents(client, whole.alias)
            figures = [
                Figure("kills", KILLS),
                Figure("documents", len(found), "", f"≥ {FILES}"),
                Figure("documents that differ", len(differences(found, wanted)), "", "≤ 0"),
                Figure("files that the last run could not use", last["failed"], "", "≤ 0"),
            ]
            return show("crash", figures)
