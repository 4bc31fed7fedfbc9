"""The findings of `glimpse doctor` on this machine: the home, the notes and room for the store."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest

from es_config.doctor import LOW_ROOM, look_at_home, look_at_notes, look_at_store
from es_config.errors import EngineError
from ingest.files.walk import Candidate, Stamp
from ingest.history.ingested_files import IngestHistory


def test_a_home_that_can_be_written_is_well(tmp_path):
    assert look_at_home(tmp_path) == str(tmp_path)
    assert look_at_home(tmp_path / "new").endswith("is not there yet")
    assert list(tmp_path.iterdir()) == []


def test_a_home_that_cannot_be_written_is_named_with_the_way_out(tmp_path):
    (tmp_path / "home").touch()
    with pytest.raises(EngineError, match=r"home cannot be written \(Not a directory\).*set GLIMPSE_HOME"):
        look_at_home(tmp_path / "home")


def test_notes_are_counted_and_damage_is_told(tmp_path):
    assert look_at_notes(tmp_path) == "none yet"
    notes = IngestHistory(tmp_path / "ingested.sqlite", index="a")
    notes.record_ok(Candidate(tmp_path / "a.png", "a.png", Stamp(1, 1)), "content")
    notes.close()
    assert look_at_notes(tmp_path) == "files noted: 1"
    (tmp_path / "ingested.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(EngineError, match=r"damaged or cannot be read \(file is not a database\)"):
        look_at_notes(tmp_path)


def test_little_room_for_the_store_is_a_fault(tmp_path, monkeypatch):
    free, asked = [LOW_ROOM], []

    def disk_usage(folder):
        asked.append(folder)
        return SimpleNamespace(free=free[0])

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    assert look_at_store(f"file:{tmp_path}") == f"1 GB free for it at {tmp_path}"
    assert look_at_store("s3://bucket") == "in a bucket, not looked at"
    free[0] = LOW_ROOM - 1
    with pytest.raises(EngineError, match="for the store at /elsewhere/store: free space there"):
        look_at_store("file:/elsewhere/store")
    assert str(asked[-1]) == "/"
