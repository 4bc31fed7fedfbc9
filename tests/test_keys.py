"""The keys that `glimpse keys` asks for are enough for their commands, and for no others."""

from __future__ import annotations

import io
import json
import os
import shlex
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError

import pytest
from click.testing import CliRunner, Result
from http_fronts import kept_port, proxy
from picture_files import draw_picture
from rights import answers_for_key
from waiting import PATIENCE_S

from demo.gallery import draw_gallery
from es_config.client import EngineSettings, connect, engine_settings
from es_config.errors import EngineError
from es_config.index import ImageIndex
from glimpse import main
from models.profiles import get_profile

ROOT = Path(__file__).parent.parent
PICTURES = 60
"""enough for `glimpse calibrate`"""
NOT_ALLOWED = "The API key may not do this"


@dataclass(frozen=True)
class Machine:
    """A machine that has one of the keys."""

    environ: dict[str, str]
    files: dict[str, Path]

    def __call__(self, *words: object) -> Result:
        """Type a command. `{pictures}` and other names in it stand for files."""
        typed = [str(each).format(**self.files) for each in words]
        return CliRunner().invoke(main, typed, env=self.environ)

    def done(self, *words: object) -> str:
        """Type a command that has to succeed, and return its output."""
        done = self(*words)
        output = done.output.replace(f"not shown: {NOT_ALLOWED}", "")
        assert NOT_ALLOWED not in output, (words, output)
        assert done.exit_code == 0, (words, output)
        return done.stdout

    def refused(self, *words: object) -> None:
        """Type a command that the key does not allow."""
        done = self(*words)
        assert done.exit_code == 1, (words, done.output)
        assert NOT_ALLOWED in done.output, (words, done.output)


@pytest.fixture(scope="module")
def place(node, tmp_path_factory, tiny_pair) -> Iterator[Callable[[str], Machine]]:
    """Return a function that gives the machine whose key is named."""
    folder = tmp_path_factory.mktemp("keys")
    alias = f"test-{folder.name}"
    printed = CliRunner().invoke(main, ["keys", "--index", alias, "--json"])
    bodies = json.loads(printed.stdout)
    environ = {
        "GLIMPSE_HOME": str(folder / "home"),
        "GLIMPSE_PROFILE": "pocket",
        "GLIMPSE_INDEX": alias,
        "GLIMPSE_PRECISION": "fp32",
        "GLIMPSE_TEXT_LANE": "local",
        "ELASTICSEARCH_API_KEY": node.key,
    }
    pictures, vector, labels = folder / "pictures", folder / "vector.json", folder / "labels.jsonl"
    draw_gallery(pictures, PICTURES)
    vector.write_text(json.dumps([1.0] * get_profile("pocket").dims))
    one, other, *_ = sorted(path.relative_to(pictures).as_posix() for path in pictures.rglob("*.jpg"))
    lines = [{"query": "a boat", "relevant": [one]}, {"query": "a house", "relevant": [other]}]
    labels.write_text("".join(json.dumps(each) + "\n" for each in lines))
    files = {
        "pictures": pictures,
        "one": pictures / one,
        "vector": vector,
        "labels": labels,
        "tiny": tiny_pair,
    }
    with ExitStack() as stack:
        urls = {name: stack.enter_context(proxy(node.url, answers_for_key(bodies[name]))) for name in bodies}
        yield lambda machine: Machine(environ | {"ELASTICSEARCH_URL": urls[machine]}, files)
        with connect(EngineSettings(node.url)) as client:
            for index in client.indices.get(index=f"{alias}-*", expand_wildcards="all"):
                client.indices.delete(index=index)


@pytest.fixture
def filled(place, monkeypatch) -> Callable[[str], Machine]:
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    place("ingest").done("ingest", "{pictures}", "--captions", "now")
    return place


BRIEFLY = ("--k", "5", "--samples", "60", "--rounds", "3", "--target-recall", "0.9")
READING = [
    ("search", "a picture"),
    ("search", "a picture", "--mode", "hybrid"),
    ("search", "a picture", "--exact"),
    ("search", "--image", "{one}"),
    ("search", "--image", "{one}", "--minus", "a boat"),
    ("search", "sea", "--mode", "words"),
    ("search", "--sort", "newest"),
    ("knn", "{vector}"),
    ("knn", "{vector}", "--field", "caption_embedding"),
    ("describe", "{one}"),
    ("duplicates",),
    ("hidden", "--json"),
    ("evaluate", "--queries", "{labels}"),
    ("index", "status"),
    ("status",),
    ("doctor",),
]


@pytest.mark.parametrize("machine", ["search", "ingest"])
@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_a_machine_that_searches_can_ask(filled, machine, command):
    assert filled(machine).done(*command)


@pytest.mark.parametrize(
    "command",
    [
        ("caption", "--limit", "2", "--all"),
        ("words", "--limit", "1", "--all"),
        ("ingest", "{pictures}", "--prune", "--captions", "off", "--retry-failed"),
        ("remove", "{one}"),
        ("restore", "{one}"),
        ("calibrate", "--pictures", "60"),
        ("advise", *BRIEFLY, "--types", "flat,int8_hnsw", "--graph", "16,100"),
        ("evaluate", "--queries", "{labels}", "--profiles", "pocket,tiny={tiny}", "--folder", "{pictures}"),
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_an_ingesting_machine_can_do_its_work(filled, command):
    filled("ingest").done(*command)


def test_a_searching_machine_prepares_its_models_and_exports_what_an_ingesting_one_imports(filled, tmp_path):
    filled("search").done("model", "prepare")
    filled("search").done("export", tmp_path / "out")
    assert "0 added, " in filled("ingest").done("import", tmp_path / "out", "--no-check")


def test_a_searching_machine_lists_what_an_ingesting_one_put_away(filled):
    filled("ingest").done("remove", "{one}")
    assert filled("search").done("hidden").endswith(f"/{filled('search').files['one'].name}\n")
    filled("ingest").done("restore", "{one}")
    assert filled("search").done("hidden", "--json") == '{\n  "pictures": []\n}\n'


def test_an_ingesting_machine_can_tune(filled):
    typed = filled("ingest")
    typed.done("tune", *BRIEFLY)
    typed.done("tune", *BRIEFLY, "--check")


def test_an_ingesting_machine_can_change_the_models_and_go_back(filled):
    typed = filled("ingest")
    words = ("reindex", "--profile", "pocket", "--model-dir", "{tiny}", "--precision", "fp32")
    now = json.loads(typed.done(*words, "--no-switch", "--json"))
    assert now["embedded"] == PICTURES
    assert json.loads(typed.done(*words, "--json"))["switched"]["now"].endswith("-2")
    assert "again" in typed.done("reindex", "--back")
    assert typed.done("search", "a picture")


def test_a_searching_machine_can_change_nothing(filled):
    typed = filled("search")
    for command in (
        ("ingest", "{pictures}", "--captions", "off", "--retry-failed", "--prune"),
        ("caption", "--limit", "1", "--all"),
        ("remove", "{one}"),
        ("calibrate", "--pictures", "60"),
        ("tune", *BRIEFLY),
        ("reindex", "--profile", "pocket", "--model-dir", "{tiny}", "--precision", "fp32"),
        ("advise", *BRIEFLY, "--types", "flat"),
        ("index", "create", "--index", "another"),
        ("index", "delete", "--yes"),
    ):
        typed.refused(*command)
    status = json.loads(typed("status", "--json").stdout)
    ended = status["overview"].pop("ended")
    assert any(NOT_ALLOWED in (each["fault"] or "") for each in ended)  # of the runs that were refused above
    assert NOT_ALLOWED not in json.dumps(status).replace(f"not shown: {NOT_ALLOWED}", "")
    assert status["images"] >= PICTURES


@pytest.mark.parametrize(("machine", "options"), [("search", ["--read-only"]), ("ingest", [])])
def test_a_server_answers_with_the_key_of_its_machine(filled, machine, options):
    there = filled(machine)
    with kept_port() as port:
        command = [
            sys.executable,
            "-m",
            "glimpse",
            "serve",
            "--port",
            str(port),
            "--voice-model",
            "off",
            *options,
        ]
        server = subprocess.Popen(
            command, env=os.environ | there.environ, cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        try:
            while "Glimpse is at " not in (line := server.stderr.readline()):
                assert server.poll() is None, line
            url = f"http://127.0.0.1:{port}"
            (hit,) = fetched(f"{url}/api/v1/search?q=a+boat&k=1&mode=hybrid")["hits"]
            assert fetched(f"{url}/readyz")
            pages = [
                "/",
                "/tuning",
                "/status",
                "/duplicates",
                "/?sort=newest",
                "/narrow?q=a+boat",
                "/request?q=a+boat",
            ]
            pages += ["/hidden"] if machine == "ingest" else []
            asked = ["facets", "suggest?q=bo", "status", "duplicates", f"images/{hit['image_id']}/thumbnail"]
            for path in (*pages, *(f"/api/v1/{each}" for each in asked)):
                with urllib.request.urlopen(url + path, timeout=PATIENCE_S) as answer:
                    assert answer.status == 200
            if machine == "ingest":
                form = b'--b\r\nContent-Disposition: form-data; name="image"; filename="new.png"\r\n\r\n'
                body = form + new_picture() + b"\r\n--b--\r\n"
                kind = {"Content-Type": "multipart/form-data; boundary=b"}
                (added,) = fetched(f"{url}/api/v1/images", "POST", body, kind)["images"]
                caption = f"{url}/api/v1/images/{added['image_id']}/caption"
                kind = {"Content-Type": "application/json"}
                assert fetched(caption, "PUT", b'{"caption": "a new picture"}', kind)
        finally:
            server.terminate()
            server.communicate(timeout=PATIENCE_S)
    assert server.returncode == 0


def new_picture() -> bytes:
    data = io.BytesIO()
    draw_picture(12_345, size=(60, 40)).save(data, "PNG")
    return data.getvalue()


def fetched(url: str, method: str = "GET", body: bytes | None = None, headers: dict | None = None) -> dict:
    """Return the JSON that a server answers."""
    asked = urllib.request.Request(url, body, headers or {}, method=method)
    with urllib.request.urlopen(asked, timeout=PATIENCE_S) as answer:
        return json.load(answer)


def test_a_raw_request_works_with_the_key_of_a_searching_machine(filled):
    there = filled("search").environ
    vector = [1.0] * get_profile("pocket").dims
    body = {"knn": {"field": "image_embedding", "query_vector": vector, "k": 3, "num_candidates": 50}}
    for method in ("GET", "POST"):
        url = f"{there['ELASTICSEARCH_URL']}/{there['GLIMPSE_INDEX']}/_search"
        kind = {"Content-Type": "application/json"}
        assert len(fetched(url, method, json.dumps(body).encode(), kind)["hits"]["hits"]) == 3
    for word in ("_delete_by_query", "_update/x"):
        with pytest.raises(HTTPError) as refused:
            fetched(url.replace("_search", word), "POST", b"{}", kind)
        assert refused.value.code == 403
        refused.value.close()


def test_doctor_and_status_go_on_where_a_key_may_not_ask(filled):
    shown = json.loads(filled("search").done("doctor", "--json"))
    found = {each["name"]: each["detail"] for each in shown["checks"]}
    assert found["elasticsearch"].startswith("version unknown at ")
    for name in ("licence", "disk", "shards"):
        assert found[name].startswith(f"not shown: {NOT_ALLOWED}"), name
        assert "[monitor,all]" in found[name]
    assert int(found["images"]) >= PICTURES  # a test of the server may have added one
    status = json.loads(filled("search")("status", "--json").stdout)
    assert (status["version"], status["images"]) == (None, int(found["images"]))
    blind = filled("upload")("status", "--json")
    assert blind.exit_code == 0
    assert json.loads(blind.stdout)["images"] is None
    found = {
        each["name"]: each["detail"]
        for each in json.loads(filled("upload")("doctor", "--json").stdout)["checks"]
    }
    assert found["profile"].startswith("pocket, ")
    assert found["images"].startswith(f"not shown: {NOT_ALLOWED}")


def test_an_uploading_machine_uploads_and_reads_no_picture(filled):
    typed = filled("upload")
    mine = ("--es-model-id", "test-uploaded-with-few-rights")
    for command in (("upload", *mine, "--start"), ("status", *mine), ("stop", *mine), ("delete", *mine)):
        done = typed("model", *command)
        assert done.exit_code == 0, (command, done.output)
    typed.refused("search", "a picture")


def test_a_key_for_some_indexes_does_not_know_which_others_there_are(node, index_name):
    answers = answers_for_key(
        {
            "role_descriptors": {
                "x": {
                    "cluster": [],
                    "indices": [{"names": ["*"], "privileges": ["read", "view_index_metadata"]}],
                }
            }
        }
    )
    with proxy(node.url, answers) as url, connect(EngineSettings(url)) as client:
        assert ImageIndex(client, alias=index_name).uuids() is None
    with connect(EngineSettings(node.url)) as client:
        assert ImageIndex(client, alias=index_name).uuids() is not None


def test_the_requests_are_printed_as_curl_and_without_the_password(monkeypatch):
    monkeypatch.setenv("ELASTICSEARCH_URL", "https://me:secret@elastic.example:9200")
    done = CliRunner().invoke(main, ["keys", "--index", "photos"])
    assert done.exit_code == 0
    assert "secret" not in done.stdout
    commands = [part.partition("\n") for part in done.stdout.strip().split("\n\n")]
    assert [comment.split(":")[0] for comment, _, _ in commands] == ["# search", "# ingest", "# upload"]
    for _, _, command in commands:
        words = shlex.split(command.replace("\\\n", " "))
        assert "https://elastic.example:9200/_security/api_key" in words
        (rights,) = json.loads(words[-1])["role_descriptors"].values()
        for each in rights["indices"]:
            assert set(each["names"]) <= {"photos", "photos-*", "glimpse-advise-*", "glimpse-compare-*"}


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("http://localhost", "ELASTICSEARCH_URL is 'http://localhost', which names no port"),
        ("http://localhost/es", "which names no port"),
        (
            "http://exa_mple..com:9200",
            "ELASTICSEARCH_URL is 'http://exa_mple..com:9200', to which no request",
        ),
        (f"http://{'a' * 64}.com:9200", "to which no request can be sent"),
    ],
)
def test_an_address_that_the_client_refuses_is_one_sentence(url, sentence, tmp_path):
    done = CliRunner().invoke(main, ["status"], env={"ELASTICSEARCH_URL": url, "GLIMPSE_HOME": str(tmp_path)})
    assert done.exit_code == 1
    assert isinstance(done.exception, SystemExit)
    assert sentence in done.output
    assert done.output.count("\n") == 1


def test_a_key_is_read_from_a_file(tmp_path):
    file = tmp_path / "key"
    environ = {"ELASTICSEARCH_URL": "http://localhost:9200", "ELASTICSEARCH_API_KEY_FILE": str(file)}
    with pytest.raises(EngineError, match=r"cannot be read \(No such file or directory\)"):
        engine_settings(environ, tmp_path)
    file.write_text("\n")
    with pytest.raises(EngineError, match="which is empty"):
        engine_settings(environ, tmp_path)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(EngineError, match="it is no text"):
        engine_settings(environ, tmp_path)
    file.write_text("c2VjcmV0\n")
    assert engine_settings(environ, tmp_path).api_key == "c2VjcmV0"
    environ["ELASTICSEARCH_API_KEY"] = "another"
    assert engine_settings(environ, tmp_path).api_key == "another"
