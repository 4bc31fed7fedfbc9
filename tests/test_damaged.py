"""No file of a corrupted corpus ends a run, hangs it, or is counted twice."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from fuzz_reader import check, damaged, seeds
from hypothesis import given, settings
from picture_files import png_header, save_picture, unprivileged
from waiting import PATIENCE_S

from ingest.options import IngestOptions
from ingest.pipeline.run import ingest_paths
from ingest.report import IngestSummary
from ingest.wiring import Dependencies, EmptyIndex
from storage.store import FolderStorage

NO_MODEL = SimpleNamespace()
NO_INDICES = SimpleNamespace(indices=SimpleNamespace(exists=lambda index: False))  # noqa: ARG005
"""the client of a node that holds nothing, not even the pictures that were put away"""


def read_all(folder: Path, **options: object) -> IngestSummary:
    """Read a folder as ingest does, without an index. Fail when reading does not end."""
    result: list[IngestSummary] = []
    dependencies = Dependencies(
        EmptyIndex(NO_INDICES), NO_MODEL, NO_MODEL, FolderStorage(folder / "store"), NO_MODEL
    )
    given = IngestOptions(dry_run=True, threads=2, **options)
    run = threading.Thread(
        target=lambda: result.append(ingest_paths([folder], dependencies=dependencies, options=given)),
        daemon=True,
    )
    run.start()
    run.join(PATIENCE_S)
    assert result, "the run did not end"
    return result[0]


def assert_each_is_counted_once(summary: IngestSummary, expected: set[str], folder: Path) -> None:
    """Compare the failures with the files that cannot be used, each named once with a reason."""
    assert summary.indexed + summary.skipped + summary.failed == summary.files
    failed = [os.path.relpath(failure.path, folder) for failure in summary.failures]
    assert len(failed) == len(set(failed))
    assert set(failed) == expected
    assert all(failure.reason.isprintable() for failure in summary.failures)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(damaged())
def test_damaged_bytes_are_a_picture_or_a_reason_and_nothing_else(data):
    check(data)


@pytest.mark.parametrize(
    "name", ["plain.jpg", "moving.gif", "grey16.png", "inks.jpg", "plain.heic", "deep.png"]
)
def test_the_seeds_of_the_damage_are_good_pictures(name):
    assert check(seeds()[name]) is None


def test_a_corpus_of_cut_flipped_and_misnamed_files_is_counted_file_by_file(tmp_path):
    cut, files = set(), 0
    dice = random.Random(7)
    for name, data in seeds().items():
        stem, extension = name.split(".")
        for quarter in (1, 2, 3):
            path = tmp_path / f"{stem}-{quarter}.{extension}"
            path.write_bytes(data[: len(data) * quarter // 4])
            cut.add(path.name)
        for flips in (1, 4):
            flipped = bytearray(data)
            for place in dice.sample(range(len(data)), flips):
                flipped[place] ^= 1 << dice.randrange(8)
            (tmp_path / f"{stem}-flipped-{flips}.{extension}").write_bytes(flipped)
        (tmp_path / f"{stem}-misnamed-{extension}.{'png' if extension == 'jpg' else 'jpg'}").write_bytes(data)
        files += 6
    summary = read_all(tmp_path)
    assert summary.files == files
    failed = {Path(failure.path).name for failure in summary.failures}
    assert summary.indexed + summary.skipped + summary.failed == files
    assert len(failed) == summary.failed
    assert not {name for name in failed if "misnamed" in name}
    # Of an animation or of several pictures, three quarters may hold the first whole.
    assert {name for name in cut if not name.startswith(("moving", "several"))} <= failed


def test_strange_names_places_and_kinds_are_counted_once_each():
    with unprivileged() as folder:
        good = [
            os.fsdecode(b"caf\xe9 \xff.png"),
            "two\nlines.png",
            "\x1b[31m.png",
            "x" * 251 + ".png",
            "-rf.png",
            "ü.PNG",
        ]
        for number, name in enumerate(good):
            save_picture(folder / name, number, format="PNG")
        deep = folder.joinpath(*["deep"] * 100)
        save_picture(deep / "x.png", 100)
        os.mkfifo(folder / "pipe.png")
        (folder / "device.png").symlink_to("/dev/zero")
        (folder / "loop.png").symlink_to("loop.png")
        (folder / "nowhere.png").symlink_to("nothing")
        (folder / "empty.png").touch()
        (folder / "bomb.png").write_bytes(png_header(60_000, 60_000))
        save_picture(folder / "closed.png", 101).chmod(0)
        save_picture(folder / "shut" / "x.png", 102)
        (folder / "shut").chmod(0)
        with socket.socket(socket.AF_UNIX) as listener:
            with contextlib.chdir(folder):  # the whole path may be longer than the 107 bytes of an address
                listener.bind("s.png")
            summary = read_all(folder)
    bad = {"pipe.png", "device.png", "nowhere.png", "empty.png", "bomb.png", "closed.png", "s.png"}
    broken = {"shut", "loop.png"}  # a folder, and what may have been one: no files
    failed = [Path(failure.path).name for failure in summary.failures]
    assert sorted(failed) == sorted(bad | broken)
    assert (summary.files, summary.indexed) == (len(good) + 1 + len(bad), len(good) + 1)
