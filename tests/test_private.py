"""Folders and files that their owner alone can read."""

import os
from pathlib import Path

import pytest

from es_config.home import files_for_owner, private_file, private_folder


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def test_a_folder_is_made_for_its_owner(tmp_path):
    private_folder(tmp_path / "a" / "b")
    assert mode(tmp_path / "a" / "b") == 0o700


def test_a_folder_that_others_can_enter_is_closed_to_them_alone(tmp_path):
    (tmp_path / "open").mkdir()
    for before, after in ((0o755, 0o700), (0o2775, 0o2700), (0o555, 0o500)):
        (tmp_path / "open").chmod(before)
        private_folder(tmp_path / "open")
        assert mode(tmp_path / "open") == after


def test_a_shared_folder_and_a_persons_home_stay_open(tmp_path, monkeypatch):
    for name, rights in (("shared", 0o1777), ("person", 0o755)):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(rights)
    monkeypatch.setenv("HOME", str(tmp_path / "person"))
    for name, rights in (("shared", 0o1777), ("person", 0o755)):
        private_folder(tmp_path / name)
        assert mode(tmp_path / name) == rights


def test_a_file_keeps_its_content_and_loses_the_rights_of_others(tmp_path):
    path = tmp_path / "file"
    private_file(path)
    assert (mode(path), path.read_text()) == (0o600, "")
    path.write_text("kept")
    path.chmod(0o644)
    private_file(path)
    assert (mode(path), path.read_text()) == (0o600, "kept")


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Not a directory|File exists"):
        private_folder(tmp_path / "file" / "home")


def test_files_are_for_their_owner_in_the_block_and_as_before_after_it(tmp_path):
    before = os.umask(0o022)
    try:
        with files_for_owner():
            (tmp_path / "private").touch()
        (tmp_path / "public").touch()
    finally:
        os.umask(before)
    assert (mode(tmp_path / "private"), mode(tmp_path / "public")) == (0o600, 0o644)
