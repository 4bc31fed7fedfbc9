"""Files that are missing because a disk is away stay in the index, and deleted ones leave it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ingest.files.walk import Candidate, Stamp
from ingest.history.ingested_files import IngestHistory
from ingest.history.prune import prune_paths
from ingest.options import IngestOptions, PruneOptions
from ingest.report import PruneSummary

ROOT_DEVICE, STICK, RENUMBERED = 10, 20, 30


class Library:
    """Files on disk, with the notes of having ingested them, and devices that only this test knows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "big"
        self._base = folder / "notes" / "ingested.sqlite"
        self.mounted: dict[Path, int] = {}
        self.notes = self.open()

    def open(self) -> IngestHistory:
        return IngestHistory(self._base, index="a", device_of=self.device_of)

    def device_of(self, folder: str) -> int | None:
        path = Path(folder)
        if not path.exists():
            return None
        return next(
            (self.mounted[each] for each in (path, *path.parents) if each in self.mounted), ROOT_DEVICE
        )

    def holds(self, name: str, files: int) -> Path:
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(files):
            path = folder / f"{number:03}.png"
            path.touch()
            relative = path.relative_to(self.folder).as_posix()
            self.notes.record_ok(Candidate(path, relative, Stamp(0, 1)), f"content of {path}")
        self.notes.flush()
        return folder

    def unmount(self, folder: Path) -> None:
        """Leave an empty folder of the device below, as `umount` does."""
        shutil.rmtree(folder)
        folder.mkdir()
        del self.mounted[folder]

    def prune(self, *folders: Path, gone: list[Path] | None = None, **prune: object) -> PruneSummary:
        options = IngestOptions(dry_run=True, prune=PruneOptions(prune=True, **prune))
        where = list(folders or [self.folder])
        parts = {"index": None, "storage": None, "folders": where, "options": options, "gone": gone}
        return prune_paths(self.notes, **parts)


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    made = Library(tmp_path)
    yield made
    made.notes.close()


@pytest.fixture
def stick(library: Library) -> Path:
    """A stick of 40 pictures, mounted within a library of 300 others."""
    library.holds("a", 300)
    library.mounted[library.folder / "usb"] = STICK
    library.holds("usb/2020", 20)
    library.holds("usb", 20)
    return library.folder / "usb"


def watched(library: Library) -> list[Path]:
    return [library.folder / "usb" / "2020"]


@pytest.mark.parametrize("seen_by", ["run", "watch"])
@pytest.mark.parametrize("after", ["empty folder", "folder with other files", "no folder"])
def test_a_stick_that_is_unplugged_keeps_its_pictures(library, stick, after, seen_by):
    library.unmount(stick)
    if after == "folder with other files":
        (stick / "readme.txt").touch()
    elif after == "no folder":
        stick.rmdir()
    summary = library.prune(gone=watched(library) if seen_by == "watch" else None)
    assert summary.gone == ()
    assert summary.failed
    number = 20 if seen_by == "watch" else 40
    place = library.folder if after == "no folder" else stick
    assert summary.refused == (
        f"{number} missing files stay in the index: {place} is empty, or not on the disk that held them. If a"
        " disk is not mounted, mount it; if they are to leave the index, delete the empty folder or add"
        " --prune-anyway."
    )
    assert len(library.prune(anyway=True).gone) == 40


def test_what_was_deleted_from_a_stick_goes(library, stick):
    (stick / "003.png").unlink()
    (library.folder / "a" / "000.png").unlink()
    summary = library.prune()
    assert summary.refused is None
    assert summary.gone == (str(library.folder / "a" / "000.png"), str(stick / "003.png"))


def test_what_was_deleted_elsewhere_goes_while_a_stick_is_away(library, stick):
    library.unmount(stick)
    (library.folder / "a" / "000.png").unlink()
    summary = library.prune()
    assert summary.gone == (str(library.folder / "a" / "000.png"),)
    assert "40 missing files stay" in summary.refused


def test_a_stick_under_another_number_is_the_same_stick(library, stick):
    library.mounted[stick] = RENUMBERED
    shutil.rmtree(stick / "2020")
    (stick / "003.png").unlink()
    summary = library.prune()
    assert summary.refused == (
        f"Nothing was pruned below {stick}: 21 of 40 files are gone, more than a fifth. If a disk is not"
        " plugged in, plug it in; if they are to leave the index, add --prune-anyway."
    )
    library.mounted[stick] = RENUMBERED + 1
    (stick / "2020").mkdir()
    for number in range(20):
        (stick / "2020" / f"{number:03}.png").touch()
    assert library.prune().gone == (str(stick / "003.png"),)


def test_a_fifth_counts_for_each_folder_that_is_named(library):
    small, large = library.holds("small", 10), library.holds("large", 100)
    for number in range(3):
        (small / f"{number:03}.png").unlink()
    (large / "000.png").unlink()
    assert library.prune().refused is None, "4 of 110 below the folder that was named"
    summary = library.prune(small, large)
    assert summary.refused.startswith(f"Nothing was pruned below {small}: 3 of 10 files are gone")
    assert len(summary.gone) == 4, "a dry run shows what would go with --prune-anyway"


@pytest.mark.parametrize("empty", [Path.exists, Path.rmdir], ids=["left", "deleted"])
def test_a_folder_that_is_suddenly_empty_proves_nothing_and_one_that_is_deleted_does(
    library, empty: Callable[[Path], object]
):
    library.holds("a", 100)
    folder = library.holds("b/c", 5)
    for path in folder.iterdir():
        path.unlink()
    empty(folder)
    (folder.parent / ".keep").touch()
    summary = library.prune()
    if folder.exists():
        assert summary.refused.startswith(f"5 missing files stay in the index: {folder} is empty")
        assert summary.gone == ()
    else:
        assert summary.refused is None
        assert len(summary.gone) == 5


def test_a_folder_that_somebody_calls_moved_may_be_on_another_disk(library, stick):
    library.holds("a", 300)
    stick.rename(library.folder.parent / "old")
    (library.folder / "usb").mkdir()
    summary = library.prune(library.folder / "a", moved_from=(stick,))
    assert summary.refused.startswith(f"Nothing was pruned below {stick}: 40 of 40 files")


def test_devices_are_noted_for_files_that_an_earlier_version_knew(library, stick):
    library.notes._base.execute("DROP TABLE folders")
    library.notes.close()
    library.notes = library.open()
    files = [*(stick / "2020").iterdir(), *(stick.glob("*.png"))]
    candidates = [Candidate(path, path.relative_to(library.folder).as_posix(), Stamp(0, 1)) for path in files]
    assert all(library.notes.look_up(candidates))
    library.notes.close()
    library.notes = library.open()
    library.unmount(stick)
    (stick / "readme.txt").touch()
    assert "40 missing files stay" in library.prune().refused
