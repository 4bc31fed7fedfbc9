"""Routes that change something: refused to other sites' pages, and to everybody on a read-only server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from urllib.parse import urlsplit

from flask import current_app, request

from search_app.errors import QueryError

OUR_OWN = ("same-origin", "none")
"""what browsers say in `Sec-Fetch-Site` of our own page, and of an address that a person typed"""


class ForbiddenError(QueryError):
    """The server does not do this for whoever asks; the message says why."""

    status = 403


def writing(view: Callable) -> Callable:
    """Mark a view that changes something; it has to be the innermost decorator.

    The view then raises `ForbiddenError` when the server is read-only, and when a browser sends the request
    for another site's page: a form on any page that a person visits can be sent to this machine.
    """

    @wraps(view)
    def guarded(*args: object, **kwargs: object) -> object:
        check_writable()
        check_origin(request.headers, host=request.host)
        return view(*args, **kwargs)

    guarded.writes = True
    return guarded


def check_writable() -> None:
    """Raise `ForbiddenError` when this server was started with `--read-only`."""
    if current_app.config["READ_ONLY"]:
        raise ForbiddenError("This server only searches: it was started with --read-only.")


def check_origin(headers: Mapping[str, str], *, host: str) -> None:
    """Raise `ForbiddenError` for a request that a browser makes for a page of another site than `host`.

    Programs other than browsers send neither header, and pass.
    """
    site, origin = headers.get("Sec-Fetch-Site"), headers.get("Origin")
    if site is not None and site not in OUR_OWN:
        raise ForbiddenError("Another site's page asked for this; do it on the page of Glimpse itself.")
    if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
        raise ForbiddenError(
            f"The page at '{origin[:100]}' asked '{host[:100]}' for this; do it on the page of Glimpse itself"
            " (a proxy in front of it has to pass the Host header on)."
        )
