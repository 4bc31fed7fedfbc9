"""Pictures at addresses of the web that the operator listed, fetched within limits."""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import unquote, urljoin, urlsplit

from ingest.errors import UnreadableImageError
from ingest.files.walk import Stamp, valid_unicode
from ingest.sources.source import far_file, stamp_by

if TYPE_CHECKING:
    import requests

CONNECT_S = 10.0
REDIRECTS = 5
AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
"""statuses after which the same request may succeed"""
PAUSES_S = (0.5, 1.0, 2.0)
LONGEST_PAUSE_S = 10.0
"""as long as `Retry-After` is obeyed at most"""
PIECE = 1 << 16
WHOLE = {"Accept-Encoding": "identity"}
"""asks for content as it is, in which an offset means something"""
CONNECTIONS = 32


class _AgainError(Exception):
    """The same request may succeed later. The message says why it did not."""

    def __init__(self, reason: str, pause: float = 0.0) -> None:
        super().__init__(reason)
        self.pause = pause


@dataclass(frozen=True)
class WebLimits:
    """How much of the web one picture may take."""

    bytes: int = 100 << 20
    seconds: float = 60.0
    """for one attempt, all of it"""


@dataclass(frozen=True)
class WebReader:
    """Fetches addresses over kept connections. Thread-safe."""

    limits: WebLimits = field(default_factory=WebLimits)

    @cached_property
    def _session(self) -> requests.Session:
        import requests
        from requests.adapters import HTTPAdapter

        session = requests.Session()
        session.headers["User-Agent"] = "glimpse"
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(pool_connections=CONNECTIONS, pool_maxsize=CONNECTIONS))
        return session

    def read(self, url: str) -> tuple[bytes, Stamp | None]:
        """Return the content and its stamp. Raises `UnreadableImageError` after the last attempt."""
        for pause in (*PAUSES_S, None):
            try:
                return self._read(url)
            except _AgainError as error:
                if pause is None:
                    raise UnreadableImageError(str(error)) from error
                time.sleep(max(pause, error.pause))
        raise AssertionError("the last attempt returns or raises")

    def stamp(self, url: str) -> Stamp | None:
        """Return the stamp that the server tells without the content, or None."""
        try:
            with self._asked("HEAD", url, time.monotonic() + self.limits.seconds) as answer:
                return _stamp(answer, int(answer.headers.get("Content-Length", -1)))
        except (_AgainError, UnreadableImageError, ValueError):
            return None

    def open(self, url: str, noted: Stamp) -> BinaryIO | None:
        """Return the content as a file, if the server tells the noted stamp."""
        try:
            with self._asked("HEAD", url, time.monotonic() + self.limits.seconds, WHOLE) as answer:
                found = _stamp(answer, int(answer.headers.get("Content-Length", -1)))
                tag = answer.headers.get("ETag", "")
        except (_AgainError, UnreadableImageError, ValueError):
            return None
        if found is None or found != noted:
            return None
        same = {} if tag.startswith("W/") or not tag else {"If-Match": tag}
        return far_file(lambda start: self._pieces(url, start, same), noted.size)

    def close(self) -> None:
        """Close the connections."""
        if "_session" in vars(self):
            self._session.close()

    def _read(self, url: str) -> tuple[bytes, Stamp | None]:
        import urllib3

        limits, begin = self.limits, time.monotonic()
        with self._asked("GET", url, begin + limits.seconds) as answer:
            promised = answer.headers.get("Content-Length", "")
            size = int(promised) if promised.isdigit() else None
            if (size or 0) > limits.bytes:
                raise UnreadableImageError(f"larger than {limits.bytes >> 20} MiB (--fetch-mb)")
            data = bytearray()
            try:
                # `read1` returns what has come: a server that drips is seen before it has sent a whole piece.
                while piece := answer.raw.read1(PIECE, decode_content=True):
                    data += piece
                    if len(data) > limits.bytes:
                        raise UnreadableImageError(f"larger than {limits.bytes >> 20} MiB (--fetch-mb)")
                    if time.monotonic() - begin > limits.seconds:
                        raise UnreadableImageError(
                            f"it took longer than {limits.seconds:g} s (--fetch-seconds)"
                        )
            except urllib3.exceptions.ReadTimeoutError as error:
                raise _AgainError("it did not answer in time") from error
            except (urllib3.exceptions.HTTPError, OSError) as error:
                raise _AgainError("the connection was cut") from error
            if size is not None and len(data) < size and "Content-Encoding" not in answer.headers:
                raise _AgainError("the connection was cut")
            if not data:
                raise UnreadableImageError("the file is empty")
            return bytes(data), _stamp(answer, len(data))

    def _pieces(self, url: str, start: int, same: Mapping[str, str]) -> Iterator[bytes]:
        """Yield the content from an offset on. Raises `UnreadableImageError`."""
        import urllib3

        headers = {**WHOLE, **same, **({"Range": f"bytes={start}-"} if start else {})}
        left = self.limits.seconds
        try:
            with self._asked("GET", url, time.monotonic() + left, headers) as answer:
                skip = 0 if answer.status_code == 206 else start
                while True:
                    begin = time.monotonic()
                    piece = answer.raw.read1(PIECE)
                    left -= time.monotonic() - begin  # not the time that the reader takes
                    if left < 0:
                        raise UnreadableImageError(f"it took longer than {self.limits.seconds:g} s")
                    if not piece:
                        return
                    yield piece[skip:]
                    skip = max(0, skip - len(piece))
        except (_AgainError, urllib3.exceptions.HTTPError, OSError) as error:
            raise UnreadableImageError("the connection was cut") from error

    def _asked(
        self, method: str, url: str, until: float, headers: Mapping[str, str] | None = None
    ) -> requests.Response:
        """Follow redirects to the answer. Raises `_AgainError` and `UnreadableImageError`."""
        import requests

        asked = url
        for _ in range(REDIRECTS + 1):
            left = until - time.monotonic()
            try:
                answer = self._session.request(
                    method,
                    asked,
                    headers=headers,
                    stream=True,
                    allow_redirects=False,
                    timeout=(min(CONNECT_S, max(left, 0.1)), max(left, 0.1)),
                )
            except requests.Timeout as error:
                raise _AgainError("it did not answer in time") from error
            except requests.ConnectionError as error:
                raise _AgainError("no server answers there, or the connection was cut") from error
            except (requests.RequestException, UnicodeError, ValueError) as error:
                raise UnreadableImageError(f"the address cannot be asked ({type(error).__name__})") from error
            if answer.is_redirect:
                answer.close()
                asked = _followed(url, asked, answer.headers["Location"])
                continue
            if answer.status_code in AGAIN:
                answer.close()
                wait = answer.headers.get("Retry-After", "")
                pause = min(LONGEST_PAUSE_S, float(wait)) if wait.isdigit() else 0.0
                raise _AgainError(f"the server answers {answer.status_code}", pause)
            if answer.status_code not in ((200, 206) if headers and "Range" in headers else (200,)):
                answer.close()
                gone = " (it is gone)" if answer.status_code in (404, 410) else ""
                raise UnreadableImageError(f"the server answers {answer.status_code}{gone}")
            return answer
        raise UnreadableImageError(f"more than {REDIRECTS} redirects")


def _followed(first: str, asked: str, location: str) -> str:
    """Return the address that a redirect leads to. Raises `UnreadableImageError` for a private one.

    The operator listed the first address and not this one: a public server must not send us into a house.
    """
    found = urljoin(asked, location)
    parts = urlsplit(found)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UnreadableImageError("it leads to an address that is not of the web")
    home = urlsplit(first).hostname or ""
    if parts.hostname != home and _is_private(parts.hostname) and not _is_private(home):
        raise UnreadableImageError("it leads to an address of this machine or its network")
    return found


def _is_private(host: str) -> bool:
    """Return whether a name leads to an address that is not public, or to none."""
    try:
        found = {each[4][0] for each in socket.getaddrinfo(host, None)}
    except OSError:
        return False  # the request says so
    return any(not ipaddress.ip_address(str(each).partition("%")[0]).is_global for each in found)


def _stamp(answer: requests.Response, size: int) -> Stamp | None:
    """Return a stamp by the tag of the content, or else by its time of change."""
    tag = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
    return stamp_by(tag, size) if tag and size >= 0 else None


@dataclass(frozen=True)
class WebObject:
    """An address of the web, as an `Origin`."""

    reader: WebReader
    address: str

    def stamp(self) -> Stamp | None:
        """Ask the server, without the content."""
        return self.reader.stamp(self.address)

    def open(self, noted: Stamp) -> BinaryIO | None:
        """Open the content, if the server tells that it is the noted one."""
        return self.reader.open(self.address, noted)

    def read(self) -> tuple[bytes, Stamp | None]:
        """Fetch the content. Raises `UnreadableImageError`."""
        return self.reader.read(self.address)

    def stream(self) -> tuple[Iterator[bytes], Stamp | None]:
        """Fetch the content, which the limits keep small. Raises `UnreadableImageError`."""
        data, stamp = self.read()
        return iter((data,)), stamp

    def beside(self, name: str, most: int) -> None:  # noqa: ARG002 - an address says nothing of its neighbours
        """Return None: an address tells no others."""
        return

    def caption(self) -> str | None:
        """Return None: the web does not say it."""
        return None


def relative_of(url: str) -> str:
    """Return the relative path of an address: host, path, and the query if there is one."""
    parts = urlsplit(url)
    path = f"{parts.hostname or ''}{unquote(parts.path)}" + (f"?{parts.query}" if parts.query else "")
    kept = (part for part in path.split("/") if part not in ("", ".", ".."))
    return valid_unicode("/".join(kept))
