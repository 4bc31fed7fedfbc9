"""The page: server-rendered, with its whole state in the address."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, current_app, redirect, render_template, request, url_for
from flask_babel import gettext as _
from flask_babel import lazy_gettext
from werkzeug.wrappers import Response

from es_config.documents import paths_of, read_point
from es_config.errors import EngineError
from es_config.requests import MAX_CANDIDATES, Filters, as_curl
from search_app.core.browse import Browser, FacetsAnswer
from search_app.core.films import film_moments
from search_app.core.parts import encode_vector, split_weight, with_weight
from search_app.core.query import (
    FILTERS,
    NUMBERS,
    PARTS,
    SORTS,
    Query,
    SearchArguments,
    SearchHit,
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
from search_app.web.http import read_upload, search_arguments, status_of, visitors_sentence
from search_app.web.languages import progress_line, translated
from storage.keys import thumbnail_key
from storage.store import Storage

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
LONGEST_PLACE = 60
"""characters of a question that may be the name of a place"""
ELASTICSEARCH = "http://localhost:9200"
"""an address as in the manual: the real one is not for visitors"""
SAMPLE_SIZE = 12
NEIGHBOURS = 6
PARAMETERS = frozenset(SearchArguments().fields)
OPPOSITES = {"like": ("unlike",), "unlike": ("like",), "q": ("minus",), "minus": ("q",)}
OPPOSITES |= {"vector": ("minus_vector",), "minus_vector": ("vector",)}
"""parameters of parts that a new one takes the place of"""
ORDERS = {
    "relevance": lazy_gettext("best match first"),
    "newest": lazy_gettext("newest first"),
    "oldest": lazy_gettext("oldest first"),
    "name": lazy_gettext("by name"),
    "added": lazy_gettext("last added first"),
}
CHIPS = {
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
LABELS = {
    "q": lazy_gettext("“{}”"),
    "minus": lazy_gettext("not “{}”"),
    "like": lazy_gettext("like this picture"),
    "unlike": lazy_gettext("not like this picture"),
    "vector": lazy_gettext("like your picture"),
    "minus_vector": lazy_gettext("not like your picture"),
}
"""how a part of the question is named"""
FIELDS = {"date_from": lazy_gettext("Taken from"), "date_to": lazy_gettext("Taken until")}
"""the labels of filters whose faults do not name them"""
FAULTS = {"Not a valid date.": lazy_gettext("This is not a day, such as 2024-07-31.")}
"""sentences of marshmallow in words for people"""
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
    storage: Storage,
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
        given = _given(service.searcher)
        if given and given != search_arguments(request.args):
            return redirect(address(given))  # empty form fields do not belong in an address
        if not any(given.get(name) for name in (*PARTS, *FILTERS, "sort")):
            is_filling = bool(running())
            return _start(service.searcher, narrowing, empty="q" in request.args, is_filling=is_filling)
        try:
            query = load_query(given, k=settings.page_size)
        except QueryError as error:
            return _refused(error, given)
        return _results(service, query, narrowing, default_k=settings.page_size)

    @page.get("/narrow")
    def narrow() -> str:
        """Show the counts by which a question can be narrowed down, as a page or as a part of one."""
        state = _given(service.searcher)
        is_asked = any(state.get(name) for name in (*PARTS, *FILTERS, "sort"))
        query = load_query(state if is_asked else {**state, "sort": "newest"}, k=settings.page_size)
        template = "_narrow.html" if "part" in request.args else "narrow.html"
        return render_template(template, counts=browser.facets(query), query=query)

    @page.get("/request")
    def sent() -> Response:
        """Show the requests to Elasticsearch that answer a question, as curl, without its address and key."""
        return Response(_commands(service.searcher, page_size=settings.page_size), mimetype="text/plain")

    @page.post("/picture")
    def search_by_picture() -> Response:
        """Turn an uploaded picture, or a part of it or of a picture of the index, into an address.

        A whole picture of the index becomes its id; any other becomes its vector, written into the address
        itself: nothing is kept here, and back, reload and sharing work after a restart and on another server,
        too.
        """
        searcher = service.searcher
        part = _cut()
        if part and (image_id := request.form.get("image_id")):
            searcher.picture(image_id)  # or there is none
            data = storage.get(thumbnail_key(image_id))
        else:
            data = read_upload(request.files.get("image"), max_upload=settings.max_upload)
        shown_with = partial(changed, _given(searcher), shares_space=searcher.profile.caption_shares_space)
        image_id = hashlib.sha256(data).hexdigest()
        if not part and searcher.index.known([image_id]):
            return redirect(address(shown_with(add={"like": image_id})), code=303)
        searcher.check_profile()
        vector = encode_vector(searcher.embed_picture(data, part=part))
        return redirect(address(shown_with(add={"vector": vector})), code=303)

    @page.get("/images/<image_id>")
    def picture(image_id: str) -> str:
        """Show one picture: its metadata and its neighbours."""
        searcher = service.searcher
        source = searcher.picture(image_id)
        turned = partial(changed, shares_space=searcher.profile.caption_shares_space)
        return render_template(
            "picture.html",
            around=around(searcher, image_id, _given(searcher), page_size=settings.page_size, changed=turned),
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
        state = (
            _given(service.searcher)
            if request.endpoint in ("page.search", "page.picture", "page.narrow")
            else {}
        )
        shares_space = service.searcher.profile.caption_shares_space
        no_filters: dict[str, Any] = dict.fromkeys(FILTERS)
        return {
            "state": state,
            "chips": chips(state),
            "filtered": sum(name in state for name in FILTERS),
            "without_filters": changed(state, **no_filters),
            "asks": any(name in state for name in PARTS),
            "address": address,
            "parameters": partial(urlencode, doseq=True),
            "changed": partial(changed, shares_space=shares_space),
            "max_upload": current_app.config["MAX_UPLOAD"],
            "keeps_queries": settings.query_log,
            "running": progress_line(running()),
            "map_address": map_address,
            "faults": {},
            "facet_titles": TITLES,
            "facet_label": label_of,
            "facet_is_useful": is_useful,
            "month_name": month_name,
            "timeline_of": timeline_of,
        }

    return page


def render_error(
    status: int, sentence: str, *, faults: Mapping[str, str] = MappingProxyType({})
) -> tuple[str, int]:
    """Show one sentence in the page's shell, with the box still there to try again.

    `faults` says what is wrong with filters, by their names: it stands beside their fields, too.
    """
    return render_template("error.html", status=status, sentence=sentence, faults=faults), status


def _faults(given: Mapping[str, Any]) -> dict[str, str]:
    """Return the fault of each filter that is refused even when it stands alone."""
    found = {}
    for name in FILTERS:
        if name in given:
            try:
                load_query({name: given[name], "sort": "newest"})
            except QueryError as error:
                fault = str(error).removeprefix(f"{name}: ")
                found[name] = str(FAULTS[fault]) if fault in FAULTS else translated(fault)
    return found


def _refused(error: QueryError, given: Mapping[str, Any]) -> tuple[str, int]:
    """Show the sentence of an error, in which a field of the page is called as the page calls it."""
    faults, sentence = _faults(given), translated(str(error))
    for name, fault in faults.items():
        if str(error).startswith(f"{name}: "):
            sentence = f"{FIELDS[name]}: {fault}" if name in FIELDS else fault
    return render_error(error.status, sentence, faults=faults)


def address(state: Mapping[str, str | list[str]], image_id: str | None = None) -> str:
    """Return the address of a search's state, or of a picture that leads back to that state."""
    # Not url_for(**state): names that a visitor chose would become options of url_for.
    path = url_for("page.picture", image_id=image_id) if image_id else url_for("page.search")
    return f"{path}?{urlencode(state, doseq=True)}" if state else path


State = dict[str, str | list[str]]
"""the parameters of a search; those of the parts of a question, `PARTS`, are lists"""


def changed(
    state: Mapping[str, str | list[str]],
    *,
    shares_space: bool = True,
    add: Mapping[str, str] | None = None,
    remove: tuple[str, int] | None = None,
    weigh: tuple[str, int, float] | None = None,
    **changes: str | int | None,
) -> State:
    """Return the state of a search with some parameters changed, or left out where they are None.

    `add` has parts of the question by the name of their parameter, `remove` is the name and place of one,
    `weigh` its name, place and new weight. Everything else stays, except the page and what makes no sense any
    more: a picture has no mode for words, nor one for captions unless it `shares_space` with them.
    """
    parts = {name: list(values) for name, values in state.items() if name in PARTS}
    new: State = {name: value for name, value in state.items() if name not in (*PARTS, "page")}
    if not parts and add and new.get("sort") == "newest":  # as every list is sorted
        del new["sort"]
    for name, value in (add or {}).items():
        same = [split_weight(each)[0] for each in parts.get(name, [])]
        for opposite in OPPOSITES.get(name, ()):  # whoever likes it does not dislike it any more
            parts[opposite] = [each for each in parts.get(opposite, []) if split_weight(each)[0] != value]
        if value not in same:
            parts.setdefault(name, []).append(with_weight(value, 1))
    if remove:
        del parts[remove[0]][remove[1]]
    if weigh:
        name, place, weight = weigh
        parts[name][place] = with_weight(split_weight(parts[name][place])[0], weight)
    for name, change in changes.items():
        if name in PARTS:
            parts[name] = [] if change is None else [str(change)]
        elif change is None:
            new.pop(name, None)
        else:
            new[name] = str(change)
    ordered = {name: parts[name] for name in PARTS if parts.get(name)}
    return _coherent({**ordered, **new}, shares_space=shares_space)


def _coherent(state: Mapping[str, str | list[str]], *, shares_space: bool = True) -> State:
    """Return a state in which nothing needs a question that is not asked."""
    left_out = set()
    asked = [name for name in PARTS if name in state]
    if asked != ["q"] or len(state["q"]) > 1:
        left_out.add("min_relevance")
    kinds = {PARTS[name][0] for name in asked}
    mode = state.get("mode")
    if (
        (mode == "words" and asked and (kinds != {"text"} or "q" not in asked))
        or (mode == "hybrid" and "vector" in kinds)  # it takes no raw vectors
        or (mode in ("caption", "hybrid") and kinds - {"text"} and not shares_space)
    ):
        left_out.add("mode")
    if not asked and state.get("sort") == "relevance":
        left_out.add("sort")
    return {name: value for name, value in state.items() if name not in left_out}


@dataclass(frozen=True)
class Chip:
    """One part of a search where it can be removed, and weighed if it is one of several."""

    label: str
    without: str
    """address of the search without it"""
    name: str
    """of its parameter"""
    wanted: bool = True
    weight: str | None = None
    """in words, of a part that is weighed"""
    heavier: str | None = None
    """address of the search with the next weight"""
    image_id: str | None = None
    key: str | None = None
    """the beginning of a vector, by which the browser knows the picture that it was made of"""


def chips(state: Mapping[str, str | list[str]]) -> list[Chip]:
    """Return each part of a search, except the words of the box where they are the whole question."""
    parts = [(name, place) for name in PARTS for place in range(len(state.get(name, ())))]
    found = [_part_chip(state, name, place, is_alone=len(parts) == 1) for name, place in parts]
    if len(parts) == 1 and parts[0][0] == "q":
        found = []
    for name, value in state.items():
        if name not in PARTS and (name in CHIPS or name in FILTERS):
            without: dict[str, Any] = {name: None}
            found.append(Chip(_chip(name, str(value)), address(changed(state, **without)), name))
    return found


def _part_chip(state: Mapping[str, str | list[str]], name: str, place: int, *, is_alone: bool) -> Chip:
    value, weight = split_weight(state[name][place])
    weights = [1.0, 2.0, 0.5]
    following = weights[(weights.index(weight) + 1) % len(weights)] if weight in weights else 1.0
    subject, wanted = PARTS[name]
    return Chip(
        label=LABELS[name].format(value),
        without=address(changed(state, remove=(name, place))),
        name=name,
        wanted=wanted,
        weight=None if is_alone else f"× {weight:g}",
        heavier=None if is_alone else address(changed(state, weigh=(name, place, following))),
        image_id=value if subject == "like" else None,
        key=value[:64] if subject == "vector" else None,
    )


def _chip(name: str, value: str) -> str:
    if name in ("taken", "has_text", "film"):
        return label_of(name, value)
    if name == "place" and not NUMBERS.match(value):
        return str(_("place {}").format(value))
    if name in ("date_from", "date_to"):
        value = label_of("taken", value)
    words = {"sort": ORDERS, "mode": MODES, "min_relevance": MARKS}.get(name, {})
    return str(CHIPS.get(name, f"{name} {{}}")).format(words.get(value, value))


def _given(searcher: Searcher) -> State:
    """Return the parameters of a search that are not empty, and none that others added to the address."""
    given: State = {}
    for name, value in search_arguments(request.args).items():
        if name in PARTS:
            if some := [each for each in value if each.strip()]:
                given[name] = some
        elif name in PARAMETERS and str(value).strip():
            given[name] = value
    return _coherent(given, shares_space=searcher.profile.caption_shares_space)


def _start(searcher: Searcher, narrowing: Narrowing, *, empty: bool, is_filling: bool) -> tuple[str, int]:
    """Show the start page, without a word about an index that is being made at the moment."""
    sample: tuple[SearchHit, ...] = ()
    examples: Sequence[tuple[str, str]] = ()
    count, favourites, trouble, status = None, 0, None, 200
    try:
        if searcher.index.exists():
            count = narrowing.browser.count()
            sample = searcher.sample(SAMPLE_SIZE)
            examples = narrowing.examples(searcher, sample)
            favourites = narrowing.browser.passing(load_query({"favourite": "true"}))
        elif not is_filling:
            count = 0
    except EngineError as error:
        trouble, status = visitors_sentence(error), status_of(error)
    if empty and not trouble:
        trouble, status = _("The query is empty: type some words, or choose a picture."), 400
    return render_template(
        "start.html", sample=sample, count=count, favourites=favourites, trouble=trouble, examples=examples
    ), status


Way = tuple[str, dict[str, Any], Filters]
"""a label, what it changes in the state of a search, and the filters then"""


@dataclass(frozen=True)
class Narrowing:
    """The parts of the page of results beside the hits."""

    browser: Browser
    suggester: Suggester

    def rail(self, query: Query) -> FacetsAnswer | None:
        """Return the counts of a list. Those of a question are asked for when somebody opens them."""
        try:
            return self.browser.facets(query) if query.is_listing else None
        except EngineError:  # the list itself is there
            return None

    def passing(self, query: Query, *, least: int) -> int | None:
        """Return how many pictures pass the filters of a question, or None where only `least` are known."""
        try:
            found = None if query.is_listing else self.browser.passing(query)
        except EngineError:  # the hits are there
            return None
        return found if found and found > least else None

    def place(self, query: Query, state: Mapping[str, str | list[str]]) -> WayOut | None:
        """Return a link to the pictures of a place that the words of a question name and nothing else."""
        text = query.text or ""
        if query.filters.place or NUMBERS.match(text) or not 0 < len(text) <= LONGEST_PLACE:
            return None
        named = load_query({"place": text})
        try:
            count = self.browser.passing(named)
        except EngineError:
            return None
        label = _("Taken in %(place)s", place=text)
        return WayOut(label, address(changed(state, q=None, place=text)), count) if count else None

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

    def ways_out(self, query: Query, state: Mapping[str, str | list[str]]) -> list[WayOut]:
        """Return links that may lead from an empty answer to pictures, each with a count."""
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

    def meant(self, query: Query, state: Mapping[str, str | list[str]]) -> tuple[str, str] | None:
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
        label = _("Without “%(part)s”", part=_chip(name, str(arguments[name])))
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
        asked=", ".join(chip.label for chip in chips(state) if chip.name in PARTS),
        response=response,
        narrowed=query.filters != Filters(),
        is_empty=not response.hits and query.filters == Filters() and query.page == 1,
        rail=narrowing.rail(query) if response.hits else None,
        ways_out=[] if response.hits or query.page > 1 else narrowing.ways_out(query, state),
        passing=narrowing.passing(query, least=len(response.hits)) if is_ranked else None,
        taken_in=narrowing.place(query, state) if query.page == 1 else None,
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


def _commands(searcher: Searcher, *, page_size: int) -> str:
    bodies = searcher.requests(load_query(_given(searcher), k=page_size))
    return "\n".join(
        f"# {name}\n{as_curl(body, url=ELASTICSEARCH, index=searcher.index.alias)}\n"
        for name, body in bodies.items()
    )


def _cut() -> tuple[float, float, float, float] | None:
    """Return the part of a picture that a form asks for, each edge from 0 to 1, or None for the whole.

    Raises `QueryError`.
    """
    edges = [request.form.get(name) for name in ("left", "top", "width", "height")]
    if not any(edges):
        return None
    try:
        left, top, width, height = (float(edge or "") / 100 for edge in edges)
    except ValueError as error:
        raise QueryError("The part of the picture needs left, top, width and height in per cent.") from error
    return left, top, width, height


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
