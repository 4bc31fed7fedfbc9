"""Pictures of buckets, archives, lists and the web become documents as files do."""

from __future__ import annotations

import io
import json
import os
import tarfile
import threading
import time
import urllib.request
import zipfile
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pyarrow as arrow
import pytest
from click.testing import CliRunner, Result
from film_files import save_film
from picture_files import draw_picture, save_picture, xmp_keywords
from pyarrow import parquet

from demo.world.draw import draw
from demo.world.scene import sample
from es_config.index import ImageIndex
from glimpse import main
from ingest.errors import UnreadableImageError
from ingest.files.walk import Exclusions, Failure, PassedOver
from ingest.history.ingested_files import nowhere
from ingest.originals import IngestedOriginals
from ingest.reindex import OriginalReader
from ingest.sources.archive import ArchiveSource, archive_source
from ingest.sources.bucket import BucketObject
from ingest.sources.places import NotedFiles
from ingest.sources.source import Rules, relative_name
from ingest.sources.web import WebLimits, WebReader, relative_of


def png(seed: int) -> bytes:
    """Return the picture of a seed as a file's content."""
    data = io.BytesIO()
    draw_picture(seed).save(data, "PNG")
    return data.getvalue()


@pytest.fixture
def environ(node, tmp_path: Path, index_name: str) -> dict[str, str]:
    return {
        "ELASTICSEARCH_URL": node.url,
        "GLIMPSE_HOME": str(tmp_path / "home"),
        "GLIMPSE_INDEX": index_name,
        "GLIMPSE_INGEST_CAPTIONS": "off",
    }


def run(environ: dict[str, str], *arguments: object) -> Result:
    return CliRunner().invoke(main, ["ingest", *map(str, arguments)], env=environ)


def ingested(environ: dict[str, str], *arguments: object) -> dict:
    done = run(environ, *arguments, "--json")
    assert done.exit_code in (0, 1), done.output
    return json.loads(done.stdout)


def sources_of(client, index_name: str) -> dict[str, dict]:
    """Return the documents by their first path."""
    client.indices.refresh(index=index_name)
    hits = client.search(index=index_name, size=100)["hits"]["hits"]
    return {hit["_source"]["relative_path"][0]: hit["_source"] for hit in hits}


def write_tar(path: Path, members: list[tuple[str, bytes]], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def write_zip(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def found_in(source: ArchiveSource) -> tuple[list[str], dict[str, str]]:
    """Return the relative paths of candidates, and reasons of failures by the end of their address."""
    found = list(source.candidates(Rules(Exclusions(), PassedOver())))
    failures = [each for each in found if isinstance(each, Failure)]
    names = [each.relative_path for each in found if not isinstance(each, Failure)]
    return names, {each.path.rpartition("/")[2]: each.reason for each in failures}


def test_a_bucket_is_ingested_listed_again_and_pruned_like_a_folder(
    *, environ, client, index_name, bucket, s3_client, monkeypatch
):
    def put(key: str, data: bytes) -> None:
        s3_client.put_object(Bucket=bucket, Key=key, Body=data)

    for seed in range(12):
        put(f"photos/trip/{seed}.png", png(seed))
    for key, data in (("empty.png", b""), ("notes.txt", b"no"), (".hidden.png", png(0)), ("sub/", b"")):
        put(f"photos/{key}", data)
    put("photos2/other.png", png(40))
    place = f"s3://{bucket}/photos"

    first = ingested(environ, place)
    assert (first["indexed"], first["embedded"], first["failed"]) == (12, 12, 1)
    assert first["failures"] == [{"path": f"{place}/empty.png", "reason": "the object is empty"}]
    assert (first["passed_over"]["kinds"], first["passed_over"]["rules"]) == ({".txt": 1}, {".*": 1})
    assert set(sources_of(client, index_name)) == {f"trip/{seed}.png" for seed in range(12)}

    reads, read = Counter(), BucketObject.read

    def counted(origin: BucketObject):
        reads.update([origin.key])
        return read(origin)

    monkeypatch.setattr(BucketObject, "read", counted)
    again = ingested(environ, place)
    assert (again["skipped"], again["failed_before"], again["embedded"]) == (12, 1, 0)
    assert not reads  # the tags of the listing tell that nothing has changed

    put("photos/trip/0.png", png(20))  # changed
    s3_client.delete_object(Bucket=bucket, Key="photos/trip/1.png")  # gone
    s3_client.copy_object(Bucket=bucket, Key="photos/new/2.png", CopySource=f"{bucket}/photos/trip/2.png")
    s3_client.delete_object(Bucket=bucket, Key="photos/trip/2.png")  # moved
    changed = ingested(environ, place)
    assert (changed["indexed"], changed["paths_added"], sorted(reads)) == (
        1,
        1,
        ["photos/new/2.png", "photos/trip/0.png"],
    )
    paths = sources_of(client, index_name)
    assert "new/2.png" in paths
    assert "trip/1.png" in paths  # gone files stay without --prune
    assert "trip/2.png" not in paths
    ingested(environ, place, "--prune", "--limit", 3)
    assert "trip/1.png" in sources_of(client, index_name)  # nobody has listed the rest
    pruned = ingested(environ, place, "--prune")["pruned"]
    assert pruned["gone"] == [f"{place}/trip/1.png"]
    assert "trip/1.png" not in sources_of(client, index_name)
    for seed in range(3, 10):
        s3_client.delete_object(Bucket=bucket, Key=f"photos/trip/{seed}.png")
    refused = ingested(environ, place, "--prune")["pruned"]
    assert "7 of 11 objects are gone, more than a fifth" in refused["refused"]
    assert len(sources_of(client, index_name)) == 11

    picture = sources_of(client, index_name)["new/2.png"]
    notes = Path(environ["GLIMPSE_HOME"]) / "ingested.sqlite"
    originals = IngestedOriginals(notes, lambda: ImageIndex(client, alias=index_name))
    opened = originals.open(picture["image_id"], picture)
    assert (opened.stream.read(), opened.name, opened.media_type) == (png(2), "2.png", "image/png")
    put("photos/new/2.png", png(30))
    assert originals.open(picture["image_id"], picture) is None  # another content is not it


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("s3://{bucket}-absent/x", "there is no such bucket"),
        ("s3://UPPER/x", "names no bucket"),
        ("ftp://bucket/x", "pictures come from folders"),
        ("@absent.txt", "There is no list absent.txt."),
    ],
)
def test_a_place_that_cannot_be_listed_is_one_sentence(place, said, environ, bucket):
    done = run(environ, place.format(bucket=bucket))
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1), done.output
    assert said in done.stderr


def test_shards_of_a_webdataset_bring_their_captions(environ, client, tmp_path, index_name):
    for shard in range(2):
        members = []
        for seed in range(shard * 4, shard * 4 + 4):
            words = f"drawing number {seed}"
            members += [
                (f"{seed:04}.png", png(seed)),
                (f"{seed:04}.json", json.dumps({"caption": words}).encode()),
            ]
            members += [(f"{seed:04}.txt", words.encode())] if seed % 2 else []
        write_tar(tmp_path / f"{shard:05}.tar", members)
    archive = write_zip(tmp_path / "more.zip", [("a/1.png", png(50)), ("a/readme.md", b"no picture")])
    places = [tmp_path / "00000.tar", tmp_path / "00001.tar", archive]
    first = ingested(environ, *places)
    assert (first["indexed"], first["failed"], first["passed_over"]["kinds"]) == (9, 0, {".md": 1})
    found = sources_of(client, index_name)
    assert {path: each.get("caption") for path, each in found.items()} == {
        **{f"0000{seed // 4}.tar/{seed:04}.png": f"drawing number {seed}" for seed in range(8)},
        "more.zip/a/1.png": None,
    }
    later = tmp_path / "later.txt"
    later.write_text("x")
    time.sleep(2.1)  # a file that changed this lately is always read
    again = ingested(environ, *places)
    assert (again["skipped"], again["indexed"], again["embedded"]) == (9, 0, 0)
    picture = found["00001.tar/0005.png"]
    notes = Path(environ["GLIMPSE_HOME"]) / "ingested.sqlite"
    opened = IngestedOriginals(notes, lambda: ImageIndex(client, alias=index_name)).open(
        picture["image_id"], picture
    )
    assert opened.stream.read() == png(5)
    write_tar(tmp_path / "00001.tar", [(f"{seed:04}.png", png(seed)) for seed in (4, 5, 6)])
    pruned = ingested(environ, *places, "--prune", "--prune-anyway")["pruned"]
    assert [path.rpartition("/")[2] for path in pruned["gone"]] == ["0007.png"]


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_members_that_are_no_plain_pictures_are_a_sentence_each(kind, tmp_path):
    members = [
        ("good.png", png(1)),
        ("../../etc/up.png", png(2)),
        ("/root.png", png(3)),
        ("inner.tar", b"x" * 600),
        ("noname", png(4)),
    ]
    path = tmp_path / f"x.{kind}"
    if kind == "zip":
        write_zip(path, members)
    else:
        write_tar(path, members, "w:gz" if kind.endswith("gz") else "w")
    if kind == "tar":
        with tarfile.open(path, "a") as tar:
            link = tarfile.TarInfo("link.png")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(link)
    source = archive_source(path)
    names, failures = found_in(source)
    source.close()
    assert names == [f"x.{kind}/good.png", f"x.{kind}/noname"]
    links = {"link.png": "a link or device in an archive is not followed"} if kind == "tar" else {}
    assert failures == links | {
        "up.png": "its name leads out of the archive",
        "root.png": "its name leads out of the archive",
        "inner.tar": "an archive in an archive is not opened: unpack it first",
    }


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_an_archive_that_is_cut_short_says_so_and_what_is_before_is_kept(kind, environ, tmp_path):
    members = [(f"{seed}.png", png(seed)) for seed in range(6)]
    path = tmp_path / f"x.{kind}"
    if kind == "zip":
        write_zip(path, members)
    else:
        write_tar(path, members, "w:gz" if kind.endswith("gz") else "w")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    summary = ingested(environ, path)
    said = {each["path"].rpartition("/")[2]: each["reason"] for each in summary["failures"]}
    assert "cut short" in said[path.name]
    assert summary["indexed"] == {"tar": 3, "tar.gz": 0, "zip": 0}[kind]


def test_a_bomb_is_not_unpacked(tmp_path):
    zeros = bytes(70 << 20)
    zipped = archive_source(write_zip(tmp_path / "x.zip", [("bomb.png", zeros), ("fine.png", png(1))]))
    names, failures = found_in(zipped)
    zipped.close()
    assert names == ["x.zip/fine.png"]
    assert failures == {"bomb.png": "it unpacks to more than a hundred times its size: a bomb"}
    packed = archive_source(write_tar(tmp_path / "y.tar.gz", [("a.png", zeros)], "w:gz"))
    names, failures = found_in(packed)
    packed.close()
    assert names == []
    assert "a bomb" in failures["y.tar.gz"]


def test_an_archive_in_a_bucket_is_fetched_and_left_nothing_behind(
    *, environ, client, tmp_path, index_name, bucket, s3_client, monkeypatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    path = write_tar(tmp_path / "set.tar", [(f"{seed}.png", png(seed)) for seed in range(3)])
    s3_client.upload_file(str(path), bucket, "shards/set.tar")
    assert ingested(environ, f"s3://{bucket}/shards/set.tar")["indexed"] == 3
    assert set(sources_of(client, index_name)) == {f"set.tar/{seed}.png" for seed in range(3)}
    assert list((tmp_path / "scratch").glob("glimpse-archive-*")) == []


SCENES = [draw(scene, 64) for scene in sample("demo", 3)]
TAKEOUT = {"photoTakenTime": {"timestamp": "1060699034"}, "people": [{"name": "Ada Example"}]}


def library(tmp_path: Path, *words: str) -> list[tuple[str, bytes]]:
    """Return pictures, films and sidecars apart from their pictures. The sidecar of the film has `words`."""
    made = tmp_path / "made"
    story = save_film(made / "lake.mp4", [(scene, 3) for scene in SCENES])
    live = save_film(made / "live.mov", [(SCENES[0], 1)])
    return [
        ("trip/lonely.xmp", xmp_keywords("nobody's")),
        ("trip/b.json", json.dumps(TAKEOUT).encode()),
        ("trip/lake.mp4.xmp", xmp_keywords(*words)),
        ("trip/IMG_1.MOV", live.read_bytes()),
        ("trip/a.png", png(1)),
        ("other/a.png.xmp", xmp_keywords("of another folder")),
        ("trip/lake.mp4", story.read_bytes()),
        ("trip/b.png", png(2)),
        ("trip/IMG_1.jpg", save_picture(made / "still.jpg", 3).read_bytes()),
        ("trip/a.png.xmp", xmp_keywords("boat", "harbour")),
    ]


def assert_is_the_library(found: dict[str, dict], first: dict, *words: str) -> None:
    """Check that each thing is one document with the words beside it, and the film one for each moment."""
    assert (first["files"], first["indexed"], first["failed"], first["moments"]) == (4, 4, 0, 2)
    assert first["passed_over"]["film_parts"] == 1
    assert first["passed_over"]["kinds"] == {".xmp": 2}, "sidecars of no picture"
    by_name: dict[str, list[dict]] = {}
    for each in found.values():
        by_name.setdefault(each["image_name"], []).append(each)
    assert sorted((name, len(each)) for name, each in by_name.items()) == [
        ("IMG_1.jpg", 1),
        ("a.png", 1),
        ("b.png", 1),
        ("lake.mp4", 3),
    ]
    assert by_name["a.png"][0]["tags"] == ["boat", "harbour"]
    assert by_name["b.png"][0]["people"] == ["Ada Example"]
    assert all(each["tags"] == list(words) for each in by_name["lake.mp4"]), "moments have them, too"


def documents_of(client, index_name: str) -> dict[str, dict]:
    """Return the documents by their ids."""
    client.indices.refresh(index=index_name)
    hits = client.search(index=index_name, size=100)["hits"]["hits"]
    return {hit["_id"]: hit["_source"] for hit in hits}


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_films_and_sidecars_in_an_archive_are_read_as_in_a_folder(
    *, kind, environ, client, tmp_path, index_name, monkeypatch
):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    path = tmp_path / f"x.{kind}"

    def pack(*words: str, seconds: int = 0) -> None:
        members = library(tmp_path, *words)
        if kind == "zip":
            write_zip(path, members)
        else:
            write_tar(path, members, "w:gz" if kind.endswith("gz") else "w")
        os.utime(path, (1_600_000_000 + seconds, 1_600_000_000 + seconds))

    def run_again() -> dict:
        return ingested(environ, path, "--films", "moments")

    pack("lake")
    assert_is_the_library(documents_of(client, index_name) if (first := run_again()) else {}, first, "lake")
    again = run_again()
    assert (again["skipped"], again["updated"], again["embedded"], again["moments"]) == (4, 0, 0, 0)
    pack("sunset at the lake", seconds=9)
    changed = run_again()
    assert (changed["indexed"], changed["updated"], changed["embedded"]) == (0, 1, 0)
    found = documents_of(client, index_name)
    films = [each for each in found.values() if each["image_name"] == "lake.mp4"]
    assert [each["tags"] for each in films] == [["sunset at the lake"]] * 3

    address = f"archive://{path}!/trip/lake.mp4".encode()
    noted, whole = NotedFiles(), films[0]["film"]["id"]
    file = noted.open(address, whole)
    assert file
    assert file.path.read_bytes() == (tmp_path / "made/lake.mp4").read_bytes()
    assert noted.open(address, whole).path == file.path, "its moments are read from one copy"
    assert noted.open(address, "0" * 64) is None
    reader = OriginalReader(places=nowhere, folders=(), storage=None)
    monkeypatch.setattr(OriginalReader, "_places", lambda *_: iter([address]))
    image, is_copy = reader.read(films[0]["image_id"], films[0])
    assert (image.size, is_copy) == ((64, 64), False)
    del file, noted, reader
    assert list(scratch.iterdir()) == [], "nothing stays behind"


def test_films_and_sidecars_in_a_bucket_are_read_as_in_a_folder(
    *, environ, client, tmp_path, index_name, bucket, s3_client, monkeypatch
):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    monkeypatch.setattr("ingest.sources.bucket.NEIGHBOURS", 4)
    for key, data in library(tmp_path, "lake"):
        s3_client.put_object(Bucket=bucket, Key=f"all/{key}", Body=data)
    place = f"s3://{bucket}/all"
    first = ingested(environ, place, "--films", "moments")
    assert_is_the_library(documents_of(client, index_name), first, "lake")
    again = ingested(environ, place, "--films", "moments")
    assert (again["skipped"], again["updated"], again["embedded"], again["moments"]) == (4, 0, 0, 0)
    s3_client.put_object(Bucket=bucket, Key="all/trip/lake.mp4.xmp", Body=xmp_keywords("sunset"))
    s3_client.delete_object(Bucket=bucket, Key="all/trip/a.png.xmp")
    changed = ingested(environ, place, "--films", "moments")
    assert (changed["indexed"], changed["updated"], changed["embedded"]) == (0, 2, 0)
    found = documents_of(client, index_name).values()
    assert [each["tags"] for each in found if "film" in each] == [["sunset"]] * 3
    assert not any(each.get("tags") for each in found if each["image_name"] == "a.png")
    one = ingested(environ, f"{place}/trip/lake.mp4")
    assert (one["files"], one["skipped"]) == (1, 1)
    assert list(scratch.iterdir()) == [], "nothing stays behind"


def test_a_damaged_film_in_an_archive_costs_itself(environ, tmp_path):
    whole = save_film(tmp_path / "made/a.mp4", [(SCENES[0], 1)]).read_bytes()
    members = [("cut.mp4", whole[: len(whole) // 2]), ("whole.mp4", whole), ("no.mp4", b"no film at all")]
    summary = ingested(environ, write_tar(tmp_path / "x.tar", [*members, ("plain", whole)]))
    said = {each["path"].rpartition("/")[2]: each["reason"] for each in summary["failures"]}
    assert (summary["files"], summary["indexed"], summary["skipped"]) == (4, 1, 1)
    assert said.keys() == {"cut.mp4", "no.mp4"}
    assert "a film that cannot be used" in said["cut.mp4"]
    left_out = ingested(environ, tmp_path / "x.tar", "--films", "off", "--retry-failed")
    assert left_out["passed_over"]["kinds"] == {".mp4": 3, "no extension": 1}


class Web(BaseHTTPRequestHandler):
    """Answers with pictures, and with whatever goes wrong on the web."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[Counter[str]] = Counter()

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path
        Web.asked[f"{self.command} {path}"] += 1
        tried = Web.asked[f"{self.command} {path}"]
        asks_again = self.command == "HEAD"
        if path.startswith("/busy") and tried < 3 and not asks_again:
            self._answer(503, b"", {"Retry-After": "0"})
        elif path.startswith("/moved"):
            self._answer(302, b"", {"Location": path.replace("/moved", "/ok")})
        elif path.startswith("/secret"):
            self._answer(302, b"", {"Location": "file:///etc/passwd"})
        elif path.startswith("/gone"):
            self._answer(404, b"")
        elif path.startswith("/huge"):
            self._answer(200, bytes(3 << 20))
        elif path.startswith("/slow"):
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            for _ in range(40):
                self.wfile.write(b"x")
                self.wfile.flush()
                time.sleep(0.1)
            self.close_connection = True
        elif path.startswith("/cut") and (tried < 2 or "always" in path) and not asks_again:
            data = png(7)
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
        else:
            seed = int("".join(filter(str.isdigit, path.partition("?")[0])) or "0")
            self._answer(200, png(seed), {"ETag": f'"{seed}"'})

    def _answer(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


class QuietServer(ThreadingHTTPServer):
    """Says nothing of clients that go away."""

    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        pass


@pytest.fixture
def web() -> Iterator[str]:
    Web.asked.clear()
    with QuietServer(("127.0.0.1", 0), Web) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_list_of_addresses_survives_whatever_the_web_does(environ, client, tmp_path, index_name, web):
    paths = ["ok/1", "ok/2.png?size=3", "busy/3.png", "cut/4.png", "moved/5.png"]
    bad = ["gone/6.png", "huge/7.png", "slow/8.png", "cut/always/9.png", "secret/10.png"]
    save_picture(tmp_path / "local" / "11.png", 11)
    listed = tmp_path / "all.txt"
    lines = [f"{web}/{path}" for path in (*paths, *bad)]
    listed.write_text("# a comment\n\n" + "\n".join([*lines, "local/11.png", "ftp://example.org/1.png"]))
    limits = ["--fetch-mb", 1, "--fetch-seconds", 2]
    first = ingested(environ, f"@{listed}", *limits)
    host = web.removeprefix("http://").partition(":")[0]
    assert set(sources_of(client, index_name)) == {f"{host}/{path}" for path in paths} | {"local/11.png"}
    assert {each["path"].rpartition("/")[2]: each["reason"] for each in first["failures"]} == {
        "6.png": "the server answers 404 (it is gone)",
        "7.png": "larger than 1 MiB (--fetch-mb)",
        "8.png": "it took longer than 2 s (--fetch-seconds)",
        "9.png": "the connection was cut",
        "10.png": "it leads to an address that is not of the web",
        "1.png": "no address that can be read: they begin with https://, s3://, gs:// or az://",
    }
    Web.asked.clear()
    good = tmp_path / "good.csv"
    good.write_text("name,url\n" + "".join(f"x,{web}/{path}\n" for path in paths if "moved" not in path))
    again = ingested(environ, f"@{good}:url", *limits)
    assert (again["skipped"], again["embedded"]) == (4, 0)
    assert {each.partition(" ")[0] for each in Web.asked} == {"HEAD"}  # the tags tell that nothing changed
    table = tmp_path / "rows.parquet"
    parquet.write_table(arrow.table({"url": [f"{web}/ok/20.png", None]}), table)
    assert ingested(environ, f"@{table}")["indexed"] == 1
    wrong = run(environ, f"@{table}:picture")
    assert "has no column 'picture'; it has: url." in wrong.stderr


def test_a_server_that_never_answers_is_a_failure_of_its_own(web):
    reader = WebReader(WebLimits(bytes=1 << 20, seconds=1))
    with pytest.raises(UnreadableImageError, match="longer than 1 s"):
        reader.read(f"{web}/slow/1.png")
    assert reader.read(f"{web}/ok/1.png")[0] == png(1)
    reader.close()


def test_names_stay_below_their_place():
    assert relative_name("a//./b.png") == "a/b.png"
    assert [relative_name(name) for name in ("../a", "/a", "a/../b", "C:\\a", "")] == [None] * 5
    assert relative_of("https://example.org/a%20b/../c.png?x=1") == "example.org/a b/c.png?x=1"


class Bucket(BaseHTTPRequestHandler):
    """Passes requests for S3 on to another server, and lets some of them go wrong."""

    protocol_version = "HTTP/1.1"
    behind: ClassVar[str] = ""
    expired_after: ClassVar[int | None] = None
    asked: ClassVar[Counter[str]] = Counter()
    at_once: ClassVar[list[int]] = [0, 0]
    lock = threading.Lock()

    def do_GET(self) -> None:
        key = self.path.rpartition("/")[2]
        if "?" in self.path or not key.endswith(".png"):
            self._pass_on()
            return
        with Bucket.lock:
            Bucket.asked[key] += 1
            Bucket.at_once[0] += 1
            Bucket.at_once[1] = max(Bucket.at_once)
        time.sleep(0.2)
        with Bucket.lock:
            Bucket.at_once[0] -= 1
        if Bucket.expired_after is not None and Bucket.asked.total() > Bucket.expired_after:
            self._refuse(400, "ExpiredToken")
        elif key == "vanished.png":
            self._refuse(404, "NoSuchKey")
        elif key == "denied.png":
            self._refuse(403, "AccessDenied")
        else:
            self._pass_on(cut=key == "cut.png" and Bucket.asked[key] < 2)

    def _pass_on(self, *, cut: bool = False) -> None:
        names = ("Authorization", "X-Amz-Date", "X-Amz-Content-SHA256")
        signed = {name: self.headers[name] for name in names if self.headers[name]}
        asked = urllib.request.Request(f"{Bucket.behind}{self.path}", headers=signed)
        with urllib.request.urlopen(asked) as answer:
            data = answer.read()
            kept = {name: answer.headers[name] for name in ("ETag", "Content-Type") if answer.headers[name]}
        closing = {"Connection": "close"} if cut else {}
        self._answer(200, data, kept | closing, send=len(data) // 2 if cut else len(data))
        self.close_connection = cut

    def _refuse(self, status: int, code: str) -> None:
        body = f"<Error><Code>{code}</Code><Message>no</Message></Error>"
        self._answer(status, body.encode(), {"Content-Type": "application/xml"}, send=len(body))

    def _answer(self, status: int, data: bytes, headers: dict[str, str], *, send: int) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data[:send])

    def log_message(self, *_: object) -> None:
        pass


def test_a_bucket_that_misbehaves_costs_single_objects_or_stops_the_run_with_a_sentence(
    *, environ, client, index_name, bucket, s3_client, s3_server, monkeypatch
):
    names = [f"{seed}.png" for seed in range(40)] + ["cut.png", "denied.png", "vanished.png"]
    for seed, name in enumerate(names):
        s3_client.put_object(Bucket=bucket, Key=name, Body=png(seed))
    Bucket.behind, Bucket.expired_after = s3_server, 25
    Bucket.asked.clear()
    with QuietServer(("127.0.0.1", 0), Bucket) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        stopped = run(environ, f"s3://{bucket}")
        assert (stopped.exit_code, stopped.stdout) == (1, "")
        last = stopped.stderr.splitlines()[-1]
        assert last.startswith("Error: Stopped after ")
        assert "the credentials are refused" in last
        assert last.endswith("the same command goes on from there.")
        Bucket.expired_after = None
        whole = ingested(environ, f"s3://{bucket}")
        server.shutdown()
        thread.join()
    reasons = {each["path"].rpartition("/")[2]: each["reason"] for each in whole["failures"]}
    assert reasons.keys() == {"denied.png", "vanished.png"}
    assert "forbidden" in reasons["denied.png"]
    assert reasons["vanished.png"] == "the object vanished before it was read"
    assert set(sources_of(client, index_name)) == {*names} - {"denied.png", "vanished.png"}
    assert Bucket.at_once[1] > 4  # many at once: each answer takes its time


class ForbiddingServer(Bucket):
    """Refuses everything with one code of S3."""

    refusal: ClassVar[tuple[int, str]] = (403, "AccessDenied")

    def do_GET(self) -> None:
        self._refuse(*ForbiddingServer.refusal)

    def do_HEAD(self) -> None:
        self._answer(ForbiddingServer.refusal[0], b"", {}, send=0)


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (403, "AccessDenied", "forbidden; its credentials need s3:GetObject"),
        (301, "PermanentRedirect", "the bucket is in another region; set AWS_REGION to it"),
        (400, "AuthorizationHeaderMalformed", "the bucket is in another region; set AWS_REGION to it"),
        (400, "ExpiredToken", "the credentials are refused; check AWS_ACCESS_KEY_ID"),
    ],
)
def test_a_bucket_that_may_not_be_listed_ends_the_run_with_a_sentence(
    *, status, code, said, environ, bucket, monkeypatch
):
    ForbiddingServer.refusal = (status, code)
    with QuietServer(("127.0.0.1", 0), ForbiddingServer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        done = run(environ, f"s3://{bucket}/photos")
        server.shutdown()
        thread.join()
    last = done.stderr.splitlines()[-1]
    assert (done.exit_code, done.stdout) == (1, "")
    assert last.startswith("Error: Stopped after 0 pictures were indexed.")
    assert said in last


def test_a_damaged_list_in_parquet_is_one_sentence(environ, tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"PAR1 no table PAR1")
    done = run(environ, f"@{tmp_path}/x.parquet:url")
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1), done.output
    assert "x.parquet is no whole Parquet file" in done.stderr
