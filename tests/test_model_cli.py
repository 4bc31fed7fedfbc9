"""`glimpse model` through its front door."""

import json
import os
import uuid

import pytest
from click.testing import CliRunner
from eland.ml.pytorch.transformers import elasticsearch_model_id

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
    assert named.es_model_id == es_model_id(str(tiny_pair / "text"))
    of_profile = upload_source("pocket", model_dir=tiny_pair, hub_model_id=None)
    assert (of_profile.es_model_id, of_profile.dims) == ("glimpse__pocket-text", 16)
    assert of_profile.revision == named.revision
    assert os.fspath(of_profile.folder) == os.fspath(named.folder)
