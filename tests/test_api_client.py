"""A client that a generator makes from the OpenAPI document works for every operation."""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import recordings
import test_uploads
from gallery import jpeg, pocket
from http_fronts import serving
from PIL import Image
from test_uploads import BOAT, CARS

from ingest.files.walk import Candidate, stamp_of
from ingest.history.ingested_files import HISTORY_FILE, IngestHistory
from ingest.originals import IngestedOriginals
from models.encoders import Lazy
from models.voice import load_transcriber
from search_app.core.searcher import SearchService
from search_app.settings import AppSettings
from search_app.web.app import create_app
from search_app.web.openapi import METHODS
from storage.store import open_storage

place = test_uploads.place
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

    def ask(self, operation: str, *arguments, **options):
        """Ask an operation and return its status and its parsed answer, which may not be missing."""
        path = self.modules[operation].relative_to(self.folder).with_suffix("")
        answer = importlib.import_module(".".join(path.parts)).sync_detailed(
            *arguments, client=self.api, **options
        )
        self.asked.add(operation)
        assert answer.parsed is not None, (operation, answer.status_code, answer.content[:500])
        return int(answer.status_code), answer.parsed

    def file(self, data: bytes, name: str, media_type: str = "application/octet-stream"):
        """Return a file as the client sends it."""
        return self.types.File(payload=io.BytesIO(data), file_name=name, mime_type=media_type)

    @property
    def operations(self) -> set[str]:
        """Every `operationId` of the document."""
        items = self.document["paths"].values()
        return {item[method]["operationId"] for item in items for method in METHODS if method in item}


@pytest.fixture
def app(place, tmp_path):
    """An application with every part: uploads, voice, and the notes of ingested files."""
    notes = tmp_path / "home" / HISTORY_FILE
    return create_app(
        service=SearchService(place.searcher),
        storage=open_storage(str(place.folder)),
        settings=AppSettings(max_upload=test_uploads.MAX_UPLOAD),
        indexer=lambda: place.indexer,
        transcriber=lambda: Lazy(lambda: load_transcriber(pocket()[0].voice_model)),
        originals=IngestedOriginals(notes, lambda: place.index),
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
        yield Client(address, document, tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == CLIENT]:
        del sys.modules[name]


def test_a_generated_client_works_for_every_operation(client, place, tmp_path):
    boat, cars = jpeg(BOAT), jpeg(CARS)
    models = client.models

    files = [client.file(boat, "boat.jpg"), client.file(cars, "cars.jpg")]
    status, added = client.ask("add_pictures", body=models.AddPicturesBody(image=files))
    assert status == 201
    assert [each.name for each in added.images] == ["boat.jpg", "cars.jpg"]
    boat_id = added.images[0].image_id
    assert boat_id == hashlib.sha256(boat).hexdigest()
    refused = client.ask("add_pictures", body=models.AddPicturesBody(image=[client.file(b"text", "a.txt")]))
    assert refused[0] == 400
    assert [each.name for each in refused[1].images] == ["a.txt"]
    assert refused[1].detail == refused[1].images[0].detail

    status, found = client.ask("search", q="two red boats", k=1)
    assert (status, [hit.image_id for hit in found.hits]) == (200, [boat_id])
    status, found = client.ask("search_by_body", body=models.SearchBody(like=boat_id, k=2))
    assert (status, found.hits[0].image_id, len(found.hits)) == (200, boat_id, 2)
    status, found = client.ask(
        "search_by_body", body=models.SearchForm(image=client.file(cars, "x.jpg"), k=1)
    )
    assert (status, found.hits[0].image_id) == (200, added.images[1].image_id)
    status, problem = client.ask("search", q="boat", k=0)
    assert (status, problem.status) == (400, 400)
    assert problem.detail.startswith("k must be between")

    status, picture = client.ask("picture", boat_id)
    assert (status, picture.image_id, picture.original_url) == (200, boat_id, None)
    status, picture = client.ask(
        "write_caption", boat_id, body=models.WriteCaptionBody(caption="Our old boat")
    )
    assert (status, picture.caption, picture.caption_source) == (200, "Our old boat", "human")
    status, problem = client.ask("picture", "nothing")
    assert (status, problem.title) == (404, "Not Found")

    status, thumbnail = client.ask("thumbnail", boat_id)
    assert status == 200
    assert Image.open(thumbnail.payload).format == "WEBP"

    path = tmp_path / "pictures" / "uploads" / "boat.jpg"
    path.parent.mkdir(parents=True)
    path.write_bytes(boat)
    with closing(IngestHistory(tmp_path / "home" / HISTORY_FILE, index=place.index.uuid())) as history:
        history.record_ok(Candidate(path, "uploads/boat.jpg", stamp_of(path)), boat_id)
    status, original = client.ask("original", boat_id)
    assert (status, original.payload.read()) == (200, boat)
    status, drawn = client.ask("rendering", boat_id)
    assert status == 200
    assert Image.open(drawn.payload).format == "WEBP"
    (file,) = client.ask("picture", boat_id)[1].files
    assert (file.root, file.path) == (str(tmp_path / "pictures"), "uploads/boat.jpg")

    clip = client.file(recordings.packed(recordings.spoken("two red boats")), "clip.wav", "audio/wav")
    status, heard = client.ask("transcribe", body=models.TranscribeFilesBody(audio=clip))
    assert status == 200
    assert "boat" in heard.text

    assert client.asked == client.operations
