"""Whole pictures are kept in the store on request, and sent from a folder and a bucket alike."""

from __future__ import annotations

import hashlib
import io
import json
import os
import sqlite3
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from click.testing import CliRunner
from film_files import save_film
from flask.testing import FlaskClient
from gallery import Gallery
from picture_files import draw_picture, save_picture, truncate
from PIL import Image
from raw_files import save_dng

import glimpse
from es_config.index import ImageIndex
from ingest.errors import UnreadableImageError
from ingest.files.picture import FORMS, extension_of, keep_original, read_content, webp
from ingest.files.walk import Candidate, stamp_of
from ingest.history.ingested_files import HISTORY_FILE, IngestHistory
from ingest.originals import IngestedOriginals
from models.pixels import register_formats
from search_app.core.logs import AuditLog
from search_app.core.searcher import Searcher, SearchService
from search_app.core.users import Role, UserStore, secret_key
from search_app.settings import AppSettings
from search_app.web.app import create_app
from search_app.web.login import Login
from search_app.web.originals import SEALED
from storage.errors import StorageError
from storage.keys import ORIGINAL_TYPES, original_key, thumbnail_key
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
    assert sorted(asked) == sorted(ORIGINAL_TYPES)


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


@pytest.fixture
def ingested(gallery: Gallery, tmp_path) -> Ingested:
    """The gallery's boat as a file, in the notes of this machine, and its originals."""
    path = tmp_path / "pictures" / "named" / "boat.jpg"
    path.parent.mkdir(parents=True)
    path.write_bytes(gallery.files["boat"])
    os.utime(path, (1_000_000_000, 1_000_000_000))
    notes = tmp_path / "home" / HISTORY_FILE
    with closing(IngestHistory(notes, index=gallery.searcher.index.uuid())) as history:
        history.record_ok(Candidate(path, "named/boat.jpg", stamp_of(path)), gallery.ids["boat"])
    return Ingested(path, notes, IngestedOriginals(notes, lambda: gallery.searcher.index))


@dataclass(frozen=True)
class Ingested:
    """A file, the notes of it, and their opener."""

    path: Path
    notes: Path
    originals: IngestedOriginals


@pytest.fixture
def web(gallery: Gallery, ingested, tmp_path) -> FlaskClient:
    """A browser on this machine, and a server without a login."""
    return create_app(
        service=SearchService(gallery.searcher),
        storage=open_storage(str(tmp_path / "empty")),
        settings=AppSettings(),
        originals=ingested.originals,
    ).test_client()


def test_an_ingested_file_is_sent_from_where_it_lies(web, gallery, ingested):
    address, data = f"/api/v1/images/{gallery.ids['boat']}/original", gallery.files["boat"]
    with web.get(address) as answer:
        assert (answer.status_code, answer.content_type, answer.data) == (200, "image/jpeg", data)
        assert answer.headers["Content-Disposition"] == "inline; filename=boat.jpg"
        assert answer.headers["Content-Security-Policy"] == SEALED
        assert answer.headers["Cache-Control"] == "private, max-age=31536000"
    with web.get(f"{address}?download=1") as answer:
        assert answer.headers["Content-Disposition"] == "attachment; filename=boat.jpg"
    with web.head(address) as answer:
        assert (answer.content_length, answer.data) == (len(data), b"")
    with web.get(address, headers={"If-None-Match": f'"{gallery.ids["boat"]}"'}) as again:
        assert (again.status_code, again.data) == (304, b"")
    assert ingested.path.read_bytes() == data


@pytest.mark.parametrize(
    ("asked", "part"), [("0-9", slice(0, 10)), ("100-", slice(100, None)), ("-7", slice(-7, None))]
)
def test_a_part_of_a_file_can_be_asked_for(web, gallery, asked, part):
    data = gallery.files["boat"]
    with web.get(
        f"/api/v1/images/{gallery.ids['boat']}/original", headers={"Range": f"bytes={asked}"}
    ) as answer:
        assert (answer.status_code, answer.data) == (206, data[part])
        assert answer.headers["Content-Range"].endswith(f"/{len(data)}")


def test_a_part_behind_the_end_is_a_problem_that_says_how_long_the_file_is(web, gallery):
    answer = web.get(f"/api/v1/images/{gallery.ids['boat']}/original", headers={"Range": "bytes=9999999-"})
    assert (answer.status_code, answer.content_type) == (416, "application/problem+json")
    assert answer.headers["Content-Range"] == f"bytes */{len(gallery.files['boat'])}"


@pytest.mark.parametrize(
    "replaced", ["same stamp", "a link", "a pipe", "a folder", "gone", "unreadable notes"]
)
def test_only_the_content_that_was_ingested_is_opened(web, gallery, ingested, replaced):
    tmp_path = ingested.notes.parent.parent
    path, old = ingested.path, gallery.files["boat"]
    with web.get(f"/api/v1/images/{gallery.ids['boat']}/original") as before:
        assert before.status_code == 200  # and its state is remembered
    path.unlink()
    if replaced == "same stamp":
        path.write_bytes(bytes(len(old)))
        os.utime(path, (1_000_000_000, 1_000_000_000))
    elif replaced == "a link":
        (tmp_path / "secret").write_bytes(b"key".ljust(len(old)))
        path.symlink_to(tmp_path / "secret")
    elif replaced == "a pipe":
        os.mkfifo(path)
    elif replaced == "a folder":
        path.mkdir()
    elif replaced == "unreadable notes":
        ingested.notes.write_text("This is no database, whatever its name says." * 100)
    for part in ("original", "rendering"):
        answer = web.get(f"/api/v1/images/{gallery.ids['boat']}/{part}")
        assert answer.status_code == (503 if replaced == "unreadable notes" else 404)
        assert str(tmp_path) not in answer.text
    assert web.get(f"/images/{gallery.ids['boat']}").status_code == 200


def test_a_link_that_ingest_followed_is_followed(web, gallery, ingested, tmp_path):
    ingested.path.rename(tmp_path / "elsewhere.jpg")
    ingested.path.symlink_to(tmp_path / "elsewhere.jpg")
    with web.get(f"/api/v1/images/{gallery.ids['boat']}/original") as answer:
        assert (answer.status_code, answer.data) == (200, gallery.files["boat"])


def test_notes_of_another_index_or_another_path_open_nothing(gallery, ingested):
    index = gallery.searcher.index
    (image_id, source) = gallery.ids["boat"], {"relative_path": ["named/boat.jpg"]}
    with ingested.originals.open(image_id, source).stream as stream:
        assert stream.read() == gallery.files["boat"]
    assert ingested.originals.open(image_id, {"relative_path": ["named/left.jpg"]}) is None
    assert ingested.originals.open(gallery.ids["car"], {"relative_path": ["named/boat.jpg"]}) is None
    with closing(sqlite3.connect(ingested.notes)) as base, base:
        base.execute("UPDATE files SET idx = 'another'")
    assert IngestedOriginals(ingested.notes, lambda: index).open(image_id, source) is None


def test_the_page_opens_the_file_and_shows_its_path_to_people_on_this_machine_alone(web, gallery, ingested):
    address = f"/images/{gallery.ids['boat']}"
    page = web.get(address).text
    assert f"/api/v1{address}/original" in page
    assert f'data-copy="{ingested.path}"' in page
    for more in (
        {"environ_base": {"REMOTE_ADDR": "10.1.2.3"}},
        {"headers": {"X-Forwarded-For": "10.1.2.3"}},
        {"base_url": "http://pictures.example"},
    ):
        page = web.get(address, **more).text
        assert f"/api/v1{address}/original" in page
        assert str(ingested.path.parent.parent) not in page


def test_the_json_of_a_picture_tells_its_original_and_who_may_know_its_files(web, gallery, ingested):
    address = f"/api/v1/images/{gallery.ids['boat']}"
    mine = web.get(address).json
    assert mine["original_url"] == f"{address}/original"
    with web.get(mine["original_url"]) as answer:
        assert answer.data == gallery.files["boat"]
    (file,) = mine["files"]
    assert Path(file["root"], file["path"]) == Path(file["absolute_path"]) == ingested.path
    assert (file["path"], file["root"]) == ("named/boat.jpg", str(ingested.path.parent.parent))
    theirs = web.get(address, headers={"X-Forwarded-For": "192.0.2.7"}).json
    assert theirs["original_url"] == mine["original_url"]
    assert "files" not in theirs
    assert str(ingested.path.parent) not in json.dumps(theirs)
    ingested.path.unlink()
    gone = web.get(address).json
    assert gone["original_url"] is None
    assert "files" not in gone


def test_where_people_sign_in_contributors_see_paths(gallery, ingested, tmp_path):
    users = UserStore(tmp_path / "users.json")
    for name, role in (("vic", Role.VIEWER), ("con", Role.CONTRIBUTOR)):
        users.add(name, role, "a long enough password")
    with closing(AuditLog(tmp_path / "audit.jsonl", warn=pytest.fail)) as audit:
        app = create_app(
            service=SearchService(gallery.searcher),
            storage=open_storage(str(tmp_path / "empty")),
            settings=AppSettings(),
            originals=ingested.originals,
            login=Login(users, audit, secret_key(tmp_path)),
        )
        assert app.test_client().get(f"/api/v1/images/{gallery.ids['boat']}/original").status_code == 401
        for name, sees in (("vic", False), ("con", True)):
            browser = app.test_client()
            browser.post("/sign-in", data={"name": name, "password": "a long enough password"})
            with browser.get(f"/api/v1/images/{gallery.ids['boat']}/original") as answer:
                assert answer.data == gallery.files["boat"]
            assert (str(ingested.path) in browser.get(f"/images/{gallery.ids['boat']}").text) == sees


def test_pictures_that_browsers_do_not_show_are_drawn_and_can_be_downloaded(
    client, gallery, index_name, node, tmp_path
):
    register_formats()
    folder, home = tmp_path / "pictures", tmp_path / "home"
    for name in ("a.heic", "b.tif"):
        save_picture(folder / name, len(name), size=(4000, 1000))
    save_dng(folder / "c.dng", draw_picture(9, size=(64, 48)), preview=draw_picture(9, size=(800, 600)))
    environment = {
        "ELASTICSEARCH_URL": node.url, "GLIMPSE_HOME": str(home), "GLIMPSE_STORE": str(tmp_path / "store"),
        "GLIMPSE_INDEX": index_name,
    }  # fmt: skip
    done = CliRunner(env=environment).invoke(glimpse.main, ["ingest", str(folder), "--captions", "off"])
    assert done.exit_code == 0, done.output
    index = ImageIndex(client, alias=index_name)
    searcher = Searcher(
        index=index,
        profile=gallery.searcher.profile,
        text_encoder=gallery.searcher.texts.encoder,
        image_encoder=gallery.searcher.image_encoder,
    )
    web = create_app(
        service=SearchService(searcher),
        storage=open_storage(str(tmp_path / "store")),
        settings=AppSettings(),
        originals=IngestedOriginals(home / HISTORY_FILE, lambda: index),
    ).test_client()
    for name, kind, size in (
        ("a.heic", "image/heic", (3840, 960)),
        ("b.tif", "image/tiff", (3840, 960)),
        ("c.dng", "application/octet-stream", (800, 600)),
    ):
        data = (folder / name).read_bytes()
        image_id = hashlib.sha256(data).hexdigest()
        address = f"/api/v1/images/{image_id}"
        page = web.get(f"/images/{image_id}").text
        assert f'href="{address}/rendering"' in page
        assert f'href="{address}/original?download=1"' in page
        with web.get(f"{address}/original") as answer:
            assert (answer.data, answer.content_type) == (data, kind)
            assert answer.headers["Content-Disposition"] == f"attachment; filename={name}"
        drawn = web.get(f"{address}/rendering")
        assert (drawn.status_code, drawn.content_type) == (200, "image/webp")
        assert Image.open(io.BytesIO(drawn.data)).size == size


class Shelf(BaseHTTPRequestHandler):
    """Serves a folder with tags, and parts of its files."""

    folder: ClassVar[Path]
    asked: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        Shelf.asked.append(f"{self.command} {self.headers.get('Range', '')}".strip())
        data = (Shelf.folder / self.path.lstrip("/")).read_bytes()
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        if with_body:
            with suppress(OSError):  # nobody reads a film to its end
                self.wfile.write(data[start:])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[str]:
    """A server of the web with a folder of its own."""
    Shelf.folder = tmp_path / "shelf"
    Shelf.folder.mkdir()
    Shelf.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Shelf) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_originals_of_buckets_archives_and_the_web_are_streamed(
    *, client, gallery, index_name, node, tmp_path, bucket, s3_client, shelf, monkeypatch
):
    monkeypatch.setattr("ingest.sources.source.READ_BYTES", 512)
    made, home = tmp_path / "made", tmp_path / "home"
    kinds = ("bucket", "far", "tar", "zip", "web")
    for seed, kind in enumerate(kinds):
        save_picture(made / kind / f"{kind}.png", seed + 1, size=(300, 200))
        save_film(made / kind / f"film-{kind}.mp4", [(draw_picture(seed + 20), 1)])
    files = {kind: sorted((made / kind).iterdir()) for kind in kinds}
    for file in files["bucket"]:
        s3_client.upload_file(str(file), bucket, f"all/{file.name}")
    for name, kind in (("far.tar", "far"), ("x.tar", "tar")):
        with tarfile.open(tmp_path / name, "w") as tar:
            for file in files[kind]:
                tar.add(file, file.name)
        os.utime(tmp_path / name, (1_600_000_000, 1_600_000_000))
    s3_client.upload_file(str(tmp_path / "far.tar"), bucket, "far.tar")
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files["zip"]:
            archive.write(file, file.name)
    os.utime(tmp_path / "x.zip", (1_600_000_000, 1_600_000_000))
    for file in files["web"]:
        (Shelf.folder / file.name).write_bytes(file.read_bytes())
    (tmp_path / "list.txt").write_text("".join(f"{shelf}/{file.name}\n" for file in files["web"]))
    environment = {
        "ELASTICSEARCH_URL": node.url, "GLIMPSE_HOME": str(home), "GLIMPSE_STORE": str(tmp_path / "store"),
        "GLIMPSE_INDEX": index_name,
    }  # fmt: skip
    places = [f"s3://{bucket}/all", f"s3://{bucket}/far.tar", f"@{tmp_path}/list.txt"]
    places += [str(tmp_path / name) for name in ("x.tar", "x.zip")]
    done = CliRunner(env=environment).invoke(
        glimpse.main, ["ingest", *places, "--captions", "off", "--films", "moments"]
    )
    assert done.exit_code == 0, done.output
    client.indices.refresh(index=index_name)
    hits = client.search(index=index_name, size=100)["hits"]["hits"]
    ids = {hit["_source"]["image_name"]: hit["_id"] for hit in hits}
    index = ImageIndex(client, alias=index_name)
    searcher = Searcher(
        index=index,
        profile=gallery.searcher.profile,
        text_encoder=gallery.searcher.texts.encoder,
        image_encoder=gallery.searcher.image_encoder,
    )
    web = create_app(
        service=SearchService(searcher),
        storage=open_storage(str(tmp_path / "store")),
        settings=AppSettings(),
        originals=IngestedOriginals(home / HISTORY_FILE, lambda: index),
    ).test_client()
    Shelf.asked.clear()
    for file in (file for kind in kinds for file in files[kind]):
        data, page = file.read_bytes(), web.get(f"/images/{ids[file.name]}").text
        address = f"/api/v1/images/{ids[file.name]}/original"
        assert f'href="{address}?download=1"' in page, file.name
        assert (f'src="{address}#t=' if file.suffix == ".mp4" else f'href="{address}"') in page, file.name
        with web.get(address) as answer:
            assert (answer.status_code, answer.data) == (200, data), file.name
            assert answer.headers["Content-Disposition"] == f"inline; filename={file.name}"
            assert answer.content_type == ("video/mp4" if file.suffix == ".mp4" else "image/png")
        for part in (slice(0, 10), slice(len(data) // 2, len(data) // 2 + 100), slice(len(data) - 7, None)):
            end = (part.stop or len(data)) - 1
            with web.get(address, headers={"Range": f"bytes={part.start}-{end}"}) as answer:
                assert (answer.status_code, answer.data) == (206, data[part]), file.name
        with web.head(address) as answer:
            assert (answer.content_length, answer.data) == (len(data), b"")
    assert any(each.startswith("GET bytes=") for each in Shelf.asked), "the web is asked for parts of a film"

    save_picture(made / "other.png", 90)
    (Shelf.folder / "web.png").write_bytes((made / "other.png").read_bytes())
    s3_client.upload_file(str(made / "other.png"), bucket, "all/bucket.png")
    s3_client.upload_file(str(made / "other.png"), bucket, "all/film-bucket.mp4")
    s3_client.delete_object(Bucket=bucket, Key="far.tar")
    (tmp_path / "x.zip").unlink()
    for name in ("web.png", "bucket.png", "film-bucket.mp4", "far.png", "film-zip.mp4"):
        assert web.get(f"/api/v1/images/{ids[name]}/original").status_code == 404, name
