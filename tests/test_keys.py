"""The keys that `glimpse keys` asks for are enough for their commands, and for no others."""

from __future__ import annotations

import json
import os
import shlex
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from click.testing import CliRunner, Result
from http_fronts import proxy
from picture_files import save_picture
from rights import answers_for_key

from es_config.client import EngineSettings, connect, engine_settings
from es_config.errors import EngineError
from es_config.index import ImageIndex
from glimpse import main

ALIAS = "images"
NOT_ALLOWED = "The API key may not do this"
Typed = Callable[..., Result]


@pytest.fixture(scope="module")
def place(node, tmp_path_factory, tiny_pair) -> Iterator[Callable[[str], Typed]]:
    """Return a function that gives the program of a machine whose key is named."""
    folder = tmp_path_factory.mktemp("keys")
    alias = f"test-{folder.name}"
    printed = CliRunner().invoke(main, ["keys", "--index", alias, "--json"])
    bodies = json.loads(printed.stdout)
    environ = {
        "GLIMPSE_HOME": str(folder / "home"),
        "GLIMPSE_MODEL_DIR": str(tiny_pair),
        "GLIMPSE_INDEX": alias,
        "GLIMPSE_PRECISION": "fp32",
        "GLIMPSE_TEXT_LANE": "local",
        "ELASTICSEARCH_API_KEY": node.key,
    }
    for number in range(24):
        save_picture(folder / "pictures" / f"{number:02}.png", number, size=(60, 40))
    with ExitStack() as stack:
        urls = {name: stack.enter_context(proxy(node.url, answers_for_key(bodies[name]))) for name in bodies}

        def of(machine: str) -> Typed:
            def typed(*arguments: object) -> Result:
                words = [str(each).format(pictures=folder / "pictures") for each in arguments]
                where = environ | {"ELASTICSEARCH_URL": urls[machine]}
                return CliRunner().invoke(main, words, env=os.environ | where)

            return typed

        yield of
        with connect(EngineSettings(node.url)) as client:
            for index in client.indices.get(index=f"{alias}-*", expand_wildcards="all"):
                client.indices.delete(index=index)


@pytest.fixture
def filled(place, monkeypatch) -> Callable[[str], Typed]:
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    done = place("ingest")("ingest", "{pictures}", "--captions", "off")
    assert done.exit_code == 0, done.output
    return place


def test_an_ingesting_machine_can_do_its_work(filled):
    typed = filled("ingest")
    for command in (
        ("index", "status"),
        ("search", "a picture"),
        ("caption", "--limit", "2"),
        ("ingest", "{pictures}", "--prune", "--captions", "off", "--retry-failed"),
        ("tune", "--k", "5"),
        ("duplicates",),
        ("status",),
        ("doctor",),
    ):
        done = typed(*command)
        assert NOT_ALLOWED not in done.output.replace("not shown: " + NOT_ALLOWED, ""), (command, done.output)
        assert done.exit_code == 0, (command, done.output)


def test_a_searching_machine_can_search_and_change_nothing(filled):
    typed = filled("search")
    for command in (
        ("search", "a picture"),
        ("search", "a picture", "--mode", "hybrid"),
        ("index", "status"),
        ("duplicates",),
        ("status",),
        ("doctor",),
    ):
        done = typed(*command)
        assert done.exit_code == 0, (command, done.output)
    for command in (
        ("ingest", "{pictures}", "--captions", "off", "--retry-failed", "--prune"),
        ("caption", "--limit", "1"),
        ("index", "delete", "--yes"),
    ):
        done = typed(*command)
        assert done.exit_code == 1, command
        assert NOT_ALLOWED in done.output, (command, done.output)


def test_doctor_and_status_go_on_where_a_key_may_not_ask(filled):
    done = filled("search")("doctor", "--json")
    assert done.exit_code == 0
    found = {each["name"]: each["detail"] for each in json.loads(done.stdout)["checks"]}
    assert found["elasticsearch"].startswith("unknown version at ")
    for name in ("licence", "disk", "shards"):
        assert found[name].startswith(f"not shown: {NOT_ALLOWED}"), name
        assert "[monitor,all]" in found[name]
    assert found["images"] == "24"
    status = json.loads(filled("search")("status", "--json").stdout)
    assert (status["version"], status["images"]) == (None, 24)
    blind = filled("upload")("status", "--json")
    assert blind.exit_code == 0
    assert json.loads(blind.stdout)["images"] is None
    done = filled("upload")("doctor")
    assert done.exit_code == 1
    assert NOT_ALLOWED in done.output


def test_an_uploading_machine_uploads_and_reads_no_picture(filled):
    typed = filled("upload")
    mine = ("--es-model-id", "test-uploaded-with-few-rights")
    for command in (("upload", *mine, "--start"), ("status", *mine), ("stop", *mine), ("delete", *mine)):
        done = typed("model", *command)
        assert done.exit_code == 0, (command, done.output)
    assert NOT_ALLOWED in typed("search", "a picture").output


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
