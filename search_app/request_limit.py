"""Requests that are too large: waitress refuses them by their header, here with a problem document."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING

from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.server import BaseWSGIServer
from waitress.utilities import RequestEntityTooLarge

from search_app.problems import PROBLEM_TYPE, problem

if TYPE_CHECKING:
    from collections.abc import Iterable


class _TooLarge(RequestEntityTooLarge):
    def to_response(self, ident: str | None = None) -> tuple[str, list[tuple[str, str]], bytes]:
        """Return status, headers and body, as waitress asks every error for them."""
        del ident
        body, status, _ = problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, self.body)
        headers = [("Content-Type", PROBLEM_TYPE), ("X-Content-Type-Options", "nosniff")]
        return f"{int(status)} {body['title']}", headers, json.dumps(body).encode()


class _Parser(HTTPRequestParser):
    def received(self, data: bytes) -> int:
        """Take bytes of a request; one over the limit is an error as soon as that is known."""
        consumed = super().received(data)
        if isinstance(self.error, RequestEntityTooLarge):
            megabytes = self.adj.max_request_body_size / 1_000_000
            self.error = _TooLarge(
                f"The request is over the limit of {megabytes:.3g} MB; send fewer or smaller files."
            )
        return consumed


class _Channel(HTTPChannel):
    parser_class = _Parser


def answer_with_problems(sockets: Iterable[object]) -> None:
    """Let waitress's listening sockets answer a request over `max_request_body_size` with a problem."""
    for each in sockets:
        if isinstance(each, BaseWSGIServer):
            each.channel_class = _Channel
