"""A client that a generator makes from the OpenAPI document works for every operation."""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import subprocess
import sys
import zipfile
from contextlib import closing
from pathlib import Path

import pytest
import recordings
import test_hiding
from gallery import jpeg, pocket
from http_fronts import serving
from PIL import Image
from test_uploads import BOAT, CARS

from es_config.overview import read_overview
from ingest.duplicates import read_duplicates
from ingest.hiding import notes_of
from models.encoders import Lazy
from models.profiles import PROFILES
from models.voice import load_transcriber
from search_app.web.openapi import METHODS

library = test_hiding.library
CLIENT = "generated_glimpse_client"


class Client:
    """The modules of a generated client, and the operations that were asked through it."""

    def __init__(self, base_url: str, document: dict, folder: Path) -> None:
        self.document, self.folder = document, folder
        self.api = importlib.import_module(f"{CLIENT}.client").Client(base_url=base_url, timeout=60)
        self.models = importlib.import_module(f"{CLIENT}.models")
        self.types = importlib.import_module(f"{CLIENT}.types")
        self.modules = {path.stem: path for path in (folder / CLIENT / "api").rglob("*.py")}
        self.asked: set[str] = set()

    def ask(self, operation: str, *arguments, status: int = 200, **options):
        """Ask an operation and return its parsed answer, which may not be missing."""
        path = self.modules[operation].relative_to(self.folder).with_suffix("")
        answer = importlib.import_module(".".join(path.parts)).sync_detailed(
            *arguments, client=self.api, **options
        )
        self.asked.add(operation)
        assert answer.parsed is not None, (operation, answer.status_code, answer.content[:500])
        assert int(answer.status_code) == status, (operation, answer.content[:500])
        return answer.parsed

    def file(self, data: bytes, name: str, media_type: str = "application/octet-stream"):
        """Return a file as the client sends it."""
        return self.types.File(payload=io.BytesIO(data), file_name=name, mime_type=media_type)

    @property
    def operations(self) -> set[str]:
        """Every `operationId` of the document."""
        items = self.document["paths"].values()
        return {item[method]["operationId"] for item in items for method in METHODS if method in item}


@pytest.fixture
def app(library, tmp_path):
    """An application with every part."""

    def duplicates(index, distance):
        with closing(notes_of(library.environ)(index)) as notes:
            return read_duplicates(index, notes, distance=distance)

    return library.app(
        transcriber=lambda: Lazy(lambda: load_transcriber(pocket()[0].voice_model)),
        find_duplicates=duplicates,
        overview=lambda: read_overview(
            library.index,
            home=Path(library.environ["GLIMPSE_HOME"]),
            url=library.environ["ELASTICSEARCH_URL"],
            store=f"file:{tmp_path}",
            profile_dims={profile.name: profile.dims for profile in PROFILES.values()},
        ),
    )


@pytest.fixture
def client(app, tmp_path, monkeypatch):
    """A client generated from the application's document, of the application under the product's server."""
    document = app.test_client().get("/openapi.json").json
    written, settings = tmp_path / "openapi.json", tmp_path / "settings.yml"
    written.write_text(json.dumps(document), encoding="utf-8")
    settings.write_text("post_hooks: []\n")
    command = ["generate", "--path", written, "--output-path", tmp_path / CLIENT, "--meta", "none"]
    done = subprocess.run(
        [sys.executable, "-m", "openapi_python_client", *command, "--config", settings],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    monkeypatch.syspath_prepend(str(tmp_path))
    with serving(app) as address:
        made = Client(address, document, tmp_path)
        with made.api:
            yield made
    for name in [name for name in sys.modules if name.partition(".")[0] == CLIENT]:
        del sys.modules[name]


def test_a_generated_client_works_for_every_operation(client, library):
    models = client.models
    check_adding_and_searching(client, models)
    first, second, *_ = sorted(library.ids().values())
    check_one_picture(client, models, library.ids()["a.jpg"], library.folder)
    check_several_pictures(client, models, [first, second])

    clip = client.file(recordings.packed(recordings.spoken("two red boats")), "clip.wav", "audio/wav")
    heard = client.ask("transcribe", body=models.TranscribeFilesBody(audio=clip))
    assert "boat" in heard.text
    assert client.asked == client.operations


def check_adding_and_searching(client, models):
    boat, cars = jpeg(BOAT), jpeg(CARS)
    files = [client.file(boat, "boat.jpg"), client.file(cars, "cars.jpg")]
    added = client.ask("add_pictures", status=201, body=models.AddPicturesBody(image=files))
    assert [each.name for each in added.images] == ["boat.jpg", "cars.jpg"]
    boat_id, cars_id = (each.image_id for each in added.images)
    assert boat_id == hashlib.sha256(boat).hexdigest()
    text = [client.file(b"text", "a.txt")]
    refused = client.ask("add_pictures", status=400, body=models.AddPicturesBody(image=text))
    assert [each.detail for each in refused.images] == [refused.detail]

    found = client.ask("search", q="two red boats", k=1)
    assert [hit.image_id for hit in found.hits] == [boat_id]
    found = client.ask("search_by_body", body=models.SearchBody(like=boat_id, k=2))
    assert (found.hits[0].image_id, len(found.hits)) == (boat_id, 2)
    found = client.ask("search_by_body", body=models.SearchForm(image=[client.file(cars, "x.jpg")], k=1))
    assert found.hits[0].image_id == cars_id
    problem = client.ask("search", status=400, q="boat", k=0)
    assert problem.status == 400
    assert problem.detail.startswith("k must be between")
    client.ask("facets", path="uploads/")
    client.ask("suggest", q="bo")


def check_one_picture(client, models, image_id: str, folder: Path):
    picture = client.ask("picture", image_id)
    (file,) = picture.files
    assert (file.root, file.path) == (str(folder), "a.jpg")
    assert client.ask("picture", "nothing", status=404).title == "Not Found"
    assert client.ask("original", image_id).payload.read() == (folder / "a.jpg").read_bytes()
    assert client.ask("film", image_id, status=404).title == "Not Found"  # it is no motion photo
    for operation in ("thumbnail", "rendering"):
        assert Image.open(client.ask(operation, image_id).payload).format == "WEBP"
    picture = client.ask("write_caption", image_id, body=models.WriteCaptionBody(caption="Our old boat"))
    assert (picture.caption, picture.caption_source) == ("Our old boat", "human")
    picture = client.ask("write_keywords", image_id, body=models.Keywords(keywords=["sea"]))
    assert picture.tags == ["sea"]
    assert client.ask("mark_favourite", image_id).favourite is True
    assert not client.ask("unmark_favourite", image_id).favourite
    assert client.ask("put_away", image_id).state == "hidden"
    client.ask("picture", image_id, status=404)
    assert client.ask("restore", image_id).image_id == image_id


def check_several_pictures(client, models, ids: list[str]):
    chosen = models.Chosen(ids=ids)
    assert client.ask("edit_chosen", body=models.Edit(ids=ids, add_keywords=["both"])).done == ids
    export = models.Export(ids=ids, format_=models.ExportFormat("zip"))
    assert len(zipfile.ZipFile(client.ask("export", body=export).payload).namelist()) >= 1
    assert sorted(client.ask("put_chosen_away", body=chosen).done) == ids
    client.ask("hidden")
    assert sorted(client.ask("restore_chosen", body=chosen).done) == ids
    client.ask("duplicates")
    assert client.ask("status").images >= len(ids)
