"""Send whole pictures: the file where ingest found it, or the copy in the store."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from flask import Response, current_app, g, request, url_for
from flask_smorest import Blueprint
from werkzeug.wsgi import wrap_file

from es_config.documents import one_line, paths_of
from es_config.errors import EngineError
from search_app.core.exposure import exposure
from search_app.core.pictures import OpenedFile, Originals
from search_app.core.query import API_PREFIX
from search_app.core.searcher import SearchService
from search_app.core.users import Role
from search_app.errors import NotFoundError
from search_app.web.hosts import is_loopback
from search_app.web.http import BINARY, ORIGINAL_OF, YEAR, may, may_fail, media_type_for, unchanging
from storage.errors import NoSuchKeyError, StorageError
from storage.keys import UPLOADS, media_type
from storage.store import Storage, find_original

LONGEST_NAME = 100
PIECE = 256 * 1024
"""bytes that are read from a file at a time"""
UNSAFE = re.compile(r"[^\w .()-]")
"""characters that a file system allows in a name, and that do not belong in a header"""
SEALED = "default-src 'none'; sandbox; frame-ancestors 'none'"
"""a Content-Security-Policy that runs nothing, even if a file's bytes can also be read as a page"""
SHOWN = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".avif")
"""extensions of pictures that every browser shows; others are drawn for it"""
LIGHT = 4_000_000
"""bytes of a file that the page of a picture shows as it is; of a larger one it shows a rendering"""
FORWARDED = ("Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP")
DOWNLOAD = {
    "in": "query",
    "name": "download",
    "schema": {"type": "boolean"},
    "description": "let the browser save it instead of showing it",
}


class NoOriginals:
    """The originals of a server that opens no ingested files."""

    def paths(self, _image_id: str, _source: Mapping[str, Any]) -> list[str]:
        """Return no path."""
        return []

    def name(self, _image_id: str, _source: Mapping[str, Any]) -> None:
        """Return no name."""

    def open(
        self,
        _image_id: str,
        _source: Mapping[str, Any],
        *,
        near: bool = False,  # noqa: ARG002
    ) -> OpenedFile | None:
        """Open nothing."""
        return None

    def film(self, _image_id: str, _source: Mapping[str, Any]) -> OpenedFile | None:
        """Open nothing."""
        return None

    def render(self, _image_id: str, _source: Mapping[str, Any]) -> bytes | None:
        """Draw nothing."""
        return None


def originals_blueprint(*, service: SearchService, storage: Storage, originals: Originals) -> Blueprint:
    """Return the routes that send whole pictures, and tell the templates which can be opened."""
    api = Blueprint("originals", __name__, url_prefix=API_PREFIX, description="Whole pictures")

    @api.get("/images/<image_id>/original")
    @api.doc(parameters=[DOWNLOAD])
    @api.response(200, BINARY, content_type="image/*")
    @may_fail(api, 404, 416)
    def original(image_id: str) -> Response:
        """Send the whole picture: the file where it was ingested, or the file or WebP copy in the store.

        Parts of it can be asked for (`Range`).
        """
        source = service.searcher.picture(image_id)
        if opened := originals.open(image_id, source):
            response = _streamed(opened, image_id)
            inline = opened.is_shown and "download" not in request.args
            return _sealed(response, opened.name, inline=inline)
        key = find_original(storage, image_id, names=names_of(source))
        if key is None:
            raise _absent(image_id)
        try:
            data = storage.get(key)
        except NoSuchKeyError as error:
            raise _absent(image_id) from error
        response = unchanging(data, mimetype=media_type(key), etag=PurePosixPath(key).name)
        stem = PurePosixPath((names_of(source) or (image_id,))[0]).stem
        return _sealed(response, f"{stem}.{key.rpartition('.')[2]}", inline="download" not in request.args)

    @api.get("/images/<image_id>/rendering")
    @api.response(200, BINARY, content_type="image/webp")
    @may_fail(api, 404, 429)
    def rendering(image_id: str) -> Response:
        """Send a WebP, at most 3840 pixels an edge, of a file that browsers do not show: HEIC, TIFF, RAW."""
        data = originals.render(image_id, service.searcher.picture(image_id))
        if data is None:
            raise _absent(image_id)
        response = unchanging(data, mimetype="image/webp", etag=f"{image_id}.rendering")
        return _sealed(response, "picture.webp", inline=True)

    _add_film(api, service=service, originals=originals)

    @api.app_context_processor
    def originals_of() -> dict[str, Any]:
        return {"original_of": original_of}

    def original_of(image_id: str, source: Mapping[str, Any]) -> dict[str, Any]:
        """Return the addresses to open, show and download a picture, if it can be, its paths and exposure."""
        return {
            **_links(originals, storage, image_id, source),
            "files": files(image_id, source) if shows_paths() else [],
            "exposure": _exposure(originals, image_id, source),
        }

    def files(image_id: str, source: Mapping[str, Any]) -> list[str]:
        try:
            return originals.paths(image_id, source)
        except (EngineError, StorageError):
            return []

    api.record_once(lambda state: state.app.extensions.update({ORIGINAL_OF: original_of}))
    return api


def _add_film(api: Blueprint, *, service: SearchService, originals: Originals) -> None:
    @api.get("/images/<image_id>/film")
    @api.doc(parameters=[DOWNLOAD])
    @api.response(200, BINARY, content_type="video/mp4")
    @may_fail(api, 404, 416)
    def film(image_id: str) -> Response:
        """Send the film of a live or motion photo, from where its picture was ingested.

        Parts of it can be asked for (`Range`).
        """
        opened = originals.film(image_id, service.searcher.picture(image_id))
        if opened is None:
            raise NotFoundError(
                f"The picture '{one_line(image_id[:70])}' has no film of its own here: it is no live or"
                " motion photo, or its files are not where this machine ingested them."
            )
        response = _streamed(opened, f"{image_id}.film-{opened.version}")
        return _sealed(response, opened.name, inline="download" not in request.args)


def _film_part(originals: Originals, image_id: str, source: Mapping[str, Any]) -> dict[str, str]:
    """Return the address of the film of a live or motion photo, if it can be played."""
    try:
        opened = originals.film(image_id, source)
    except (EngineError, StorageError):
        opened = None
    if opened is None:
        return {}
    opened.stream.close()
    return {"part": url_for("originals.film", image_id=image_id)}


def _exposure(originals: Originals, image_id: str, source: Mapping[str, Any]) -> tuple[str, ...]:
    if source.get("film"):
        return ()
    try:
        opened = originals.open(image_id, source, near=True)  # the page does not wait for a bucket
    except (EngineError, StorageError):
        opened = None
    if opened is None:
        return ()
    with opened.stream:
        return exposure(opened.stream)


def _links(
    originals: Originals, storage: Storage, image_id: str, source: Mapping[str, Any]
) -> dict[str, str]:
    """Return the addresses to open, show and download a picture, none if it is nowhere known."""
    whole = url_for("originals.original", image_id=image_id)
    try:
        found = originals.name(image_id, source)
    except (EngineError, StorageError):
        found = None
    if found and source.get("film"):
        return _film_links(whole, source["film"])
    if found:
        shown = found.lower().endswith(SHOWN)
        drawn = url_for("originals.rendering", image_id=image_id)
        is_light = shown and (source.get("size_bytes") or 0) <= LIGHT
        return {
            "open": whole if shown else drawn,
            "screen": whole if is_light else drawn,
            "download": f"{whole}?download=1",
            **_film_part(originals, image_id, source),
        }
    try:
        kept = find_original(storage, image_id, names=names_of(source))
    except StorageError:
        return {}
    return {"open": whole, "screen": whole, "download": f"{whole}?download=1"} if kept else {}


def _film_links(whole: str, film: Mapping[str, Any]) -> dict[str, str]:
    """Return the addresses to play a film and to download it. Browsers begin at the time after the sign."""
    start = f"{film['time_ms'] / 1000:.2f}".rstrip("0").rstrip(".")
    return {"film": f"{whole}#t={start}", "download": f"{whole}?download=1"}


def shows_paths() -> bool:
    """Say whether the person who asks may see where files lie on the server.

    That is a contributor who is signed in. Without a login it is somebody on this machine, as far as the
    request shows: a proxy on the same machine that forwards for others says so.
    """
    if g.get("user") is not None:
        return may(Role.CONTRIBUTOR)
    if "login.sign_in" in current_app.view_functions:
        return False
    name = request.host.rpartition(":")[0] if request.host.rpartition(":")[2].isdigit() else request.host
    is_forwarded = any(header in request.headers for header in FORWARDED)
    return is_loopback(request.remote_addr or "") and is_loopback(name) and not is_forwarded


def names_of(source: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the relative paths of a document, the uploaded one first: it is named by its content."""
    return tuple(sorted(paths_of(source), key=lambda path: not path.startswith(UPLOADS)))


def _streamed(opened: OpenedFile, etag: str) -> Response:
    """Return a file piece by piece, or the part of it that the request asks for."""
    response = Response(
        wrap_file(request.environ, opened.stream, PIECE),
        mimetype=media_type_for(opened.media_type),
        direct_passthrough=True,
    )
    response.call_on_close(opened.stream.close)
    response.content_length = opened.size
    response.set_etag(etag)
    response.cache_control.private = True
    response.cache_control.max_age = YEAR
    try:
        response.make_conditional(request, accept_ranges=True, complete_length=opened.size)
    except BaseException:
        opened.stream.close()
        raise
    return response


def _sealed(response: Response, name: str, *, inline: bool) -> Response:
    """Return an answer that runs nothing, with a file name that a header can hold."""
    path = PurePosixPath(name)
    filename = UNSAFE.sub("_", path.stem)[:LONGEST_NAME] + UNSAFE.sub("_", path.suffix)[:10]
    response.headers.set("Content-Disposition", "inline" if inline else "attachment", filename=filename)
    response.headers["Content-Security-Policy"] = SEALED
    response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
    return response


def _absent(image_id: str) -> NotFoundError:
    return NotFoundError(
        f"The original of '{one_line(image_id[:70])}' is not kept here, and its file is not where"
        " this machine ingested it, or has changed since."
    )
