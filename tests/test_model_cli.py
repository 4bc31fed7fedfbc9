"""`glimpse model` through its front door."""

import json
import os
import uuid

import pytest
from click.testing import CliRunner
from eland.ml.pytorch.transformers import elasticsearch_model_id

from es_config.text_model import check_model_id
from glimpse import main
from models.profiles import PROFILES, es_model_id, upload_source


@pytest.fixture
def run(node, monkeypatch):
    """Run `glimpse model …` against the shared node and return click's result."""
    monkeypatch.setenv("ELASTICSEARCH_URL", node.url)
    monkeypatch.setenv("ELASTICSEARCH_API_KEY", node.key)

    def call(*arguments: str):
        return CliRunner().invoke(main, ["model", *arguments])

    return call


def test_the_table_of_profiles_is_shown(run):
    shown = json.loads(run("list", "--json").stdout)
    assert [row["name"] for row in shown] == list(PROFILES)
    clip = next(row for row in shown if row["name"] == "clip")
    assert clip["es_model_id"] == "sentence-transformers__clip-vit-b-32-multilingual-v1"
    text = run("list").stdout
    assert "128 dims" in text
    assert "glimpse__pocket-text" in text


def test_a_model_is_uploaded_started_stopped_and_deleted(run, tiny_pair):
    mine = ("--es-model-id", f"test-{uuid.uuid4()}", "--model-dir", str(tiny_pair))
    done = run("upload", *mine, "--start", "--number-of-allocations", "2", "--json")
    assert done.exit_code == 0, done.output
    assert "Uploading" in done.stderr
    assert json.loads(done.stdout)["state"] == "started"
    assert "started, 16 dims" in run("status", *mine).stdout
    again = run("upload", *mine)
    assert (again.exit_code, again.stdout) == (1, "")
    assert "--clear-previous" in again.stderr
    refused = run("delete", *mine)
    assert refused.exit_code == 1
    assert "use force" in refused.stderr
    assert "stopped" in run("stop", *mine).stdout
    assert json.loads(run("start", *mine, "--json").stdout)["number_of_allocations"] == 1
    assert "absent" in run("delete", *mine, "--force").stdout
    assert json.loads(run("status", *mine, "--json").stdout)["state"] == "absent"


def test_what_cannot_be_uploaded_is_said_in_one_line(run):
    done = run("upload", "--profile", "siglip2")
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert "there is nothing to upload" in done.stderr
    assert "There is no profile 'x'" in run("status", "--profile", "x").stderr
    assert run("start", "--number-of-allocations", "0").exit_code == 2
    assert run("upload", "--task-type", "ner").exit_code == 2


def test_without_elasticsearch_the_way_out_is_named(tmp_path, monkeypatch, tiny_pair):
    monkeypatch.setenv("GLIMPSE_HOME", str(tmp_path))
    done = CliRunner().invoke(main, ["model", "status", "--model-dir", str(tiny_pair)])
    assert done.exit_code == 1
    assert "glimpse up" in done.stderr


def test_options_are_environment_variables_too(run, tiny_pair, monkeypatch):
    monkeypatch.setenv("GLIMPSE_ES_MODEL_ID", "test-from-the-environment")
    monkeypatch.setenv("GLIMPSE_MODEL_DIR", str(tiny_pair))
    assert json.loads(run("status", "--json").stdout)["model_id"] == "test-from-the-environment"


@pytest.mark.parametrize(
    "name",
    ["sentence-transformers/clip-ViT-B-32-multilingual-v1", "a b/C\\d", "/x/y", "o/" + "x" * 90, "plain"],
)
def test_ids_follow_elands_rule(name):
    assert es_model_id(name) == elasticsearch_model_id(name)


def test_another_model_can_be_named_by_its_folder(tiny_pair):
    named = upload_source("pocket", model_dir=None, hub_model_id=str(tiny_pair / "text"))
    assert (named.folder, named.dims) == (tiny_pair / "text", None)
    assert named.es_model_id == "text"
    of_profile = upload_source("pocket", model_dir=tiny_pair, hub_model_id=None)
    assert (of_profile.es_model_id, of_profile.dims) == ("glimpse__pocket-text", 16)
    assert of_profile.revision == named.revision
    assert os.fspath(of_profile.folder) == os.fspath(named.folder)


@pytest.mark.parametrize(
    ("asked", "model_id"),
    [
        ("./minilm", "minilm"),
        ("minilm/", "minilm"),
        ("../here/minilm", "minilm"),
        (".", "here"),
        ("{here}/minilm", "minilm"),
        ("o/Model (1)", "model_1"),
        ("Größe[2]", "grosse_2"),
        ("_-x.-", "x"),
        ("x" * 90, "x" * 64),
    ],
)
def test_every_way_to_name_a_folder_gives_an_id_that_elasticsearch_takes(
    tmp_path, monkeypatch, asked, model_id
):
    here = tmp_path / "here"
    asked = asked.format(here=here)
    (here / asked).mkdir(parents=True, exist_ok=True)
    (here / "config.json").touch()
    monkeypatch.chdir(here)
    named = upload_source("pocket", model_dir=None, hub_model_id=asked)
    assert named.es_model_id == model_id
    check_model_id(named.es_model_id)
    assert named.folder == (here / asked).resolve()
    given = upload_source("pocket", model_dir=None, hub_model_id=asked, given_id="mine")
    assert given.es_model_id == "mine"


def test_a_folder_without_a_usable_name_asks_for_an_id(tmp_path, run):
    (tmp_path / "東京").mkdir()
    refused = run("upload", "--hub-model-id", str(tmp_path / "東京"))
    assert (refused.exit_code, "'東京'; give one with --es-model-id" in refused.stderr) == (1, True)
    given = run("upload", "--hub-model-id", str(tmp_path / "東京"), "--es-model-id", "tokyo")
    assert "has no modules.json" in given.stderr


@pytest.mark.parametrize("asked", ["./nowhere", "nowhere/", "../nowhere", "/nowhere", "a/b/c", "~nobody/x"])
def test_a_path_that_does_not_exist_is_not_looked_up_on_the_hub(run, asked):
    refused = run("upload", "--hub-model-id", asked)
    assert (refused.exit_code, refused.stderr.count("\n")) == (1, 1)
    assert f"There is no model folder {asked}; check --hub-model-id." in refused.stderr


@pytest.mark.parametrize("model_id", ["Big", "-x", "a/b", "x" * 65, "", "ü"])
def test_an_id_that_elasticsearch_refuses_is_refused_before_any_work(run, tmp_path, model_id):
    refused = run("upload", "--hub-model-id", str(tmp_path), "--es-model-id", model_id)
    assert refused.exit_code == 1
    assert f"'{model_id}' cannot be a model's id in Elasticsearch: give --es-model-id" in refused.stderr


def test_the_list_says_which_profiles_this_machine_can_run(run, monkeypatch):
    rows = json.loads(run("list", "--json").stdout)
    assert all(row["memory_mb"] > 1000 for row in rows)
    monkeypatch.setattr("es_config.local_node.node.memory_megabytes", lambda: 5_000)
    monkeypatch.setattr("models.hub.free_megabytes", lambda: 1_000_000)
    fits = {row["name"]: row["lacks"] for row in json.loads(run("list", "--json").stdout)}
    assert fits["clip"] is None
    assert fits["siglip2-so400m"] == "this machine has 5.0 GB of memory"
    assert "GB of memory: too much, this machine has 5.0 GB of memory\n" in run("list").stdout
    assert "GB of memory: fits this machine\n" in run("list").stdout


def test_a_full_disk_counts_for_what_is_not_downloaded_yet(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    clip, pocket = PROFILES["clip"], PROFILES["pocket"]
    lacks = clip.lacks(memory_mb=100_000, disk_mb=1_000)
    assert lacks == "2.7 GB are to be downloaded, and 1.0 GB of disk are free"
    assert pocket.lacks(memory_mb=100_000, disk_mb=0) == ""
    assert clip.lacks(memory_mb=100_000, disk_mb=3_000) == ""
