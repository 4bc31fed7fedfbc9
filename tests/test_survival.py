"""A run's memory: bad files reported once, unchanged ones unread, moved and removed ones put right."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from elasticsearch import Elasticsearch
from picture_files import save_picture, truncate, unprivileged

from es_config.index import ImageIndex
from glimpse import main
from ingest.errors import Fault, IngestError
from ingest.files.walk import Candidate, Stamp, is_gone, stamp_of
from ingest.history.ingested_files import IngestHistory, StalePath
from ingest.history.prune import prune_paths
from ingest.options import IngestOptions, PruneOptions
from storage.keys import original_key, thumbnail_key
from storage.store import FolderStorage

LONG_AGO = 1_600_000_000


@pytest.fixture
def environ(node, tmp_path: Path, tiny_pair: Path, index_name: str) -> dict[str, str]:
    """The settings of a command, as environment variables."""
    return {
        "ELASTICSEARCH_URL": node.url,
        "GLIMPSE_HOME": str(tmp_path / "home"),
        "GLIMPSE_MODEL_DIR": str(tiny_pair),
        "GLIMPSE_INDEX": index_name,
        "GLIMPSE_INGEST_CAPTIONS": "off",
        "GLIMPSE_PRECISION": "fp32",
    }


@pytest.fixture
def home(environ) -> Path:
    return Path(environ["GLIMPSE_HOME"])


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    return tmp_path / "pictures"


@pytest.fixture
def index(client: Elasticsearch, index_name: str) -> ImageIndex:
    return ImageIndex(client, alias=index_name)


@pytest.fixture
def ingest(environ):
    """Return a function that runs the command on settled files and returns its JSON, with its exit code."""

    def run(*arguments: object) -> dict:
        for folder in (each for each in arguments if isinstance(each, Path)):
            for path in folder.rglob("*.png"):
                if path.stat().st_mtime > LONG_AGO + 1e6:
                    os.utime(path, (LONG_AGO, LONG_AGO))
        done = CliRunner().invoke(main, ["ingest", *map(str, arguments), "--json"], env=environ)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return json.loads(done.stdout) | {"exit_code": done.exit_code, "stderr": done.stderr}

    return run


def draw(folder: Path, *numbers: int) -> None:
    for number in numbers:
        save_picture(folder / f"{number}.png", number, size=(40, 30))


def paths(index: ImageIndex) -> list[list[str]]:
    """Return the paths of every document."""
    index.refresh()
    hits = index.search({"query": {"match_all": {}}, "size": 1000}).hits
    return sorted(sorted(hit.source["relative_path"]) for hit in hits)


def image_ids(index: ImageIndex) -> dict[str, str]:
    hits = index.search({"query": {"match_all": {}}, "size": 1000}).hits
    return {path: hit.source["image_id"] for hit in hits for path in hit.source["relative_path"]}


def log_of(home: Path) -> list[dict]:
    return [json.loads(line) for line in (home / "failed.jsonl").read_text().splitlines()]


def some(answer: dict, *names: str) -> tuple:
    return tuple(answer[name] for name in names)


COUNTS = ("files", "indexed", "skipped", "failed", "failed_before", "exit_code")


def test_a_bad_file_is_listed_once_and_not_read_again_until_it_changes(ingest, pictures, home):
    draw(pictures, 1, 2)
    (pictures / "bad.png").write_text("no picture")
    (pictures / "empty.png").touch()
    assert some(ingest(pictures), *COUNTS) == (4, 2, 0, 2, 0, 1)
    listed = log_of(home)
    assert sorted((each["path"], each["reason"]) for each in listed) == [
        (str(pictures / "bad.png"), "not a picture in a known format"),
        (str(pictures / "empty.png"), "the file is empty"),
    ]
    assert (listed[0]["size"], listed[0]["mtime_ns"]) == (10, LONG_AGO * 10**9)
    again = ingest(pictures)
    assert some(again, *COUNTS) == (4, 0, 2, 0, 2, 0)
    assert (again["stderr"], log_of(home)) == ("", listed)
    assert some(ingest(pictures, "--retry-failed"), *COUNTS) == (4, 0, 2, 2, 0, 1)
    assert len(log_of(home)) == 2
    draw(pictures, 3)
    (pictures / "3.png").replace(pictures / "bad.png")
    (pictures / "empty.png").unlink()
    assert some(ingest(pictures), *COUNTS) == (3, 1, 2, 0, 0, 0)
    assert log_of(home) == []


def test_reasons_that_pass_without_the_file_are_tried_again(ingest, pictures, environ, home):
    draw(pictures, 1)
    environ["GLIMPSE_MAX_PIXELS"] = "100"
    assert some(ingest(pictures), *COUNTS) == (1, 0, 0, 1, 0, 1)
    assert some(ingest(pictures), *COUNTS) == (1, 0, 0, 0, 1, 0)
    environ["GLIMPSE_MAX_PIXELS"] = "10000"
    assert some(ingest(pictures), *COUNTS) == (1, 1, 0, 0, 0, 0)
    assert log_of(home) == []


@contextmanager
def history_of(folder: Path, **options: object) -> Iterator[IngestHistory]:
    """Open the history in a folder, and close it in the end."""
    with closing(IngestHistory(folder / "ingested.sqlite", index="one", **options)) as history:
        yield history


def test_a_closed_file_is_tried_again_in_every_run():
    with unprivileged() as folder, history_of(folder) as history:
        file = Candidate(save_picture(folder / "a.png", 1), "a.png", Stamp(1, 1))
        history.record_failure(file, Fault("permission denied"))
        assert not history.failed_before(file)


def test_what_lasts_is_told_by_the_fault_and_not_by_its_words(tmp_path):
    file = Candidate(tmp_path / "a.png", "a.png", Stamp(1, 1))
    file.path.touch()
    for fault, lasts in (
        (Fault("the model cannot take it (RuntimeError: the file is empty, damaged, larger than 3)"), False),
        (Fault("worn out", lasting=True), True),
        (Fault("wide", pixels=101), True),
        (Fault("over the limit of 0.0001 ", pixels=100), False),
    ):
        with history_of(tmp_path, max_pixels=100) as history:
            history.record_failure(file, fault)
            history.save(last=False)
            with history_of(tmp_path, max_pixels=100) as again:
                assert [each.failed_before(file) for each in (history, again)] == [lasts] * 2
            with history_of(tmp_path, max_pixels=100, retry_failed=True) as again:
                assert not again.failed_before(file)
    with history_of(tmp_path, max_pixels=100) as history:
        history.record_failure(file, Fault("wide", pixels=200))
    for limit, lasts in ((50, True), (199, True), (200, False)):
        with history_of(tmp_path, max_pixels=limit) as history:
            assert history.failed_before(file) == lasts


def test_failed_files_that_an_earlier_version_listed_are_taken_over_once(tmp_path):
    known, gone = Candidate(tmp_path / "a.png", "a.png", Stamp(1, 1)), tmp_path / "gone.png"
    known.path.touch()
    line = {"path": str(known.path), "reason": "the file is empty", "time": "", "size": 1, "mtime_ns": 1}
    lines = [line | {"lasting": True}, line | {"path": str(gone)}]
    (tmp_path / "failed.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in lines))
    with history_of(tmp_path) as history:
        assert history.failed_before(known)
        assert not history.failed_before(Candidate(gone, "gone.png", Stamp(1, 1))), "it is read once more"
        history.save(last=True)
        assert [each["path"] for each in log_of(tmp_path)] == [str(known.path)], "the other is gone"
    (tmp_path / "failed.jsonl").write_text(json.dumps(lines[1]) + "\n")
    with history_of(tmp_path) as history:
        history.record_ok(known, "content")
        history.save(last=False)
    assert (tmp_path / "failed.jsonl").read_text() == "", "an old log is not read twice"


def test_a_log_that_a_crash_cut_short_or_somebody_spoiled_is_read_as_far_as_it_goes(tmp_path):
    names = ["a\nb.png", os.fsdecode(b"\xff.png")]
    files = [Candidate(tmp_path / name, "x.png", Stamp(3, 4)) for name in names]
    for file in files:
        file.path.touch()
        with history_of(tmp_path) as history:
            history.record_failure(file, Fault("the file is empty", lasting=True))
            history.save(last=True)
    (tmp_path / "ingested.sqlite").unlink()  # as of an earlier version, which kept the log alone
    with (tmp_path / "failed.jsonl").open("ab") as log:
        log.write(b'[1]\n{"path": 3, "reason": 4, "time": ""}\n\xff\xfe\n{"path": "/tmp/x", "rea')
    with history_of(tmp_path) as history:
        assert all(history.failed_before(file) for file in files)
        changed, unknown = (replace(files[0], stamp=stamp) for stamp in (Stamp(3, 5), None))
        assert [history.failed_before(each) for each in (changed, unknown)] == [False, False]
        history.record_ok(files[0], "content")
        history.save(last=True)
    assert [each["path"] for each in log_of(tmp_path)] == [str(files[1].path)]
    assert list(tmp_path.glob(".*.part")) == []


def test_several_runs_share_one_list_of_failed_files(tmp_path):
    def work(number: int) -> None:
        with history_of(tmp_path) as history:
            for each in range(20):
                file = Candidate(tmp_path / f"{number}-{each}.png", "x.png", Stamp(0, 1))
                file.path.touch()
                history.record_failure(file, Fault("the file is empty", lasting=True))
                history.save(last=True)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({each["path"] for each in log_of(tmp_path)}) == 80


def test_a_run_expects_as_many_files_as_earlier_ones_noted(ingest, pictures, home, index):
    draw(pictures, *range(8))
    draw(pictures / "below", 8)
    ingest(pictures)
    notes = IngestHistory(home / "ingested.sqlite", index=index.uuid())
    with closing(notes):
        assert [notes.count(each) for each in (pictures, pictures / "below", home)] == [9, 1, 0]


def test_unchanged_files_are_not_read_again(ingest, pictures, home, monkeypatch):
    draw(pictures, *range(8))
    shutil.copy(pictures / "1.png", pictures / "copy.png")
    assert some(ingest(pictures), *COUNTS) == (9, 8, 1, 0, 0, 0)

    def never(*_: object) -> None:
        raise AssertionError("nothing may be read")

    with monkeypatch.context() as patch:
        patch.setattr("ingest.sources.source.read_content", never)
        assert some(ingest(pictures), *COUNTS) == (9, 0, 9, 0, 0, 0)
        assert some(ingest(pictures, "--dry-run"), *COUNTS) == (9, 0, 9, 0, 0, 0)
    (home / "ingested.sqlite").unlink()
    assert some(ingest(pictures), *COUNTS) == (9, 0, 9, 0, 0, 0)
    (home / "ingested.sqlite").write_text("This is no database, whatever its name says." * 100)
    assert some(ingest(pictures), *COUNTS) == (9, 0, 9, 0, 0, 0)


def test_a_note_is_believed_only_where_index_and_store_agree(ingest, pictures, index, home, environ):
    draw(pictures, 1, 2, 3)
    ingest(pictures)
    ids = image_ids(index)
    store = FolderStorage(home / "store")
    store.delete(thumbnail_key(ids["1.png"]))
    index.drop_paths({ids["2.png"]: ["2.png"]})
    index.refresh()
    assert some(ingest(pictures), *COUNTS) == (3, 1, 2, 0, 0, 0)
    assert store.exists(thumbnail_key(ids["1.png"]))
    assert paths(index) == [["1.png"], ["2.png"], ["3.png"]]
    environ["GLIMPSE_ORIGINALS"] = "original"
    ingest(pictures)
    assert all(store.exists(original_key(each, "png")) for each in ids.values())
    index.delete()
    assert some(ingest(pictures), *COUNTS) == (3, 3, 0, 0, 0, 0)


def test_a_file_that_was_changed_just_now_is_read_again(tmp_path):
    path = save_picture(tmp_path / "a.png", 1)
    later = time.time() + 60  # no pause of this machine makes that long ago
    os.utime(path, (later, later))
    assert not stamp_of(path).is_settled
    os.utime(path, (LONG_AGO, LONG_AGO))
    assert stamp_of(path) == Stamp(path.stat().st_size, LONG_AGO * 10**9)
    assert stamp_of(tmp_path) is stamp_of(tmp_path / "nothing") is None


def test_moved_files_change_their_path_without_being_embedded(ingest, pictures, index):
    draw(pictures, *range(6))
    ingest(pictures)
    (pictures / "2019").mkdir()
    for number in range(4):
        (pictures / f"{number}.png").rename(pictures / "2019" / f"{number}.png")
    shutil.copy(pictures / "5.png", pictures / "copy.png")
    answer = ingest(pictures)
    assert some(answer, "embedded", "paths_added", "exit_code") == (0, 5, 0)
    expected = [["2019/0.png"], ["2019/1.png"], ["2019/2.png"], ["2019/3.png"], ["4.png"]]
    assert paths(index) == [*expected, ["5.png", "copy.png"]]


def test_a_changed_file_replaces_its_document_and_what_the_store_kept_of_it(ingest, pictures, index, home):
    draw(pictures, 1, 2, 3)
    shutil.copy(pictures / "2.png", pictures / "twin.png")
    ingest(pictures, "--originals", "original")
    before = image_ids(index)
    for number in (1, 2):
        save_picture(pictures / f"{number}.png", number + 50, size=(40, 30))
    answer = ingest(pictures, "--originals", "original")
    assert some(answer, "embedded", "exit_code") == (2, 0)
    assert answer["pruned"]["documents"] == 1
    assert paths(index) == [["1.png"], ["2.png"], ["3.png"], ["twin.png"]]
    store = FolderStorage(home / "store")
    kept = {name: store.exists(thumbnail_key(each)) for name, each in before.items()}
    assert kept == {"1.png": False, "2.png": True, "twin.png": True, "3.png": True}
    assert not store.exists(original_key(before["1.png"], "png"))
    assert store.exists(original_key(before["2.png"], "png"))


def test_a_changed_file_that_is_bad_now_keeps_its_document(ingest, pictures, index):
    draw(pictures, 1, 2)
    ingest(pictures)
    truncate(save_picture(pictures / "1.png", 9))
    assert ingest(pictures)["failed"] == 1
    assert paths(index) == [["1.png"], ["2.png"]]


def test_prune_removes_what_is_gone_and_nothing_else(ingest, pictures, index, home, tmp_path):
    draw(pictures, *range(10))
    other = tmp_path / "other"
    draw(other, 20, 21)
    shutil.copy(pictures / "3.png", other / "3.png")
    ingest(pictures)
    ingest(other)
    index.add_paths({image_ids(index)["20.png"]: ["uploads/20.png"]})
    index.refresh()
    gone_id = image_ids(index)["1.png"]
    for path in (pictures / "1.png", pictures / "3.png", other / "21.png"):
        path.unlink()
    assert ingest(pictures)["pruned"]["gone"] == []
    assert index.count() == 12
    dry = ingest(pictures, "--prune", "--dry-run")
    assert dry["pruned"]["gone"] == [str(pictures / "1.png")], (
        "a file of the same name still stands elsewhere"
    )
    said = f"Would remove {pictures / '1.png'}\nWithout --dry-run, 1 file would leave the index.\n"
    assert dry["stderr"] == said
    assert index.count() == 12
    answer = ingest(pictures, "--prune")
    assert (answer["pruned"]["documents"], answer["exit_code"]) == (1, 0)
    assert "1 picture left the index: gone, changed or left out." in answer["stderr"]
    assert ["1.png"] not in paths(index)
    assert ["3.png"] in paths(index)
    assert ["21.png"] in paths(index), "its folder was not named"
    assert not FolderStorage(home / "store").exists(thumbnail_key(gone_id))


def test_prune_removes_what_a_later_pattern_leaves_out(ingest, pictures, index):
    draw(pictures, 2, 3)
    draw(pictures / "drop", 0, 1)
    shutil.copy(pictures / "drop" / "1.png", pictures / "copy.png")
    ingest(pictures)
    ingest(pictures / "drop")
    before = index.count()
    assert ingest(pictures, "--exclude", "drop")["pruned"]["gone"] == []
    (pictures / "drop" / ".nomedia").touch()
    dry = ingest(pictures, "--prune", "--dry-run")
    assert dry["pruned"]["gone"] == [str(pictures / "drop" / name) for name in ("0.png", "1.png")]
    answer = ingest(pictures, "--prune")
    assert (answer["exit_code"], answer["pruned"]["documents"]) == (0, 0)
    assert index.count() == before, "the folder was named by itself, too"
    assert {tuple(each) for each in paths(index)} >= {("0.png",), ("1.png", "copy.png")}
    (pictures / "drop" / ".nomedia").unlink()
    assert ingest(pictures)["paths_added"] == 2
    assert ingest(pictures, "--prune", "--exclude", "drop")["pruned"]["documents"] == 0


def test_what_a_watch_saw_go_leaves_in_the_order_of_paths(tmp_path):
    notes = IngestHistory(tmp_path / "notes.sqlite", index="a")
    names = [f"{number:02}.png" for number in range(30)]
    for name in names:
        notes.record_ok(Candidate(tmp_path / name, name, Stamp(1, 1)), f"content of {name}")
    notes.flush()
    options = IngestOptions(dry_run=True, prune=PruneOptions(prune=True, anyway=True))
    gone = [tmp_path / name for name in random.Random(1).sample(names, len(names))]
    parts = {"index": None, "storage": None, "folders": [tmp_path], "options": options}
    assert prune_paths(notes, **parts, gone=gone).gone == tuple(str(tmp_path / name) for name in names)
    notes.close()


def test_prune_refuses_when_a_disk_may_be_unplugged(ingest, pictures, index):
    draw(pictures, *range(10))
    ingest(pictures)
    for number in range(3):
        (pictures / f"{number}.png").unlink()
    answer = ingest(pictures, "--prune")
    assert (answer["exit_code"], index.count()) == (1, 10)
    assert answer["pruned"]["refused"].startswith("Nothing was pruned: 3 of 10 files are gone")
    assert "Error: Nothing was pruned" in answer["stderr"]
    answer = ingest(pictures, "--prune-anyway")
    assert (answer["exit_code"], answer["pruned"]["documents"]) == (0, 3)
    assert index.count() == 7


def test_a_folder_that_is_suddenly_empty_keeps_its_pictures_in_the_index(ingest, pictures, index):
    draw(pictures, *range(20))
    (pictures / "disk").mkdir()
    draw(pictures / "disk", 20, 21)
    ingest(pictures)
    for path in (pictures / "disk").iterdir():
        path.unlink()
    answer = ingest(pictures, "--prune")
    assert (answer["exit_code"], answer["pruned"]["documents"], index.count()) == (1, 0, 22)
    assert f"Error: 2 missing files stay in the index: {pictures / 'disk'} is empty" in answer["stderr"]
    (pictures / "disk").rmdir()
    answer = ingest(pictures, "--prune")
    assert (answer["exit_code"], answer["pruned"]["documents"], index.count()) == (0, 2, 20)


def test_a_closed_folder_is_not_taken_for_one_that_is_gone():
    with unprivileged() as folder:
        path = save_picture(folder / "a" / "b.png", 1)
        (folder / "a").chmod(0)
        assert not is_gone(path)
        assert is_gone(folder / "c" / "b.png")
        (folder / "file").touch()
        assert is_gone(folder / "file" / "b.png")


def test_a_folder_that_moved_keeps_its_pictures_and_loses_what_was_left_behind(ingest, pictures, index):
    draw(pictures, *range(10))
    ingest(pictures)
    later = pictures.rename(pictures.with_name("photos"))
    (later / "4.png").unlink()
    assert ingest(later)["embedded"] == 0
    assert ingest(later, "--prune")["pruned"]["documents"] == 0
    assert index.count() == 10
    answer = ingest(later, "--prune", "--moved-from", pictures)
    assert answer["pruned"]["gone"] == [str(pictures / "4.png")]
    assert ["4.png"] not in paths(index)
    assert index.count() == 9
    (later / "5.png").unlink()
    assert ingest(later, "--prune")["pruned"]["documents"] == 1


def test_what_another_index_shows_stays_in_the_store_until_that_index_is_deleted(
    ingest, pictures, index, home, environ
):
    draw(pictures, *range(12))
    ingest(pictures)
    ids = image_ids(index)
    other = ImageIndex(index._client, alias=f"{index.alias}-other")
    environ["GLIMPSE_INDEX"] = other.alias
    ingest(pictures)
    environ["GLIMPSE_INDEX"] = index.alias
    store = FolderStorage(home / "store")
    for name, stays in (("1.png", True), ("2.png", False)):
        (pictures / name).unlink()
        assert ingest(pictures, "--prune")["pruned"]["documents"] == 1
        assert store.exists(thumbnail_key(ids[name])) == stays
        if stays:
            other.delete()


def test_captions_of_people_are_kept_when_their_pictures_go(ingest, pictures, index, home):
    import numpy as np

    draw(pictures, *range(6))
    ingest(pictures)
    ids = image_ids(index)
    vector = np.ones(index.meta().caption_dims, dtype=np.float32)
    index.captions().write_human(ids["0.png"], "Omas Küche, 1961", vector / np.linalg.norm(vector))
    (pictures / "0.png").unlink()
    answer = ingest(pictures, "--prune")
    assert answer["pruned"]["human_captions"] == 1
    assert "1 caption that people had written went too, into removed-captions.jsonl." in answer["stderr"]
    (line,) = (home / "removed-captions.jsonl").read_text().splitlines()
    assert json.loads(line)["caption"] == "Omas Küche, 1961"
    assert json.loads(line)["image_id"] == ids["0.png"]


def test_captions_of_people_that_cannot_be_kept_are_told(environ, ingest, pictures, index, home):
    import numpy as np

    draw(pictures, *range(6))
    ingest(pictures)
    vector = np.ones(index.meta().caption_dims, dtype=np.float32)
    vector /= np.linalg.norm(vector)
    index.captions().write_human(image_ids(index)["0.png"], "our boat", vector)
    (pictures / "0.png").unlink()
    (home / "removed-captions.jsonl").mkdir()
    done = CliRunner().invoke(main, ["ingest", str(pictures), "--prune"], env=environ)
    assert done.exit_code == 1
    assert "removed-captions.jsonl cannot be written" in done.stderr
    assert '"caption": "our boat"' in done.stderr
    assert ingest(pictures, "--prune")["pruned"]["failures"] == []


def test_parts_ingest_and_prune_what_is_theirs(ingest, pictures, index):
    draw(pictures, *range(20))
    first = ingest(pictures, "--part", "1/2")
    assert 0 < first["files"] < 20
    assert ingest(pictures, "--part", "2/2")["files"] == 20 - first["files"]
    assert index.count() == 20
    (pictures / "3.png").unlink()
    pruned = [ingest(pictures, "--prune", "--part", part)["pruned"]["documents"] for part in ("1/2", "2/2")]
    assert sorted(pruned) == [0, 1]
    assert index.count() == 19


def test_a_wrong_part_is_a_wrong_use(environ, pictures):
    done = CliRunner().invoke(main, ["ingest", str(pictures), "--part", "5/4"], env=environ)
    assert done.exit_code == 2
    assert "'5/4' is no part: write 3/16" in done.stderr


def test_a_run_that_ended_before_it_could_tidy_is_tidied_by_the_next(ingest, pictures, index, home):
    draw(pictures, 1, 2)
    ingest(pictures)
    old = image_ids(index)["1.png"]
    with sqlite3.connect(home / "ingested.sqlite") as base:  # as a kill between two steps leaves it
        base.execute("DELETE FROM files WHERE relative_path = '1.png'")
        base.execute("INSERT INTO stale VALUES (?, ?, '1.png')", (index.uuid(), old))
    base.close()
    (pictures / "1.png").unlink()
    assert ingest(pictures)["pruned"]["documents"] == 1
    assert paths(index) == [["2.png"]]


def test_notes_turn_an_old_content_into_a_stale_path(tmp_path):
    notes = IngestHistory(tmp_path / "notes.sqlite", index="one")
    file = Candidate(tmp_path / "a.png", "a.png", Stamp(1, 2))
    notes.record_ok(file, "old")
    notes.flush()
    assert notes.look_up([file])[0].image_id == "old"
    notes.record_ok(file, "old")
    notes.flush()
    assert notes.stale() == []
    notes.record_ok(file, "new")
    notes.flush()
    assert notes.stale() == [StalePath("old", "a.png")]
    notes.delete_stale(notes.stale())
    assert notes.stale() == []
    other = IngestHistory(tmp_path / "notes.sqlite", index="two")
    assert other.look_up([file]) == [None]
    other.record_ok(file, "new")
    other.close()
    assert (notes.other_indexes("new"), notes.other_indexes("old")) == ({"two"}, set())
    assert [note.image_id for note in notes.below(tmp_path, moved_only=False)] == ["new"]
    assert list(notes.below(tmp_path / "a", moved_only=False)) == []
    notes.close()


def test_several_runs_share_the_notes(tmp_path):
    def work(number: int) -> None:
        with closing(IngestHistory(tmp_path / "notes.sqlite", index="one")) as notes:
            for each in range(20):
                notes.mark_moved(f"{number}")
                notes.record_ok(
                    Candidate(tmp_path / f"{number}-{each}.png", "a.png", Stamp(1, 2)), f"{number}"
                )
                notes.flush()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with closing(IngestHistory(tmp_path / "notes.sqlite", index="one")) as notes:
        assert len(list(notes.below(tmp_path, moved_only=False))) == 80


def test_notes_on_a_disk_that_refuses_say_so(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(IngestError, match="cannot be used: .* or set GLIMPSE_HOME"):
        IngestHistory(tmp_path / "file" / "notes.sqlite", index="one")


def test_two_runs_that_meet_the_same_content_at_once_leave_one_document_with_both_paths(
    ingest, pictures, index, tmp_path, monkeypatch
):
    draw(pictures, 1, 2)
    ingest(pictures)
    other = tmp_path / "other"
    for name, source in (("a.png", "1.png"), ("b.png", "1.png"), ("c.png", "2.png")):
        (other / name).parent.mkdir(exist_ok=True)
        shutil.copy(pictures / source, other / name)
    with monkeypatch.context() as patch:  # the other run has asked before the first one wrote
        patch.setattr(ImageIndex, "known", lambda _self, _ids: {})
        answer = ingest(other)
    assert some(answer, "indexed", "skipped", "paths_added", "failed") == (0, 3, 3, 0)
    assert paths(index) == [["1.png", "a.png", "b.png"], ["2.png", "c.png"]]


def test_what_an_ingest_remembers_is_for_its_owner_alone(ingest, pictures, home):
    home.mkdir(mode=0o755)
    (home / "ingested.sqlite").touch(mode=0o644)
    save_picture(pictures / "good.png", 1)
    (pictures / "bad.png").write_text("no picture")
    assert ingest(pictures)["failed"] == 1
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in (home, *home.glob("*.*"))}
    assert modes == {"home": "0o700", "ingested.sqlite": "0o600", "failed.jsonl": "0o600"}
