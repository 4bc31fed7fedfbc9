"""The production server: connections that cost nothing, bulkheads, limits, TLS, and proxies."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from flask import Flask, Response, jsonify, request, url_for
from http_fronts import kept_port, serving
from waiting import PATIENCE_S, wait_until
from werkzeug.wsgi import wrap_file

from search_app.errors import ServeError
from search_app.web import server as page_server
from search_app.web.hosts import BehindProxy, check_prefix, parse_networks, trusted_hosts
from search_app.web.server import ListenOptions
from search_app.web.tls import fingerprint, open_tls, self_signed_tls

ROOT = Path(__file__).parent.parent

THREADS = 2
CHUNKED = b"POST /api/v1/images HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """The event that searches of the small application wait for."""
    opened = threading.Event()
    yield opened
    opened.set()


@pytest.fixture
def app(gate) -> Flask:
    """An application with one route for each bulkhead."""
    made = Flask("small", static_folder=None)
    made.config["MAX_UPLOAD"] = 1000

    @made.get("/")
    @made.get("/api/v1/images/x/original")
    def search() -> str:
        assert gate.wait(PATIENCE_S)
        return "found"

    @made.get("/healthz")
    @made.get("/static/page.css")
    @made.get("/api/v1/images/x/thumbnail")
    def light() -> str:
        return "here"

    @made.post("/api/v1/images")
    def add() -> Response:
        return jsonify(size=len(request.get_data()), stated=request.content_length)

    @made.get("/seen")
    def seen() -> Response:
        return jsonify(
            address=request.remote_addr, scheme=request.scheme, host=request.host, link=url_for("light")
        )

    return made


def connect(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=PATIENCE_S)


def answer(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    with closing(http.client.HTTPResponse(connection)) as response:
        response.begin()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return response.status, headers, response.read()


def ask(url: str, path: str) -> tuple[int, dict[str, str], bytes]:
    with connect(url) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return answer(connection)


@pytest.mark.parametrize(
    "begin",
    [
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"",
        b"GET /healthz HTTP/1.1\r\nX-slow: ",
        b"POST /api/v1/images HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\nx",
    ],
    ids=["idle", "silent", "in its header", "in its body"],
)
def test_connections_that_send_nothing_more_keep_nobody_out(app, begin):
    with serving(app, threads=THREADS) as url, ExitStack() as opened:
        for _ in range(300):
            opened.enter_context(connect(url)).sendall(begin)
        assert ask(url, "/healthz")[0] == 200


def test_health_and_files_do_not_wait_behind_searches(app, gate):
    with serving(app, threads=THREADS) as url, ExitStack() as opened:
        waiting = [opened.enter_context(connect(url)) for _ in range(THREADS + page_server.SEARCHES_WAITING)]
        for each in waiting:
            each.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        one_too_many = next(refused for _ in iter(int, 1) if (refused := try_search(url)) is not None)
        for path in ("/healthz", "/static/page.css", "/api/v1/images/x/thumbnail"):
            assert ask(url, path)[0] == 200
        gate.set()
        answers = [answer(each)[0] for each in waiting]
    status, headers, body = one_too_many
    assert (status, headers["retry-after"]) == (503, str(page_server.RETRY_AFTER_S))
    assert "try again" in json.loads(body)["detail"]
    # A request of the loop above may have come before the last of these.
    assert set(answers) <= {200, 503}
    assert answers.count(200) >= page_server.SEARCHES_WAITING


def test_files_and_health_do_not_wait_behind_whole_pictures(app, gate):
    with serving(app, threads=THREADS) as url, ExitStack() as opened:
        waiting = [opened.enter_context(connect(url)) for _ in range(30)]
        for each in waiting:
            each.sendall(b"GET /api/v1/images/x/original HTTP/1.1\r\nHost: localhost\r\n\r\n")
        for path in ("/healthz", "/static/page.css", "/api/v1/images/x/thumbnail"):
            assert ask(url, path)[0] == 200
        gate.set()
        assert {answer(each)[0] for each in waiting} == {200}


def try_search(url: str) -> tuple[int, dict[str, str], bytes] | None:
    """Return the refusal of a search, or None when it waits like the others until all have come."""
    with connect(url) as connection:
        connection.settimeout(0.5)
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        try:
            return answer(connection)
        except TimeoutError:
            return None


def test_a_body_over_the_limit_is_refused_by_its_header(app):
    with serving(app) as url, connect(url) as connection:
        connection.sendall(
            b"POST /api/v1/images HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999\r\n\r\n"
        )
        status, headers, body = answer(connection)
    assert (status, headers["content-type"]) == (413, "application/problem+json")
    assert "send fewer or smaller files" in json.loads(body)["detail"]


def test_a_body_that_states_no_length_is_refused_when_it_is_over_the_limit(app):
    chunk = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
    with serving(app) as url, connect(url) as connection:
        connection.sendall(
            b"POST /api/v1/images HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        try:
            for _ in range(1 + 2 * page_server.MAX_BODY // len(chunk)):
                connection.sendall(chunk)
        except (BrokenPipeError, ConnectionResetError):
            return  # the server answered and closed before all of it was sent
        assert answer(connection)[0] == 413


def test_a_chunked_body_reaches_the_application_whole(app):
    with serving(app) as url, connect(url) as connection:
        connection.sendall(CHUNKED + b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n")
        assert json.loads(answer(connection)[2]) == {"size": 7, "stated": 7}


def test_a_body_that_drips_is_ended(app, monkeypatch):
    monkeypatch.setattr(page_server, "BODY_S", 0.2)
    with serving(app) as url, connect(url) as connection:
        connection.sendall(b"POST /api/v1/images HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx")
        status, _, body = answer(connection)
    assert status == 408
    assert "too slowly" in json.loads(body)["detail"]


def test_https_with_a_certificate_that_the_machine_signs_for_itself(app, tmp_path):
    tls = self_signed_tls(tmp_path)
    assert tls.key.stat().st_mode & 0o777 == 0o600
    assert self_signed_tls(tmp_path) == tls  # and it is not made anew
    shown = fingerprint(tls.certificate)
    with serving(app, tls=tls) as url:
        trusting = ssl.create_default_context(cafile=str(tls.certificate))
        with urllib.request.urlopen(f"{url}/healthz", context=trusting, timeout=PATIENCE_S) as response:
            assert response.read() == b"here"
    assert shown == fingerprint(self_signed_tls(tmp_path).certificate)


def test_files_that_are_no_certificate_are_told_before_anything_starts(tmp_path):
    good = self_signed_tls(tmp_path)
    other = tmp_path / "other.pem"
    other.write_text("no certificate")
    told: list[str] = []
    options = {"self_signed": False, "home": tmp_path, "say": told.append}
    assert open_tls(good.certificate, good.key, **options) == good
    assert open_tls(None, None, **options) is None
    with pytest.raises(ServeError, match="no certificate and key"):
        open_tls(other, good.key, **options)
    with pytest.raises(ServeError, match="both --certificate and --key"):
        open_tls(good.certificate, None, **options)
    with pytest.raises(ServeError, match="either --self-signed or"):
        open_tls(good.certificate, None, self_signed=True, home=tmp_path, say=told.append)


def test_the_access_log_has_a_line_for_each_answer(app, capsys):
    with serving(app, log_access=True) as url:
        ask(url, "/healthz?q=secret")
        ask(url, "/nowhere")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(each["path"], each["status"]) for each in lines] == [("/healthz", 200), ("/nowhere", 404)]
    assert "secret" not in json.dumps(lines)


def seen(app: Flask, *, prefix: str = "", proxies: tuple[str, ...] = (), path: str = "/seen", **headers: str):
    """Return the answer to a request from 10.1.2.3, in which the application says how it sees it."""
    app.wsgi_app = BehindProxy(app.wsgi_app, prefix=prefix, proxies=parse_networks(proxies))
    return app.test_client().get(path, headers=headers, environ_base={"REMOTE_ADDR": "10.1.2.3"})


FORWARDED = {
    "X-Forwarded-For": "203.0.113.9",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "pictures.example",
    "X-Forwarded-Prefix": "/glimpse",
}


def test_a_trusted_proxy_says_who_really_asked_and_below_which_path(app):
    assert seen(app, proxies=("10.0.0.0/8",), **FORWARDED).json == {
        "address": "203.0.113.9",
        "scheme": "https",
        "host": "pictures.example",
        "link": "/glimpse/api/v1/images/x/thumbnail",
    }


@pytest.mark.parametrize("proxies", [(), ("10.9.9.9",)])
def test_nobody_else_is_believed(app, proxies):
    assert seen(app, proxies=proxies, **FORWARDED).json == {
        "address": "10.1.2.3",
        "scheme": "http",
        "host": "localhost",
        "link": "/api/v1/images/x/thumbnail",
    }


def test_a_proxy_may_leave_the_path_on(app):
    assert seen(app, prefix="/glimpse", path="/glimpse/seen").json["link"] == (
        "/glimpse/api/v1/images/x/thumbnail"
    )


@pytest.mark.parametrize("odd", ["glimpse", "//evil.example", "/a b", "/a?b", "/ä"])
def test_an_odd_prefix_is_refused(odd):
    with pytest.raises(ServeError, match="write it like /glimpse"):
        check_prefix(odd)
    assert check_prefix("/pictures/glimpse/") == "/pictures/glimpse"


def test_an_odd_proxy_is_refused():
    with pytest.raises(ServeError, match="an address such as 10.0.0.1"):
        parse_networks(["proxy.example"])


def test_a_server_that_others_reach_answers_to_its_own_names_and_not_to_any():
    named = trusted_hosts("0.0.0.0", ("Pictures.Example",))
    assert {"pictures.example", "localhost", socket.gethostname().lower()} <= set(named)
    assert "evil.example" not in named
    assert trusted_hosts("127.0.0.1", ()) == ("localhost", "127.0.0.1", "::1")


def test_options_have_the_defaults_of_the_command():
    assert ListenOptions() == ListenOptions("127.0.0.1", 5000, 8, None, "", (), False)


def test_a_file_that_is_half_a_key_is_no_key(tmp_path):
    home = Path(tmp_path)
    tls = self_signed_tls(home)
    tls.certificate.write_bytes(tls.certificate.read_bytes()[:100])
    assert self_signed_tls(home).certificate.read_text().count("END CERTIFICATE") == 1


def test_a_large_file_is_sent_piece_by_piece_and_closed(app, tmp_path):
    path = tmp_path / "large"
    path.write_bytes(bytes(range(256)) * (page_server.LARGEST_IN_MEMORY // 128))
    files = []

    @app.get("/api/v1/images/large/original")
    def original() -> Response:
        files.append(path.open("rb"))
        made = Response(wrap_file(request.environ, files[-1], 65536), direct_passthrough=True)
        made.content_length = path.stat().st_size
        made.call_on_close(files[-1].close)
        return made

    with serving(app, threads=THREADS) as url:
        status, headers, body = ask(url, "/api/v1/images/large/original")
        assert (status, headers["content-length"]) == (200, str(path.stat().st_size))
        assert body == path.read_bytes()
        with connect(url) as hasty:  # goes away in the middle
            hasty.sendall(b"GET /api/v1/images/large/original HTTP/1.1\r\nHost: localhost\r\n\r\n")
            hasty.recv(10_000)
        wait_until(lambda: len(files) == 2 and all(file.closed for file in files))


STOPPED = """
import os, sys, threading
from flask import Flask
from search_app.web import server
app = Flask("stopped")
app.config["MAX_UPLOAD"] = 1000
for _ in range(12):
    before = server._threads()
    page = server.PageServer(app, server.ListenOptions(port=int(sys.argv[1])))
    page.run(ready=page.stop)
    left = server._threads() - before
    assert not left, left
"""


def test_a_server_that_has_stopped_leaves_no_thread_that_could_abort_the_process():
    with kept_port() as port:
        command = [sys.executable, "-c", STOPPED, str(port)]
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
    assert (done.returncode, done.stderr) == (0, "")
