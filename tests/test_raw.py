"""RAW files are recognised by their names, and without `rawpy` the reason says how to get it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from picture_files import save_picture

from ingest.errors import UnreadableImageError
from ingest.pictures import read_image
from ingest.raw import is_raw
from ingest.walk import walk


def test_raw_files_are_known_by_their_names():
    assert all(is_raw(Path(name)) for name in ("a.CR2", "b.nef", "c.Dng"))
    assert not any(is_raw(path) for path in (None, Path("a.tif"), Path("cr2"), Path("a.jpg")))


def test_without_rawpy_each_raw_file_is_reported_with_the_way_to_read_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rawpy", None)  # as if it were not installed, wherever this runs
    save_picture(tmp_path / "small.tif", 1).rename(tmp_path / "x.CR2")  # a TIFF of its thumbnail, for Pillow
    (found,) = walk([tmp_path])
    with pytest.raises(UnreadableImageError) as caught:
        read_image(found.path, relative_path=found.relative_path)
    assert (
        str(caught.value)
        == "a RAW file: `pip install rawpy` to read it, or leave it out with --exclude '*.CR2'"
    )
