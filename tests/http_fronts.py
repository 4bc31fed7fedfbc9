"""Servers in front of the real node: nginx with TLS and API keys, and a proxy that can answer itself."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from flask import Flask
from waiting import PATIENCE_S

from search_app.web.server import ListenOptions, PageServer

GOOD_KEY = "Z29vZDprZXk="
NGINX = """
daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log; worker_processes 1;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  map $http_authorization $allowed {{ default 0; "ApiKey {key}" 1; }}
  server {{
    listen 127.0.0.1:{port} ssl;
    client_max_body_size {largest}; client_body_buffer_size {largest};
    ssl_certificate {folder}/server.pem; ssl_certificate_key {folder}/server.key;
    location / {{
      error_page 401 = @refused;
      if ($allowed = 0) {{ return 401; }}
      proxy_pass {node_url};
    }}
    location @refused {{
      default_type application/json;
      add_header X-Elastic-Product Elasticsearch always;
      return 401 '{{"error":{{"type":"security_exception","reason":"unable to authenticate"}},"status":401}}';
    }}
  }}
}}
"""


@dataclass(frozen=True)
class TlsFront:
    """A TLS server that wants an API key."""

    url: str
    key: str
    ca: Path
    other_ca: Path
    """a CA that did not sign the server's certificate"""
    lax_ca: Path
    """a certificate of the CA that does not say what it is for, as Elasticsearch made them before 2025"""


@contextmanager
def tls_front(node_url: str, folder: Path, *, largest: str = "1m") -> Iterator[TlsFront]:
    """Run nginx before `node_url`, with certificates made for this run. `largest` is the limit of a body."""
    for program, package in (("nginx", "nginx-light"), ("openssl", "openssl")):
        assert shutil.which(program, path="/usr/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin"), (
            f"this test needs {program}: apt-get install {package}"
        )
    for name in ("ca", "other"):
        _openssl(
            folder,
            f"req -x509 -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.pem -subj /CN={name}"
            " -addext keyUsage=critical,keyCertSign,cRLSign",
        )
    _openssl(folder, "req -x509 -new -key ca.key -out lax.pem -subj /CN=ca")
    _openssl(folder, "req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=127.0.0.1")
    (folder / "san").write_text("subjectAltName=IP:127.0.0.1\nauthorityKeyIdentifier=keyid")
    _openssl(
        folder,
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile san -out server.pem",
    )
    configuration = folder / "nginx.conf"
    nginx = shutil.which("nginx") or "/usr/sbin/nginx"
    # nginx is handed the open socket, as when it replaces itself: no other program can take its port before.
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        port, number = listener.getsockname()[1], listener.fileno()
        configuration.write_text(
            NGINX.format(folder=folder, port=port, node_url=node_url, key=GOOD_KEY, largest=largest)
        )
        process = subprocess.Popen(
            [nginx, "-p", folder, "-e", folder / "error.log", "-c", configuration],
            env=os.environ | {"NGINX": f"{number};"},
            pass_fds=[number],
        )
    try:
        certificates = (folder / f"{name}.pem" for name in ("ca", "other", "lax"))
        yield TlsFront(f"https://127.0.0.1:{port}", GOOD_KEY, *certificates)
        assert process.poll() is None, (folder / "error.log").read_text()
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def _openssl(folder: Path, arguments: str) -> None:
    subprocess.run(
        ["openssl", *arguments.split()], cwd=folder, check=True, capture_output=True, timeout=PATIENCE_S
    )


@contextmanager
def closed_port() -> Iterator[int]:
    """Give a port of the loopback interface at which nobody answers: it is taken, and nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@contextmanager
def kept_port() -> Iterator[int]:
    """Give a port of the loopback interface for the program under test.

    On Linux it stays bound here, so that nobody else is given it; a server that sets SO_REUSEADDR, as servers
    do, can listen there all the same. While none does, nobody answers.
    """
    with socket.socket() as keeper:
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keeper.bind(("127.0.0.1", 0))
        port = keeper.getsockname()[1]
        if sys.platform != "linux":
            keeper.close()
        yield port


Answer = tuple[int, bytes] | None
TOO_LARGE = (413, b"<html><head><title>413 Request Entity Too Large</title></head></html>")


@contextmanager
def proxy(
    node_url: str, decide: Callable[[str, str], Answer], *, largest: int | None = None
) -> Iterator[str]:
    """Pass requests on to the node, except those that `decide(method, path)` answers by itself.

    A body of more than `largest` bytes is answered with 413.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else each body waits 40 ms until the client acknowledges the header

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answered = TOO_LARGE if largest is not None and len(body) > largest else None
            status, content = answered or decide(self.command, self.path) or self.forward(body)
            self.send_response(status)
            self.send_header("X-Elastic-Product", "Elasticsearch")
            kind = "text/html" if content.startswith(b"<") else "application/json"  # as of a proxy
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(b"" if self.command == "HEAD" else content)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer

        def forward(self, body: bytes) -> tuple[int, bytes]:
            headers = {
                name: self.headers[name]
                for name in ("Authorization", "Content-Type", "Accept")
                if self.headers[name]
            }
            request = urllib.request.Request(
                node_url + self.path, data=body or None, method=self.command, headers=headers
            )
            try:
                with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
                    return response.status, response.read()
            except urllib.error.HTTPError as refused:
                return refused.code, refused.read()

        def log_message(self, *_: object) -> None:
            """Tests print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # a client that has gone away
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def serving(app: Flask, **options: Any) -> Iterator[str]:
    """Run an application under the product's server in a thread and give its address."""
    with kept_port() as port:
        server = PageServer(app, ListenOptions(port=port, **{"threads": 4, **options}))
        started = threading.Event()
        thread = threading.Thread(target=server.run, kwargs={"ready": started.set}, daemon=True)
        thread.start()
        assert started.wait(PATIENCE_S), "the server did not start"
        try:
            yield f"{'https' if options.get('tls') else 'http'}://127.0.0.1:{port}"
        finally:
            server.stop()
            thread.join(PATIENCE_S)
