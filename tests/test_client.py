"""The connection, its error messages, and bulk writing to an overloaded server."""

import contextlib
import http.server
import json
import socket
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from elasticsearch import ConnectionTimeout, Elasticsearch
from flask import Flask
from http_fronts import closed_port, proxy, serving, tls_front
from waiting import PATIENCE_S, wait_until

from es_config import transport
from es_config.bulk import RETRY_AFTER_S, add_documents
from es_config.client import EngineSettings, afterwards, connect, engine_errors
from es_config.documents import ImageDocument, IndexMeta, IndexOptions
from es_config.errors import EngineError
from es_config.index import ImageIndex
from es_config.vector_field import temporary_index
from search_app.web.tls import self_signed_tls

META = IndexMeta("pocket", {}, 4, 4, "cosine")
OVERLOADED = {"error": {"type": "es_rejected_execution_exception", "reason": "queue is full"}, "status": 429}


@pytest.fixture(scope="module")
def front(node, tmp_path_factory):
    with tls_front(node.url, tmp_path_factory.mktemp("tls")) as running:
        yield running


@pytest.fixture(scope="module")
def front_of_20k(node, tmp_path_factory):
    """Let no body of more than 20 kB pass to the node."""
    with tls_front(node.url, tmp_path_factory.mktemp("narrow"), largest="20k") as running:
        yield running


def blank_app() -> Flask:
    app = Flask(__name__)
    app.config["MAX_UPLOAD"] = 1000
    return app


def refused(settings: EngineSettings, **options: float) -> str:
    """Connect in vain and return the sentence."""
    with pytest.raises(EngineError) as caught:
        connect(settings, **options)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def test_a_cluster_with_tls_and_an_api_key_is_used_like_the_local_node(front, index_name):
    with connect(EngineSettings(front.url, front.key, front.ca)) as client:
        index = ImageIndex(client, alias=index_name)
        index.create(META, IndexOptions())
        assert index.count() == 0


def test_a_wrong_api_key_is_one_sentence(front):
    for key in ("d3Jvbmc6a2V5", None):
        assert refused(EngineSettings(front.url, key, front.ca)) == (
            f"Elasticsearch at {front.url} refused the login: set ELASTICSEARCH_API_KEY to a valid API key."
        )


def test_a_wrong_or_missing_ca_is_one_sentence(front):
    for ca in (front.other_ca, None):
        assert refused(EngineSettings(front.url, front.key, ca)) == (
            f"The certificate of Elasticsearch at {front.url} is not trusted: set ELASTICSEARCH_CA_CERTS to "
            "the certificate of the CA that signed it."
        )


def test_a_ca_that_does_not_say_what_it_is_for_does_until_python_3_12_and_is_explained_since(front):
    settings = EngineSettings(front.url, front.key, front.lax_ca)
    if sys.version_info < (3, 13):
        connect(settings).close()
    else:
        assert "run Glimpse with Python 3.12" in refused(settings)


def test_a_ca_file_without_a_certificate_is_one_sentence(front, tmp_path):
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing")
    assert "a file without a certificate" in refused(EngineSettings(front.url, front.key, empty))


def test_a_damaged_ca_file_is_one_sentence(front, tmp_path):
    cut = tmp_path / "cut.pem"
    cut.write_text(front.ca.read_text()[:300])
    assert "a file without a certificate" in refused(EngineSettings(front.url, front.key, cut))


def test_another_host_name_than_the_certificates_is_one_sentence(front):
    url = front.url.replace("127.0.0.1", "localhost")
    assert "is for another host name" in refused(EngineSettings(url, front.key, front.ca))


def test_tls_where_there_is_none_is_one_sentence(node):
    url = node.url.replace("http:", "https:")
    assert "does not speak TLS: write ELASTICSEARCH_URL with http://" in refused(EngineSettings(url))


def test_http_where_there_is_tls_is_one_sentence(front, tmp_path):
    """nginx answers with a page, granian with an alert of TLS, as Elasticsearch hangs up."""
    with serving(blank_app(), tls=self_signed_tls(tmp_path)) as granian:
        for url in (front.url, granian):
            plain = url.replace("https:", "http:")
            begin = f"The server at {plain} speaks TLS: write ELASTICSEARCH_URL with https://"
            assert refused(EngineSettings(plain)).startswith(begin)
            secret = plain.replace("//", "//me:secret@")
            assert refused(EngineSettings(secret)).startswith(begin)


def test_a_server_that_hangs_up_on_tls_is_not_said_to_have_a_wrong_certificate():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            with contextlib.suppress(OSError):  # the test ends, and with it the server
                while True:
                    server.accept()[0].close()

        threading.Thread(target=hang_up, daemon=True).start()
        sentence = refused(EngineSettings(f"https://127.0.0.1:{server.getsockname()[1]}"))
    assert "certificate" not in sentence


@pytest.mark.parametrize("word", ["Certificates", "PEM", "Hostname-Mismatch"])
def test_what_the_engine_refuses_is_not_taken_for_a_fault_of_tls_because_of_a_word_in_it(client, word):
    with pytest.raises(EngineError, match=r"the name of an index .*must be lowercase"):
        ImageIndex(client, alias=word).create(META, IndexOptions())


def test_a_block_is_explained_by_its_status_not_by_its_words(node):
    def answer(status: int, reason: str):
        error = {"type": "cluster_block_exception", "reason": reason}
        return status, json.dumps({"error": error, "status": status}).encode()

    said = {}
    for status, reason in ((403, "no master of read-only-allow-delete"), (429, "full"), (503, "away")):
        answered = answer(status, reason)
        with (
            proxy(node.url, lambda _m, path, it=answered: it if "_count" in path else None) as url,
            connect(EngineSettings(url)) as blocked,
            pytest.raises(EngineError) as caught,
        ):
            ImageIndex(blocked.options(max_retries=0)).count()
        said[status] = str(caught.value)
    assert "takes no writes (no master of read-only-allow-delete)" in said[403]
    assert "nearly full" in said[429]
    assert "no master node" in said[503]


def test_nobody_at_the_address_is_one_sentence():
    with closed_port() as port:
        url = f"http://127.0.0.1:{port}"
        assert refused(EngineSettings(url)) == (
            f"No Elasticsearch answers at {url}: run `glimpse up`, or correct ELASTICSEARCH_URL if it is set."
        )


def test_a_server_that_is_too_old_is_one_sentence(node):
    old = json.dumps({"version": {"number": "8.19.0"}}).encode()
    with proxy(node.url, lambda _method, path: (200, old) if path == "/" else None) as url:
        assert "is version 8.19.0: Glimpse needs 9.5 or newer" in refused(EngineSettings(url))


def test_another_program_at_the_address_is_one_sentence():
    class Plain(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"hi")

        def log_message(self, *_: object) -> None:
            """Tests print nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Plain) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        assert (
            refused(EngineSettings(url))
            == f"What answers at {url} is not Elasticsearch: correct ELASTICSEARCH_URL."
        )
        server.shutdown()


def test_a_server_that_is_too_slow_is_one_sentence(node):
    given_up = threading.Event()

    def late(_method: str, _path: str) -> None:
        given_up.wait()

    with proxy(node.url, late) as url:
        try:
            assert "did not answer in time" in refused(EngineSettings(url), timeout_s=0.2)
        finally:
            given_up.set()


def test_a_key_without_the_right_is_one_sentence(node):
    body = json.dumps(
        {"error": {"type": "security_exception", "reason": "action is unauthorized"}, "status": 403}
    )
    with (
        proxy(node.url, lambda _m, path: (403, body.encode()) if "_count" in path else None) as url,
        connect(EngineSettings(url)) as client,
        pytest.raises(EngineError, match=r"may not do this \(action is unauthorized\): give it that right"),
    ):
        ImageIndex(client).count()


def test_other_exceptions_are_left_alone():
    with pytest.raises(KeyError), engine_errors():
        raise KeyError("mine")


def test_a_clean_up_that_fails_too_is_a_note_to_the_first_error():
    def fail() -> None:
        raise EngineError("the second")

    with pytest.raises(KeyError) as caught, afterwards(fail):
        raise KeyError("the first")
    assert caught.value.__notes__ == ["the second"]
    with pytest.raises(EngineError, match="the second"), afterwards(fail):
        pass
    with pytest.raises(EngineError, match="the second"), afterwards(fail):
        raise KeyboardInterrupt
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt), afterwards(lambda: done.append("clean")):
        raise KeyboardInterrupt
    assert done == ["clean"]


def pictures(count: int) -> list[ImageDocument]:
    """Documents with vectors that differ."""
    vectors = np.random.default_rng(0).normal(size=(count, 4)).astype(np.float32)
    now = datetime.now(UTC)
    return [ImageDocument(str(n), str(n), (str(n),), vectors[n], 1, 1, 1, now) for n in range(count)]


def test_writing_waits_and_goes_on_when_an_overloaded_server_recovers(node, client, index_name):
    ImageIndex(client, alias=index_name).create(META, IndexOptions())
    answers = [(429, json.dumps(OVERLOADED).encode())] * 2
    pauses = []
    with (
        proxy(node.url, lambda _m, path: answers.pop() if "_bulk" in path and answers else None) as url,
        connect(EngineSettings(url)) as slow,
    ):
        result = add_documents(slow, index_name, pictures(3), meta=META, sleep=pauses.append)
    assert (result.added, result.failed) == (3, {})
    assert pauses == [0.5, 1.0]


def test_only_the_documents_that_were_turned_away_are_sent_again(node, client, index_name):
    index = ImageIndex(client, alias=index_name)
    index.create(META, IndexOptions())
    documents = pictures(3)
    index.add(documents[:1])
    turned_away = {"status": 429, "error": OVERLOADED["error"]}
    items = [{"index": {"_id": "0", "status": 200}}] + [
        {"index": {"_id": str(n), **turned_away}} for n in (1, 2)
    ]
    answers = [(200, json.dumps({"took": 1, "errors": True, "items": items}).encode())]
    with (
        proxy(node.url, lambda _m, path: answers.pop() if "_bulk" in path and answers else None) as url,
        connect(EngineSettings(url)) as slow,
    ):
        result = add_documents(slow, index_name, documents, meta=META, sleep=lambda _: None)
    assert result.added == 3
    # The first was written once, by the test itself: it was not among those sent again.
    assert [client.get(index=index_name, id=str(n))["_version"] for n in range(3)] == [1, 1, 1]
    for n in range(3):
        np.testing.assert_allclose(index.vector(str(n)), documents[n].image_embedding, atol=1e-6)


def test_a_cluster_that_chooses_a_master_or_a_shard_is_waited_for(node, client, index_name):
    ImageIndex(client, alias=index_name).create(META, IndexOptions())
    block = {"type": "cluster_block_exception", "reason": "blocked by: [SERVICE_UNAVAILABLE/2/no master];"}
    shard = {"type": "unavailable_shards_exception", "reason": "primary shard is not active"}
    items = [
        {"index": {"_id": str(n), "status": 503, "error": each}} for n, each in enumerate((block, shard))
    ]
    whole = json.dumps({"error": block, "status": 503}).encode()
    answers = [(503, whole)] * 4 + [(200, json.dumps({"took": 1, "errors": True, "items": items}).encode())]
    pauses = []
    with (
        proxy(node.url, lambda _m, path: answers.pop() if "_bulk" in path and answers else None) as url,
        connect(EngineSettings(url)) as failing,
    ):
        result = add_documents(failing, index_name, pictures(2), meta=META, sleep=pauses.append)
    assert (result.added, result.failed) == (2, {})
    assert pauses == [0.5, 1.0]


def test_a_server_that_stays_overloaded_is_given_up_after_the_last_retry(node, client, index_name):
    ImageIndex(client, alias=index_name).create(META, IndexOptions())
    body = json.dumps(OVERLOADED).encode()
    pauses = []
    with (
        proxy(node.url, lambda _m, path: (429, body) if "_bulk" in path else None) as url,
        connect(EngineSettings(url)) as slow,
        pytest.raises(EngineError, match="3 pictures could not be written after 5 retries"),
    ):
        add_documents(slow, index_name, pictures(3), meta=META, sleep=pauses.append)
    assert pauses == list(RETRY_AFTER_S)


def test_requests_that_are_too_large_for_a_proxy_are_sent_in_halves(front_of_20k, client, index_name):
    index = ImageIndex(client, alias=index_name)
    index.create(META, IndexOptions())
    paths = tuple(f"copies/{n:05}.jpg" for n in range(2000))
    documents = [replace(each, relative_path=(*each.relative_path, "x" * 500)) for each in pictures(300)]
    documents[217] = replace(documents[217], relative_path=paths)
    with connect(EngineSettings(front_of_20k.url, front_of_20k.key, front_of_20k.ca)) as limited:
        result = add_documents(limited, index_name, documents, meta=META)
        assert result.added == 299
        (failed,) = result.failed.items()
        assert failed[0] == "217"
        assert failed[1].startswith("its document is larger than Elasticsearch, or a proxy in front of it,")
        assert "client_max_body_size" in failed[1]
        client.indices.refresh(index=index_name)
        assert index.count() == 299
        # Versions tell that no document was written twice.
        found = client.mget(index=index_name, ids=[str(n) for n in range(300) if n != 217])["docs"]
        assert {each["_version"] for each in found} == {1}
        with temporary_index(
            limited, label="x", dims=64, similarity="cosine", index_options={"type": "flat"}
        ) as some:
            vectors = np.random.default_rng(1).normal(size=(300, 64)).astype(np.float32)
            some.add([str(n) for n in range(300)], vectors)
            assert some.nearest(vectors[7], k=1, num_candidates=10) == ["7"]


@pytest.mark.parametrize("pause_s", [3600.0, 0.05])
def test_a_server_sends_nothing_more_to_an_elasticsearch_that_hangs(node, monkeypatch, pause_s):
    monkeypatch.setattr(transport, "PAUSE_S", pause_s)
    hangs, released, asked = threading.Event(), threading.Event(), []

    def decide(_: str, path: str) -> None:
        asked.append(path)
        if hangs.is_set():
            released.wait(PATIENCE_S)

    with proxy(node.url, decide) as url:
        client = connect(EngineSettings(url), timeout_s=5, is_server=True)
        hangs.set()
        impatient = client.options(request_timeout=0.2)
        for _ in range(transport.FAILURES):
            with pytest.raises(ConnectionTimeout):
                impatient.info()
        came = len(asked)
        if pause_s > PATIENCE_S:
            for _ in range(20):
                with pytest.raises(ConnectionTimeout):
                    client.info()
            assert len(asked) == came
        hangs.clear()
        released.set()
        if pause_s < PATIENCE_S:
            wait_until(lambda: answers(client))
            assert all(answers(client) for _ in range(10))
        client.close()


def test_whoever_queued_behind_requests_that_hang_does_not_wait_as_long_again(node, monkeypatch):
    monkeypatch.setattr(transport, "PAUSE_S", 3600.0)
    monkeypatch.setattr(transport, "LATE_S", 0.0)
    hangs, released, asked = threading.Event(), threading.Event(), []

    def decide(_: str, path: str) -> None:
        asked.append(path)
        if hangs.is_set():
            released.wait(PATIENCE_S)

    with (
        proxy(node.url, decide) as url,
        contextlib.closing(connect(EngineSettings(url), timeout_s=PATIENCE_S, is_server=True)) as client,
    ):
        client.info()  # which also looks whether it is Elasticsearch
        came = len(asked)
        hangs.set()
        patient = [threading.Thread(target=client.info) for _ in range(transport.FAILURES - 1)]
        for each in patient:
            each.start()
        wait_until(lambda: len(asked) == came + len(patient))
        with pytest.raises(ConnectionTimeout):
            client.options(request_timeout=0.2).info()
        wait_until(lambda: len(asked) == came + transport.FAILURES)
        with pytest.raises(ConnectionTimeout):
            client.info()
        assert len(asked) == came + transport.FAILURES
        released.set()
        for each in patient:
            each.join()
        client.info()  # an answer is believed


def answers(client: Elasticsearch) -> bool:
    try:
        client.info()
    except ConnectionTimeout:
        return False
    return True
