"""The frozen objects of a search: a valid query with its form in an address, and the response.

The text in a field's `Annotated` type is its description in the OpenAPI document.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import numpy as np
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
from search_app.errors import QueryError

MAX_DIMS = 4096
"""Elasticsearch's own limit for a `dense_vector`"""


def encode_vector(vector: np.ndarray) -> str:
    """Return a vector as text for an address: base64url of little-endian float16, without padding.

    512 dims take 1 366 characters. The rounding moves the cosine by less than 0.001.
    """
    return base64.urlsafe_b64encode(vector.astype("<f2").tobytes()).decode().rstrip("=")


def decode_vector(text: str) -> tuple[float, ...]:
    """Decode a vector that `encode_vector` wrote, scaled to unit length. Raises `QueryError`."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        vector = np.frombuffer(data, "<f2").astype(np.float32)
    except (binascii.Error, ValueError) as error:
        raise QueryError("vector must be base64url of little-endian float16 numbers.") from error
    length = float(np.linalg.norm(vector))
    if not np.isfinite(length) or length == 0:
        raise QueryError("The vector holds only zeros or a number that is not finite.")
    return tuple((vector / length).tolist())


def parse_vector(value: object) -> tuple[float, ...]:
    """Return the numbers of a JSON array or of `encode_vector`'s text. Raises `QueryError`."""
    if isinstance(value, str):
        return decode_vector(value)
    if (
        not isinstance(value, list)
        or not 1 <= len(value) <= MAX_DIMS
        or not all(type(item) in (int, float) for item in value)
    ):
        raise QueryError(f"vector must be an array of 1 to {MAX_DIMS} numbers.")
    try:
        return tuple(float(item) for item in value)
    except OverflowError as error:
        raise QueryError("The vector holds a number that is too large.") from error


def read_vector(data: bytes) -> tuple[float, ...]:
    """Return the one vector of a file: a JSON array, numbers between spaces or commas, or NumPy's format.

    Raises `QueryError` when there is no vector, or more than one.
    """
    values = _from_npy(data) if data.startswith(b"\x93NUMPY") else _from_text(data)
    try:
        vector = np.asarray(values, np.float32).squeeze()
    except (ValueError, TypeError, OverflowError) as error:
        raise QueryError("The vector must hold numbers alone, in one list.") from error
    if vector.size == 0:
        raise QueryError(
            "There is no vector here: give a JSON array, numbers between spaces, or a .npy file."
        )
    if vector.ndim > 1:
        rows, dims = len(vector), vector.shape[-1]
        raise QueryError(f"There are {rows} vectors of {dims} dims here; give one.")
    return tuple(np.atleast_1d(vector).tolist())


def _from_npy(data: bytes) -> object:
    try:
        return np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise QueryError("The .npy file is damaged or does not hold numbers.") from error


def _from_text(data: bytes) -> object:
    text = data.decode("utf-8", "replace").strip()
    try:
        if text.startswith(("[", "{")):
            values = json.loads(text)
        else:
            values = [float(word) for word in text.replace(",", " ").split()]
    except (ValueError, RecursionError) as error:
        raise QueryError(
            "This is not a vector: give a JSON array, numbers between spaces, or a .npy file."
        ) from error
    if not isinstance(values, list):
        raise QueryError("The vector must be a JSON array of numbers.")
    return values


MODES = ("image", "caption", "words", "hybrid")
CANDIDATE_STEPS = (1, 1.5, 2, 3, 5, 7.5)
"""`num_candidates` that are tried: times `k`, then times 10 `k`, 100 `k`, …"""
SORTS = ("relevance", *LISTING_ORDERS)
SORTED_HITS = 100
"""the nearest pictures that a question with another order than relevance puts in that order"""
RELEVANCE = ("strong", "weak")
MAX_TEXT = 1_000
MAX_LENGTHS = {"place": 200, "camera": 200, "tag": 100, "path": 1_000, "person": 100, "format": 20}
MAX_LENGTHS |= {"folder": 1_000, "taken": 10}
"""characters of a filter"""
MAX_STARS = 16
"""`*` in a pattern: Elasticsearch spends longer on each more"""
SHORTEST, LONGEST = 1e-18, 1e18
"""of a vector: its square and those of distances to it are 32-bit numbers"""
METRES = {"m": 1.0, "km": 1_000.0, "mi": 1_609.344, "yd": 0.9144, "ft": 0.3048, "nmi": 1_852.0}
FARTHEST_KM = 20_100
"""a little more than half of the equator: nothing on earth is farther away"""
FILTERS: tuple[str, ...] = ("date_from", "date_to", "taken", "place", "camera", "tag", "person", "path")
FILTERS += ("folder", "format", "has_text", "film", "favourite")
YES_OR_NO = ("has_text", "film", "favourite")
TAKEN = re.compile(r"\d{4}(-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01]))?)?")
PLACE = re.compile(r"\s*(-?[\d.]+)\s*,\s*(-?[\d.]+)\s*,\s*(\d+(?:\.\d+)?)\s*(m|km|mi|yd|ft|nmi)\s*")


NUMBERS = re.compile(r"\s*-?[\d.]+\s*(,|$)")
"""the beginning of a place that is meant as numbers"""


@dataclass(frozen=True)
class Query:
    """One question: at most one of `text`, `image`, `like` and `vector`. Raises `QueryError` when not valid.

    Without any of them, the pictures that pass the filters are listed. `filters` or a `sort` must say so, as
    an empty question is a mistake.

    A page of a kNN search is the end of a longer answer: page p with `k` hits a page asks for the `p * k`
    nearest neighbours and shows the last `k` of them, so `p * k` is at most 10 000.
    """

    text: str | None = None
    image: bytes | Path | None = None
    """a picture file's content, or its path on this machine"""
    like: str | None = None
    """the id of a picture of the index; it is its own first hit"""
    vector: tuple[float, ...] | None = None
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
        if mistake := next(self._mistakes(), None):
            raise QueryError(mistake)

    @property
    def depth(self) -> int:
        """How many neighbours Elasticsearch must find to fill this page."""
        return self.k * self.page

    @property
    def is_listing(self) -> bool:
        """Whether nothing is asked, so that the pictures which pass the filters are listed."""
        return all(each is None for each in (self.text, self.image, self.like, self.vector))

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
        """The query in a few words: the text, the id, the file's name, the number of dims, or nothing."""
        if self.vector is not None:
            return f"vector of {len(self.vector)} dims"
        if self.image is not None:
            return self.image.name if isinstance(self.image, Path) else "a picture"
        return self.text or self.like or ""

    def _mistakes(self) -> Iterator[str]:
        yield from self._subject_mistakes()
        yield from self._number_mistakes()
        if self.mode not in MODES:
            yield f"There is no mode '{one_line(self.mode[:20])}'; choose one of: {', '.join(MODES)}."
        if self.mode == "hybrid" and self.vector is not None:
            yield "A raw vector belongs to one space, which hybrid is not: choose mode image or caption."
        if self.mode == "words" and self.text is None and any((self.image, self.like, self.vector)):
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
        subjects = (self.text, self.image, self.like, self.vector)
        if sum(subject is not None for subject in subjects) > 1:
            yield "Ask for one thing at a time: a text, a picture, an image id or a vector."
        if not any(subjects) and not (self.is_listing and (self.sort or self.filters != Filters())):
            yield (
                "The query is empty: give some words, a picture, an image id, a vector or a filter;"
                " sort=newest lists every picture."
            )
        if self.text is not None and len(self.text) > MAX_TEXT:
            yield f"The query has {len(self.text)} characters; at most {MAX_TEXT} are allowed."
        if self.text is not None and has_lone_surrogate(self.text):
            yield "The query is not valid Unicode text."
        if self.like is not None and has_lone_surrogate(self.like):
            yield "like is not valid Unicode text."
        if self.vector is not None:
            yield from _vector_mistakes(self.vector)

    def _number_mistakes(self) -> Iterator[str]:
        if not 1 <= self.k <= MAX_CANDIDATES:
            yield f"k must be between 1 and {MAX_CANDIDATES}, and it is {self.k}."
        if self.page < 1 or self.depth > MAX_CANDIDATES:
            last = MAX_CANDIDATES // self.k
            yield f"With k = {self.k}, page must be between 1 and {last}, and it is {self.page}."
        if self.num_candidates is not None and not self.k <= self.num_candidates <= MAX_CANDIDATES:
            limits = f"between k ({self.k}) and {MAX_CANDIDATES}"
            yield f"num_candidates must be {limits}, and it is {self.num_candidates}."


def _vector_mistakes(vector: tuple[float, ...]) -> Iterator[str]:
    if not all(math.isfinite(value) for value in vector):
        yield "The vector holds a number that is not finite."
    if not any(vector):
        yield "The vector holds only zeros, and so points nowhere."
    if not SHORTEST <= math.hypot(*vector) <= LONGEST:
        yield f"The vector's length must be between {SHORTEST} and {LONGEST}: scale it, as to length 1."


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


def has_lone_surrogate(text: str) -> bool:
    """Say whether a text holds half a surrogate pair, which no encoding can write."""
    return any("\ud800" <= character <= "\udfff" for character in text)


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


class SearchArguments(Schema):
    """The parameters of one search, read from text. `Query` says which values are allowed."""

    q = fields.String(
        attribute="text", metadata=_documented(f"words to search for, at most {MAX_TEXT} characters")
    )
    like = fields.String(metadata=_documented("id of a picture of the index: find pictures like it"))
    vector = fields.Function(
        deserialize=parse_vector,
        metadata=_documented("base64url of little-endian float16 numbers, as the page writes", type="string"),
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


def load_query(
    arguments: Mapping[str, Any], *, k: int = DEFAULT_K, image: bytes | Path | None = None
) -> Query:
    """Return the query that parameters ask for, `k` being the default.

    Raises `QueryError` naming the parameter that is unknown or garbled.
    """
    reader = SearchArguments()
    for name in sorted(set(arguments) - set(reader.fields)):
        raise QueryError(f"There is no parameter '{one_line(name[:60])}'.")
    try:
        values = reader.load(arguments)
    except ValidationError as error:
        name, reasons = min(error.normalized_messages().items())
        raise QueryError(f"{name}: {reasons[0]}") from error
    given: dict[str, Any] = {name: values.pop(name, None) for name in FILTERS}
    set_ones: dict[str, Any] = {name: value for name, value in given.items() if value not in (None, "")}
    filters = Filters(**set_ones)
    return Query(**{"k": k, **values}, image=image, filters=filters)


def query_arguments(query: Query, *, k: int) -> dict[str, str]:
    """Return the parameters that give `query` again, without defaults. Not for `image`."""
    filters = {name: getattr(query.filters, name) for name in FILTERS}
    place = filters.pop("place")
    switches = {name: filters.pop(name) for name in YES_OR_NO}
    written = {
        "q": query.text,
        "like": query.like,
        "vector": encode_vector(np.asarray(query.vector)) if query.vector else None,
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
    return {name: str(value) for name, value in written.items() if value is not None}


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
