"""`glimpse evaluate` through its front door: labels, runs, models, and vectors of any index."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import model_folders
import numpy as np
import pytest
from click.testing import CliRunner
from http_fronts import proxy
from waiting import PATIENCE_S, Hold, wait_until

from es_config.documents import IndexOptions
from es_config.vector_field import COMPARE_PREFIX, temporary_index
from glimpse import main
from models.profiles import POCKET_WEIGHTS

ROOT = Path(__file__).parent.parent


@pytest.fixture
def run(node, gallery, monkeypatch):
    """Run `glimpse evaluate …` on the gallery and return click's result."""
    monkeypatch.setenv("ELASTICSEARCH_URL", node.url)
    monkeypatch.setenv("GLIMPSE_INDEX", gallery.alias)
    monkeypatch.setenv("GLIMPSE_STORE", gallery.store_uri)
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # the tests' own process keeps its handlers

    def call(*arguments: object):
        return CliRunner().invoke(main, ["evaluate", *map(str, arguments)])

    return call


@pytest.fixture
def queries(gallery, tmp_path):
    """A file of four labelled queries in two languages, by id and by path."""
    rows = [
        {"query": "a red boat at sea", "relevant": [gallery.ids["boat"]], "language": "en"},
        {"query": "two black cats in a meadow", "relevant": ["named/cats.jpg", "gone.jpg"], "language": "en"},
        {"query": "ein blaues Haus in der Wüste", "relevant": ["house.jpg"], "language": "de"},
        {"query": "ein gelbes Auto", "relevant": [gallery.ids["car"]], "language": "de"},
    ]
    path = tmp_path / "queries.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def left_behind(client) -> list[str]:
    """Return the temporary indices that are there."""
    return list(client.indices.get(index=f"{COMPARE_PREFIX}-*", expand_wildcards="all").body)


def test_labelled_queries_are_scored_by_mode_and_language(run, queries):
    done = run("--queries", queries, "--mode", "image,hybrid", "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert {(score["run"], score["language"], score["queries"]) for score in report["scores"]} == {
        (mode, *rest) for mode in ("image", "hybrid") for rest in (("all", 4), ("de", 2), ("en", 2))
    }
    first = report["scores"][0]["metrics"]
    assert list(first) == ["recall@1", "recall@5", "recall@10", "mrr@10", "ndcg@10"]
    assert first["recall@5"]["mean"] == 1
    assert "1 labels name no picture of the index and are left out, such as 'gone.jpg'" in done.stderr
    assert "recall@10" in run("--queries", queries, "--mode", "image").stdout


def test_lanes_are_scored_side_by_side(run, queries):
    report = json.loads(run("--queries", queries, "--mode", "image", "--lane", "local,auto", "--json").stdout)
    assert [each["name"] for each in report["runs"]] == ["image, local", "image, auto"]
    local, auto = report["runs"]
    assert local["lane"] == "local"
    assert auto["lane"] in {"local", "infer"}  # as the node has the text model or has not
    first, second = (
        [each["metrics"] for each in report["scores"] if each["run"] == name]
        for name in ("image, local", "image, auto")
    )
    assert first == second


def test_a_saved_run_is_compared_with_a_new_one(run, queries, tmp_path):
    assert run("--queries", queries, "--mode", "image", "--save-run", tmp_path / "run.json").exit_code == 0
    done = run("--queries", queries, "--mode", "image", "--compare", tmp_path / "run.json")
    assert "No difference between image (saved) and image can be told from chance" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        ((), 2, "Give labelled --queries, or models to compare"),
        (("--queries", "BAD"), 2, "Line 1 of .*bad.jsonl is not JSON"),
        (("--queries", "UNKNOWN"), 1, "No query has a relevant picture"),
        (("--queries", "UNKNOWN", "--field", "image_embedding"), 1, "every query is a vector"),
        (("--queries", "UNKNOWN", "--compare", "BAD.json"), 2, "cannot be read"),
        (("--queries", "UNKNOWN", "--plot", "x.png"), 2, "--plot draws a comparison of models"),
        (("--profiles", "pocket,nothing"), 1, "There is no profile 'nothing'"),
        (("--profiles", "pocket,pocket"), 1, "must name different profiles"),
        (("--profiles", "pocket", "--plot", "x.gif"), 1, "'x.gif' is none of them"),
    ],
)
def test_what_is_wrong_is_one_line(run, tmp_path, arguments, code, complaint):
    (tmp_path / "bad.jsonl").write_text("{")
    (tmp_path / "unknown.jsonl").write_text('{"query": "a boat", "relevant": ["nowhere.jpg"]}')
    names = {"BAD": tmp_path / "bad.jsonl", "UNKNOWN": tmp_path / "unknown.jsonl"}
    done = run(*(names.get(each, each) for each in arguments))
    assert done.exit_code == code, done.output
    assert done.stdout == ""
    assert re.search(complaint, done.stderr)


def test_models_are_compared_on_thumbnails_with_captions_as_queries(run, client, tmp_path):
    tiny = model_folders.save_clip(tmp_path / "tiny")
    done = run(
        *("--profiles", f"pocket,same={POCKET_WEIGHTS},clip-b32={tiny}", "--sample", 60, "--json"),
        *("--plot", tmp_path / "models.png"),
    )
    assert done.exit_code == 0, done.output
    contest = json.loads(done.stdout)
    found = {row["name"]: row for row in contest["profiles"]}
    assert found["pocket"]["metrics"]["ndcg@10"]["mean"] > 0.9
    assert found["pocket"]["metrics"] == found["same"]["metrics"]
    assert found["clip-b32"]["metrics"]["ndcg@10"]["mean"] < 0.9
    assert all(row["images_per_second"] > 0 and row["index_bytes"] > 0 for row in found.values())
    assert (contest["pictures"], contest["queries"]) == (60, 4)
    assert contest["recommendation"].startswith("Take ")
    assert (tmp_path / "models.png").read_bytes().startswith(b"\x89PNG")
    assert left_behind(client) == []


def test_models_are_compared_on_a_folder_with_labelled_queries(run, gallery, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("boat", "cats", "house", "car", "other1"):
        (folder / f"{name}.jpg").write_bytes(gallery.files[name])
    (tmp_path / "q.jsonl").write_text('{"query": "two black cats", "relevant": ["cats.jpg", "none.jpg"]}')
    done = run("--queries", tmp_path / "q.jsonl", "--profiles", "pocket", "--folder", folder, "--json")
    assert done.exit_code == 0, done.output
    contest = json.loads(done.stdout)
    assert (contest["pictures"], contest["queries"], contest["asked"]) == (5, 1, "labelled queries")
    assert contest["profiles"][0]["metrics"]["recall@1"]["mean"] == 1
    assert "1 labels name no picture" in done.stderr


def use_and_stop(client) -> None:
    """Use a temporary index as a comparison does, and press Ctrl+C in the middle."""
    graph = IndexOptions().graph
    named = {"label": "Ünusual Näme", "dims": 4, "similarity": "cosine"}
    with temporary_index(client, **named, index_options=graph) as index:
        index.add(["a", "b"], np.eye(4, dtype=np.float32)[:2])
        assert index.nearest(np.array([1, 0.1, 0, 0], np.float32), k=2, num_candidates=10) == ["a", "b"]
        assert index.size_bytes() > 0
        assert left_behind(client) == [index.name]
        raise KeyboardInterrupt


def test_a_temporary_index_is_gone_however_its_use_ends(client):
    with pytest.raises(KeyboardInterrupt):
        use_and_stop(client)
    assert left_behind(client) == []


def test_a_comparison_that_is_killed_leaves_no_index(client, node, gallery):
    command = [sys.executable, "-m", "glimpse", "evaluate", "--profiles", "pocket"]
    command += ["--store", gallery.store_uri]
    filling = Hold(lambda _, path: bool(left_behind(client)) and "_bulk" in path)
    with proxy(node.url, filling) as url:
        environ = {**os.environ, "ELASTICSEARCH_URL": url, "GLIMPSE_INDEX": gallery.alias}
        process = subprocess.Popen(command, cwd=ROOT, env=environ, stderr=subprocess.PIPE, text=True)
        try:
            wait_until(lambda: filling.is_reached, running=process)
            process.terminate()
            filling.release()
            process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
    assert left_behind(client) == []


def plain_index(client, name: str, vectors: np.ndarray) -> None:
    """Make an index with nothing in it but vectors, under the numbers of their rows."""
    field = {"type": "dense_vector", "dims": vectors.shape[1], "similarity": "cosine"}
    client.indices.create(index=name, mappings={"properties": {"embedding": field}})
    for start in range(0, len(vectors), 500):
        rows = range(start, min(start + 500, len(vectors)))
        operations = [
            part
            for row in rows
            for part in ({"index": {"_id": str(row)}}, {"embedding": vectors[row].tolist()})
        ]
        client.bulk(index=name, operations=operations)
    client.indices.refresh(index=name)


def test_any_index_is_asked_with_vectors(run, client, index_name, tmp_path):
    vectors = np.random.default_rng(0).normal(size=(50, 8)).round(3)
    plain_index(client, index_name, vectors)
    rows = [{"vector": vectors[n].tolist(), "relevant": [str(n), "unknown"]} for n in range(20)]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    done = run("--queries", tmp_path / "q.jsonl", "--index", index_name, "--field", "embedding", "--json")
    assert done.exit_code == 0, done.output
    (score,) = json.loads(done.stdout)["scores"]
    assert score["metrics"]["recall@1"]["mean"] == 1
    (tmp_path / "q.jsonl").write_text('{"vector": [1, 2], "relevant": ["1"]}')
    short = run("--queries", tmp_path / "q.jsonl", "--index", index_name, "--field", "embedding")
    assert short.exit_code == 1
    assert "A vector has 2 dims, and embedding" in short.stderr


if "GLIMPSE_SHARED" in os.environ:

    def test_exact_search_finds_of_flickr8k_what_its_makers_found(run, client, index_name, tmp_path):
        data = np.load(Path(os.environ["GLIMPSE_SHARED"]) / "data" / "flickr8k" / "vectors.npz")
        owners = data["query_image_rows"]
        tested = np.unique(owners)
        plain_index(client, index_name, data["image_vectors"][tested].astype(np.float32))
        with (tmp_path / "q.jsonl").open("w") as file:
            for vector, place in zip(
                data["query_vectors"], np.searchsorted(tested, owners).tolist(), strict=True
            ):
                numbers = vector.astype(float).tolist()
                file.write(json.dumps({"vector": numbers, "relevant": [str(place)]}) + "\n")
        done = run(
            *("--queries", tmp_path / "q.jsonl", "--index", index_name, "--field", "embedding"),
            *("--exact", "--json"),
        )
        metrics = json.loads(done.stdout)["scores"][0]["metrics"]
        found = [round(100 * metrics[f"recall@{k}"]["mean"], 1) for k in (1, 5, 10)]
        assert found == [19.2, 47.0, 60.6]
