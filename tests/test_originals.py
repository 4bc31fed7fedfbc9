"""Whole pictures are kept in the store on request, and sent from a folder and a bucket alike."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest
from gallery import Gallery
from picture_files import draw_picture, save_picture, truncate
from PIL import Image

from ingest.errors import UnreadableImageError
from ingest.files.picture import FORMS, extension_of, keep_original, read_content, webp
from models.pixels import register_formats
from search_app.core.searcher import SearchService
from search_app.settings import AppSettings
from search_app.web.app import create_app
from storage.errors import StorageError
from storage.keys import original_key, thumbnail_key
from storage.store import Storage, find_original, open_storage

IMAGE_ID = "ab" + "cd" + "0" * 60


@pytest.fixture(params=["folder", "bucket"])
def store(request, tmp_path) -> Storage:
    if request.param == "folder":
        return open_storage(f"file:{tmp_path / 'store'}")
    return open_storage(f"s3://{request.getfixturevalue('bucket')}/prefix")


def keep(storage: Storage, path: Path, form: str) -> str | None:
    """Keep a file and return the extension under which the store has it."""
    content = read_content(path)
    keep_original(content, path=path, storage=storage, form=form)
    key = find_original(storage, content.image_id, names=[path.name])
    return key and key.rpartition(".")[2]


@pytest.mark.parametrize("name", ["a.jpg", "b.png", "c.webp", "d.gif", "e.bmp", "f.tif", "g.heic", "h.avif"])
def test_originals_are_kept_byte_for_byte_under_the_extension_of_their_content(tmp_path, name):
    register_formats()
    store, path = open_storage(str(tmp_path / "store")), save_picture(tmp_path / name, 1)
    extension = keep(store, path, "original")
    assert extension == {"tif": "tiff"}.get(name[2:], name[2:])
    data = path.read_bytes()
    assert store.get(original_key(hashlib.sha256(data).hexdigest(), extension)) == data
    path.rename(tmp_path / "wrong.gif")
    assert extension_of((tmp_path / "wrong.gif").read_bytes()) == extension


def test_a_webp_copy_is_upright_has_every_pixel_and_says_nothing_of_its_original(tmp_path):
    tags = Image.Exif()
    tags[274], tags[270] = 6, "my home address"
    draw_picture(2, size=(1600, 1200)).save(tmp_path / "x.jpg", exif=tags, quality=95)
    store = open_storage(str(tmp_path / "store"))
    assert keep(store, tmp_path / "x.jpg", "webp") == "webp"
    image_id = read_content(tmp_path / "x.jpg").image_id
    data = store.get(original_key(image_id, "webp"))
    assert Image.open(io.BytesIO(data)).size == (1200, 1600)
    assert b"my home address" not in data
    assert len(data) < (tmp_path / "x.jpg").stat().st_size / 2


def test_a_webp_copy_keeps_transparency_and_bounds_its_edges():
    clear = Image.new("RGBA", (40, 30), (255, 0, 0, 0))
    assert Image.open(io.BytesIO(webp(clear))).mode == "RGBA"
    assert Image.open(io.BytesIO(webp(Image.new("RGB", (20_000, 10))))).size[0] == 16383


def test_nothing_is_kept_unless_it_is_asked_for_and_nothing_twice(tmp_path, store):
    path = save_picture(tmp_path / "x.jpg", 3)
    image_id = read_content(path).image_id
    assert keep(store, path, "none") is None
    assert keep(store, path, "webp") == "webp"
    store.put(original_key(image_id, "webp"), b"as it was")
    keep(store, path, "webp")
    assert store.get(original_key(image_id, "webp")) == b"as it was"


def test_a_damaged_picture_is_not_kept(tmp_path):
    store = open_storage(str(tmp_path / "store"))
    with pytest.raises(UnreadableImageError, match="damaged or cut short"):
        keep(store, truncate(save_picture(tmp_path / "x.jpg", 3)), "webp")
    assert not (tmp_path / "store").exists()


def test_the_likely_extensions_are_asked_for_first():
    asked = []

    class Empty:
        def exists(self, key: str) -> bool:
            asked.append(key.rpartition(".")[2])
            return False

    assert find_original(Empty(), IMAGE_ID, names=["a.JPEG", "b.txt", "noextension"]) is None
    assert asked[:2] == ["jpg", "webp"]
    assert len(asked) == len(set(asked)) == 8


def test_the_forms_are_those_of_the_command():
    from ingest.commands.ingest import ingest

    (option,) = (each for each in ingest.params if each.name == "originals")
    assert tuple(option.type.choices) == FORMS


def test_the_page_sends_thumbnails_and_originals_from_any_store(store, gallery: Gallery):
    image_id, data = gallery.ids["boat"], gallery.files["boat"]
    store.put(thumbnail_key(image_id), b"RIFF....WEBP")
    web = create_app(
        service=SearchService(gallery.searcher), storage=store, settings=AppSettings()
    ).test_client()
    address = f"/api/v1/images/{image_id}"
    assert web.get(f"{address}/original").status_code == 404
    assert "/original" not in web.get(f"/images/{image_id}").text
    store.put(original_key(image_id, "jpg"), data)
    for part, kind, expected in (
        ("thumbnail", "image/webp", b"RIFF....WEBP"),
        ("original", "image/jpeg", data),
    ):
        answer = web.get(f"{address}/{part}")
        assert (answer.status_code, answer.content_type, answer.data) == (200, kind, expected)
        assert "private" in answer.headers["Cache-Control"]
        assert "max-age=31536000" in answer.headers["Cache-Control"]
        again = web.get(f"{address}/{part}", headers={"If-None-Match": answer.headers["ETag"]})
        assert (again.status_code, again.data) == (304, b"")
    assert f"{address}/original" in web.get(f"/images/{image_id}").text


def test_a_store_that_cannot_be_read_is_not_a_picture_that_is_not_there(bucket, gallery: Gallery, caplog):
    store = open_storage(f"s3://{bucket}-absent")
    web = create_app(
        service=SearchService(gallery.searcher), storage=store, settings=AppSettings()
    ).test_client()
    answer = web.get(f"/api/v1/images/{gallery.ids['boat']}/thumbnail")
    assert answer.status_code == 503
    assert bucket not in answer.json["detail"]
    assert f"in the store at s3://{bucket}-absent" in caplog.text
    assert "there is no such bucket" in caplog.text
    assert web.get(f"/images/{gallery.ids['boat']}").status_code == 200
    with pytest.raises(StorageError, match="there is no such bucket"):
        store.get("a")
