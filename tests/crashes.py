"""Runs of `glimpse ingest` in processes that are killed, and indexes compared document by document."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner
from elasticsearch import Elasticsearch
from waiting import wait_until

from es_config.index import ImageIndex
from glimpse import main

ROOT = Path(__file__).parent.parent


def start_ingest(folder: Path, *, url: str, home: Path, models: Path, alias: str) -> subprocess.Popen:
    """Start the command in a process of its own, with small batches and JSON on stdout."""
    environ = os.environ | _settings(url, home, models, alias) | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "glimpse", *_command(folder)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, cwd=ROOT, env=environ, text=True, **pipes)


def ingest_undisturbed(folder: Path, *, url: str, home: Path, models: Path, alias: str) -> dict:
    """Run the same command in this process to its end, and return its JSON."""
    runner = CliRunner(env=_settings(url, home, models, alias))
    return json.loads(runner.invoke(main, _command(folder)).stdout)


def _settings(url: str, home: Path, models: Path, alias: str) -> dict[str, str]:
    return {
        "ELASTICSEARCH_URL": url,
        "GLIMPSE_HOME": str(home),
        "GLIMPSE_MODEL_DIR": str(models),
        "GLIMPSE_INDEX": alias,
        "GLIMPSE_INGEST_CAPTIONS": "off",
        "GLIMPSE_PRECISION": "fp32",
    }


def _command(folder: Path) -> list[str]:
    return ["ingest", str(folder), "--batch-size", "4", "--json"]


def thumbnails(home: Path) -> int:
    """Return how many thumbnails are stored."""
    return sum(name.endswith(".webp") for _, _, names in os.walk(home / "store") for name in names)


def kill_after(process: subprocess.Popen, home: Path, *, stored: int) -> int:
    """Kill the process without a chance to clean up once so many thumbnails exist, and return its code."""
    wait_until(lambda: thumbnails(home) >= stored, running=process)
    process.kill()
    process.stdout.close()
    return process.wait()


def contents(client: Elasticsearch, alias: str) -> dict[str, dict]:
    """Return every document with its vector, as it is but for the time when it was made."""
    index = ImageIndex(client, alias=alias)
    index.refresh()
    hits = index.search({"query": {"match_all": {}}, "size": 10_000}).hits
    documents = {hit.source["image_id"]: dict(hit.source) for hit in hits}
    for image_id, source in documents.items():
        del source["indexed_at"]
        source["relative_path"] = sorted(source["relative_path"])
        source["vector"] = index.vector(image_id)
    return documents


def differences(found: dict[str, dict], wanted: dict[str, dict]) -> list[str]:
    """Return the ids of documents that only one has, or that differ beyond the last digits of vectors.

    A picture that is embedded in another batch is not computed in the same order.
    """
    import numpy as np

    def same(one: dict, other: dict) -> bool:
        vectors = one.pop("vector"), other.pop("vector")
        return one == other and np.allclose(*vectors, atol=1e-5)

    differ = found.keys() ^ wanted.keys()
    return sorted(
        differ | {each for each in found.keys() & wanted.keys() if not same(found[each], wanted[each])}
    )
