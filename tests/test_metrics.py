"""A run that goes on tells Prometheus how it goes."""

from __future__ import annotations

import json
import re
import socket
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner
from picture_files import save_picture, truncate

from glimpse import main
from ingest.metrics import published
from ingest.options import IngestOptions
from ingest.pipeline.run import IngestJob
from ingest.report import Progress
from ingest.wiring import IngestSettings, open_dependencies

ROOT = Path(__file__).parent.parent


def environment(node, tmp_path: Path) -> dict[str, str]:
    return {"ELASTICSEARCH_URL": node.url, "GLIMPSE_HOME": str(tmp_path / "home")}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def scraped(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return {
        name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")
    }


def test_a_run_and_the_next_one_of_a_watch_are_counted_together(node, index_name, tmp_path):
    for number in range(6):
        save_picture(tmp_path / "pictures" / f"{number}.png", number)
    truncate(tmp_path / "pictures" / "5.png")
    environ = {
        "ELASTICSEARCH_URL": node.url,
        "GLIMPSE_HOME": str(tmp_path / "home"),
        "GLIMPSE_PROFILE": "pocket",
    }
    dependencies = open_dependencies(IngestSettings(alias=index_name), environ)
    job = IngestJob(
        paths=[tmp_path / "pictures"], dependencies=dependencies, options=IngestOptions(), environ=environ
    )
    port = free_port()
    with published(job.meter, port):
        before = scraped(port)
        job.run(job.paths, None, progress=Progress())
        first = scraped(port)
        job.run(job.paths, None, progress=Progress())
        second = scraped(port)
    files = 'glimpse_ingest_files_total{outcome="%s"}'
    assert set(before.values()) == {0}
    assert (first[files % "indexed"], first[files % "failed"], first[files % "skipped"]) == (5, 1, 0)
    assert first["glimpse_ingest_embedded_total"] == 5
    size = sum(path.stat().st_size for path in (tmp_path / "pictures").iterdir())
    assert first["glimpse_ingest_bytes_total"] == size
    for stage in ("read", "decode", "embed", "write"):
        assert first[f'glimpse_ingest_stage_seconds_total{{stage="{stage}"}}'] > 0
    assert first['glimpse_ingest_queue{queue="pictures_in_flight"}'] == 0
    assert first["glimpse_ingest_bulk_rejections_total"] == 0
    assert second[files % "indexed"] == 5
    ends = sum(second[files % outcome] for outcome in ("indexed", "skipped", "failed_before", "failed"))
    assert ends == 12
    with pytest.raises(OSError, match="refused"):
        scraped(port)
    known = {name.partition("{")[0] for name in second}
    panels = json.loads((ROOT / "docs" / "grafana-ingest.json").read_text(encoding="utf-8"))["panels"]
    asked = {
        name
        for panel in panels
        for each in panel["targets"]
        for name in re.findall(r"glimpse_\w+", each["expr"])
    }
    assert asked == known


def test_a_port_that_is_taken_is_one_sentence(node, index_name, tmp_path):
    save_picture(tmp_path / "1.png", 1)
    environ = {
        "ELASTICSEARCH_URL": node.url,
        "GLIMPSE_HOME": str(tmp_path / "home"),
        "GLIMPSE_INDEX": index_name,
    }
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        command = ["ingest", str(tmp_path / "1.png"), "--metrics-port", str(taken.getsockname()[1])]
        done = CliRunner().invoke(main, command, env=environ)
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert "choose another with --metrics-port" in done.stderr
