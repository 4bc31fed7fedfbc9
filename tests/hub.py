"""A hub of models on this machine: the HTTP interface of Hugging Face over folders, with its failures."""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

WEIGHTS = (".safetensors", ".bin")
"""what the hub stores apart from Git, and redirects to"""


@dataclass
class Hub:
    """Repositories in the folders `<root>/<owner>/<name>`, each with one commit."""

    root: Path
    commits: dict[str, str]
    """repository -> its only commit"""
    url: str = ""
    status: int | None = None
    """answers everything with this status"""
    headers: dict[str, str] = field(default_factory=dict)
    hangs: bool = False
    """accepts requests and never answers"""
    cut_at: int | None = None
    """closes the connection at this byte of a large file"""
    slow: threading.Event | None = None
    """waits at `cut_at` for this event and goes on then, instead of cutting"""
    sizes: dict[str, int] = field(default_factory=dict)
    """file -> a size that the listing claims"""
    requests: list[str] = field(default_factory=list)
    """of each request its path, and its range if it has one"""

    def environ(self, cache: Path) -> dict[str, str]:
        """Return the environment of a command that downloads from here into `cache`."""
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(cache),
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }

    def listing(self, repository: str) -> dict[str, object]:
        """Return the hub's description of a repository, with the sizes and checksums of its files."""
        folder = self.root / repository
        files = []
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            name = path.relative_to(folder).as_posix()
            size = self.sizes.get(name, path.stat().st_size)
            entry: dict[str, object] = {"rfilename": name, "size": size, "blobId": git_sha1(path)}
            if name.endswith(WEIGHTS):
                entry["lfs"] = {"sha256": sha256(path), "size": size, "pointerSize": 134}
            files.append(entry)
        return {"id": repository, "sha": self.commits[repository], "siblings": files}


def sha256(path: Path) -> str:
    """Return the checksum of a large file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def git_sha1(path: Path) -> str:
    """Return the checksum that Git gives a file."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


@contextmanager
def serve(root: Path, commits: dict[str, str]) -> Iterator[Hub]:
    """Run a hub while the block lasts."""
    hub = Hub(root, commits)
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):  # of HTTP/1.0: no thread waits for another request at the end
        def log_message(self, *_arguments: object) -> None:
            """Stay silent."""

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            wanted = self.headers.get("Range")
            hub.requests.append(f"{path} {wanted}" if wanted else path)
            if hub.hangs:
                ended.wait()
            elif hub.status:
                self.answer(hub.status, hub.headers)
            elif match := re.match(r"^/api/models/([^/]+/[^/]+)/revision/(.+)$", path):
                self.describe(*match.groups())
            elif match := re.match(r"^/(cdn/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)$", path):
                self.give(*match.groups())
            else:
                self.answer(404, {"X-Error-Code": "EntryNotFound"})

        def describe(self, repository: str, revision: str) -> None:
            commit = hub.commits.get(repository)
            if commit is None:  # as for private ones, to those who are not logged in
                self.answer(401, {"X-Error-Code": "RepoNotFound"})
            elif revision not in ("main", commit):
                self.answer(404, {"X-Error-Code": "RevisionNotFound"})
            else:
                body = json.dumps(hub.listing(repository)).encode()
                self.answer(200, {"Content-Type": "application/json"}, body)

        def give(self, stored: str | None, repository: str, revision: str, name: str) -> None:
            path = hub.root / repository / name
            if revision != hub.commits.get(repository) or not path.is_file():
                self.answer(404, {"X-Error-Code": "EntryNotFound"})
            elif name.endswith(WEIGHTS) and not stored:
                self.answer(302, {"Location": f"/cdn/{repository}/resolve/{revision}/{name}"})
            else:
                self.send(path, is_large=name.endswith(WEIGHTS))

        def send(self, path: Path, *, is_large: bool) -> None:
            content = path.read_bytes()
            wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            start = int(wanted[1]) if wanted else 0
            self.send_response(206 if wanted else 200)
            self.send_header("Content-Length", str(len(content) - start))
            if wanted:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            at = hub.cut_at if is_large and hub.cut_at is not None else len(content)
            self.wfile.write(content[start:at])
            if at < len(content) and hub.slow:
                self.wfile.flush()
                hub.slow.wait()
                self.wfile.write(content[max(start, at) :])

        def answer(self, status: int, headers: dict[str, str], body: bytes = b"{}") -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def handle(self) -> None:
            try:
                super().handle()
            except (ConnectionError, TimeoutError):
                self.close_connection = True  # the other side was killed

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield hub
        finally:
            ended.set()
            if hub.slow:
                hub.slow.set()
            server.shutdown()
            thread.join()
