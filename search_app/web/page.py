"""The page: server-rendered, with its whole state in the address."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, current_app, redirect, render_template, request, url_for
from flask_babel import gettext as _
from flask_babel import lazy_gettext
from werkzeug.wrappers import Response

from es_config.documents import paths_of, read_point
from es_config.errors import EngineError
from es_config.requests import MAX_CANDIDATES, Filters
from search_app.core.browse import Browser, FacetsAnswer
from search_app.core.films import film_moments
from search_app.core.query import (
    FILTERS,
    NUMBERS,
    SORTS,
    Query,
    SearchArguments,
    SearchHit,
    encode_vector,
    load_query,
    query_arguments,
    thumbnail_url,
)
from search_app.core.searcher import Searcher, SearchService
from search_app.core.suggest import KINDS, Suggester
from search_app.errors import QueryError
from search_app.settings import AppSettings
from search_app.web.around import around
from search_app.web.browse import TITLES, is_useful, label_of, month_name, timeline_of
from search_app.web.http import read_upload, status_of, visitors_sentence
from search_app.web.languages import progress_line

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


MAP = "https://www.openstreetmap.org/"
DRAWN = "drawn world"
"""in the name of the camera of every drawn picture"""
LONGEST_EXAMPLE, MOST_EXAMPLES = 60, 5
SAMPLE_SIZE = 12
NEIGHBOURS = 6
PARAMETERS = frozenset(SearchArguments().fields)
QUESTION = ("q", "like", "vector")
ORDERS = {
    "relevance": lazy_gettext("best match first"),
    "newest": lazy_gettext("newest first"),
    "oldest": lazy_gettext("oldest first"),
    "name": lazy_gettext("by name"),
    "added": lazy_gettext("last added first"),
}
CHIPS = {
    "like": lazy_gettext("like one picture"),
    "vector": lazy_gettext("like your picture"),
    "date_from": lazy_gettext("from {}"),
    "date_to": lazy_gettext("until {}"),
    "place": lazy_gettext("near {}"),
    "camera": lazy_gettext("camera {}"),
    "tag": lazy_gettext("keyword {}"),
    "path": lazy_gettext("path {}"),
    "taken": "{}",
    "person": lazy_gettext("person {}"),
    "folder": lazy_gettext("folder {}"),
    "format": lazy_gettext("format {}"),
    "has_text": "{}",
    "film": "{}",
    "favourite": lazy_gettext("favourites"),
    "mode": lazy_gettext("by {}"),
    "min_relevance": lazy_gettext("at least {}"),
    "exact": lazy_gettext("exact"),
    "sort": "{}",
}
MODES = {
    "hybrid": lazy_gettext("look, caption and words"),
    "words": lazy_gettext("the words written in them"),
    "caption": lazy_gettext("caption"),
    "image": lazy_gettext("look"),
}
MARKS = {"strong": lazy_gettext("strong"), "weak": lazy_gettext("weak")}
"""how a parameter is named where it can be removed; a filter without an entry is named by its parameter"""


def page_blueprint(
    *,
    service: SearchService,
    settings: AppSettings,
    browser: Browser,
    suggester: Suggester,
    running: Callable[[], str] = lambda: "",
) -> Blueprint:
    """Return the page's routes around a search service. `running` tells the progress of its index's runs."""
    page = Blueprint("page", __name__)
    narrowing = Narrowing(browser, suggester)

    @page.get("/")
    def search() -> str | Response | tuple[str, int]:
        """Show the start page, or the hits of the query that the address holds."""
        given = _given()
        if given != request.args.to_dict() and given:
            return redirect(address(given))  # empty form fields do not belong in an address
        if not any(given.get(name) for name in (*QUESTION, *FILTERS, "sort")):
            is_filling = bool(running())
            return _start(service.searcher, narrowing, empty="q" in request.args, is_filling=is_filling)
        query = load_query(given, k=settings.page_size)
        return _results(service, query, narrowing, default_k=settings.page_size)

    @page.get("/narrow")
    def narrow() -> str:
        """Show the counts by which a question can be narrowed down, as a page or as a part of one."""
        state = _given()
        is_asked = any(state.get(name) for name in (*QUESTION, *FILTERS, "sort"))
        query = load_query(state if is_asked else {**state, "sort": "newest"}, k=settings.page_size)
        template = "_narrow.html" if "part" in request.args else "narrow.html"
        return render_template(template, counts=browser.facets(query), query=query)

    @page.post("/picture")
    def search_by_picture() -> Response:
        """Turn an uploaded picture into an address.

        A picture of the index becomes its id; any other becomes its vector, written into the address itself:
        nothing is kept here, and back, reload and sharing work after a restart and on another server, too.
        """
        searcher = service.searcher
        data = read_upload(request.files.get("image"), max_upload=settings.max_upload)
        shown_with = partial(changed, _given(), shares_space=searcher.profile.caption_shares_space)
        image_id = hashlib.sha256(data).hexdigest()
        if searcher.index.known([image_id]):
            return redirect(address(shown_with(like=image_id)), code=303)
        searcher.check_profile()
        vector = encode_vector(searcher.embed_picture(data))
        return redirect(address(shown_with(vector=vector)), code=303)

    @page.get("/images/<image_id>")
    def picture(image_id: str) -> str:
        """Show one picture: its metadata and its neighbours."""
        searcher = service.searcher
        source = searcher.picture(image_id)
        turned = partial(changed, shares_space=searcher.profile.caption_shares_space)
        return render_template(
            "picture.html",
            around=around(searcher, image_id, _given(), page_size=settings.page_size, changed=turned),
            image_id=image_id,
            source=source,
            paths=paths_of(source),
            place=_place((source.get("exif") or {}).get("location")),
            thumbnail_url=thumbnail_url(image_id),
            film=film_moments(searcher.index, source),
            neighbours=_neighbours(searcher, image_id),
        )

    @page.get("/progress")
    def progress() -> dict[str, object]:
        """Say how far an ingest or a pass of captions is, for the line that the page keeps fresh."""
        try:
            images = service.searcher.index.count()
        except EngineError:
            images = 0
        return {"running": progress_line(running()), "images": images}

    @page.app_context_processor
    def shell() -> dict[str, object]:
        """Hand the shell the parts of every page: the box's content and the limits."""
        state = _given() if request.endpoint in ("page.search", "page.picture", "page.narrow") else {}
        shares_space = service.searcher.profile.caption_shares_space
        no_filters: dict[str, Any] = dict.fromkeys(FILTERS)
        return {
            "state": state,
            "chips": chips(state),
            "filtered": sum(name in state for name in FILTERS),
            "without_filters": changed(state, **no_filters),
            "address": address,
            "changed": partial(changed, shares_space=shares_space),
            "max_upload": current_app.config["MAX_UPLOAD"],
            "keeps_queries": settings.query_log,
            "running": progress_line(running()),
            "map_address": map_address,
            "facet_titles": TITLES,
            "facet_label": label_of,
            "facet_is_useful": is_useful,
            "month_name": month_name,
            "timeline_of": timeline_of,
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


def changed(
    state: Mapping[str, str], *, shares_space: bool = True, **changes: str | int | None
) -> dict[str, str]:
    """Return the state of a search with some parameters changed, or left out where they are None.

    Everything else stays, except the page and what only made sense before: words, a picture and a vector take
    each other's place, and a picture has no mode for words, nor one for captions unless it `shares_space`
    with them.
    """
    kept = {name: value for name, value in state.items() if name != "page" and name not in changes}
    if asked := next((name for name in QUESTION if changes.get(name)), None):
        was_asked = any(name in state for name in QUESTION)
        kept = {name: value for name, value in kept.items() if name not in QUESTION}
        if not was_asked and kept.get("sort") == "newest":  # as every list is sorted
            kept.pop("sort")
        if asked != "q" and (not shares_space or kept.get("mode") == "words"):
            kept.pop("mode", None)
        if asked == "vector" and kept.get("mode") == "hybrid":  # takes no raw vectors
            kept.pop("mode")
    new = {name: str(value) for name, value in changes.items() if value is not None}
    return _coherent({**new, **kept} if asked else {**kept, **new})


def _coherent(state: dict[str, str]) -> dict[str, str]:
    """Return a state in which words win over a picture, and nothing needs a question that is not asked."""
    left_out = {"like", "vector"} if "q" in state else {"min_relevance"}
    if state.get("sort") == "relevance" and not any(name in state for name in QUESTION):
        left_out.add("sort")
    return {name: value for name, value in state.items() if name not in left_out}


def chips(state: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return each part of a search except its words: its name, and the address of the search without it."""
    removed: list[dict[str, Any]] = [{name: None} for name in state if name in CHIPS or name in FILTERS]
    return [(_chip(name, state[name]), address(changed(state, **each))) for each in removed for name in each]


def _chip(name: str, value: str) -> str:
    if name in ("taken", "has_text", "film"):
        return label_of(name, value)
    if name == "place" and not NUMBERS.match(value):
        return str(_("place {}").format(value))
    words = {"sort": ORDERS, "mode": MODES, "min_relevance": MARKS}.get(name, {})
    return str(CHIPS.get(name, f"{name} {{}}")).format(words.get(value, value))


def _given() -> dict[str, str]:
    """Return the parameters of a search that are not empty, and none that others added to the address."""
    return _coherent(
        {name: value for name, value in request.args.items() if name in PARAMETERS and value.strip()}
    )


def _start(searcher: Searcher, narrowing: Narrowing, *, empty: bool, is_filling: bool) -> tuple[str, int]:
    """Show the start page, without a word about an index that is being made at the moment."""
    sample: tuple[SearchHit, ...] = ()
    examples: Sequence[tuple[str, str]] = ()
    count, trouble, status = None, None, 200
    try:
        if searcher.index.exists():
            count = narrowing.browser.count()
            sample = searcher.sample(SAMPLE_SIZE)
            examples = narrowing.examples(searcher, sample)
        elif not is_filling:
            count = 0
    except EngineError as error:
        trouble, status = visitors_sentence(error), status_of(error)
    if empty and not trouble:
        trouble, status = _("The query is empty: type some words, or choose a picture."), 400
    return render_template(
        "start.html", sample=sample, count=count, trouble=trouble, examples=examples
    ), status


Way = tuple[str, dict[str, Any], Filters]
"""a label, what it changes in the state of a search, and the filters then"""


@dataclass(frozen=True)
class Narrowing:
    """What the page of results offers beside the hits."""

    browser: Browser
    suggester: Suggester

    def rail(self, query: Query) -> FacetsAnswer | None:
        """Return the counts of a list. Those of a question are asked for when somebody opens them."""
        try:
            return self.browser.facets(query) if query.is_listing else None
        except EngineError:  # the list itself is there
            return None

    def examples(self, searcher: Searcher, sample: Sequence[SearchHit]) -> Sequence[tuple[str, str]]:
        """Return (language, text) of searches to try, which this index can answer.

        The small models know the drawn world alone: on other pictures captions of the index are better.
        """
        known = EXAMPLES.get(searcher.profile.name)
        if known is None:
            return OTHERS
        if self.suggester.suggest(DRAWN, kind="camera", limit=1).suggestions:
            return known
        captions = dict.fromkeys(hit.caption for hit in sample if hit.caption)
        return [("en", caption) for caption in captions if len(caption) <= LONGEST_EXAMPLE][:MOST_EXAMPLES]

    def ways_out(self, query: Query, state: Mapping[str, str]) -> list[WayOut]:
        """Return what may lead from an empty answer to pictures, each with how many the filters leave."""
        try:
            changes = [*self._nearest_values(query), *_without_filters(query)]
            counts = self.browser.counts([filters for _label, _changes, filters in changes])
        except EngineError:
            return []
        return [
            WayOut(label, address(changed(state, **changes)), count)
            for (label, changes, _filters), count in zip(changes, counts, strict=True)
            if count
        ]

    def _nearest_values(self, query: Query) -> Iterator[Way]:
        """Yield values of the index that begin as a filter says, or are spelt nearly so."""
        for kind in KINDS:
            typed = getattr(query.filters, kind)
            if isinstance(typed, str):
                for each in self.suggester.suggest(typed, kind=kind, limit=5).suggestions:
                    value: dict[str, Any] = {kind: each.text}
                    if each.text != typed:
                        yield _chip(kind, each.text), value, replace(query.filters, **value)

    def meant(self, query: Query, state: Mapping[str, str]) -> tuple[str, str] | None:
        """Return words that were perhaps meant, and the address of a search for them."""
        try:
            mended = self.suggester.mend(query.text) if query.text else None
        except EngineError:
            return None
        return (mended, address(changed(state, q=mended))) if mended else None


@dataclass(frozen=True)
class WayOut:
    """A link to pictures, and how many there are."""

    label: str
    href: str
    count: int


def _without_filters(query: Query) -> Iterator[Way]:
    """Yield the question without each of its filters, and without all of them."""
    given = {name: value for name in FILTERS if (value := getattr(query.filters, name)) is not None}
    arguments = query_arguments(query, k=query.k)
    for name in given if len(given) > 1 or not query.is_listing else ():
        none: dict[str, Any] = {name: None}
        label = _("Without “%(part)s”", part=_chip(name, arguments[name]))
        yield label, none, replace(query.filters, **none)
    if given:
        all_of_them: dict[str, Any] = dict.fromkeys(given)
        order = {"sort": query.sort or "newest"} if query.is_listing else {}
        label = _("All pictures") if query.is_listing else _("Without filters")
        yield label, {**all_of_them, **order}, Filters()


def _results(service: SearchService, query: Query, narrowing: Narrowing, *, default_k: int) -> str:
    response = service.search(query)
    is_poor = response.nothing_good or not response.hits
    state = query_arguments(query, k=default_k)
    is_ranked = query.order == "relevance"  # and asked for no more neighbours than those of this page
    more = response.total >= query.depth + (not is_ranked) and query.depth + query.k <= MAX_CANDIDATES
    return render_template(
        "results.html",
        query=query,
        response=response,
        narrowed=query.filters != Filters(),
        is_empty=not response.hits and query.filters == Filters() and query.page == 1,
        rail=narrowing.rail(query) if response.hits else None,
        ways_out=[] if response.hits or query.page > 1 else narrowing.ways_out(query, state),
        meant=narrowing.meant(query, state) if is_poor else None,
        state=state,
        raw={"k": str(query.k), **state},
        order=ORDERS[query.order],
        orders={name: ORDERS[name] for name in SORTS if name != "relevance" or not query.is_listing},
        previous=changed(state, page=query.page - 1) if query.page > 1 else None,
        following=changed(state, page=query.page + 1) if more and response.hits else None,
    )


def map_address(location: object) -> str:
    """Return the address of a map outside that shows a geo_point. Nothing asks it until somebody clicks."""
    point = read_point(location)
    if point is None:
        return MAP
    latitude, longitude = point
    return f"{MAP}?mlat={latitude:.5f}&mlon={longitude:.5f}#map=14/{latitude:.5f}/{longitude:.5f}"


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
    own = next((hit.film["id"] for hit in hits if hit.image_id == image_id and hit.film), image_id)
    others = (hit for hit in hits if hit.image_id != image_id and (hit.film or {}).get("id") != own)
    return tuple(others)[:NEIGHBOURS]
