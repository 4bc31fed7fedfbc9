"""A lost shard: decisions are refused, people are told, and doctor names the shard and the way out."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from picture_files import save_picture
from three_nodes import QUICK

from es_config.client import EngineSettings, connect
from es_config.index import ImageIndex
from es_config.local_node.node import LocalNode
from es_config.transport import PartialAnswerError, accepting_partial_answers
from glimpse import main
from search_app.core.searcher import SearchService
from search_app.settings import AppSettings, SearchSettings
from search_app.web.app import create_app
from search_app.wiring import build_searcher
from storage.store import open_storage

PICTURES = 12


@dataclass(frozen=True)
class Half:
    """A node that has lost one of two shards of its index, with the folder that was ingested."""

    home: Path
    url: str
    pictures: Path
    models: Path
    said: list[str]
    """by the start of the node that lacks the shard"""

    def run(self, *arguments: str) -> Result:
        environ = {
            "GLIMPSE_HOME": str(self.home),
            "GLIMPSE_MODEL_DIR": str(self.models),
            "GLIMPSE_TEXT_LANE": "local",
            "GLIMPSE_PRECISION": "fp32",
        }
        return CliRunner().invoke(main, arguments, env=os.environ | environ)


@pytest.fixture(scope="module")
def half(tmp_path_factory, tiny_pair) -> Iterator[Half]:
    folder = tmp_path_factory.mktemp("half")
    pictures = folder / "pictures"
    pictures.mkdir()
    for number in range(PICTURES):
        save_picture(pictures / f"{number:02}.png", number, size=(60, 40))
    models = shutil.copytree(tiny_pair, folder / "models")
    shutil.copytree(models / "text", models / "caption_text")
    home = folder / "home"
    local = LocalNode(home, environ=os.environ | QUICK)
    try:
        url = local.up(heap_mb=512, timeout_s=300).node.url
        before = Half(home, url, pictures, models, [])
        assert before.run("index", "create", "--shards", "2").exit_code == 0
        assert before.run("ingest", str(pictures), "--captions", "off").exit_code == 0
        with connect(EngineSettings(url)) as client:
            client.indices.flush(index="images")
            index = ImageIndex(client, alias="images")
            uuid = client.indices.get_settings(index=index.name())[index.name()]["settings"]["index"]["uuid"]
        local.down()
        commits = list((home / "node").rglob(f"indices/{uuid}/0/index/segments_*"))
        assert commits
        for commit in commits:
            commit.unlink()
        said: list[str] = []
        again = LocalNode(home, environ=os.environ | QUICK, say=said.append)
        yield Half(home, again.up(heap_mb=512, timeout_s=300).node.url, pictures, models, said)
    finally:
        local.down()


def test_the_start_of_the_node_names_the_index(half):
    (sentence,) = half.said
    assert sentence.startswith("The index images-pocket-1 lacks a part")
    assert "glimpse doctor" in sentence


def test_doctor_names_the_shard_and_the_way_out(half):
    result = half.run("doctor")
    assert result.exit_code == 1
    assert "shard 0 of images-" in result.output
    assert "restore a snapshot" in result.output


def test_a_person_is_told_that_a_part_is_missing(half):
    result = half.run("search", "a picture", "--k", "3")
    assert result.exit_code == 0
    assert "1 of 2 shards did not answer" in result.stderr
    answer = json.loads(half.run("search", "a picture", "--json").stdout)
    assert (answer["partial"], answer["shards"], answer["shards_failed"]) == (True, 2, 1)
    assert answer["hits"]


def test_the_page_and_the_rest_api_tell_too(half):
    with connect(EngineSettings(half.url)) as client:
        settings = SearchSettings("pocket", half.models, "images", "local", "off")
        searcher = build_searcher(settings, {}, warn=print, client=client)
        app = create_app(
            service=SearchService(searcher),
            storage=open_storage(f"file:{half.home / 'store'}"),
            settings=AppSettings(),
        )
        web = app.test_client()
        answer = web.get("/api/v1/search?q=a+picture")
        assert (answer.status_code, answer.json["partial"], answer.json["shards_failed"]) == (200, True, 1)
        assert "1 of 2 parts of the index did not answer" in web.get("/?q=a+picture").text
        refused = web.get("/readyz")
        assert refused.status_code == 503
        assert "1 of 2 shards" in refused.json["detail"]
        assert web.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    "arguments",
    [
        ("reindex", "--profile", "clip-b32", "--model-dir", "{models}"),
        ("ingest", "{pictures}", "--captions", "off", "--prune"),
        ("duplicates",),
        ("tune", "--k", "5"),
        ("status",),
        ("caption",),
    ],
    ids=lambda arguments: arguments[0],
)
def test_nothing_is_decided_on_a_part(half, arguments):
    result = half.run(*(each.format(pictures=half.pictures, models=half.models) for each in arguments))
    assert result.exit_code == 1, result.output
    assert "shard" in result.output.lower()
    with connect(EngineSettings(half.url)) as client:
        index = ImageIndex(client, alias="images")
        with pytest.raises(PartialAnswerError):
            index.count()
        with accepting_partial_answers():
            assert 0 < index.count() < PICTURES


def test_a_part_is_accepted_only_where_that_is_said(half):
    anything = {"query": {"match_all": {}}, "size": 50}
    with connect(EngineSettings(half.url)) as client:
        index = ImageIndex(client, alias="images")
        for ask in (index.count, lambda: index.search(anything), lambda: index.search_many([anything] * 2)):
            with pytest.raises(PartialAnswerError, match="1 of 2 shards of 'images-.* did not answer"):
                ask()
        with accepting_partial_answers():
            result = index.search(anything)
    assert (result.shards, result.shards_failed) == (2, 1)
    assert 0 < len(result.hits) < PICTURES
