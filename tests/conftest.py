"""One real Elasticsearch node for the whole run, and a separate index for each test."""

from __future__ import annotations

import gc
import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from waiting import PATIENCE_S

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch
    from gallery import Gallery

    from es_config.home import RunningNode

OUR_VARIABLES = ("GLIMPSE_", "ELASTICSEARCH_", "ES_URL", "ES_API_KEY", "AWS_")
TERMINAL = ("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE")
"""what would change how rich prints"""

LONGEST_FIRST = (
    "test_readme.py",
    "test_workers.py",
    "test_three_nodes.py",
    "test_real_models.py",
    "test_start.py",
    "test_keys.py",
    "test_written_text.py",
    "test_browser_voice.py",
    "test_local_node.py",
    "test_browser_walks.py",
    "test_accessibility.py",
    "test_wheel.py",
    "test_reindex.py",
    "test_browser.py",
    "test_tune.py",
    "test_evaluate_cli.py",
    "test_watch.py",
    "test_hiding.py",
    "test_ingest_cli.py",
    "test_outages.py",
)
"""long files of few tests: run last, one of them would keep one worker busy while the others idle"""

# How long an example takes says how busy the machine is, and nothing about the property.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files."""
    place = {name: number for number, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


@pytest.fixture(scope="session", autouse=True)
def _plain_environment(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[None]:
    """Hide the configuration of the person who runs the tests: no test may read or change it.

    All homes of all workers share what is made once: models in a faster form, the list of places.
    """
    base = tmp_path_factory.getbasetemp()
    cache = (base if worker_id == "master" else base.parent) / "cache"
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background; commands inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.MonkeyPatch.context() as patch:
        for name in [
            name for name in os.environ if name.startswith(OUR_VARIABLES) and name != "GLIMPSE_SHARED"
        ]:
            patch.delenv(name)
        patch.setenv("GLIMPSE_CACHE", str(cache))
        patch.setenv("GLIMPSE_PROFILE", "pocket")  # the only models that need no download
        for name in TERMINAL:
            patch.delenv(name, raising=False)
        for name in ("NO_PROXY", "no_proxy"):  # the servers of the tests are on this machine
            patch.setenv(name, ",".join(filter(None, (os.environ.get(name), "127.0.0.1,localhost"))))
        yield


@pytest.fixture(scope="module", autouse=True)
def _frozen_libraries(_plain_environment: None) -> None:
    """Let the garbage collector leave out the half million objects of the libraries."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def node_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The GLIMPSE_HOME of the node that all tests share. Its name has a space, like many a user's."""
    return tmp_path_factory.mktemp("glimpse home")


@pytest.fixture(scope="session")
def node(node_home: Path) -> Iterator[RunningNode]:
    """The local node, started once by the product's own code and stopped at the end."""
    from es_config.local_node.node import LocalNode

    local = LocalNode(node_home, environ=os.environ)
    try:
        yield local.up(heap_mb=1024, timeout_s=300).node
    finally:
        local.down()


@pytest.fixture(scope="session")
def client(node: RunningNode) -> Iterator[Elasticsearch]:
    """A client of the shared node."""
    from elasticsearch import Elasticsearch

    with Elasticsearch(node.url, api_key=node.key, request_timeout=PATIENCE_S) as connected:
        # Whenever it looks at the disk, Elasticsearch lifts the block of a full one, which tests set.
        connected.cluster.put_settings(persistent={"cluster.info.update.interval": "1d"})
        yield connected


@pytest.fixture
def index_name(client: Elasticsearch) -> Iterator[str]:
    """A fresh name for an index or alias. Every index whose name begins with it is deleted afterwards."""
    name = f"test-{uuid.uuid4()}"
    yield name
    found = client.indices.get(index=f"{name}*", expand_wildcards="all", features="aliases")
    for index in found.body:
        client.indices.delete(index=index)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of moto's S3 server, reached from this machine only."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture(scope="session")
def s3_client(s3_server: str) -> Any:
    """A client of that server, to look at buckets without the product's own code."""
    import boto3

    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    return boto3.session.Session().client("s3", endpoint_url=s3_server, **keys)


@pytest.fixture
def bucket(s3_server: str, s3_client: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """A fresh bucket, with the environment that leads to it."""
    for name, value in (
        ("ENDPOINT_URL", s3_server),
        ("ACCESS_KEY_ID", "test"),
        ("SECRET_ACCESS_KEY", "test"),
    ):
        monkeypatch.setenv(f"AWS_{name}", value)
    name = f"test-{uuid.uuid4()}"
    s3_client.create_bucket(Bucket=name)
    return name


@pytest.fixture
def torch_threads() -> Iterator[None]:
    """Give torch its number of threads back, which trainings and deployments change for the whole process."""
    import torch

    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pair of towers of random weights, 16 dims, as `--model-dir` takes it."""
    from model_folders import save_pair

    return save_pair(tmp_path_factory.mktemp("tiny pair"))


@pytest.fixture(scope="session")
def deployed(client: Elasticsearch, tiny_pair: Path) -> Iterator[str]:
    """The id of the pair's text model, uploaded with eland and started."""
    from es_config.text_model import TextModelSource, TrainedModel, upload
    from models.hub import fingerprint

    model = TrainedModel(client, model_id=f"test-{uuid.uuid4()}")
    folder = tiny_pair / "text"
    upload(model, TextModelSource(folder, name="the tiny model", revision=fingerprint(folder), dims=16))
    model.start()
    yield model.model_id
    model.delete(force=True)


@pytest.fixture(scope="session")
def gallery(client: Elasticsearch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gallery]:
    """Sixty drawn pictures behind their own alias, with the parts that search them, which can only be read.

    It serves the whole run: a test that changed it would fail others, by their order.
    """
    from gallery import build_gallery

    built = build_gallery(client, f"test-{uuid.uuid4()}", tmp_path_factory.mktemp("store"))
    client.indices.put_settings(index=built.alias, settings={"index.blocks.write": True})
    yield built
    built.searcher.index.delete()


@pytest.fixture(scope="module")
def own_gallery(client: Elasticsearch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gallery]:
    """The gallery of one file of tests, which they may change."""
    from gallery import build_gallery

    built = build_gallery(client, f"test-{uuid.uuid4()}", tmp_path_factory.mktemp("store"))
    yield built
    built.searcher.index.delete()
