"""RAW files show the camera's preview. Without `rawpy` the reason says how to get it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from picture_files import save_picture
from PIL import Image
from raw_files import save_dng

from ingest.errors import UnreadableImageError
from ingest.files.picture import is_raw, read_image
from ingest.files.walk import walk


def test_raw_files_are_known_by_their_names():
    assert all(is_raw(Path(name), b"II*\0") for name in ("a.CR2", "b.nef", "c.Dng"))
    assert is_raw(Path("a.raf"), b"FUJIFILM")
    assert not any(is_raw(path, b"II*\0") for path in (None, Path("a.tif"), Path("cr2"), Path("a.jpg")))


def test_a_jpeg_that_is_called_raw_is_read_as_a_jpeg(tmp_path):
    save_picture(tmp_path / "x.jpg", 1).rename(tmp_path / "x.nef")
    assert read_image(tmp_path / "x.nef").format == "JPEG"


def test_without_rawpy_each_raw_file_is_reported_with_the_way_to_read_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rawpy", None)  # as if it were not installed, wherever this runs
    save_picture(tmp_path / "small.tif", 1).rename(tmp_path / "x.CR2")  # a TIFF of its thumbnail, for Pillow
    (found,) = walk([tmp_path])
    with pytest.raises(UnreadableImageError) as caught:
        read_image(found.path)
    assert (
        str(caught.value)
        == "a RAW file: `pip install rawpy` to read it, or leave it out with --exclude '*.CR2'"
    )


@pytest.fixture
def scene() -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", (640, 480), (200, 40, 30))
    image.paste((20, 60, 220), (320, 0, 640, 480))
    return image


def test_the_preview_is_shown_upright_with_the_size_of_the_whole_picture(tmp_path, scene):
    path = save_dng(tmp_path / "a.dng", scene, preview=scene, orientation=6)
    found = read_image(path)
    assert (found.width, found.height) == found.image.size == (480, 640)
    top, bottom = found.image.getpixel((240, 10)), found.image.getpixel((240, 630))
    assert top[0] > 3 * top[2]
    assert bottom[2] > 3 * bottom[0]
    assert (found.exif.camera, found.exif.date) == ("Glimpse Drawn", None)


def test_where_the_preview_is_tiny_the_sensors_pixels_are_shown(tmp_path, scene):
    path = save_dng(tmp_path / "a.dng", scene)
    found = read_image(path)
    assert found.image.size == (320, 240)
    assert (found.width, found.height, found.format) == (640, 480, "RAW")
    left, right = found.image.getpixel((10, 120)), found.image.getpixel((310, 120))
    assert left[0] > left[2]
    assert right[2] > right[0]


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_raw_file_that_is_cut_short_is_reported(tmp_path, scene, quarters):
    path = save_dng(tmp_path / "a.dng", scene, preview=scene)
    path.write_bytes(path.read_bytes()[: quarters * path.stat().st_size // 4])
    with pytest.raises(UnreadableImageError, match="damaged"):  # the tags are at the end of this file
        read_image(path)
