"""Adding pictures by HTTP: findable with the answer, indexed as by ingest, bad files not kept."""

from __future__ import annotations

import hashlib
import io
import json
import socket
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from html import unescape
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from click.testing import CliRunner
from elasticsearch import Elasticsearch
from flask import Flask
from gallery import jpeg, pocket
from http_fronts import proxy, serving
from picture_files import draw_picture, png_header
from PIL import Image
from waiting import PATIENCE_S, used_up

import glimpse
from demo.world.scene import Group, Scene
from es_config.documents import IndexMeta, IndexOptions
from es_config.index import Captions, ImageIndex
from ingest.files.walk import safe_name
from ingest.options import IngestOptions
from ingest.pipeline.run import ingest_paths
from ingest.uploads import UploadIndexer
from ingest.wiring import Dependencies
from models.captioning import load_captioner
from models.encoders import Lazy, load_text_encoder
from models.errors import ModelError
from models.hub import ModelSource
from models.pixels import REQUESTS
from search_app.core.searcher import Searcher, SearchService
from search_app.settings import AppSettings
from search_app.web.app import ProblemApi, answer_expected, create_app
from search_app.web.http import AT_ONCE, MACHINE_PATHS, RequestQueue
from search_app.web.languages import add_languages
from search_app.web.uploads import Uploads, upload_blueprint
from storage.keys import thumbnail_key
from storage.store import open_storage

MAX_UPLOAD = 200_000
BOAT = Scene("sea", "sunset", (Group("boat", "red", 2),), None, 99)
CARS = Scene("city", "rain", (Group("car", "yellow", 1),), None, 98)
SCRIPT = "our boat <script>alert(1)</script><img src=x onerror=alert(2)>"
URL = "/api/v1/images"


@dataclass(frozen=True)
class Place:
    """An empty place to upload to: nothing is indexed, nothing is stored."""

    index: ImageIndex
    searcher: Searcher
    indexer: UploadIndexer
    folder: Path

    def app(self, **settings):
        """Return the application around it."""
        return create_app(
            service=SearchService(self.searcher),
            storage=open_storage(str(self.folder)),
            settings=AppSettings(max_upload=MAX_UPLOAD, **settings),
            indexer=lambda: self.indexer,
        )

    def files(self) -> list[str]:
        """Return the store's files, whole or not."""
        return sorted(
            path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file()
        )

    def is_empty(self) -> bool:
        """Whether nothing is kept, neither a file nor a document."""
        if self.files():
            return False
        if not self.index.exists():
            return True
        self.index.refresh()
        return self.index.count() == 0


@cache
def captioner():
    return load_captioner(pocket()[0].caption_model)


def indexer_of(index: ImageIndex, folder: Path, *, captions=None) -> UploadIndexer:
    profile, texts, images = pocket()
    return UploadIndexer(
        index=index,
        profile=profile,
        image_encoder=Lazy(lambda: images),
        caption_encoder=Lazy(lambda: texts),
        captioner=captions or Lazy(captioner),
        storage=open_storage(str(folder)),
    )


@pytest.fixture
def place(client, index_name, tmp_path) -> Place:
    index = ImageIndex(client, alias=index_name)
    profile, texts, images = pocket()
    searcher = Searcher(
        index=index, profile=profile, text_encoder=Lazy(lambda: texts), image_encoder=Lazy(lambda: images)
    )
    folder = tmp_path / "store"
    return Place(index, searcher, indexer_of(index, folder), folder)


@pytest.fixture
def web(place):
    return place.app().test_client()


@pytest.fixture
def address(place) -> Iterator[tuple[str, int]]:
    """The application under the production server, with two threads for the page."""
    with serving(place.app(), threads=2) as url:
        yield "127.0.0.1", urlsplit(url).port


def send(web, *files: tuple[bytes, str], url: str = URL, **options):
    """Post files, given as content and name."""
    return web.post(url, data={"image": [(io.BytesIO(data), name) for data, name in files]}, **options)


def added(response, status: int = 201) -> list[dict]:
    assert response.status_code == status, response.text
    return response.json["images"]


def refused(response, status: int = 400) -> str:
    """Return the sentence of a problem document."""
    assert response.status_code == status, response.text
    assert response.content_type == "application/problem+json"
    assert response.json["status"] == status
    return response.json["detail"]


def picture(form: str, *, seed: int = 1, **options) -> bytes:
    data = io.BytesIO()
    draw_picture(seed).save(data, form, **options)
    return data.getvalue()


def with_exif(text: str) -> bytes:
    exif = Image.Exif()
    exif[270], exif[271], exif[272] = text, "Maker", text
    return picture("JPEG", exif=exif)


def test_an_uploaded_picture_is_found_with_the_answer(web, place):
    (one,) = added(send(web, (jpeg(BOAT), "my boats.jpeg")))
    assert (one["name"], one["status"], one["path"]) == ("my boats.jpeg", 201, "uploads/my boats.jpg")
    assert one["caption"] == "two red boats at sea at sunset"
    assert one["caption_source"] == "model"
    hits = web.get("/api/v1/search?q=two+red+boats+on+the+sea").json["hits"]
    assert [hit["image_id"] for hit in hits] == [one["image_id"]]
    by_caption = web.get("/api/v1/search?q=red+boats&mode=caption").json["hits"]
    assert by_caption[0]["caption"] == one["caption"]
    thumbnail = web.get(one["thumbnail_url"])
    assert (thumbnail.status_code, thumbnail.content_type) == (200, "image/webp")
    shard = f"{one['image_id'][:2]}/{one['image_id'][2:4]}/{one['image_id']}"
    assert place.files() == [f"originals/{shard}.jpg", f"thumbnails/{shard}.webp"]


def test_a_picture_uploaded_is_indexed_as_one_ingested(web, place, client, tmp_path):
    exif = Image.Exif()
    exif[274], exif[306], exif[271] = 6, "2021:07:01 12:00:00", "Maker"
    data = picture("JPEG", exif=exif)
    (one,) = added(send(web, (data, "x.jpg")))
    (tmp_path / "x.jpg").write_bytes(data)
    other = ImageIndex(client, alias=f"{place.index.alias}-ingested")
    _, texts, images = pocket()
    other.create(place.index.meta(), IndexOptions())
    dependencies = Dependencies(
        other,
        Lazy(lambda: images),
        Lazy(lambda: texts),
        open_storage(str(tmp_path / "other")),
        Lazy(captioner),
    )
    summary = ingest_paths([tmp_path / "x.jpg"], dependencies=dependencies, options=IngestOptions())
    assert summary.indexed == 1
    mine, theirs = place.index.get(one["image_id"]), other.get(one["image_id"])
    for name in ("width", "height", "size_bytes", "phash", "exif"):
        assert mine[name] == theirs[name], name
    np.testing.assert_allclose(place.index.vector(one["image_id"]), other.vector(one["image_id"]), atol=1e-6)
    assert (mine["width"], mine["height"]) == (120, 160)
    assert place.index.meta().revisions.keys() >= {"image", "text", "caption_text"}


def test_the_words_in_the_file_itself_win_over_the_models(web):
    (one,) = added(send(web, (with_exif("our summer at the lake"), "x.jpg")))
    assert (one["caption"], one["caption_source"]) == ("our summer at the lake", "description")


def test_the_same_content_is_written_once(web, place, client):
    (first,) = added(send(web, (jpeg(BOAT), "a.jpg")))
    before = client.get(index=place.index.alias, id=first["image_id"])
    (again,) = added(send(web, (jpeg(BOAT), "b.jpg")), 200)
    assert {**again, "name": "a.jpg", "status": 201} == first
    after = client.get(index=place.index.alias, id=first["image_id"])
    assert (after["_seq_no"], after["_source"]) == (before["_seq_no"], before["_source"])
    assert len(place.files()) == 2


def test_several_files_get_a_result_each_in_their_order(web, place):
    files = [(jpeg(BOAT), "a.jpg"), (b"hello", "b.jpg"), (jpeg(BOAT), "c.jpg"), (jpeg(CARS), "d.jpg")]
    results = added(send(web, *files))
    assert [(one["name"], one["status"]) for one in results] == [
        ("a.jpg", 201), ("b.jpg", 400), ("c.jpg", 200), ("d.jpg", 201),
    ]  # fmt: skip
    assert results[1]["detail"] == "'b.jpg' was not added: not a picture in a known format."
    assert place.index.count() == 2
    assert len(place.files()) == 4


def test_when_all_are_refused_the_answer_is_a_problem_with_every_reason(web, place):
    response = send(web, (b"hello", "a.jpg"), (b"", "b.jpg"))
    assert refused(response).startswith("None of 2 files: 'a.jpg' was not added")
    assert [one["detail"] for one in response.json["images"]] == [
        "'a.jpg' was not added: not a picture in a known format.",
        "'b.jpg' was not added: the file is empty.",
    ]
    assert place.is_empty()


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("empty.jpg", b"", "the file is empty"),
        ("notes.jpg", b"hello, I am a text", "not a picture in a known format"),
        ("film.jpg", b"\0\0\0\x18ftypmp42" + bytes(64), "a film, and only pictures can be added here"),
        ("page.jpg", b"<!doctype html><script>alert(1)</script>", "not a picture in a known format"),
        ("drawing.svg", b'<svg xmlns="http://www.w3.org/2000/svg"/>', "not a picture in a known format"),
        ("cut.jpg", jpeg(BOAT)[:2000], "damaged or cut short"),
        ("header.png", b"\x89PNG\r\n\x1a\n", "damaged or cut short"),
        (
            "bomb.png",
            png_header(60_000, 60_000),
            "3600 megapixels are over the limit of 200; make it smaller",
        ),
        (
            "large.png",
            png_header(13_000, 13_000),
            "169 megapixels are over the limit of 157 for its format; make it smaller",
        ),
    ],
)
def test_what_is_no_picture_is_one_sentence_and_nothing_is_kept(web, place, name, data, sentence):
    assert sentence in refused(send(web, (data, name)))
    assert place.is_empty()
    assert not place.index.exists()
    assert web.get("/add").status_code == 200


def test_a_file_over_the_limit_is_refused_and_nothing_is_kept(web, place):
    sentence = refused(send(web, (b"\xff\xd8\xff" + b"x" * MAX_UPLOAD, "big.jpg")), 413)
    assert sentence == "'big.jpg' was not added. The picture is over the limit of 0.2 MB; use a smaller one."
    assert "10 pictures of at most 0.2 MB" in refused(send(web, (b"x" * (3 * 10**6), "huge.jpg")), 413)
    assert place.is_empty()


def test_a_request_needs_a_file_and_not_too_many(web, place):
    assert "multipart field `image`" in refused(web.post(URL))
    assert "one request adds 10" in refused(send(web, *[(b"x", f"{n}.jpg") for n in range(11)]))
    assert place.is_empty()


def gif() -> bytes:
    data = io.BytesIO()
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue", "lime")]
    frames[0].save(data, "GIF", save_all=True, append_images=frames[1:], duration=100)
    return data.getvalue()


def test_of_an_animation_the_first_frame_counts_and_the_whole_file_is_kept(web):
    data = gif()
    (one,) = added(send(web, (data, "moving.gif")))
    small = Image.open(io.BytesIO(web.get(one["thumbnail_url"]).data)).convert("RGB")
    red, green, blue = small.getpixel((32, 32))
    assert (red > 200, green < 60, blue < 60) == (True, True, True)
    assert web.get(f"{URL}/{one['image_id']}/original").data == data


@pytest.mark.parametrize(
    ("form", "name", "path", "kind"),
    [
        ("PNG", "really.jpg", "uploads/really.png", "image/png"),
        ("HEIF", "IMG_0001.HEIC", "uploads/IMG_0001.heic", "image/heic"),
        ("AVIF", "a.avif", "uploads/a.avif", "image/avif"),
        ("WEBP", "no extension", "uploads/no extension.webp", "image/webp"),
        ("TIFF", "../../etc/passwd", "uploads/passwd.tiff", "image/tiff"),
    ],
)
def test_the_content_says_what_a_file_is_and_the_original_comes_back_as_that(web, form, name, path, kind):
    import pillow_heif

    pillow_heif.register_heif_opener()
    data = picture(form)
    (one,) = added(send(web, (data, name)))
    assert one["path"] == path
    original = web.get(f"{URL}/{one['image_id']}/original")
    assert (original.data, original.content_type) == (data, kind)


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("photo.JPG", "photo.png"),
        ("C:\\photos\\été 1.jpeg", "été 1.png"),
        ("/etc/.hidden", "hidden.png"),
        ("a<b>\"c'|?*\n\u202egnp.jpg", "a_b__c'_____gnp.png"),
        ("archive.tar", "archive.tar.png"),
        ("...", "picture.png"),
        ("x" * 400 + ".jpg", "x" * 100 + ".png"),
        ("\udcff.jpg", "picture.png"),
    ],
)
def test_a_strangers_file_name_becomes_a_safe_one(name, safe):
    assert safe_name(name, "png") == safe


def test_a_script_in_the_file_is_never_more_than_words(web):
    (one,) = added(send(web, (with_exif(SCRIPT), f"{SCRIPT}.jpg")))
    assert one["caption"] == SCRIPT
    for url in (f"/images/{one['image_id']}", f"/?like={one['image_id']}", "/", "/?q=lake"):
        html = web.get(url).text
        assert SCRIPT in unescape(html)
        assert "<script>alert" not in html
        assert "<img src=x" not in html
    form = send(web, (with_exif(SCRIPT), f"{SCRIPT}.jpg"), url="/add")
    assert "<script>alert" not in form.text


def test_an_original_is_sent_as_a_picture_only(web):
    data = with_exif(SCRIPT)
    (one,) = added(send(web, (data, f"{SCRIPT}été.html")))
    original = web.get(f"{URL}/{one['image_id']}/original")
    assert (original.data, original.content_type) == (data, "image/jpeg")
    headers = original.headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Security-Policy"] == "default-src 'none'; sandbox; frame-ancestors 'none'"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["Content-Disposition"].startswith("inline; filename")
    assert ".html.jpg" in headers["Content-Disposition"]
    assert "immutable" in headers["Cache-Control"]
    again = web.get(f"{URL}/{one['image_id']}/original", headers={"If-None-Match": headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")


def test_the_page_of_a_picture_leads_to_its_original_where_there_is_one(web, gallery):
    (one,) = added(send(web, (jpeg(BOAT), "a.jpg")))
    url = f"{URL}/{one['image_id']}/original"
    assert f'href="{url}"' in web.get(f"/images/{one['image_id']}").text
    theirs = create_app(
        service=SearchService(gallery.searcher), storage=gallery.storage, settings=AppSettings()
    ).test_client()
    assert "/original" not in theirs.get(f"/images/{gallery.ids['boat']}").text
    assert "is not kept here" in refused(theirs.get(f"{URL}/{gallery.ids['boat']}/original"), 404)
    assert "no picture with the id" in refused(theirs.get(f"{URL}/nothing/original"), 404)


def test_without_its_captioner_a_picture_is_indexed_and_waits_for_its_caption(
    place, client, tmp_path, caplog
):
    broken = Lazy(lambda: load_captioner(ModelSource(str(tmp_path / "no model here"))))
    indexer = indexer_of(place.index, place.folder, captions=broken)
    addition = indexer.add("a.jpg", jpeg(BOAT))
    indexer.publish()
    assert (addition.is_new, addition.caption, addition.refused) == (True, None, None)
    assert addition.caption_error == ModelError.for_visitors
    assert "no model here" in caplog.text
    assert place.index.count() == 1
    assert Captions(client, index=place.index).count_missing(every=False) == 1


@pytest.mark.parametrize("role", ["image_encoder", "caption_encoder"])
def test_models_that_cannot_be_had_leave_no_empty_index_behind(place, tmp_path, role):
    """An empty index would bind the next ingest to the models that nobody has."""
    gone = replace(pocket()[0], text_model=ModelSource(str(tmp_path / "no model here")))
    broken = Lazy(lambda: load_text_encoder(gone))
    indexer = replace(place.indexer, **{role: broken})
    with pytest.raises(ModelError, match="no model here"):
        indexer.add("a.jpg", jpeg(BOAT))
    assert not place.index.exists()
    assert place.files() == []


def test_a_lost_thumbnail_comes_back_with_the_picture(web, place):
    (one,) = added(send(web, (jpeg(BOAT), "a.jpg")))
    (lost,) = place.folder.rglob("*.webp")
    lost.unlink()
    added(send(web, (jpeg(BOAT), "a.jpg")), 200)
    assert web.get(one["thumbnail_url"]).status_code == 200


def test_a_picture_that_another_machine_adds_at_the_same_moment_keeps_its_document(node, place, tmp_path):
    """It comes between the look into the index and the write, with a caption that a person wrote."""
    data = jpeg(BOAT)
    image_id = hashlib.sha256(data).hexdigest()
    add = indexer_of(place.index, tmp_path / "elsewhere").add
    _, texts, _ = pocket()

    def meanwhile(_method: str, path: str) -> None:
        if "_bulk" in path and place.index.get(image_id) is None:
            add("theirs.jpg", data)
            place.index.captions().write_human(image_id, "my own words", texts.embed_texts(["x"])[0])

    with proxy(node.url, meanwhile) as url, Elasticsearch(url) as slow:
        mine = indexer_of(ImageIndex(slow, alias=place.index.alias), place.folder)
        added = mine.add("mine.jpg", data)
    assert (added.is_new, added.refused, added.caption) == (False, None, "my own words")
    assert added.path == "uploads/theirs.jpg"
    assert place.index.get(image_id)["relative_path"] == ["uploads/theirs.jpg"]
    assert mine.storage.exists(thumbnail_key(image_id))


def test_when_the_index_cannot_be_written_nothing_is_kept(web, place, client):
    added(send(web, (jpeg(BOAT), "a.jpg")))
    before = place.files()
    client.indices.put_settings(index=place.index.alias, settings={"index.blocks.write": True})
    assert "'b.jpg' was not added." in refused(send(web, (jpeg(CARS), "b.jpg")), 503)
    assert place.files() == before
    client.indices.put_settings(index=place.index.alias, settings={"index.blocks.write": None})
    added(send(web, (jpeg(CARS), "b.jpg")))


def test_when_the_store_cannot_be_written_nothing_is_indexed(web, place, caplog):
    place.folder.write_text("a file where the folder should be")
    sentence = refused(send(web, (jpeg(BOAT), "a.jpg")), 503)
    assert sentence.startswith("'a.jpg' was not added. The files of the pictures cannot be reached")
    assert str(place.folder) not in sentence
    assert f"cannot be written in the store at {place.folder}" in caplog.text
    place.index.refresh()
    assert place.index.count() == 0


def test_an_index_of_other_weights_is_left_alone(web, place, caplog):
    profile = pocket()[0]
    meta = IndexMeta(profile.name, {"image": "other"}, profile.dims, profile.caption_dims, profile.similarity)
    place.index.create(meta, IndexOptions())
    assert "glimpse doctor" in refused(send(web, (jpeg(BOAT), "a.jpg")), 503)
    assert "other weights (image other" in caplog.text
    assert place.is_empty()


FOREIGN = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": "https://elsewhere.example"},
    {"Origin": "http://localhost:9999"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
    {"Sec-Fetch-Site": "none", "Origin": "https://elsewhere.example"},
    {"Sec-Fetch-Site": "none", "Origin": "chrome-extension://abcdefgh"},
    {"Sec-Fetch-Site": "none", "Origin": "null", "Sec-Fetch-Mode": "cors"},
]
OWN = [
    {},
    {"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"},
    {"Sec-Fetch-Site": "none"},
    {"Sec-Fetch-Site": "none", "Origin": "null", "Sec-Fetch-Mode": "navigate"},  # shared from a phone
    {"Sec-Fetch-Site": "none", "Origin": "http://localhost"},
    {"Origin": "https://LOCALHOST"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_another_sites_page_adds_nothing(web, place, headers):
    assert "page of Glimpse itself" in refused(send(web, (jpeg(BOAT), "a.jpg"), headers=headers), 403)
    page = send(web, (jpeg(BOAT), "a.jpg"), url="/add", headers=headers)
    assert (page.status_code, "page of Glimpse itself" in page.text) == (403, True)
    assert place.is_empty()


@pytest.mark.parametrize("headers", OWN, ids=str)
def test_our_own_page_and_programs_may_add(web, headers):
    added(send(web, (jpeg(BOAT), "a.jpg"), headers=headers))


def test_every_route_that_changes_something_is_guarded(place):
    app = place.app()
    searches = {
        "/api/v1/search",
        "/api/v1/transcribe",
        "/picture",
        "/api/v1/images/export",
        "/selection/export",
    }
    verbs = {"POST", "PUT", "PATCH", "DELETE"}
    changing = [rule for rule in app.url_map.iter_rules() if rule.methods & verbs]
    open_ones = {
        rule.rule for rule in changing if not getattr(app.view_functions[rule.endpoint], "writes", False)
    }
    assert open_ones <= searches | {"/language"}  # which is kept in the browser alone
    assert {"/api/v1/images", "/add"} <= {rule.rule for rule in changing} - open_ones


def test_a_read_only_server_only_searches(place):
    web = place.app(read_only=True).test_client()
    assert "started with --read-only" in refused(send(web, (jpeg(BOAT), "a.jpg")), 403)
    assert send(web, (jpeg(BOAT), "a.jpg"), url="/add").status_code == 403
    assert place.is_empty()
    for url in ("/", "/add"):
        assert "upload.js" not in web.get(url).text
    assert "cannot be added on this server" in web.get("/add").text


@pytest.mark.parametrize(
    ("options", "warning"),
    [
        ([], "can search, add, correct, hide and remove pictures without signing in. With --read-only"),
        (["--read-only"], "can search without signing in."),
    ],
)
def test_a_server_for_others_warns_of_what_they_can_do(node, options, warning):
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        serve = ["serve", "--host", "0.0.0.0", "--no-login", "--port", port, *options]
        result = CliRunner(env={"ELASTICSEARCH_URL": node.url}).invoke(glimpse.main, serve)
    assert f"everyone who can reach 0.0.0.0 {warning}" in result.stderr
    assert f"Port {port}" in result.stderr


def test_a_quota_ends_adding_and_nothing_else(place):
    web = place.app(max_added=2).test_client()
    added(send(web, (jpeg(BOAT), "boat.jpg"), (jpeg(CARS), "cars.jpg")))
    refused = send(web, (jpeg(Scene("sea", "night", (Group("fish", "blue", 1),), None, 97)), "fish.jpg"))
    assert refused.status_code == 403
    assert "at most 2 pictures" in refused.json["detail"]
    assert web.get("/api/v1/search?q=boat").json["total"] == 2


def test_without_an_indexer_adding_is_switched_off(place):
    app = create_app(
        service=SearchService(place.searcher), storage=open_storage(str(place.folder)), settings=AppSettings()
    )
    assert "switched off" in refused(send(app.test_client(), (jpeg(BOAT), "a.jpg")), 403)


def test_the_form_works_without_javascript(web):
    html = unescape(send(web, (jpeg(BOAT), "a.jpg"), (b"x", "b.jpg"), url="/add").text)
    assert "two red boats at sea at sunset" in html
    assert "'b.jpg' was not added: not a picture in a known format." in html
    assert "/?q=two+red+boats+at+sea+at+sunset" in html


def test_a_picture_without_room_is_refused_for_now_and_nothing_is_kept(web, place):
    with used_up(REQUESTS.budget):
        response = send(web, (picture("JPEG"), "boat.jpg"))
        assert "'boat.jpg' was not added. Too many pictures are being decoded" in refused(response, 503)
        assert int(response.headers["Retry-After"]) > 0
        page = send(web, (picture("JPEG"), "boat.jpg"), url="/add")
        assert "Too many pictures are being decoded" in page.text
    assert place.is_empty()
    added(send(web, (picture("JPEG"), "boat.jpg")))


def test_a_full_line_is_a_sentence_that_says_when_to_come_back(place):
    queue = RequestQueue(busy="Come back later.", retry_after_s=3, at_once=1, waiting=0)
    uploads = Uploads(indexer=lambda: place.indexer, max_upload=MAX_UPLOAD, queue=queue)
    app = Flask("search_app")
    app.config.update(READ_ONLY=False, API_TITLE="", API_VERSION="", OPENAPI_VERSION="3.0.3")
    routes = upload_blueprint(uploads=uploads)
    ProblemApi(app).register_blueprint(routes)
    answer_expected(app)
    add_languages(app, machine_paths=MACHINE_PATHS)
    with queue.turn():
        response = send(app.test_client(), (jpeg(BOAT), "a.jpg"))
    assert refused(response, 503) == "Come back later."
    assert response.headers["Retry-After"] == "3"
    added(send(app.test_client(), (jpeg(BOAT), "a.jpg")))


def form_of(data: bytes, name: str = "a.jpg") -> tuple[bytes, str]:
    """Return a multipart body with one file, and its content type."""
    head = f'--b\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n\r\n'
    return head.encode() + data + b"\r\n--b--\r\n", "multipart/form-data; boundary=b"


def post(address: tuple[str, int], data: bytes, name: str = "a.jpg") -> dict:
    body, kind = form_of(data, name)
    asked = urllib.request.Request(f"http://{address[0]}:{address[1]}{URL}", body, {"Content-Type": kind})
    with urllib.request.urlopen(asked, timeout=PATIENCE_S) as answer:
        return json.load(answer)


def get(address: tuple[str, int], path: str) -> dict:
    with urllib.request.urlopen(f"http://{address[0]}:{address[1]}{path}", timeout=PATIENCE_S) as answer:
        return json.load(answer)


def test_ten_uploads_at_once_are_all_added_and_the_page_stays_usable(address, place, monkeypatch):
    files = [jpeg(Scene("meadow", "sunny", (Group("cat", "black", 1),), None, n)) for n in range(10)]
    post(address, jpeg(BOAT))
    add, under_way, asked = place.indexer.add, threading.Semaphore(0), threading.Event()

    def held(*arguments, **options):
        under_way.release()
        assert asked.wait(PATIENCE_S)
        return add(*arguments, **options)

    monkeypatch.setattr(place.indexer, "add", held)
    with ThreadPoolExecutor(10) as pool:
        sent = [pool.submit(post, address, data) for data in files]
        try:
            assert all(under_way.acquire(timeout=PATIENCE_S) for _ in range(AT_ONCE))
            for _ in range(3):  # none of the ten has got its answer
                assert get(address, "/healthz") == {"status": "alive"}
                assert get(address, "/api/v1/search?q=a+boat")["hits"]
            assert not any(one.done() for one in sent)
        finally:
            asked.set()
        answers = [one.result() for one in sent]
    assert [one["status"] for answer in answers for one in answer["images"]] == [201] * 10
    assert place.index.count() == 11


def test_of_an_upload_that_stops_midway_nothing_is_kept(address, place):
    body, kind = form_of(jpeg(BOAT))
    head = f"POST {URL} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    for part in (head.encode(), head.encode() + body[: len(body) // 2]):
        with socket.create_connection(address) as connection:
            connection.sendall(part)
    assert get(address, "/healthz") == {"status": "alive"}
    assert place.is_empty()
    assert post(address, jpeg(BOAT))["images"][0]["status"] == 201


def everything(connection: socket.socket) -> bytes:
    """Return everything that a server sends until it closes. Head and body may come apart."""
    parts = []
    try:
        while part := connection.recv(4000):
            parts.append(part)
    except ConnectionResetError:  # it does not wait for the rest of what was being sent
        pass
    return b"".join(parts)


@pytest.mark.parametrize("framing", ["Content-Length: 900000000", "Transfer-Encoding: chunked"])
def test_a_request_over_the_limit_is_refused_while_it_is_being_sent(address, place, framing):
    kind = "Content-Type: multipart/form-data; boundary=b"
    head = f"POST {URL} HTTP/1.1\r\nHost: x\r\n{kind}\r\n{framing}\r\n\r\n"
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    with socket.create_connection(address, timeout=PATIENCE_S) as connection:
        connection.sendall(head.encode())
        if "chunked" in framing:
            for _ in range(200):  # 13 MB, where 11 MB are the most that any route takes
                try:
                    connection.sendall(chunk)
                except OSError:
                    break
        answer = everything(connection).decode()
    assert answer.startswith("HTTP/1.1 413 ")
    assert "application/problem+json" in answer
    assert "send fewer or smaller files" in answer
    assert place.is_empty()
