"""Elasticsearch's jars: exactly the published ones, from the cache or from Maven Central."""

import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from es_config.errors import EngineError
from es_config.local_node.jars import VERSION, fetch_jars


@pytest.fixture(scope="module")
def jars() -> list[Path]:
    return fetch_jars()


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """A Maven cache of this test's own, and a network that is not there."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    return tmp_path / ".m2" / "repository"


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder and prints nothing."""

    def log_message(self, *_: object) -> None:
        """Tests print nothing."""


def fill(cache: Path, jars: list[Path]) -> list[Path]:
    """Copy the jars into another cache."""
    root = next(parent for parent in jars[0].parents if parent.name == "repository")
    copies = [cache / jar.relative_to(root) for jar in jars]
    for jar, copy in zip(jars, copies, strict=True):
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(jar, copy)
    return copies


def test_the_node_is_the_version_that_is_documented(jars):
    names = {jar.name for jar in jars}
    assert {f"elasticsearch-{VERSION}.jar", f"transport-netty4-{VERSION}.jar"} <= names
    assert len(names) == len(jars) > 50


def test_a_full_cache_needs_no_network(jars, cache):
    copies = fill(cache, jars)
    said = []
    assert sorted(fetch_jars(say=said.append)) == sorted(copies)
    assert said == []


@pytest.mark.usefixtures("cache")
def test_an_empty_cache_without_a_network_is_one_sentence():
    said = []
    with pytest.raises(EngineError, match="could not be downloaded from Maven Central .*: check the network"):
        fetch_jars(say=said.append)
    assert said == [f"Downloading Elasticsearch {VERSION} (45 MB, once) …"]


def test_a_jar_that_was_cut_off_is_noticed(jars, cache):
    cut = fill(cache, jars)[0]
    cut.write_bytes(cut.read_bytes()[:1000])
    with pytest.raises(EngineError, match="could not be downloaded"):
        fetch_jars()


def test_a_jar_that_was_cut_off_is_fetched_again_from_the_users_mirror(jars, cache, tmp_path, monkeypatch):
    cut = min(fill(cache, jars), key=lambda jar: jar.stat().st_size)
    whole = cut.read_bytes()
    cut.write_bytes(whole[:1000])
    published = next(parent for parent in jars[0].parents if parent.name == "repository")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(published))) as mirror:
        threading.Thread(target=mirror.serve_forever, daemon=True).start()
        (tmp_path / ".config").mkdir()
        address = f"http://127.0.0.1:{mirror.server_address[1]}"
        (tmp_path / ".config" / "jgo.conf").write_text(f"[repositories]\ncentral = {address}\n")
        fetch_jars()
        mirror.shutdown()
    assert cut.read_bytes() == whole
