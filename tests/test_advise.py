"""`glimpse advise` on a real node: every type side by side, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from http_fronts import proxy
from vector_index import clustered, plain_index
from waiting import PATIENCE_S, Hold, wait_until

from es_config.errors import EngineError
from es_config.vector_field import FIELD
from glimpse import main
from tuning.advise import IndexVariant, trial_names, trials

ROOT = Path(__file__).parent.parent


def test_types_are_compared_and_one_is_recommended(node, client, index_name):
    plain_index(client, index_name, clustered(600, 64), index_type="int8_hnsw")
    done = CliRunner().invoke(
        main,
        ["advise", "--index", index_name, "--field", "v", "--sample", "500", "--samples", "100",
         "--target-recall", "0.95", "--types", "flat,hnsw,int8_hnsw", "--graph", "8,50",
         "--rounds", "3", "--json"],
        env={"ELASTICSEARCH_URL": node.url},
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    assert (answer["sample"], answer["documents"]) == (500, 600)
    rows = {row["index_type"]: row for row in answer["types"]}
    assert rows.keys() == {"flat", "hnsw", "int8_hnsw"}
    assert rows["flat"]["recall"] == 1.0
    assert rows["hnsw"]["memory_bytes"] >= 500 * 64 * 4 > rows["int8_hnsw"]["memory_bytes"] > 500 * 64
    assert all(row["disk_bytes"] > 500 * 64 * 4 for row in rows.values())
    assert all(row["memory_source"] == "measured" and row["index_seconds"] > 0 for row in rows.values())
    assert all(row["p50_ms"] > 0 for row in rows.values())
    assert answer["why"].startswith("Take ")
    assert trial_names(client) == []


def test_trial_indices_are_gone_after_an_error(client):
    with pytest.raises(EngineError, match="fewer than 64"):
        _refused(client)
    assert trial_names(client) == []


def _refused(client) -> None:
    with trials(client) as ours:
        field, _ = ours.add(IndexVariant("hnsw", 4, 20), ["a", "b"], clustered(2, 8), similarity="cosine")
        assert (field.name, field.m) == (FIELD, 4)
        assert trial_names(client) == [field.index]
        ours.add(IndexVariant("bbq_hnsw", 4, 20), ["a", "b"], clustered(2, 8), similarity="cosine")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "kill"])
def test_an_interrupted_run_takes_its_indices_away(node, client, index_name, number):
    plain_index(client, index_name, clustered(1200, 64))
    command = [sys.executable, "-m", "glimpse", "advise", "--index", index_name, "--field", "v"]
    command += ["--sample", "200", "--samples", "50", "--target-recall", "0.9", "--rounds", "3"]
    filling = Hold(lambda _, path: "_bulk" in path and len(trial_names(client)) >= 2)
    with proxy(node.url, filling) as url:
        environ = {**os.environ, "ELASTICSEARCH_URL": url}
        with subprocess.Popen(command, cwd=ROOT, env=environ, stderr=subprocess.PIPE, text=True) as started:
            wait_until(lambda: filling.is_reached, running=started)
            started.send_signal(number)
            filling.release()
            said = started.communicate(timeout=PATIENCE_S)[1]
    assert started.returncode == 1
    assert "Traceback" not in said
    assert trial_names(client) == []


def test_what_a_killed_run_left_is_named_and_removed_when_told(node, client, index_name):
    plain_index(client, index_name, clustered(0, 8), dims=8)
    left = "glimpse-advise-00000000-0000-0000-0000-000000000000-hnsw"
    client.indices.create(index=left)
    command = ["advise", "--index", index_name, "--field", "v"]
    environ = {"ELASTICSEARCH_URL": node.url}
    try:
        said = CliRunner().invoke(main, command, env=environ)
        assert "1 trial indices are left over" in said.stderr
        assert trial_names(client) == [left]
        CliRunner().invoke(main, [*command, "--remove-leftovers"], env=environ)
        assert trial_names(client) == []
    finally:
        client.options(ignore_status=404).indices.delete(index=left)
