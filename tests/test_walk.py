"""Folders become candidates in a settled order, and no tree of links traps the walk."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
from picture_files import draw_picture, save_picture, unprivileged

from es_config.documents import one_line
from ingest.errors import IngestError
from ingest.files.walk import Candidate, Exclusions, Failure, PassedOver, admits, valid_unicode, walk
from models.pixels import register_formats


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


def test_exclude_takes_the_patterns_of_gitignore(tmp_path):
    make(tmp_path, "a.gif", "b.png", "trash/c.png", "keep/trash/d.png", "keep/e.png", "keep/old/f.png")
    assert relative_paths(
        tmp_path,
        exclude=Exclusions(
            (
                "*.gif",
                "trash",
            )
        ),
    ) == ["b.png", "keep/e.png", "keep/old/f.png"]
    assert relative_paths(tmp_path, exclude=Exclusions(("keep/*",))) == ["a.gif", "b.png", "trash/c.png"]
    assert relative_paths(tmp_path / "a.gif", exclude=Exclusions(("*.gif",))) == []


PATTERNS = ["trash", "trash/", "**/trash/**", "**/trash/", "/keep/trash\n/trash"]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_folder_can_be_left_out_in_every_way_that_people_write_it(tmp_path, pattern):
    make(tmp_path, "a.png", "trash/c.png", "keep/trash/d.png", "keep/e.png")
    assert relative_paths(tmp_path, exclude=Exclusions(tuple(pattern.split("\n")))) == ["a.png", "keep/e.png"]


def test_a_later_pattern_takes_in_again_and_unicode_forms_are_one(tmp_path):
    make(tmp_path, "a.gif", "b.gif", unicodedata.normalize("NFD", "Zürich/c.png"))
    exclude = Exclusions(("*.gif", "!b.gif", unicodedata.normalize("NFC", "Zürich")))
    assert relative_paths(tmp_path, exclude=exclude) == ["b.gif"]


def test_a_pattern_that_cannot_be_read_is_refused():
    with pytest.raises(IngestError, match="--exclude"):
        Exclusions(("!",))


JUNK = [
    "@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg",
    "#recycle/b.jpg",
    "2020/@Recycle/c.jpg",
    "$RECYCLE.BIN/d.jpg",
    "lost+found/e.jpg",
    "__MACOSX/f.jpg",
    "Catalog Previews.lrdata/g.jpg",
    "Photos.photoslibrary/resources/derivatives/h.jpg",
    ".thumbnails/i.jpg",
]


KEPT = ["a.jpg", "Photos.photoslibrary/originals/0/x.jpg"]


def test_what_other_programs_leave_behind_is_left_out_and_counted(tmp_path):
    make(tmp_path, *KEPT, *JUNK)
    passed_over = PassedOver()
    assert relative_paths(tmp_path, passed_over=passed_over) == KEPT
    assert passed_over.rules["@eaDir/"] == 1
    everything = relative_paths(tmp_path, exclude=Exclusions(defaults=False))
    assert sorted(everything) == sorted([*KEPT, *JUNK])


def test_marks_of_people_are_respected_below_a_named_folder(tmp_path):
    make(
        tmp_path,
        "ok/ok.jpg",
        "a/.nomedia",
        "a/a.jpg",
        "a/below/a.jpg",
        "b/b.jpg",
        "c/c.jpg",
        "c/d/c.jpg",
        "e/e.jpg",
    )
    (tmp_path / "b" / ".ignore").write_text("")
    (tmp_path / "c" / ".glimpseignore").write_text("# mine\n/c.jpg\n")
    (tmp_path / "e" / ".ppignore").write_text("*\n")
    passed_over = PassedOver()
    assert relative_paths(tmp_path, passed_over=passed_over) == ["c/d/c.jpg", "ok/ok.jpg"]
    assert passed_over.rules[".nomedia"] == 1
    assert relative_paths(tmp_path / "a") == ["a.jpg", "below/a.jpg"]
    assert relative_paths(tmp_path / "c") == ["d/c.jpg"]


def test_content_tells_a_picture_where_the_extension_does_not(tmp_path):
    for name in ("IMG_0001", "tweet.jpg_large", "photo.jpg.bak"):
        draw_picture(1).save(tmp_path / name, "JPEG")
    make(tmp_path, "empty", "x.jpg_orig", "film.avi", "more.avi", "model.blend")
    os.mkfifo(tmp_path / "pipe.fifo")
    (tmp_path / "dangling.lock").symlink_to(tmp_path / "nowhere")
    passed_over = PassedOver()
    found = relative_paths(tmp_path, passed_over=passed_over)
    assert found == ["IMG_0001", "photo.jpg.bak", "tweet.jpg_large"]
    others = {".jpg_orig", ".blend", ".fifo", ".lock", "no extension"}
    assert passed_over.kinds == dict.fromkeys(others, 1) | {".avi": 2}


@pytest.mark.parametrize("extension", ["png", "webp", "gif", "bmp", "tiff", "heic", "avif"])
def test_the_content_of_every_format_is_known(tmp_path, extension):
    register_formats()
    save_picture(tmp_path / f"x.{extension}", 1).rename(tmp_path / "x.unknown")
    assert relative_paths(tmp_path) == ["x.unknown"]


def test_a_path_is_admitted_exactly_when_a_walk_finds_it(tmp_path):
    make(tmp_path, "a.jpg", "a/.nomedia", "a/x.jpg", "b/c/x.jpg", "b/c/y.jpg", "b/.hidden/x.jpg", *JUNK)
    (tmp_path / "b" / ".glimpseignore").write_text("/c/y.jpg\n")
    found, rules = set(relative_paths(tmp_path)), {}
    files = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.jpg")]
    assert len(files) == 15
    for each in files:
        assert admits(tmp_path, each, exclude=Exclusions(), rules=rules) == (each in found), each


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
