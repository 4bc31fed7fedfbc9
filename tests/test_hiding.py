"""Putting pictures away by hand, by REST and by page, and how ingest and uploads take it."""

from __future__ import annotations

import csv
import io
import json
import os
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from flask import Flask
from flask.testing import FlaskClient
from gallery import pocket
from http_fronts import serving
from picture_files import save_picture
from waiting import PATIENCE_S

from es_config.hidden import UNDO, Away, HiddenPictures
from es_config.index import ImageIndex
from glimpse import main
from ingest.hiding import Remover, open_remover
from ingest.history.ingested_files import HISTORY_FILE
from ingest.originals import IngestedOriginals
from ingest.uploads import HIDDEN, LEAVING, UploadIndexer
from ingest.wiring import IngestSettings
from models.captioning import load_captioner
from models.encoders import Lazy
from search_app.core.hiding import HiddenIds
from search_app.core.logs import AuditLog, audit_path
from search_app.core.searcher import Searcher, SearchService
from search_app.core.users import Role, UserStore, secret_key, users_path
from search_app.settings import AppSettings
from search_app.web.app import create_app
from search_app.web.login import Login
from storage.keys import original_key, thumbnail_key

PASSWORD = "a long enough password"
NAMES = ("a.jpg", "b.jpg", "trip/a.jpg", "=c.jpg")
API = "/api/v1/images"


@dataclass(frozen=True)
class Library:
    """Four pictures that a command ingested, with the server around them."""

    environ: dict[str, str]
    folder: Path
    index: ImageIndex
    remover: Remover
    indexer: UploadIndexer
    searcher: Searcher
    hidden_ids: HiddenIds

    @property
    def hidden(self) -> HiddenPictures:
        return self.remover.hidden

    def run(self, *words: object, code: int = 0) -> str:
        """Type a command and return its output."""
        done = CliRunner().invoke(main, [*map(str, words)], env=self.environ)
        assert done.exit_code == code, done.output
        return done.stdout

    def ingest(self, *words: object) -> dict:
        return json.loads(self.run("ingest", self.folder, "--captions", "off", "--json", *words))

    def app(self, **more) -> Flask:
        settings = {name: more.pop(name) for name in list(more) if name in AppSettings.__dataclass_fields__}
        return create_app(
            service=SearchService(self.searcher),
            storage=self.remover.storage,
            settings=AppSettings(**settings),
            indexer=lambda: self.indexer,
            originals=IngestedOriginals(
                Path(self.environ["GLIMPSE_HOME"]) / HISTORY_FILE, lambda: self.searcher.index
            ),
            remover=lambda: self.remover,
            hidden_ids=more.pop("hidden_ids", self.hidden_ids),
            **more,
        )

    def ids(self) -> dict[str, str]:
        """Return the ids of pictures that searches find, by path."""
        body = {"query": {"match_all": {}}, "size": 50, "_source": ["relative_path"]}
        return {hit.source["relative_path"][0]: hit.image_id for hit in self.index.search(body).hits}


@pytest.fixture
def library(client, node, index_name, tmp_path) -> Library:
    folder = tmp_path / "pictures"
    (folder / "trip").mkdir(parents=True)
    for number, name in enumerate(NAMES):
        save_picture(folder / name, number)
    environ = {
        "GLIMPSE_HOME": str(tmp_path / "home"),
        "GLIMPSE_INDEX": index_name,
        "ELASTICSEARCH_URL": node.url,
        "ELASTICSEARCH_API_KEY": node.key,
        "GLIMPSE_PRECISION": "fp32",
    }
    index = ImageIndex(client, alias=index_name)
    profile, texts, images = pocket()
    done = CliRunner().invoke(main, ["ingest", str(folder), "--captions", "off"], env=environ)
    assert done.exit_code == 0, done.output
    remover = open_remover(IngestSettings(alias=index_name), {**os.environ, **environ}, index=index)
    indexer = UploadIndexer(
        index=index,
        profile=profile,
        image_encoder=Lazy(lambda: images),
        caption_encoder=Lazy(lambda: texts),
        captioner=Lazy(lambda: load_captioner(profile.caption_model)),
        storage=remover.storage,
    )
    searcher = Searcher(
        index=index, profile=profile, text_encoder=Lazy(lambda: texts), image_encoder=Lazy(lambda: images)
    )
    hidden_ids = HiddenIds(lambda: remover.hidden)
    hidden_ids.refresh()
    return Library(environ, folder, index, remover, indexer, searcher, hidden_ids)


def test_what_was_hidden_stays_hidden_and_comes_back_with_all_that_was_known(library):
    ids = library.ids()
    assert set(ids) == set(NAMES)
    one = ids["a.jpg"]
    vector = library.index.vector(one)
    web = library.app().test_client()
    assert web.put(f"{API}/{one}/caption", json={"caption": "our first boat"}).status_code == 200
    web.put(f"{API}/{one}/keywords", json={"keywords": [" Sea ", "sea", "holiday 2019", ""]})
    assert web.get(f"{API}/{one}").json["tags"] == ["sea", "holiday 2019"]
    library.run("remove", library.folder / "a.jpg")
    assert set(library.ids()) == set(NAMES) - {"a.jpg"}
    assert "hidden" in library.run("hidden")
    again = library.ingest()
    assert (again["indexed"], again["skipped"]) == (0, 4)
    # Also on a machine that has no notes, and when the file has moved.
    (Path(library.environ["GLIMPSE_HOME"]) / HISTORY_FILE).unlink()
    assert library.ingest()["indexed"] == 0
    (library.folder / "a.jpg").rename(library.folder / "moved.jpg")
    assert library.ingest("--prune")["indexed"] == 0
    assert set(library.ids()) == set(NAMES) - {"a.jpg"}
    assert library.hidden.known([one]) == {one: ("moved.jpg",)}
    assert library.remover.storage.exists(thumbnail_key(one))
    assert json.loads(library.run("status", "--json"))["hidden"] == 1
    library.run("restore", library.folder / "moved.jpg")
    assert library.index.vector(one).tolist() == vector.tolist()
    back = library.index.get(one)
    assert (back["caption"], back["caption_source"], back["tags"]) == (
        "our first boat",
        "human",
        ["sea", "holiday 2019"],
    )
    assert library.ingest()["indexed"] == 0
    assert library.index.get(one)["tags"] == ["sea", "holiday 2019"]


def test_a_file_that_is_gone_leaves_what_was_hidden_too(library):
    one = library.ids()["a.jpg"]
    library.run("remove", one)
    (library.folder / "a.jpg").unlink()
    library.ingest("--prune", "--prune-anyway")
    assert library.hidden.known([one]) == {}
    assert not library.remover.storage.exists(thumbnail_key(one))


def test_words_that_name_nothing_are_refused_and_folders_name_all_in_them(library):
    assert "no picture 'nothing.jpg'" in refusal(library, "remove", "nothing.jpg")
    assert "no picture" in refusal(library, "restore", "0" * 64)
    assert library.run("remove", library.folder / "trip", "b.jpg").strip() == "2 pictures hidden"
    rows = [line.split("\t") for line in library.run("hidden").splitlines()]
    assert {row[3] for row in rows} == {"trip/a.jpg", "b.jpg"}
    listed = json.loads(library.run("hidden", "--json"))["pictures"]
    assert [(each["image_id"], each["state"]) for each in listed] == [(row[0], "hidden") for row in rows]
    assert library.run("restore", *[row[0] for row in rows]).strip() == "2 pictures restored"


def refusal(library: Library, *words: object) -> str:
    done = CliRunner().invoke(main, [*map(str, words)], env=library.environ)
    assert done.exit_code == 1
    return done.output


def upload(web: FlaskClient, path: Path) -> dict:
    with path.open("rb") as file:
        answer = web.post(API, data={"image": [(file, path.name)]})
    return answer.json["images"][0]


def test_an_upload_is_removed_with_a_moment_of_undo_and_then_for_good(library, tmp_path):
    web, file = library.app().test_client(), save_picture(tmp_path / "new.png", 77)
    one = upload(web, file)["image_id"]
    kept = [thumbnail_key(one), original_key(one, "png")]
    gone = web.delete(f"{API}/{one}")
    assert (gone.status_code, gone.json["state"]) == (200, "removed")
    until = datetime.fromisoformat(gone.json["until"])
    assert timedelta() < until - datetime.now(UTC) <= UNDO
    assert web.get(f"{API}/{one}").status_code == 404
    assert web.post(f"{API}/{one}/restore").json["image_id"] == one
    web.delete(f"{API}/{one}")
    again = upload(web, file)  # whoever adds it again wants it back
    assert (again["status"], again["image_id"]) == (200, one)
    web.delete(f"{API}/{one}")
    library.remover.tidy()
    assert all(map(library.remover.storage.exists, kept))  # its time is not over
    assert web.delete(f"{API}/{one}?now=true").json == {"image_id": one, "state": "deleted"}
    assert not any(map(library.remover.storage.exists, kept))
    assert web.post(f"{API}/{one}/restore").status_code == 404
    assert upload(web, file)["status"] == 201
    # A deletion that was killed is completed, and nobody adds the picture meanwhile.
    web.delete(f"{API}/{one}")
    library.hidden.claim([one])
    refused = upload(web, file)
    assert (refused["status"], LEAVING in refused["detail"]) == (400, True)
    library.remover.tidy()
    assert not any(map(library.remover.storage.exists, kept))
    assert upload(web, file)["status"] == 201


def test_what_was_hidden_cannot_be_added_again(library):
    web = library.app().test_client()
    one = library.ids()["b.jpg"]
    assert web.delete(f"{API}/{one}").json == {"image_id": one, "state": "hidden"}
    assert HIDDEN in upload(web, library.folder / "b.jpg")["detail"]
    # An upload that a folder holds too would come back with its next ingest, and so it is hidden.
    other = library.ids()["a.jpg"]
    assert upload(web, library.folder / "a.jpg")["status"] == 200
    assert web.delete(f"{API}/{other}?now=true").json["state"] == "hidden"
    assert library.hidden.get(other).state is Away.HIDDEN


def test_what_is_put_away_while_the_models_are_changed_stays_away_and_is_embedded_anew(library, tiny_pair):
    ids = library.ids()
    library.run("remove", "a.jpg")
    library.run(
        "reindex", "--profile", "pocket", "--model-dir", tiny_pair, "--precision", "fp32", "--no-switch"
    )
    library.run("remove", "b.jpg")
    done = library.run(
        "reindex", "--profile", "pocket", "--model-dir", tiny_pair, "--precision", "fp32", "--json"
    )
    assert json.loads(done)["images"] == 2
    assert set(library.ids()) == set(NAMES) - {"a.jpg", "b.jpg"}
    away = CliRunner().invoke(main, ["restore", "a.jpg"], env=library.environ)
    assert away.exit_code == 1
    assert ids["a.jpg"] in {each.image_id for each in library.hidden.all()}
    assert library.run("restore", "a.jpg", "b.jpg", "--model-dir", tiny_pair).strip() == "2 pictures restored"
    index = ImageIndex(library.index.client, alias=library.index.alias)
    assert index.vector(ids["a.jpg"]).shape == (16,)
    library.run("remove", "a.jpg")
    library.run("reindex", "--back")
    # b.jpg came back into the other index alone, as does whatever is added after a switch.
    assert set(library.ids()) == set(NAMES) - {"a.jpg", "b.jpg"}


@pytest.fixture
def people(library, tmp_path) -> Iterator[Callable[[str], FlaskClient]]:
    """A function that gives a browser in which somebody signed in."""
    users = UserStore(users_path(tmp_path / "people"))
    for name, role in (("vera", Role.VIEWER), ("carl", Role.CONTRIBUTOR), ("olga", Role.OWNER)):
        users.add(name, role, PASSWORD)
    log = AuditLog(audit_path(tmp_path), warn=print)
    app = library.app(login=Login(users, log, secret_key(tmp_path)))

    def sign_in(name: str) -> FlaskClient:
        browser = app.test_client()
        assert browser.post("/sign-in", data={"name": name, "password": PASSWORD}).status_code == 303
        return browser

    yield sign_in
    log.close()


def test_owners_put_away_contributors_edit_and_viewers_download(library, people, tmp_path):
    ids = list(library.ids().values())
    chosen = {"ids": ids[:2]}
    vera, carl, olga = map(people, ("vera", "carl", "olga"))
    owners = [
        ("DELETE", f"{API}/{ids[0]}", None),
        ("POST", f"{API}/{ids[0]}/restore", None),
        ("POST", f"{API}/hide", chosen),
        ("POST", f"{API}/restore", chosen),
        ("GET", "/api/v1/hidden", None),
        ("GET", "/hidden", None),
        ("POST", "/selection/hide", None),
        ("POST", "/selection/restore", None),
        ("POST", "/selection/delete", None),
    ]
    for method, path, body in owners:
        for browser in (vera, carl):
            assert browser.open(path, method=method, json=body).status_code == 403, path
    contributors = [
        ("PUT", f"{API}/{ids[0]}/favourite", None),
        ("DELETE", f"{API}/{ids[0]}/favourite", None),
        ("PUT", f"{API}/{ids[0]}/keywords", {"keywords": ["x"]}),
        ("POST", f"{API}/edit", {**chosen, "favourite": True}),
    ]
    for method, path, body in contributors:
        assert vera.open(path, method=method, json=body).status_code == 403, path
        assert carl.open(path, method=method, json=body).status_code == 200, path
    assert vera.post(f"{API}/export", json={**chosen, "format": "csv"}).status_code == 200
    assert "Hide" not in carl.get(f"/images/{ids[0]}").text
    assert olga.post(f"{API}/hide", json=chosen).json["hidden"] == ids[:2]
    (first, *_) = olga.get("/api/v1/hidden?k=1").json["pictures"]
    assert first["by"] == "olga"
    noted = [json.loads(line) for line in audit_path(tmp_path).read_text().splitlines()]
    written = next(
        each for each in noted if each["action"] == "hiding.put_chosen_away" and each["user"] == "olga"
    )
    assert (written["status"], written["pictures"]) == (200, ids[:2])
    read_only = library.app(read_only=True).test_client()
    assert read_only.delete(f"{API}/{ids[2]}").status_code == 403
    assert read_only.post(f"{API}/export", json={"ids": ids[2:], "format": "json"}).status_code == 200


@pytest.mark.parametrize("command", [False, True])
def test_of_what_was_put_away_viewers_get_nothing_and_owners_what_they_need_to_restore_it(
    library, people, tmp_path, command
):
    vera, carl, olga = map(people, ("vera", "carl", "olga"))
    hidden = library.ids()["b.jpg"]
    removed = upload(carl, save_picture(tmp_path / "new.png", 78))["image_id"]
    paths = ["/thumbnail", "/thumbnail?edge=192", "/original", "/rendering", ""]
    shown = [f"{API}/{each}{path}" for each in (hidden, removed) for path in paths if path != "/rendering"]
    assert {vera.get(path, buffered=True).status_code for path in shown} == {200}
    tags = {path: vera.get(path, buffered=True).headers.get("ETag", "") for path in shown}
    if command:  # another program on another machine
        library.run("remove", hidden, removed)
        library.hidden_ids.refresh()
    else:
        assert set(olga.post(f"{API}/hide", json={"ids": [hidden, removed]}).json["done"]) == {
            hidden,
            removed,
        }
    for each in (hidden, removed):
        asked = [f"{API}/{each}{path}" for path in paths] + [f"/images/{each}", f"/?like={each}"]
        for path in asked:
            kept = {"If-None-Match": tags.get(path, "")}
            assert {browser.get(path, headers=kept).status_code for browser in (vera, carl)} == {404}, path
        part = {"left": "0", "top": "0", "width": "50", "height": "50"}
        assert vera.post("/picture", data={"image_id": each, **part}).status_code == 404
        assert vera.post(f"{API}/export", json={"ids": [each], "format": "zip"}).status_code != 200
        sent = olga.get(f"{API}/{each}/thumbnail?edge=192")
        assert (sent.status_code, sent.headers["Cache-Control"]) == (200, "private, no-store")
        assert olga.get(f"{API}/{each}").status_code == 404
    assert f"{API}/{removed}/thumbnail" in olga.get("/hidden").text
    # Whoever adds it again brings it back, and an owner the other one, for everybody at once.
    assert upload(carl, tmp_path / "new.png")["status"] == 200
    assert olga.post(f"{API}/{hidden}/restore").status_code == 200
    assert {vera.get(path, buffered=True).status_code for path in shown} == {200}
    # Nobody restores anything on a server for reading.
    olga.delete(f"{API}/{hidden}")
    read_only = library.app(read_only=True).test_client()
    assert read_only.get(f"{API}/{hidden}/thumbnail").status_code == 404
    assert read_only.get(f"{API}/{removed}/thumbnail").status_code == 200


def test_no_thumbnail_is_sent_before_it_is_known_what_is_hidden(library):
    one = library.ids()["b.jpg"]
    unread = library.app(hidden_ids=HiddenIds(lambda: library.hidden)).test_client()
    assert unread.get(f"{API}/{one}/thumbnail").status_code == 503


def test_several_are_edited_and_found_by_it(library):
    web = library.app().test_client()
    ids = list(library.ids().values())
    body = {"ids": [*ids[:2], "nobody"], "add_keywords": ["Grüße"], "favourite": True, "caption": "two boats"}
    assert web.post(f"{API}/edit", json=body).json == {"done": ids[:2], "absent": ["nobody"], "failed": {}}

    def found(**asked) -> set[str]:
        hits = web.get("/api/v1/search", query_string=asked).json["hits"]
        return {hit["image_id"] for hit in hits}

    assert found(favourite="true") == found(tag="grüsse") | set(ids[:2]) == set(ids[:2])
    assert found(favourite="false") == set(ids[2:])
    assert found(q="two boats", mode="caption") == set(ids[:2])
    assert web.get(f"{API}/{ids[0]}").json["caption"] == "two boats"
    web.post(f"{API}/edit", json={"ids": ids[:1], "remove_keywords": ["GRÜSSE", "grüße"], "favourite": False})
    assert found(favourite="true") == found(tag="Grüße") == {ids[1]}
    web.post(
        "/selection/edit",
        data={"id": ids[2:], "act": "keyword", "keyword": "from a form", "page": "//evil.example"},
    )
    assert found(tag="from a form") == set(ids[2:])
    form = web.post(f"/images/{ids[2]}/keywords", data={"keywords": "one, two,, ", "page": "/?q=x"})
    assert (form.status_code, form.location) == (303, "/?q=x")
    assert web.get(f"{API}/{ids[2]}").json["tags"] == ["one", "two"]
    page = web.get(f"/images/{ids[1]}").text
    assert 'value="unfavourite"' in page
    assert "Edit the keywords" in page


@pytest.mark.parametrize(
    ("path", "body", "sentence"),
    [
        ("hide", {}, "ids"),
        ("hide", {"ids": []}, "No picture is chosen."),
        ("hide", {"ids": [""]}, "no id of a picture"),
        ("hide", {"ids": ["\ud800"]}, "no id of a picture"),
        ("hide", {"ids": ["x" * 513]}, "no id of a picture"),
        ("hide", {"ids": ["x"] * 1001}, "at most 1000"),
        ("hide", {"ids": [{"a": 1}]}, "ids"),
        ("hide", ["x"], "must be an object"),
        ("restore", {"ids": ["x"], "more": 1}, "more"),
        ("edit", {"ids": ["x"]}, "Nothing is to be changed"),
        ("edit", {"ids": ["x"], "favourite": "maybe"}, "favourite"),
        ("edit", {"ids": ["x"], "caption": " "}, "caption is empty"),
        ("edit", {"ids": ["x"], "add_keywords": ["k" * 101]}, "at most 100"),
        ("edit", {"ids": ["x"], "add_keywords": ["\ud800"]}, "not valid Unicode"),
        ("export", {"ids": ["x"], "format": "exe"}, "format"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_in_a_sentence(gallery, path, body, sentence):
    web = create_app(
        service=SearchService(gallery.searcher), storage=gallery.storage, settings=AppSettings()
    ).test_client()
    answer = web.post(f"{API}/{path}", json=body)
    assert answer.status_code == 400, answer.text
    assert sentence in answer.json["detail"]
    assert web.post(f"{API}/{path}", data="ids=x").status_code == 415
    assert web.delete(f"{API}/{'0' * 64}").status_code == 403  # nothing can be put away here
    assert web.get("/hidden").status_code == 403


def test_chosen_pictures_come_as_files_and_tables(library, tmp_path):
    web = library.app().test_client()
    ids = library.ids()
    added = upload(web, save_picture(tmp_path / "a.jpg", 78))["image_id"]
    chosen = [*ids.values(), added]
    web.put(f"{API}/{ids['b.jpg']}/caption", json={"caption": "=HYPERLINK(1)"})
    (library.folder / "b.jpg").unlink()  # its thumbnail is left
    with serving(library.app(), threads=2) as url:
        import urllib.request

        asked = urllib.request.Request(
            f"{url}{API}/export",
            json.dumps({"ids": [*chosen, "nobody"], "format": "zip"}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(asked, timeout=PATIENCE_S) as answer:
            assert answer.headers["Content-Disposition"] == "attachment; filename=pictures.zip"
            archive = zipfile.ZipFile(io.BytesIO(answer.read()))
    assert archive.testzip() is None
    wanted = {"a.jpg", "a (2).jpg", "a (3).jpg", "=c.jpg", "b.webp"}
    assert set(archive.namelist()) == wanted
    assert archive.read("=c.jpg") == (library.folder / "=c.jpg").read_bytes()
    files = {archive.read(name) for name in ("a.jpg", "a (2).jpg", "a (3).jpg")}
    assert files == {
        (library.folder / "a.jpg").read_bytes(),
        (library.folder / "trip/a.jpg").read_bytes(),
        (tmp_path / "a.jpg").read_bytes(),
    }
    assert archive.read("b.webp") == library.remover.storage.get(thumbnail_key(ids["b.jpg"]))
    table = web.post(f"{API}/export", json={"ids": chosen, "format": "csv"})
    rows = {row["image_id"]: row for row in csv.DictReader(io.StringIO(table.text))}
    assert list(rows) == chosen
    assert rows[ids["b.jpg"]]["caption"] == "'=HYPERLINK(1)"
    assert rows[ids["=c.jpg"]]["path"] == "'=c.jpg"
    assert rows[ids["a.jpg"]]["file"] == str(library.folder / "a.jpg")
    listed = web.post(f"{API}/export", json={"ids": chosen[:1], "format": "json"}).json
    assert listed[0]["image_id"] == chosen[0]
    paths = web.post("/selection/export", data={"id": [ids["a.jpg"], added], "format": "paths"}).text
    assert paths.splitlines() == [str(library.folder / "a.jpg"), "uploads/a.jpg"]
    stranger = web.post(
        f"{API}/export", json={"ids": chosen, "format": "csv"}, headers={"X-Forwarded-For": "203.0.113.9"}
    )
    assert str(library.folder) not in stranger.text
    assert web.post(f"{API}/export", json={"ids": ["nobody"], "format": "zip"}).status_code == 404


def test_the_page_of_hidden_pictures_shows_them_and_takes_them_back(library):
    web = library.app().test_client()
    ids = library.ids()
    results = web.get("/?sort=newest").text
    assert results.count('form="chosen" name="id"') == 4
    assert "Hide" in results
    assert "Nothing is hidden" in web.get("/hidden").text
    done = web.post("/selection/hide", data={"id": list(ids.values())[:2], "page": "/?sort=newest"})
    assert (done.status_code, done.location) == (303, "/?sort=newest")
    page = web.get("/hidden").text
    assert page.count('name="id"') == 4
    assert "2 pictures" in page
    web.post("/selection/restore", data={"id": next(iter(ids.values())), "page": "/hidden"})
    assert web.get("/api/v1/hidden").json["total"] == 1
    for asked in ("k=0", "k=1001", "page=0", "page=x", "k=1000&page=11"):
        assert web.get(f"/api/v1/hidden?{asked}").status_code == 400, asked


def test_duplicates_stand_side_by_side_and_go_in_one_click(library):
    from PIL import Image

    from search_app.commands.serve import find_duplicates

    with Image.open(library.folder / "a.jpg") as image:
        wide = image.resize((image.width * 2, image.height * 2))
    wide.save(library.folder / "a larger.png")
    library.ingest()
    ids = library.ids()
    told = json.loads(library.run("duplicates", "--json"))["near"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLIMPSE_HOME", library.environ["GLIMPSE_HOME"])
        web = library.app(find_duplicates=find_duplicates).test_client()
        answer = web.get("/api/v1/duplicates").json
        (group,) = answer["groups"]
        assert group["keep"] == told[0]["keep_id"] == ids["a larger.png"]
        assert group["why"] == told[0]["why"] == "the most pixels"
        assert [each["image_id"] for each in group["pictures"]] == [ids["a larger.png"], ids["a.jpg"]]
        assert group["pictures"][1]["files"] == [str(library.folder / "a.jpg")]
        page = web.get("/duplicates").text
        assert page.count('name="id"') == 2
        assert page.count(" checked") == 1
        assert "it has the most pixels" in page
        stranger = web.get("/duplicates", headers={"X-Forwarded-For": "203.0.113.9"}).text
        assert str(library.folder) not in stranger
        web.post("/selection/hide", data={"id": ids["a.jpg"], "page": "/duplicates"})
        assert "No two pictures look the same" in web.get("/duplicates").text
        assert json.loads(library.run("duplicates", "--json"))["near"] == []
        for asked in ("distance=4", "distance=x", "page=0"):
            assert web.get(f"/duplicates?{asked}").status_code == 400, asked
    assert library.app().test_client().get("/duplicates").status_code == 403
