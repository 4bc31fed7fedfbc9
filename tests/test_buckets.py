"""Buckets of Google Cloud Storage and containers of Azure are read as those of S3."""

from __future__ import annotations

import json
import threading
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from xml.sax.saxutils import escape

import pytest
from click.testing import CliRunner
from picture_files import save_picture

from es_config.index import ImageIndex
from glimpse import main
from ingest.originals import IngestedOriginals
from storage.buckets import GcsObjects, open_objects
from storage.errors import NoSuchKeyError, StorageError, UnansweredError

ACCOUNT = "tests"
WHEN = "Mon, 01 Jan 2024 00:00:00 GMT"
PARTS = (
    b"--x\r\nContent-Type: application/json\r\n\r\n%b\r\n--x\r\nContent-Type: image/png\r\n\r\n%b\r\n--x--"
)
"""an object's description and its content, as one body"""
SAID = {
    "gs": {403: "forbidden; its credentials need storage.objects.get", 401: "the credentials are refused"},
    "az": {403: "forbidden; its credentials need the role", 401: "the credentials are refused"},
}


class Blobs(BaseHTTPRequestHandler):
    """Answers as Azure's blob service does, as far as objects are listed and read. Others may be refused."""

    protocol_version = "HTTP/1.1"
    held: ClassVar[dict[str, dict[str, bytes]]] = {}
    """container -> key -> content"""
    tags: ClassVar[dict[str, str]] = {}
    refusal: ClassVar[int] = 0
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        parts = urllib.parse.urlsplit(self.path)
        asked = dict(urllib.parse.parse_qsl(parts.query))
        container, _, key = urllib.parse.unquote(parts.path).removeprefix(f"/{ACCOUNT}/").partition("/")
        Blobs.asked.append(f"{self.command} {key}")
        if Blobs.refusal:
            self._send(Blobs.refusal, b"", {})
        elif container not in Blobs.held:
            self._send(404, b"", {"x-ms-error-code": "ContainerNotFound"})
        elif asked.get("comp") == "list":
            self._send(200, self._listing(container, asked), {"Content-Type": "application/xml"})
        elif key not in Blobs.held[container]:
            self._send(404, b"", {"x-ms-error-code": "BlobNotFound"})
        else:
            self._blob(key, Blobs.held[container][key])

    def _listing(self, container: str, asked: dict[str, str]) -> bytes:
        most, marker = min(2, int(asked.get("maxresults", 5000))), asked.get("marker", "")
        keys = [key for key in sorted(Blobs.held[container]) if key.startswith(asked.get("prefix", ""))]
        left = [key for key in keys if key > marker]
        blobs = "".join(
            f"<Blob><Name>{escape(key)}</Name><Properties><Etag>{Blobs.tags[key]}</Etag>"
            f"<Content-Length>{len(Blobs.held[container][key])}</Content-Length>"
            "<BlobType>BlockBlob</BlobType></Properties></Blob>"
            for key in left[:most]
        )
        following = escape(left[most - 1]) if len(left) > most else ""
        return (
            f'<?xml version="1.0" encoding="utf-8"?><EnumerationResults ContainerName="{container}">'
            f"<Prefix>{escape(asked.get('prefix', ''))}</Prefix>"
            f"<Blobs>{blobs}</Blobs><NextMarker>{following}</NextMarker></EnumerationResults>"
        ).encode()

    def _blob(self, key: str, data: bytes) -> None:
        tag = f'"{Blobs.tags[key]}"'
        headers = {
            "ETag": tag,
            "x-ms-blob-type": "BlockBlob",
            "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT",
        }
        if self.headers.get("If-Match", tag) != tag:
            self._send(412, b"", {"x-ms-error-code": "ConditionNotMet"})
        elif wanted := self.headers.get("x-ms-range"):
            start, _, end = wanted.removeprefix("bytes=").partition("-")
            part = data[int(start) : int(end) + 1]
            where = f"bytes {start}-{int(start) + len(part) - 1}/{len(data)}"
            self._send(206, part, {**headers, "Content-Range": where})
        else:
            self._send(200, data, headers)

    def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


class AzureServer:
    """A container of Azure, on a server of our own."""

    scheme = "az"

    def __init__(self, monkeypatch: pytest.MonkeyPatch, port: int) -> None:
        self.bucket = f"test-{uuid.uuid4()}"
        self.place = f"az://{self.bucket}"
        Blobs.held[self.bucket] = {}
        monkeypatch.setenv(
            "AZURE_STORAGE_CONNECTION_STRING",
            f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey=bm8gc2VjcmV0;"
            f"BlobEndpoint=http://127.0.0.1:{port}/{ACCOUNT};",
        )

    def put(self, key: str, data: bytes) -> None:
        Blobs.held[self.bucket][key], Blobs.tags[key] = data, f"0x{uuid.uuid4().hex[:15]}"

    def delete(self, key: str) -> None:
        del Blobs.held[self.bucket][key]


class GoogleServer:
    """A bucket of an emulator of Google Cloud Storage."""

    scheme = "gs"

    def __init__(self, monkeypatch: pytest.MonkeyPatch, port: int) -> None:
        self.bucket = f"test-{uuid.uuid4()}"
        self.place, self._server = f"gs://{self.bucket}", f"http://127.0.0.1:{port}"
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", self._server)
        self._ask("POST", "/storage/v1/b?project=tests", json.dumps({"name": self.bucket}).encode())

    def put(self, key: str, data: bytes) -> None:
        head = json.dumps({"name": key}).encode()
        self._ask(
            "POST",
            f"/upload/storage/v1/b/{self.bucket}/o?uploadType=multipart",
            PARTS % (head, data),
            "multipart/related; boundary=x",
        )

    def delete(self, key: str) -> None:
        self._ask("DELETE", f"/storage/v1/b/{self.bucket}/o/{urllib.parse.quote(key, safe='')}")

    def _ask(self, method: str, path: str, data: bytes | None = None, kind: str = "application/json") -> None:
        headers = {"Content-Type": kind}
        asked = urllib.request.Request(self._server + path, data=data, method=method, headers=headers)
        urllib.request.urlopen(asked).close()


@pytest.fixture(scope="module")
def google_port() -> Iterator[int]:
    """The port of the emulator of Google Cloud Storage."""
    from gcp_storage_emulator.server import create_server

    server = create_server("127.0.0.1", 0, in_memory=True)
    server.start()
    yield server._api._httpd.server_port
    server.stop()


@pytest.fixture(scope="module")
def azure_port() -> Iterator[int]:
    """The port of our server of blobs."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Blobs) as server:
        server.daemon_threads = True  # clients keep their connections
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture(params=[GoogleServer, AzureServer], ids=["gs", "az"])
def cloud(request, monkeypatch) -> Any:
    """A fresh bucket, with the environment that leads to it."""
    port = "google_port" if request.param is GoogleServer else "azure_port"
    return request.param(monkeypatch, request.getfixturevalue(port))


def test_objects_are_listed_page_by_page_and_read_from_anywhere(cloud, monkeypatch):
    monkeypatch.setattr("storage.buckets.PAGE", 2)
    monkeypatch.setattr("storage.buckets.BLOCK", 4)
    contents = {
        "a/ü #1.png": b"hello world",
        "a/empty.png": b"",
        "a/z.png": b"z",
        "b.png": b"b",
        "c.png": b"c",
    }
    for key, data in contents.items():
        cloud.put(key, data)
    objects = open_objects(cloud.place)
    assert [each.key for each in objects.objects("")] == sorted(contents)
    assert [(each.key, each.size) for each in objects.objects("a/")] == [
        ("a/empty.png", 0), ("a/z.png", 1), ("a/ü #1.png", 11),
    ]  # fmt: skip
    found = objects.look_up("a/ü #1.png")
    assert found in list(objects.objects("a/")), "a listing tells the tag of an object"
    assert objects.read("a/ü #1.png", most=100) == b"hello world"
    assert objects.read("a/ü #1.png", most=5) == b"hello"
    assert objects.read("a/empty.png", most=5) == b""
    pieces = list(objects.stream("a/ü #1.png", start=3, etag=found.etag))
    assert (b"".join(pieces), len(pieces)) == (b"lo world", 2)
    late = objects.stream("a/ü #1.png")
    assert next(late) == b"hell"
    cloud.put("a/ü #1.png", b"HELLO WORLD")
    assert objects.look_up("a/ü #1.png").etag != found.etag
    with pytest.raises(UnansweredError, match="it changed while it was read"):
        list(objects.stream("a/ü #1.png", etag=found.etag))
    if cloud.scheme == "az":  # the emulator of Google's knows no conditions of reading
        with pytest.raises(UnansweredError, match="it changed while it was read"):
            next(late)
    with pytest.raises(NoSuchKeyError):
        objects.look_up("absent")
    with pytest.raises(StorageError, match=f"{cloud.place}-absent: there is no such bucket"):
        list(open_objects(f"{cloud.place}-absent").objects(""))
    with pytest.raises(StorageError, match="names no bucket"):
        open_objects(f"{cloud.scheme}://UPPER")


class Refusing(BaseHTTPRequestHandler):
    """Refuses everything with one status."""

    status: ClassVar[int] = 403

    def do_GET(self) -> None:
        body = json.dumps({"error": {"code": Refusing.status, "message": "no"}}).encode()
        self.send_response(Refusing.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("status", [401, 403])
def test_credentials_that_are_refused_are_a_sentence(cloud, status, monkeypatch, capfd):
    if cloud.scheme == "az":
        monkeypatch.setattr(Blobs, "refusal", status)
        with pytest.raises(StorageError, match=SAID["az"][status]):
            list(open_objects(cloud.place).objects(""))
    else:
        Refusing.status = status
        with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
            server.daemon_threads = True
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_port}")
            with pytest.raises(StorageError, match=SAID["gs"][status]):
                list(open_objects(cloud.place).objects(""))
            server.shutdown()
            thread.join()
    assert capfd.readouterr().err == "", "the libraries say nothing beside it"


@pytest.mark.parametrize(("scheme", "module", "extra"), [("gs", "gcsfs", "gcs"), ("az", "adlfs", "azure")])
def test_a_missing_extra_is_a_sentence(scheme, module, extra, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(StorageError, match=rf"{scheme}:// needs an extra: `pip install .*\[{extra}\]"):
        open_objects(f"{scheme}://bucket")


def test_a_container_without_an_account_is_a_sentence(monkeypatch):
    for name in ("AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCOUNT_NAME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(StorageError, match="az://pictures cannot be opened: set AZURE_STORAGE_CONNECTION"):
        open_objects("az://pictures")


def test_a_bucket_is_ingested_listed_again_pruned_and_its_originals_sent(
    *, cloud, client, node, index_name, tmp_path
):
    environment = {
        "ELASTICSEARCH_URL": node.url, "GLIMPSE_HOME": str(tmp_path / "home"), "GLIMPSE_INDEX": index_name,
        "GLIMPSE_INGEST_CAPTIONS": "off",
    }  # fmt: skip

    def ingested(*words: str) -> dict[str, Any]:
        done = CliRunner().invoke(main, ["ingest", *words, "--json"], env=environment)
        assert done.exit_code in (0, 1), done.output
        return dict(json.loads(done.stdout))

    files = [save_picture(tmp_path / f"{seed}.png", seed).read_bytes() for seed in range(8)]
    for seed, data in enumerate(files[:6]):
        cloud.put(f"photos/trip/{seed}.png", data)
    cloud.put("photos/empty.png", b"")
    cloud.put("photos2/other.png", files[6])
    place = f"{cloud.place}/photos"
    first = ingested(place)
    assert (first["indexed"], first["failed"]) == (6, 1)
    assert first["failures"] == [{"path": f"{place}/empty.png", "reason": "the object is empty"}]
    cloud.put("photos/trip/0.png", files[7])
    cloud.delete("photos/trip/1.png")
    again = ingested(place, "--prune")
    assert (again["skipped"], again["failed_before"], again["embedded"]) == (4, 1, 1)
    assert again["pruned"]["gone"] == [f"{place}/trip/1.png"]
    one = tmp_path / "list.txt"
    one.write_text(f"{cloud.place}/photos2/other.png\n")
    assert ingested(f"@{one}")["indexed"] == 1
    client.indices.refresh(index=index_name)
    hits = client.search(index=index_name, size=100)["hits"]["hits"]
    found = {hit["_source"]["relative_path"][0]: hit["_source"] for hit in hits}
    assert set(found) == {
        *(f"trip/{seed}.png" for seed in (0, 2, 3, 4, 5)),
        f"{cloud.bucket}/photos2/other.png",
    }
    notes = Path(environment["GLIMPSE_HOME"]) / "ingested.sqlite"
    originals = IngestedOriginals(notes, lambda: ImageIndex(client, alias=index_name))
    picture = found["trip/2.png"]
    opened = originals.open(picture["image_id"], picture)
    assert opened
    with opened.stream as stream:
        stream.seek(10)
        assert (stream.read(), opened.name, opened.size) == (files[2][10:], "2.png", len(files[2]))
    cloud.put("photos/trip/2.png", files[6])
    assert originals.open(picture["image_id"], picture) is None


def test_a_bucket_is_opened_again_on_the_other_side_of_a_worker(cloud):
    from ingest.sources.bucket import BucketObject
    from ingest.workers.lease import Parcels

    mine, theirs = Parcels(), Parcels()
    cloud.put("a.png", b"here")
    origin = BucketObject(open_objects(cloud.place), "a.png", 4)
    packed = mine.pack(origin)  # type: ignore[arg-type]
    there = theirs.unpack(packed)
    assert (there.address, there.read()[0]) == (f"{cloud.place}/a.png", b"here")
    assert isinstance(there.objects, GcsObjects) == (cloud.scheme == "gs")
