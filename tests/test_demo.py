"""The demo's gallery and its command."""

import json

import pytest
from click.testing import CliRunner
from PIL import Image

import glimpse
from demo.gallery import draw_gallery
from storage.store import default_store


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    gallery = tmp_path_factory.mktemp("gallery")
    assert draw_gallery(gallery, 12) == 12
    return gallery


def test_a_second_drawing_draws_nothing(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.jpg")}
    assert draw_gallery(folder, 12) == 0
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.jpg")} == before


def test_what_is_missing_is_drawn_again_the_same(folder):
    first = sorted(folder.rglob("*.jpg"))[0]
    content = first.read_bytes()
    first.unlink()
    assert draw_gallery(folder, 12) == 1
    assert first.read_bytes() == content


def test_pictures_carry_a_date_a_place_and_a_camera_but_no_words(folder):
    for path in folder.rglob("*.jpg"):
        with Image.open(path) as image:
            exif = image.getexif()
        assert image.size == (512, 512)
        assert 0x010E not in exif, "ImageDescription: what the demo says of its pictures, its captioner says"
        assert exif[0x0110], "Model"
        assert exif.get_ifd(0x8769)[0x9003], "DateTimeOriginal"
        assert exif.get_ifd(0x8825)[2], "GPSLatitude"


def test_the_demo_fills_an_index_and_a_second_run_adds_nothing(node, index_name, tmp_path, monkeypatch):
    monkeypatch.setenv("ELASTICSEARCH_URL", node.url)
    monkeypatch.setenv("ELASTICSEARCH_API_KEY", node.key)
    monkeypatch.setenv("GLIMPSE_HOME", str(tmp_path))
    monkeypatch.setenv("GLIMPSE_INDEX", f"{index_name}-of-photographs")
    monkeypatch.setenv("GLIMPSE_PROFILE", "clip")
    runner = CliRunner()
    demo = ["demo", "--pictures", "8", "--no-serve", "--index", index_name]
    first = runner.invoke(glimpse.main, demo, catch_exceptions=False)
    assert "8 drawn, 0 were there" in first.stderr
    assert "8 indexed" in first.stdout
    second = runner.invoke(glimpse.main, demo, catch_exceptions=False)
    assert "0 drawn, 8 were there" in second.stderr
    assert "0 indexed" in second.stdout
    status = runner.invoke(glimpse.main, ["status", "--json", "--index", index_name])
    assert json.loads(status.stdout)["images"] == 8
    assert json.loads(runner.invoke(glimpse.main, ["status", "--json"]).stdout)["images"] == 0


def test_the_demo_has_an_index_a_store_and_a_page_of_its_own(tmp_path):
    defaults = {each.name: each.default for each in glimpse.main.get_command(None, "demo").params}
    others = {each.name: each.default for each in glimpse.main.get_command(None, "serve").params}
    assert (defaults["index"], others["alias"]) == ("demo", "images")
    assert defaults["port"] != others["port"]
    assert default_store(tmp_path, "demo") != default_store(tmp_path, "images")
