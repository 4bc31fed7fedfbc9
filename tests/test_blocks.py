"""A write block that a killed reindex left is lifted, and no other."""

from __future__ import annotations

import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from es_config.aliases import CLOSED_BY, Alias, lift_dead_block
from es_config.doctor import examine
from es_config.documents import IndexMeta, IndexOptions
from es_config.index import ImageIndex
from search_app.settings import SearchSettings
from search_app.wiring import renewed

META = IndexMeta("pocket", {}, 16, 16, "cosine")
KILLED = """
import os, signal, sys
from es_config.aliases import Alias
from es_config.client import EngineSettings, connect
with Alias(connect(EngineSettings(sys.argv[1])), alias=sys.argv[2]).closed():
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def index(client, index_name) -> ImageIndex:
    made = ImageIndex(client, alias=index_name)
    made.create(META, IndexOptions())
    return made


@pytest.fixture
def left_blocked(node, index) -> ImageIndex:
    """An index whose block has outlived the process that set it."""
    done = subprocess.run([sys.executable, "-c", KILLED, node.url, index.alias], timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL
    assert is_blocked(index)
    return index


def is_blocked(index: ImageIndex) -> bool:
    (found,) = index._client.indices.get_settings(index=index.alias, flat_settings=True).body.values()
    return found["settings"].get("index.blocks.write") == "true"


def noted(index: ImageIndex) -> bool:
    (found,) = index.mappings().values()
    return CLOSED_BY in found["mappings"]["_meta"]


def writable(node, index: ImageIndex, home) -> tuple[bool, str]:
    checks = examine(
        {"ELASTICSEARCH_URL": node.url},
        home,
        alias=index.alias,
        profile_dims={"pocket": 16},
        store=f"file:{home}/store",
    )
    return next((check.ok, check.detail) for check in checks if check.name == "writable")


def test_doctor_lifts_a_block_without_a_living_reindex(node, left_blocked, tmp_path):
    ok, detail = writable(node, left_blocked, tmp_path)
    assert ok
    assert detail.startswith("yes, again: a `glimpse reindex` that was killed (process ")
    assert not is_blocked(left_blocked)
    assert not noted(left_blocked)
    assert writable(node, left_blocked, tmp_path) == (True, "yes")


def test_a_running_server_lifts_it_too(client, left_blocked, tmp_path):
    former = SimpleNamespace(index=left_blocked.pinned())
    said: list[str] = []
    settings = SearchSettings("pocket", alias=left_blocked.alias)
    assert renewed(former, settings, client, warn=said.append, cache=tmp_path) is None
    (sentence,) = said
    assert sentence.startswith("the index takes pictures again")
    assert not is_blocked(left_blocked)


def test_the_block_of_a_living_reindex_and_that_of_a_person_stay(node, client, index, tmp_path):
    with Alias(client, alias=index.alias).closed():
        ok, detail = writable(node, index, tmp_path)
        assert ok
        assert detail.startswith("not while `glimpse reindex` switches the index (process ")
        assert is_blocked(index)
    assert not is_blocked(index)
    assert not noted(index)
    client.indices.put_settings(index=index.alias, settings={"index.blocks.write": True})
    assert lift_dead_block(client, index.alias) == (None, False)
    assert is_blocked(index)
    ok, detail = writable(node, index, tmp_path)
    assert not ok
    assert "index.blocks.write" in detail
