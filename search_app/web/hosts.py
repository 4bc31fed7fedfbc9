"""By which names and addresses a server is reached, and which proxies speak for others."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from werkzeug.middleware.proxy_fix import ProxyFix

from search_app.errors import ServeError

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
ANY_ADDRESS = "any address"
"""among trusted hosts: every IP address. A page that turns its own name to this machine has to use a name"""
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def is_address(host: str) -> bool:
    """Say whether `host` is an IP address, not a name."""
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Say whether only this machine can reach a server that listens on `host`."""
    return ipaddress.ip_address(host.strip("[]")).is_loopback if is_address(host) else host == "localhost"


def address_of(host: str, port: int, *, scheme: str = "http", prefix: str = "") -> str:
    """Return the page's address, with brackets around an IPv6 host."""
    return f"{scheme}://[{host}]:{port}{prefix}" if ":" in host else f"{scheme}://{host}:{port}{prefix}"


def trusted_hosts(host: str, named: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names that requests may use, in lower case.

    These are the `named` ones and this machine's own, so that a foreign web page cannot reach the server
    under a name that it makes point here. A server that others can reach also answers to every IP address.
    """
    own: tuple[str, ...] = LOCAL_NAMES
    if not is_loopback(host):
        names = {socket.gethostname(), socket.getfqdn(), host} - {""}
        short = {each.partition(".")[0] for each in names if not is_address(each)}
        own = (*own, *sorted(names | short | {f"{each}.local" for each in short}), ANY_ADDRESS)
    return tuple(each.lower() for each in (*named, *own))


def parse_networks(named: Iterable[str]) -> tuple[Network, ...]:
    """Return the networks of addresses such as `10.0.0.1` and `10.0.0.0/8`. Raises `ServeError`."""
    try:
        return tuple(ipaddress.ip_network(each) for each in named)
    except ValueError as error:
        raise ServeError(
            f"A trusted proxy is an address such as 10.0.0.1 or 10.0.0.0/8 ({error})."
        ) from error


def check_prefix(prefix: str) -> str:
    """Return a path such as `/glimpse` without its last slash. Raises `ServeError`."""
    cleaned = prefix.rstrip("/")
    parts = cleaned.split("/")[1:]
    if cleaned and (not cleaned.startswith("/") or not all(_is_plain(each) for each in parts)):
        raise ServeError(f"'{prefix}' is no path to serve below: write it like /glimpse.")
    return cleaned


def _is_plain(part: str) -> bool:
    return part.isascii() and part.replace("-", "").replace("_", "").replace(".", "").isalnum()


class BehindProxy:
    """Serves a WSGI application below a path, and believes trusted proxies about the real request.

    A proxy either keeps the path (`prefix` is then taken off here) or takes it off itself and names it in
    `X-Forwarded-Prefix`. From others than trusted proxies no `X-Forwarded-…` is read.
    """

    def __init__(self, application: WSGIApplication, *, prefix: str, proxies: tuple[Network, ...]) -> None:
        self._application, self._prefix, self._proxies = application, prefix, proxies
        self._told: Callable[..., Any] = ProxyFix(
            application, x_for=1, x_proto=1, x_host=1, x_port=0, x_prefix=1
        )

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        path = environ["PATH_INFO"]
        if self._prefix and (path == self._prefix or path.startswith(f"{self._prefix}/")):
            environ["SCRIPT_NAME"] = self._prefix
            environ["PATH_INFO"] = path[len(self._prefix) :] or "/"
        if self._is_trusted(environ.get("REMOTE_ADDR", "")):
            answer: Iterable[bytes] = self._told(environ, start_response)
            return answer
        return self._application(environ, start_response)

    def _is_trusted(self, address: str) -> bool:
        if not self._proxies or not is_address(address):
            return False
        parsed = ipaddress.ip_address(address)
        return any(parsed in each for each in self._proxies)
