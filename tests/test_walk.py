"""Folders become candidates in a settled order, and no tree of links traps the walk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from picture_files import unprivileged

from es_config.documents import one_line
from ingest.files.walk import Candidate, Failure, valid_unicode, walk


def make(folder: Path, *names: str | bytes) -> None:
    """Make empty files below `folder`."""
    for name in names:
        path = folder / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def relative_paths(*paths: Path, **options: object) -> list[str]:
    return [found.relative_path for found in walk(paths, **options) if isinstance(found, Candidate)]


def failures(*paths: Path) -> list[Failure]:
    return [found for found in walk(paths) if isinstance(found, Failure)]


def test_pictures_come_in_the_order_of_their_names_files_before_folders(tmp_path):
    make(tmp_path, "b/2.png", "b/10.PNG", "a.jpg", "c.heic", "b/b/x.avif", "notes.txt", "a/y.webp")
    assert relative_paths(tmp_path) == ["a.jpg", "c.heic", "a/y.webp", "b/10.PNG", "b/2.png", "b/b/x.avif"]


def test_hidden_files_and_folders_are_passed_over_below_a_named_folder(tmp_path):
    make(tmp_path, ".hidden/.a.png", ".hidden/b.png", "seen.png")
    assert relative_paths(tmp_path) == ["seen.png"]
    assert relative_paths(tmp_path / ".hidden") == ["b.png"]
    assert relative_paths(tmp_path / ".hidden" / ".a.png") == [".a.png"]


def test_a_file_named_explicitly_is_a_candidate_whatever_its_extension(tmp_path):
    make(tmp_path, "scan.data")
    assert relative_paths(tmp_path) == []
    assert relative_paths(tmp_path / "scan.data") == ["scan.data"]
    assert relative_paths(tmp_path / "absent.png") == ["absent.png"]


def test_exclude_matches_a_name_or_a_whole_relative_path(tmp_path):
    make(tmp_path, "a.gif", "b.png", "trash/c.png", "keep/trash/d.png", "keep/e.png", "keep/old/f.png")
    assert relative_paths(tmp_path, exclude=["*.gif", "trash"]) == ["b.png", "keep/e.png", "keep/old/f.png"]
    assert relative_paths(tmp_path, exclude=["keep/*"]) == ["a.gif", "b.png", "trash/c.png"]
    assert relative_paths(tmp_path / "a.gif", exclude=["*.gif"]) == []


def test_overlapping_paths_give_each_file_of_a_folder_once(tmp_path):
    make(tmp_path, "a/1.png", "b/2.png")
    assert relative_paths(tmp_path, tmp_path / "a", tmp_path) == ["a/1.png", "b/2.png"]


def test_links_are_followed_and_real_folders_come_first(tmp_path):
    make(tmp_path, "tree/z/1.png", "elsewhere/2.png", "3.png")
    (tmp_path / "tree" / "a-link-to-z").symlink_to(tmp_path / "tree" / "z")
    (tmp_path / "tree" / "outside").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "tree" / "file.png").symlink_to(tmp_path / "3.png")
    assert relative_paths(tmp_path / "tree") == ["file.png", "z/1.png", "outside/2.png"]


def test_links_to_a_folder_above_end_the_walk_there_with_a_reason(tmp_path):
    make(tmp_path, "a/b/1.png")
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "self").symlink_to(tmp_path / "a" / "self")
    assert relative_paths(tmp_path) == ["a/b/1.png"]
    assert failures(tmp_path) == [
        Failure(str(tmp_path / "a/self"), "a symbolic link that leads back to itself"),
        Failure(str(tmp_path / "a/b/up"), "a symbolic link that leads back to itself"),
    ]


def test_folders_that_link_to_one_another_are_each_visited_once(tmp_path):
    names = [f"folder{number}" for number in range(8)]
    make(tmp_path, *(f"{name}/{name}.png" for name in names))
    for name in names:
        for other in set(names) - {name}:
            (tmp_path / name / f"to-{other}").symlink_to(tmp_path / other)
    assert relative_paths(tmp_path) == [f"{name}/{name}.png" for name in names]
    assert failures(tmp_path) == []


def test_an_unreadable_folder_is_reported_and_the_rest_is_walked():
    with unprivileged() as folder:
        make(folder, "a/1.png", "closed/2.png", "z/3.png")
        (folder / "closed").chmod(0)
        assert relative_paths(folder) == ["a/1.png", "z/3.png"]
        assert failures(folder) == [Failure(str(folder / "closed"), "permission denied")]
        assert failures(folder / "closed") == [Failure(str(folder / "closed"), "permission denied")]


def test_folders_two_hundred_deep_are_walked(tmp_path):
    deep = "/".join(["d"] * 200)
    make(tmp_path, f"{deep}/x.png")
    assert relative_paths(tmp_path) == [f"{deep}/x.png"]


def test_a_name_that_is_no_utf8_stays_readable_and_opens_the_file(tmp_path):
    make(tmp_path, b"caf\xe9.png", "café.png", "two\nlines.png")
    found = [candidate for candidate in walk([tmp_path]) if isinstance(candidate, Candidate)]
    assert [candidate.relative_path for candidate in found] == ["café.png", r"caf\xe9.png", "two\nlines.png"]
    assert all(candidate.path.exists() for candidate in found)


def test_a_walk_stops_at_the_limit(tmp_path):
    make(tmp_path, "1.png", "2.png", "3.png")
    assert len(list(walk([tmp_path]))) == 3
    assert len(list(walk([tmp_path], limit=2))) == 2
    assert len(list(walk([tmp_path], limit=0))) == 0


@pytest.mark.parametrize(
    ("name", "text"), [("plain é.png", "plain é.png"), ("\udcff\udc80", r"\xff\x80"), ("a\\b", "a\\b")]
)
def test_printable_names_are_valid_utf8(name, text):
    assert valid_unicode(name) == text
    valid_unicode(name).encode("utf-8")


def test_one_line_spells_out_what_a_terminal_would_obey():
    assert one_line("a\nb\x1b[31m\u202ec é") == r"a\nb\x1b[31m\u202ec é"
