"""Compress pages and long JSON on their way out, where that tells nobody anything.

BREACH guesses a secret of a page from the lengths of its compressed answers, if it can make a browser ask for
many of them with a text of its choice. Such requests come from another site's page. Every browser says so in
`Sec-Fetch-Site`, and gets an answer that is not compressed. One that does not say it is compressed for only
if it does not carry a session.
"""

from __future__ import annotations

import gzip

from flask import Flask, Response, request

from search_app.web.http import JSON, OUR_OWN

LEAST = {"text/html": 1_000, JSON: 16_000}
"""bytes from which an answer of a media type is compressed: a short JSON is sent faster as it is"""
LEVEL = 5


def add_compression(app: Flask) -> None:
    """Compress an application's answers. It has to be the first `after_request`, which runs last."""

    @app.after_request
    def compress(response: Response) -> Response:
        least = LEAST.get(response.mimetype or "")
        if least is None or response.is_streamed or response.content_encoding or response.get_etag()[0]:
            return response
        response.vary.update(("Accept-Encoding", "Sec-Fetch-Site"))
        length = response.content_length or 0
        if length >= least and request.accept_encodings["gzip"] > 0 and not _is_foreign(app):
            response.set_data(gzip.compress(response.get_data(), LEVEL, mtime=0))
            response.content_encoding = "gzip"
        return response


def _is_foreign(app: Flask) -> bool:
    """Say whether another site's page may have caused the request, for somebody who is signed in."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is None:
        return app.config["SESSION_COOKIE_NAME"] in request.cookies
    return site not in OUR_OWN
