"""The page: server-rendered, with its whole state in the address."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from urllib.parse import urlencode

from flask import Blueprint, current_app, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from es_config.documents import paths_of
from es_config.errors import EngineError
from es_config.requests import MAX_CANDIDATES, Filters
from search_app.core.query import (
    FILTERS,
    Query,
    SearchHit,
    encode_vector,
    load_query,
    query_arguments,
    thumbnail_url,
)
from search_app.core.searcher import Searcher, SearchService
from search_app.errors import QueryError
from search_app.settings import AppSettings
from search_app.web.http import read_upload, status_of, visitors_sentence

EXAMPLES: dict[str, tuple[tuple[str, str], ...]] = {
    "pocket": (
        ("en", "a white cat in the rain"),
        ("fr", "trois papillons verts la nuit"),
        ("de", "zwei gelbe Vögel im Wald"),
        ("es", "un caballo rojo en la ciudad"),
        ("en", "orange cats to the left of white trees"),
        ("de", "ein gelber Ballon im Regen"),
    ),
}
"""(language, text) by profile; else `OTHERS`"""
OTHERS = (
    ("en", "a dog running on the beach"),
    ("en", "people at a market"),
    ("fr", "un village sous la neige"),
    ("de", "Kinder beim Spielen"),
    ("es", "una bicicleta junto a un muro"),
)


SAMPLE_SIZE = 12
NEIGHBOURS = 6
KEPT_WITH_A_PICTURE = ("mode", "exact", "k", "num_candidates", *FILTERS)


def page_blueprint(
    *, service: SearchService, settings: AppSettings, running: Callable[[], str] = lambda: ""
) -> Blueprint:
    """Return the page's routes around a search service. `running` tells the progress of its index's runs."""
    page = Blueprint("page", __name__)

    @page.get("/")
    def search() -> str | Response | tuple[str, int]:
        """Show the start page, or the hits of the query that the address holds."""
        given = _given()
        if given != request.args.to_dict() and given:
            return redirect(address(given))  # empty form fields do not belong in an address
        if not given:
            return _start(service.searcher, empty="q" in request.args, is_filling=bool(running()))
        query = load_query(given, k=settings.page_size)
        return _results(service, query, default_k=settings.page_size)

    @page.post("/picture")
    def search_by_picture() -> Response:
        """Turn an uploaded picture into an address.

        A picture of the index becomes its id; any other becomes its vector, written into the address itself:
        nothing is kept here, and back, reload and sharing work after a restart and on another server, too.
        """
        searcher = service.searcher
        data = read_upload(request.files.get("image"), max_upload=settings.max_upload)
        kept = {name: request.args[name] for name in KEPT_WITH_A_PICTURE if request.args.get(name)}
        if not searcher.profile.caption_shares_space or kept.get("mode") == "words":
            kept.pop("mode", None)
        image_id = hashlib.sha256(data).hexdigest()
        if searcher.index.known([image_id]):
            return redirect(address({"like": image_id, **kept}), code=303)
        if kept.get("mode") == "hybrid":  # takes no raw vectors
            kept.pop("mode")
        searcher.check_profile()
        vector = encode_vector(searcher.embed_picture(data))
        return redirect(address({"vector": vector, **kept}), code=303)

    @page.get("/images/<image_id>")
    def picture(image_id: str) -> str:
        """Show one picture: its metadata and its neighbours."""
        searcher = service.searcher
        source = searcher.picture(image_id)
        return render_template(
            "picture.html",
            image_id=image_id,
            source=source,
            paths=paths_of(source),
            place=_place((source.get("exif") or {}).get("location")),
            thumbnail_url=thumbnail_url(image_id),
            neighbours=_neighbours(searcher, image_id),
            state=_given(),
        )

    @page.get("/progress")
    def progress() -> dict[str, object]:
        """Say how far an ingest or a pass of captions is, for the line that the page keeps fresh."""
        try:
            images = service.searcher.index.count()
        except EngineError:
            images = 0
        return {"running": running(), "images": images}

    @page.app_context_processor
    def shell() -> dict[str, object]:
        """Hand the shell the parts of every page: the box's content and the limits."""
        form = request.args if request.endpoint == "page.search" else {}
        return {
            "form": form,
            "filtered": sum(bool(form.get(name)) for name in ("mode", "exact", *FILTERS)),
            "kept": {name: form[name] for name in KEPT_WITH_A_PICTURE if form.get(name)},
            "address": address,
            "max_upload": current_app.config["MAX_UPLOAD"],
            "keeps_queries": settings.query_log,
            "running": running(),
        }

    return page


def render_error(status: int, sentence: str) -> tuple[str, int]:
    """Show one sentence in the page's shell, with the box still there to try again."""
    return render_template("error.html", status=status, sentence=sentence), status


def address(state: Mapping[str, object], image_id: str | None = None) -> str:
    """Return the address of a search's state, or of a picture that leads back to that state."""
    # Not url_for(**state): names that a visitor chose would become options of url_for.
    path = url_for("page.picture", image_id=image_id) if image_id else url_for("page.search")
    return f"{path}?{urlencode(state)}" if state else path


def _given() -> dict[str, str]:
    """Return the parameters that are not empty. Words win over the picture that was shown before."""
    given = {name: value for name, value in request.args.items() if value.strip()}
    if "q" in given:
        given.pop("like", None)
        given.pop("vector", None)
    return given


def _start(searcher: Searcher, *, empty: bool, is_filling: bool) -> tuple[str, int]:
    """Show the start page, without a word about an index that is being made at the moment."""
    sample: tuple[SearchHit, ...] = ()
    count, trouble, status = None, None, 200
    try:
        if not is_filling or searcher.index.exists():
            count = searcher.index.count()
            sample = searcher.sample(SAMPLE_SIZE)
    except EngineError as error:
        trouble, status = visitors_sentence(error), status_of(error)
    if empty and not trouble:
        trouble, status = "The query is empty: type some words, or choose a picture.", 400
    examples = EXAMPLES.get(searcher.profile.name, OTHERS)
    return render_template(
        "start.html", sample=sample, count=count, trouble=trouble, examples=examples
    ), status


def _results(service: SearchService, query: Query, *, default_k: int) -> str:
    response = service.search(query)
    state = query_arguments(query, k=default_k)
    more = response.total >= query.depth and query.depth + query.k <= MAX_CANDIDATES
    return render_template(
        "results.html",
        query=query,
        response=response,
        narrowed=query.filters != Filters(),
        state=state,
        raw={"k": str(query.k), **state},
        previous={**state, "page": query.page - 1} if query.page > 1 else None,
        following={**state, "page": query.page + 1} if more and response.hits else None,
    )


def _place(location: object) -> str | None:
    """Return latitude and longitude in degrees of a geo_point in any of the forms that `_source` may hold."""
    if isinstance(location, dict):
        return f"{location['lat']:.4f}, {location['lon']:.4f}"
    if isinstance(location, list):
        return f"{location[1]:.4f}, {location[0]:.4f}"
    return location if isinstance(location, str) else None


def _neighbours(searcher: Searcher, image_id: str) -> tuple[SearchHit, ...]:
    """Return the nearest other pictures, or none on an error: the metadata can still be shown."""
    try:
        hits = searcher.search(Query(like=image_id, k=NEIGHBOURS + 1)).hits
    except (EngineError, QueryError):
        return ()
    return tuple(hit for hit in hits if hit.image_id != image_id)[:NEIGHBOURS]
