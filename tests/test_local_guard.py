"""No web page reads or changes anything on the local node, whatever name or route it takes."""

from __future__ import annotations

import http.client
import stat
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import pytest
from browsers import PATIENCE_MS, launched
from elasticsearch import ApiError, Elasticsearch
from playwright.sync_api import Page, sync_playwright
from tiny_torchscript import fresh_model, torchscript, upload
from waiting import PATIENCE_S

EVIL = "evil.example"
FOREIGN = (
    {"Host": EVIL},
    {"Host": f"{EVIL}:9200", "Origin": f"http://{EVIL}:9200", "Sec-Fetch-Site": "same-origin"},
    {"Host": "127.0.0.1.evil.example"},
    {"Host": "evil.example@127.0.0.1"},
    {"Host": "127.0.0.1:9200.evil.example"},
    {"Host": "192.168.0.1"},
    {"Host": "[::2]:9200"},
    {"Host": ""},
    {"Host": None},
    {"Origin": f"http://{EVIL}"},
    {"Origin": "http://localhost:5000"},
    {"Origin": "null"},
    {"Origin": "http://["},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
)
OURS = (
    {},
    {"Host": "localhost"},
    {"Host": "LOCALHOST:9200"},
    {"Host": "127.0.0.1:1"},
    {"Host": "[::1]:9200"},
    {"Sec-Fetch-Site": "none"},
)
ROUTES = (
    ("GET", "/"),
    ("HEAD", "/"),
    ("OPTIONS", "/"),
    ("GET", "/{alias}/_search"),
    ("POST", "/{alias}/_search"),
    ("POST", "/{alias}/_rollover"),
    ("POST", "/{alias}/_forcemerge"),
    ("POST", "/{alias}/_refresh"),
    ("GET", "/{alias}/_flush"),
    ("DELETE", "/{alias}-1"),
    ("GET", "/_ml/trained_models"),
    ("POST", "/_ml/trained_models/{model}/deployment/_stop"),
    ("POST", "/_ml/trained_models/{model}/deployment/_start?number_of_allocations=3000"),
    ("DELETE", "/_ml/trained_models/{model}?force=true"),
    ("GET", "/no/such/route/at/all"),
)


def ask(url: str, method: str, path: str, headers: dict[str, str | None]) -> int:
    """Send a request without a body, with `Host` as it is given, and return the status."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE_S)
    connection.putrequest(method, path, skip_host="Host" in headers)
    for name, value in {**headers, "Content-Length": "0"}.items():
        if value is not None:
            connection.putheader(name, value)
    connection.endheaders()
    status = connection.getresponse().status
    connection.close()
    return status


@pytest.fixture(scope="module")
def model(client, tmp_path_factory) -> Iterator[str]:
    """The id of a started model."""
    with fresh_model(client) as model_id:
        upload(client, model_id, torchscript(tmp_path_factory.mktemp("tiny") / "model.pt"))
        client.ml.start_trained_model_deployment(model_id=model_id)
        yield model_id


@pytest.fixture
def alias(client, index_name) -> str:
    """An alias that `_rollover` could move, of an index that holds a document."""
    client.indices.create(index=f"{index_name}-1", aliases={index_name: {"is_write_index": True}})
    client.index(index=index_name, id="kept", document={"caption": "a boat"}, refresh=True)
    return index_name


def check_nothing_changed(client: Elasticsearch, alias: str, model: str) -> None:
    """Assert that the alias, its document and the deployment are as before."""
    assert list(client.indices.get_alias(index=f"{alias}*")) == [f"{alias}-1"]
    assert client.get(index=alias, id="kept")["found"]
    [stats] = client.ml.get_trained_models_stats(model_id=model)["trained_model_stats"]
    assert (stats["deployment_stats"]["state"], stats["deployment_stats"]["number_of_allocations"]) == (
        "started",
        1,
    )


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_a_request_with_a_foreign_header_is_refused_on_every_route(client, node, alias, model, headers):
    for method, path in ROUTES:
        assert ask(node.url, method, path.format(alias=alias, model=model), headers) == 403, path
    check_nothing_changed(client, alias, model)


@pytest.mark.parametrize("headers", OURS, ids=str)
def test_a_program_of_this_machine_is_let_in_by_each_of_its_names(node, alias, headers):
    for path in ("/", f"/{alias}/_search", "/_ml/trained_models"):
        assert ask(node.url, "GET", path, headers) == 200


def test_no_index_can_be_closed(client, alias):
    with pytest.raises(ApiError, match="closing indices is disabled"):
        client.indices.close(index=alias)
    assert client.get(index=alias, id="kept")["found"]


def test_only_its_owner_can_read_the_key(node, node_home):
    key = node_home / "node" / "api_key"
    assert key.read_text() == node.key
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert node.key not in repr(node)


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves a folder and prints nothing."""

    def log_message(self, *_: object) -> None:
        """Tests print nothing."""


@pytest.fixture
def evil_page(tmp_path: Path) -> Iterator[Page]:
    """A page of a name that leads to this machine, in a real Chromium."""
    (tmp_path / "index.html").write_text("<!doctype html><title>evil</title>")
    handler = partial(QuietHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, sync_playwright() as playwright:
        Thread(target=server.serve_forever, daemon=True).start()
        browser = launched(playwright, f"--host-resolver-rules=MAP {EVIL} 127.0.0.1")
        page = browser.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(f"http://{EVIL}:{server.server_address[1]}/")
        yield page
        browser.close()
        server.shutdown()


FETCH = """async ([url, method, mode]) => {
  try {
    const answer = await fetch(url, { method, mode });
    return `${answer.type} ${answer.status}`;
  } catch (error) {
    return String(error);
  }
}"""


def test_a_page_of_another_name_changes_nothing(client, node, alias, model, evil_page):
    for method, path in ROUTES:
        url = node.url + path.format(alias=alias, model=model)
        if method in ("GET", "POST"):
            # The browser sends it and hides the answer from the page.
            assert evil_page.evaluate(FETCH, [url, method, "no-cors"]) == "opaque 0", path
        if method != "HEAD":
            assert evil_page.evaluate(FETCH, [url, method, "cors"]) == "TypeError: Failed to fetch", path
    check_nothing_changed(client, alias, model)


def test_a_page_whose_name_is_pointed_at_the_node_changes_nothing(client, node, alias, model, evil_page):
    rebound = node.url.replace("127.0.0.1", EVIL)
    assert evil_page.goto(f"{rebound}/").status == 403
    for method, path in ROUTES:
        url = rebound + path.format(alias=alias, model=model)
        assert evil_page.evaluate(FETCH, [url, method, "cors"]) == "basic 403", path
    check_nothing_changed(client, alias, model)
