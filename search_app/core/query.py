"""The frozen objects of a search: a valid query with its form in an address, and the response.

The text in a field's `Annotated` type is its description in the OpenAPI document.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from marshmallow import Schema, ValidationError, fields

from es_config.documents import Hit, one_line, shown_path
from es_config.requests import (
    DEFAULT_K,
    LISTING_ORDERS,
    MAX_CANDIDATES,
    UNDATED,
    Filters,
    count_stars,
    is_pattern,
)
from search_app.core.parts import (
    MAX_PARTS,
    MAX_TEXT,
    Part,
    has_lone_surrogate,
    parse_vector,
    split_weight,
    subject_mistakes,
)
from search_app.errors import QueryError

MODES = ("image", "caption", "words", "hybrid")
CANDIDATE_STEPS = (1, 1.5, 2, 3, 5, 7.5)
"""`num_candidates` that are tried: times `k`, then times 10 `k`, 100 `k`, …"""
SORTS = ("relevance", *LISTING_ORDERS)
SORTED_HITS = 100
"""the nearest pictures that a question with another order than relevance puts in that order"""
RELEVANCE = ("strong", "weak")
MAX_LENGTHS = {"place": 200, "camera": 200, "tag": 100, "path": 1_000, "person": 100, "format": 20}
MAX_LENGTHS |= {"folder": 1_000, "taken": 10}
"""characters of a filter"""
MAX_STARS = 16
"""`*` in a pattern: Elasticsearch spends longer on each more"""
METRES = {"m": 1.0, "km": 1_000.0, "mi": 1_609.344, "yd": 0.9144, "ft": 0.3048, "nmi": 1_852.0}
FARTHEST_KM = 20_100
"""a little more than half of the equator: nothing on earth is farther away"""
FILTERS: tuple[str, ...] = ("date_from", "date_to", "taken", "place", "camera", "tag", "person", "path")
FILTERS += ("folder", "format", "has_text", "film", "favourite")
YES_OR_NO = ("has_text", "film", "favourite")
TAKEN = re.compile(r"\d{4}(-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01]))?)?")
SUBJECTS = ("text", "image", "like", "vector")
"""the fields of a `Query` and of a `Part` of which one says what is asked"""
PLACE = re.compile(r"\s*(-?[\d.]+)\s*,\s*(-?[\d.]+)\s*,\s*(\d+(?:\.\d+)?)\s*(m|km|mi|yd|ft|nmi)\s*")


NUMBERS = re.compile(r"\s*-?[\d.]+\s*(,|$)")
"""the beginning of a place that is meant as numbers"""


@dataclass(frozen=True)
class Query:
    """One question: a `text`, `image`, `like`, `vector`, or `parts`. Raises `QueryError` when not valid.

    Without any of them, the pictures that pass the filters are listed. `filters` or a `sort` must say so, as
    an empty question is a mistake. A single wanted part is the same question as its text, picture, id or
    vector, whatever its weight.

    A page of a kNN search is the end of a longer answer: page p with `k` hits a page asks for the `p * k`
    nearest neighbours and shows the last `k` of them, so `p * k` is at most 10 000.
    """

    text: str | None = None
    image: bytes | Path | None = None
    """a picture file's content, or its path on this machine"""
    like: str | None = None
    """the id of a picture of the index; it is its own first hit"""
    vector: tuple[float, ...] | None = None
    parts: tuple[Part, ...] = ()
    """of a composed question"""
    k: int = DEFAULT_K
    """hits a page"""
    page: int = 1
    num_candidates: int | None = None
    """None: the index's tuned operating point, else `default_candidates`"""
    filters: Filters = field(default_factory=Filters)
    exact: bool = False
    mode: str = "image"
    """search the pictures (`image`), their captions (`caption`), the text written in them (`words`), or all
    of these and fuse the ranks (`hybrid`)"""
    min_relevance: str | None = None
    """`strong` or `weak`: hits that are marked lower are left out; for queries in words"""
    sort: str | None = None
    """one of `SORTS`; None: by relevance, and of a list the newest first"""

    def __post_init__(self) -> None:
        """Refuse a query that no search can answer."""
        object.__setattr__(self, "text", (self.text or "").strip() or None)
        if len(self.parts) == 1 and self.parts[0].wanted:
            (part,) = self.parts
            for name in SUBJECTS:
                if getattr(self, name) is None:
                    object.__setattr__(self, name, getattr(part, name))
            object.__setattr__(self, "parts", ())
        if mistake := next(self._mistakes(), None):
            raise QueryError(mistake)

    @property
    def depth(self) -> int:
        """How many neighbours Elasticsearch must find to fill this page."""
        return self.k * self.page

    @property
    def is_listing(self) -> bool:
        """Whether nothing is asked, so that the pictures which pass the filters are listed."""
        return not self.parts and all(getattr(self, name) is None for name in SUBJECTS)

    @property
    def asked(self) -> tuple[Part, ...]:
        """The parts of the question: one, unless it is composed, and none of a list."""
        if self.parts or self.is_listing:
            return self.parts
        return (Part(**{name: getattr(self, name) for name in SUBJECTS}),)

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts that are wanted."""
        if not self.parts:
            return (self.text,) if self.text else ()
        return tuple(part.text for part in self.parts if part.text and part.wanted)

    @property
    def unwanted_texts(self) -> tuple[str, ...]:
        """The texts that are not wanted."""
        return tuple(part.text for part in self.parts if part.text and not part.wanted)

    @property
    def order(self) -> str:
        """The order of the hits, one of `SORTS`."""
        return self.sort or ("newest" if self.is_listing else "relevance")

    def nearest(self) -> Query:
        """Return the query for the hits that this one sorts: the first 100, or `k` if that is more."""
        k = max(SORTED_HITS, self.k)
        candidates = self.num_candidates and max(self.num_candidates, k)
        return replace(self, k=k, page=1, num_candidates=candidates, sort=None)

    @property
    def label(self) -> str:
        """The query in a few words: each part's text, id, file name or number of dims."""
        wanted = " + ".join(part.label for part in self.asked if part.wanted)
        unwanted = " − ".join(part.label for part in self.asked if not part.wanted)
        return f"{wanted} − {unwanted}".strip() if unwanted else wanted

    def _mistakes(self) -> Iterator[str]:
        yield from self._subject_mistakes()
        yield from self._number_mistakes()
        if self.mode not in MODES:
            yield f"There is no mode '{one_line(self.mode[:20])}'; choose one of: {', '.join(MODES)}."
        if self.mode == "hybrid" and any(part.vector for part in self.asked):
            yield "A raw vector belongs to one space, which hybrid is not: choose mode image or caption."
        if self.mode == "words" and not self.is_listing and not (self.texts and self._is_of_texts):
            yield "Mode words looks for the words of a text: give a text, or choose mode image or caption."
        if self.mode == "words" and self.min_relevance is not None:
            yield "Hits of mode words have no marks: leave min_relevance out, or choose another mode."
        if self.min_relevance not in (None, *RELEVANCE):
            yield f"min_relevance is strong or weak, not '{one_line(str(self.min_relevance)[:20])}'."
        if self.min_relevance is not None and self.text is None:
            yield "Only hits of queries in words are marked: leave min_relevance out."
        if self.sort is not None and self.sort not in SORTS:
            yield f"There is no order '{one_line(self.sort[:20])}'; choose one of: {', '.join(SORTS)}."
        if self.sort == "relevance" and self.is_listing:
            yield "Without a question no picture is more relevant than another: choose another sort."
        yield from _filter_mistakes(self.filters)

    def _subject_mistakes(self) -> Iterator[str]:
        subjects = [getattr(self, name) for name in SUBJECTS]
        if sum(subject is not None for subject in (*subjects, self.parts or None)) > 1:
            yield "A question of several things has parts: give each text, picture, id and vector as one."
        if not any((*subjects, self.parts)) and not (
            self.is_listing and (self.sort or self.filters != Filters())
        ):
            yield (
                "The query is empty: give some words, a picture, an image id, a vector or a filter;"
                " sort=newest lists every picture."
            )
        if len(self.parts) > MAX_PARTS:
            yield f"The question has {len(self.parts)} parts; at most {MAX_PARTS} are allowed."
        yield from subject_mistakes(self.text, self.like, self.vector)

    @property
    def _is_of_texts(self) -> bool:
        return len(self.texts) + len(self.unwanted_texts) == len(self.asked)

    def _number_mistakes(self) -> Iterator[str]:
        if not 1 <= self.k <= MAX_CANDIDATES:
            yield f"k must be between 1 and {MAX_CANDIDATES}, and it is {self.k}."
        if self.page < 1 or self.depth > MAX_CANDIDATES:
            last = MAX_CANDIDATES // self.k
            yield f"With k = {self.k}, page must be between 1 and {last}, and it is {self.page}."
        if self.num_candidates is not None and not self.k <= self.num_candidates <= MAX_CANDIDATES:
            limits = f"between k ({self.k}) and {MAX_CANDIDATES}"
            yield f"num_candidates must be {limits}, and it is {self.num_candidates}."


def _filter_mistakes(filters: Filters) -> Iterator[str]:
    if filters.date_from and filters.date_to and filters.date_from > filters.date_to:
        yield "date_from is later than date_to, and so no picture can match."
    for name, most in MAX_LENGTHS.items():
        value = getattr(filters, name)
        text = value if isinstance(value, str) else ""
        if len(text) > most:
            yield f"{name} has {len(text)} characters; at most {most} are allowed."
        if has_lone_surrogate(text):
            yield f"{name} is not valid Unicode text."
    if filters.taken and not is_taken(filters.taken):
        yield (
            "taken must be a year, a month or a day, such as 2023, 2023-07 or 2023-07-31, or unknown, not"
            f" '{one_line(filters.taken[:20])}'."
        )
    if filters.path and is_pattern(filters.path) and (stars := count_stars(filters.path)) > MAX_STARS:
        yield f"The pattern in path has {stars} times *; at most {MAX_STARS} are allowed."


def is_taken(text: str) -> bool:
    """Say whether a text is a year, month or day that exists, or stands for pictures without a date."""
    if text == UNDATED:
        return True
    try:
        date.fromisoformat(f"{text}{'-01-01'[len(text) - 4 :]}")
    except ValueError:
        return False
    return TAKEN.fullmatch(text) is not None


def default_candidates(depth: int) -> int:
    """Return the smallest of 100, 200, 400, … that is at least `2 * depth`, at most 10 000.

    Twice the neighbours wanted is where `int8_hnsw` is within one percent of its best recall. The coarse
    steps matter for paging: pages that share a step come from one and the same candidate list.
    """
    return min(doubled(100, 2 * depth), MAX_CANDIDATES)


def doubled(first: int, least: int) -> int:
    """Return the smallest of `first`, twice that, four times that, … that is at least `least`."""
    while first < least:
        first *= 2
    return first


def parse_place(text: object) -> tuple[float, float, str] | str:
    """Return (latitude, longitude, distance) of `48.85,2.35,10km`, or a name. Raises `QueryError`."""
    match = PLACE.fullmatch(str(text))
    if match is None and isinstance(text, str) and not NUMBERS.match(text):
        return " ".join(text.split())
    latitude = longitude = math.nan
    with suppress(ValueError):  # the pattern lets 1.2.3 through
        if match:
            latitude, longitude = float(match[1]), float(match[2])
    if match is None or not (-90 <= latitude <= 90 and -180 <= longitude <= 180):
        raise QueryError(
            "place must be a name like Lisbon, or latitude,longitude,distance like 48.85,2.35,10km,"
            f" not '{one_line(str(text)[:60])}'."
        )
    if not 0 < float(match[3]) * METRES[match[4]] <= FARTHEST_KM * 1_000:
        raise QueryError(f"The distance in place must be more than 0 and at most {FARTHEST_KM} km.")
    return latitude, longitude, match[3] + match[4]


def _documented(description: str, **more: object) -> dict[str, Any]:
    return {"description": description, **more}


PARTS = {
    "q": ("text", True),
    "like": ("like", True),
    "vector": ("vector", True),
    "minus": ("text", False),
    "unlike": ("like", False),
    "minus_vector": ("vector", False),
}
"""parameter -> the field of its `Part`, and whether that is wanted"""
WEIGHTED = "; several may be given, each with a weight at its end, as in `boats^0.5`"


class SearchArguments(Schema):
    """The parameters of one search, read from text. `Query` says which values are allowed."""

    q: fields.Field[Any] = fields.List(
        fields.String(), metadata=_documented(f"words to search for, at most {MAX_TEXT} characters{WEIGHTED}")
    )
    like: fields.Field[Any] = fields.List(
        fields.String(),
        metadata=_documented(f"id of a picture of the index: find pictures like it{WEIGHTED}"),
    )
    minus: fields.Field[Any] = fields.List(
        fields.String(), metadata=_documented(f"words that are not wanted{WEIGHTED}")
    )
    unlike: fields.Field[Any] = fields.List(
        fields.String(), metadata=_documented(f"id of a picture of the index that is not wanted{WEIGHTED}")
    )
    vector: fields.Field[Any] = fields.List(
        fields.String(),
        metadata=_documented(f"base64url of little-endian float16 numbers, as the page writes{WEIGHTED}"),
    )
    minus_vector: fields.Field[Any] = fields.List(
        fields.String(), metadata=_documented("a vector that is not wanted, in the same form")
    )
    k = fields.Integer(metadata=_documented("hits a page", maximum=MAX_CANDIDATES))
    page = fields.Integer(metadata=_documented("1 for the k nearest, 2 for the next k; page * k ≤ 10 000"))
    num_candidates = fields.Integer(
        metadata=_documented("candidates per shard; default: the tuned operating point, else 2 * k or 100")
    )
    mode = fields.String(
        metadata=_documented(
            "search the pictures, their captions, the words written in them, or all and fuse the ranks",
            enum=MODES,
        )
    )
    min_relevance = fields.String(
        metadata=_documented(
            "leave out hits of words that are marked lower; for a calibrated index", enum=RELEVANCE
        )
    )
    sort = fields.String(
        metadata=_documented(
            f"order of the hits; default: relevance, and newest where nothing is asked. Any other order than"
            f" relevance is that of the {SORTED_HITS} nearest, or of k if that is more",
            enum=SORTS,
        )
    )
    exact = fields.Boolean(metadata=_documented("look at every vector instead of the graph"))
    date_from = fields.Date(metadata=_documented("taken on this day or later"))
    date_to = fields.Date(metadata=_documented("taken on this day or earlier"))
    place = fields.Function(
        deserialize=parse_place,
        metadata=_documented(
            "the name of a place, in any language, or latitude,longitude,distance, which is more than 0 and"
            f" at most {FARTHEST_KM} km",
            type="string",
            example="48.85,2.35,10km",
        ),
    )
    camera = fields.String(metadata={"maxLength": MAX_LENGTHS["camera"]})
    tag = fields.String(
        metadata=_documented(
            "a keyword that the picture has, or the name of a person in it", maxLength=MAX_LENGTHS["tag"]
        )
    )
    path = fields.String(
        metadata=_documented(
            f"start of a path, or of a folder or file in it, or a pattern with ? and at most {MAX_STARS} *",
            maxLength=MAX_LENGTHS["path"],
        )
    )
    taken = fields.String(
        metadata=_documented(
            "a year, month or day by the clocks of the place, or unknown for pictures without a date",
            example="2023-07",
            maxLength=MAX_LENGTHS["taken"],
        )
    )
    person = fields.String(
        metadata=_documented("the name of a person in the picture", maxLength=MAX_LENGTHS["person"])
    )
    format = fields.String(
        metadata=_documented("the format of the file, such as jpeg or heic", maxLength=MAX_LENGTHS["format"])
    )
    folder = fields.String(
        metadata=_documented(
            "the whole path of a folder, in which the picture is at any depth",
            maxLength=MAX_LENGTHS["folder"],
        )
    )
    has_text = fields.Boolean(metadata=_documented("whether text was read in the picture"))
    film = fields.Boolean(metadata=_documented("whether the picture is of a film"))
    favourite = fields.Boolean(metadata=_documented("whether somebody has marked it as a favourite"))


@cache
def _reader() -> SearchArguments:
    """Return the one reader of parameters: to make another takes as long as a small search."""
    return SearchArguments()


Arguments = Mapping[str, str | list[str]]
"""the parameters of a search by name, those of `PARTS` as lists"""


def load_query(
    arguments: Mapping[str, Any],
    *,
    k: int = DEFAULT_K,
    image: bytes | Path | None = None,
    more: Sequence[Part] = (),
) -> Query:
    """Return the query that parameters ask for, `k` being the default, of an `image` or of `more` parts too.

    Raises `QueryError` naming the parameter that is unknown or garbled.
    """
    reader = _reader()
    for name in sorted(set(arguments) - set(reader.fields)):
        raise QueryError(f"There is no parameter '{one_line(name[:60])}'.")
    try:
        values = reader.load({name: value for name, value in arguments.items() if name not in PARTS})
    except ValidationError as error:
        name, reasons = min(error.normalized_messages().items())
        raise QueryError(f"{name}: {reasons[0]}") from error
    given: dict[str, Any] = {name: values.pop(name, None) for name in FILTERS}
    set_ones: dict[str, Any] = {name: value for name, value in given.items() if value not in (None, "")}
    filters = Filters(**set_ones)
    parts = [part for name in PARTS if name in arguments for part in read_parts(name, arguments[name])]
    parts += [Part(image=image)] if image is not None else []
    return Query(**{"k": k, **values}, parts=(*parts, *more), filters=filters)


def read_parts(name: str, value: object) -> list[Part]:
    """Return the parts that one of the parameters `PARTS` names. Blank ones are left out.

    Raises `QueryError`.
    """
    subject, wanted = PARTS[name]
    is_one = not isinstance(value, list) or (subject == "vector" and _is_vector(value))
    several: list[Any] = [value] if is_one else value  # type: ignore[assignment]
    return [
        Part(**{subject: content}, weight=weight, wanted=wanted)
        for each in several
        if not isinstance(each, str) or each.strip()
        for content, weight in [_weighted(name, subject, each)]
    ]


def _is_vector(value: list[Any]) -> bool:
    """Return whether a list of JSON is one vector, not several."""
    return not value or not all(isinstance(each, (str, list, dict)) for each in value)


def _weighted(name: str, subject: str, value: Any) -> tuple[Any, float]:
    weight = 1.0
    if isinstance(value, str):
        value, weight = split_weight(value)
    elif isinstance(value, dict) and subject == "vector" and set(value) == {"values", "weight"}:
        value, (weight,) = value["values"], parse_vector([value["weight"]])
    if subject == "vector":
        return parse_vector(value), weight
    if not isinstance(value, str):
        raise QueryError(f"{name}: Not a valid string.")
    return value, weight


def query_arguments(query: Query, *, k: int) -> dict[str, str | list[str]]:
    """Return the parameters that give `query` again, without defaults. Not for `image`."""
    filters = {name: getattr(query.filters, name) for name in FILTERS}
    place = filters.pop("place")
    switches = {name: filters.pop(name) for name in YES_OR_NO}
    written = {
        "mode": query.mode if query.mode != "image" else None,
        **filters,
        "place": ",".join(map(str, place)) if isinstance(place, tuple) else place,
        **{name: None if value is None else str(value).lower() for name, value in switches.items()},
        "exact": "true" if query.exact else None,
        "k": query.k if query.k != k else None,
        "num_candidates": query.num_candidates,
        "min_relevance": query.min_relevance,
        "sort": query.sort if query.sort != "relevance" else None,
        "page": query.page if query.page != 1 else None,
    }
    parts: dict[str, list[str]] = {}
    names = {kind: name for name, kind in PARTS.items()}
    for part in query.asked:
        subject = next(each for each in SUBJECTS if getattr(part, each) is not None)
        parts.setdefault(names[subject, part.wanted], []).append(part.written())
    return {**parts, **{name: str(value) for name, value in written.items() if value is not None}}


API_PREFIX = "/api/v1"


@dataclass(frozen=True)
class SearchHit:
    """One picture that was found."""

    image_id: Annotated[str, "SHA-256 of the file's content"]
    score: Annotated[float | None, "Elasticsearch's _score; in mode hybrid the fusion's; null in a list"]
    similarity: Annotated[
        float | None,
        "the cosine, or the similarity that the index measures; in mode hybrid the picture's, null when its"
        " caption alone was found; null in a list",
    ]
    path: Annotated[str, "the first of the relative paths that hold this content"]
    caption: str | None
    thumbnail_url: Annotated[str, "a path on the server of the page"]
    why: Annotated[
        str | None,
        "in mode hybrid, the ranks and the words that brought it here",
        {"example": "visual 2nd; caption meaning 1st; caption words: boat, red"},
    ] = None
    relevance: Annotated[
        str | None,
        "how good a hit of a query in words is; null when the index is not calibrated",
        {"enum": ["strong", "weak", "none", None]},
    ] = None
    cut_short: Annotated[bool, "whether the end of its file is missing, and the rest of it grey"] = False
    favourite: Annotated[bool, "whether somebody has marked it as a favourite"] = False
    width: Annotated[int | None, "pixels of the upright picture; null in indices of long ago"] = None
    height: Annotated[int | None, "pixels of the upright picture; null in indices of long ago"] = None
    film: Annotated[
        dict[str, Any] | None,
        "of a picture from a film: the film's `id`, `time_ms` and `duration_ms`, and its other `moments` that"
        " were found, each with `image_id`, `time_ms` and `similarity`; null for any other picture",
    ] = None


@dataclass(frozen=True)
class SearchResponse:
    """The answer to one search. The order of the fields is the order of the JSON."""

    query: str
    mode: str
    lane: Annotated[str | None, "where the text model ran; null when no text was embedded"]
    k: int
    num_candidates: Annotated[
        int | None, "null for an exact search, which looks at every vector, and for a list"
    ]
    took_ms: Annotated[float, "milliseconds for the whole search, embedding included"]
    total: Annotated[
        int,
        "neighbours that were found up to this page, at most page * k: fewer when the filters leave no more,"
        " and without those of this page that min_relevance left out; of a list or of sorted hits, all",
    ]
    hits: tuple[SearchHit, ...]
    partial: Annotated[bool, "whether shards did not answer, so that pictures may be missing"] = False
    shards: Annotated[int, "shards that were asked"] = 1
    shards_failed: Annotated[int, "those of them that did not answer"] = 0
    sort: Annotated[str, "the order of the hits", {"enum": SORTS}] = "relevance"

    @property
    def nothing_good(self) -> bool:
        """Whether there are hits, and none of them is marked as good."""
        return bool(self.hits) and all(hit.relevance == "none" for hit in self.hits)

    def to_json(self) -> dict[str, Any]:
        """Return the object as `glimpse search --json` and the REST API send it."""
        return {**vars(self), "hits": [vars(hit) for hit in self.hits]}  # asdict copies every value


def search_hit(hit: Hit, **fused: Any) -> SearchHit:
    """Turn a hit of the index into one for people. A fusion has its own `score`, `similarity` and `why`."""
    own = {"score": hit.score, "similarity": hit.similarity, **fused}
    similarity = own.pop("similarity")
    return SearchHit(
        image_id=hit.image_id,
        similarity=None if similarity is None else round(similarity, 6),
        path=shown_path(hit.source, hit.image_id),
        caption=hit.source.get("caption"),
        thumbnail_url=thumbnail_url(hit.image_id),
        cut_short=bool(hit.source.get("cut_short")),
        favourite=bool(hit.source.get("favourite")),
        film=_film(hit.source),
        width=hit.source.get("width"),
        height=hit.source.get("height"),
        **own,
    )


def _film(source: Mapping[str, Any]) -> dict[str, Any] | None:
    film = source.get("film")
    return {name: film[name] for name in ("id", "time_ms", "duration_ms")} | {"moments": []} if film else None


def thumbnail_url(image_id: str) -> str:
    """Return the path of a picture's thumbnail on the server of the page."""
    return f"{API_PREFIX}/images/{image_id}/thumbnail"
