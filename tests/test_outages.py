"""Elasticsearch or a disk fails in the middle of an ingest: one sentence, and the same command goes on."""

from __future__ import annotations

import json
import os
import resource
import signal
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
from click.testing import CliRunner, Result
from crashes import contents, differences, thumbnails
from elasticsearch import Elasticsearch
from http_fronts import proxy
from picture_files import save_picture
from PIL import Image
from three_nodes import QUICK
from waiting import PATIENCE_S

from es_config.documents import AddResult, ImageDocument
from es_config.index import ImageIndex
from es_config.local_node.node import LocalNode
from glimpse import main

PICTURES = 90


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Iterator[LocalNode]:
    """A node of this module's own, that may be stopped."""
    local = LocalNode(tmp_path_factory.mktemp("own node"), environ=os.environ | QUICK)
    local.up(heap_mb=512, timeout_s=300)
    yield local
    local.down()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(PICTURES - 1):
        save_picture(folder / f"{number:03}.png", number, size=(60, 40))
    noise = np.random.default_rng(1).integers(0, 256, (700, 700, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "050-large.png")
    return folder


@dataclass(frozen=True)
class Trial:
    """The command on the pictures, with an index and a home of its own."""

    corpus: Path
    models: Path
    alias: str
    home: Path

    def ingest(self, url: str) -> Result:
        """Run the command in this process."""
        environ = {
            "ELASTICSEARCH_URL": url,
            "GLIMPSE_HOME": str(self.home),
            "GLIMPSE_MODEL_DIR": str(self.models),
            "GLIMPSE_INDEX": self.alias,
            "GLIMPSE_INGEST_CAPTIONS": "off",
            "GLIMPSE_PRECISION": "fp32",
            "GLIMPSE_ORIGINALS": "original",
        }
        command = ["ingest", str(self.corpus), "--batch-size", "2", "--json"]
        return CliRunner().invoke(main, command, env=environ)


@pytest.fixture
def trial(corpus, tiny_pair, index_name, tmp_path) -> Trial:
    return Trial(corpus, tiny_pair, index_name, tmp_path)


@pytest.fixture(scope="module")
def undisturbed(client, node, corpus, tiny_pair, tmp_path_factory) -> Iterator[dict]:
    """The documents of an undisturbed run over the pictures."""
    alias = f"test-undisturbed-{uuid.uuid4()}"
    assert Trial(corpus, tiny_pair, alias, tmp_path_factory.mktemp("home")).ingest(node.url).exit_code == 0
    yield contents(client, alias)
    client.indices.delete(index=f"{alias}-pocket-1")


def stopped(result: Result) -> str:
    """Return the one sentence with which a run ended that could not go on."""
    assert result.exit_code == 1, result.output
    (line,) = (each for each in result.stderr.splitlines() if each.startswith("Error: "))
    assert "Traceback" not in result.output
    assert line.startswith("Error: Stopped after ")
    assert line.endswith("Nothing is lost: once that is mended, the same command goes on from there.")
    return line


def completed(result: Result) -> dict:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def assert_same(found: dict, wanted: dict) -> None:
    assert len(found) == PICTURES
    assert differences(found, {name: dict(each) for name, each in wanted.items()}) == []


@contextmanager
def before_the_second_write(act: Callable[[], None]) -> Iterator[None]:
    """Do something before each write of pictures but the first, when some are in the index and not all."""
    add, written = ImageIndex.add, []

    def acting(self: ImageIndex, documents: Sequence[ImageDocument], **options: bool) -> AddResult:
        if written:
            act()
        written.append(len(documents))
        return add(self, documents, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageIndex, "add", acting)
        yield
    assert 0 < written[0] < PICTURES


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_node_that_is_stopped_or_killed_and_started_again_loses_nothing(own, trial, undisturbed, number):
    node = own.up(heap_mb=512, timeout_s=300).node
    process = psutil.Process(node.pid)

    def end() -> None:
        process.send_signal(number)
        process.wait(PATIENCE_S)

    with before_the_second_write(end):
        assert "No Elasticsearch answers" in stopped(trial.ingest(node.url))
    node = own.up(heap_mb=512, timeout_s=300).node
    again = completed(trial.ingest(node.url))
    assert again["files"] == PICTURES
    assert 0 < again["embedded"] < PICTURES
    with Elasticsearch(node.url) as client:
        assert_same(contents(client, trial.alias), undisturbed)


def test_a_store_that_takes_no_more_gets_the_rest_once_it_does(client, node, trial, undisturbed):
    with small_files():
        assert "cannot be written in the store" in stopped(trial.ingest(node.url))
    assert thumbnails(trial.home) < PICTURES
    assert completed(trial.ingest(node.url))["failed"] == 0
    assert thumbnails(trial.home) == PICTURES
    assert_same(contents(client, trial.alias), undisturbed)


def test_an_index_whose_disk_is_full_takes_the_rest_once_there_is_room(client, node, trial, undisturbed):
    block = "index.blocks.read_only_allow_delete"  # what Elasticsearch sets when a disk is nearly full

    def fill() -> None:
        client.indices.put_settings(index=trial.alias, settings={block: True})

    with before_the_second_write(fill):
        said = stopped(trial.ingest(node.url))
    assert "disk of Elasticsearch is nearly full" in said
    client.indices.put_settings(index=trial.alias, settings={block: None})
    assert 0 < completed(trial.ingest(node.url))["embedded"] < PICTURES
    assert_same(contents(client, trial.alias), undisturbed)


def test_an_elasticsearch_that_turns_requests_away_now_and_then_is_waited_for(
    client, node, trial, undisturbed
):
    busy = {"error": {"type": "es_rejected_execution_exception", "reason": "queue full"}, "status": 429}
    asked = []

    def decide(_method: str, path: str) -> tuple[int, bytes] | None:
        if "_bulk" not in path:
            return None
        asked.append(path)
        return (429, json.dumps(busy).encode()) if len(asked) in (1, 3, 4) else None

    with proxy(node.url, decide) as url:
        summary = completed(trial.ingest(url))
    assert len(asked) > 4
    assert (summary["indexed"], summary["failed"]) == (PICTURES, 0)
    assert_same(contents(client, trial.alias), undisturbed)


@contextmanager
def small_files() -> Iterator[None]:
    """Let this process write no file above a megabyte, as a quota does, without being root."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
