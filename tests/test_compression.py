"""Answers are compressed, unless another site's page may read something from their lengths."""

from __future__ import annotations

import gzip

import pytest
from flask import Flask, Response

from search_app.web.app import SECURITY_HEADERS
from search_app.web.assets import Assets
from search_app.web.compression import add_compression

LONG = "a white cat in the rain " * 1_000


@pytest.fixture
def web():
    app = Flask("answers", static_folder=None)
    add_compression(app)

    @app.get("/<kind>")
    def answer(kind: str):
        kinds = {
            "page": Response(LONG, mimetype="text/html"),
            "short": Response("a", mimetype="text/html"),
            "json": Response(LONG, mimetype="application/json"),
            "picture": Response(LONG, mimetype="image/webp"),
            "stream": Response(iter([LONG]), mimetype="text/html"),
        }
        return kinds[kind]

    return app.test_client()


def ask(web, path: str, **headers: str):
    return web.get(path, headers={"Accept-Encoding": "gzip", **headers})


@pytest.mark.parametrize("path", ["/page", "/json"])
def test_a_long_answer_is_compressed_for_those_who_take_it(web, path):
    packed = ask(web, path)
    assert packed.content_encoding == "gzip"
    assert packed.content_length == len(packed.data) < len(LONG) / 10
    assert gzip.decompress(packed.data).decode() == LONG
    plain = web.get(path)
    assert plain.text == LONG
    assert plain.vary.to_header() == packed.vary.to_header() == "Accept-Encoding, Sec-Fetch-Site"


@pytest.mark.parametrize("path", ["/short", "/picture", "/stream"])
def test_a_short_or_compressed_or_streamed_answer_is_sent_as_it_is(web, path):
    assert ask(web, path).content_encoding is None


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_nothing_that_another_site_asks_for_is_compressed(web, site):
    assert ask(web, "/page", **{"Sec-Fetch-Site": site}).content_encoding is None
    for own in ("same-origin", "none"):
        assert ask(web, "/page", **{"Sec-Fetch-Site": own}).content_encoding == "gzip"


def test_somebody_who_is_signed_in_with_a_browser_that_does_not_say_who_asks_gets_nothing_compressed(web):
    web.set_cookie("session", "x")
    assert ask(web, "/page").content_encoding is None
    assert ask(web, "/page", **{"Sec-Fetch-Site": "same-origin"}).content_encoding == "gzip"


def test_the_page_can_be_installed_and_takes_shared_pictures():
    import json

    files = Assets().files
    manifest = json.loads(files["glimpse.webmanifest"].data)
    assert {icon["src"] for icon in manifest["icons"]} <= set(files)
    assert {"192x192", "512x512"} <= {icon["sizes"] for icon in manifest["icons"]}
    assert manifest["share_target"]["params"]["files"][0]["name"] == "image"
    assert files["glimpse.webmanifest"].media_type == "application/manifest+json"
    assert "manifest-src 'self'" in SECURITY_HEADERS["Content-Security-Policy"]
