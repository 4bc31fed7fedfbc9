"""A valid query, as one frozen object, and its form in an address."""

from __future__ import annotations

import base64
import binascii
import math
import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marshmallow import RAISE, Schema, ValidationError, fields, validate

from es_config.requests import MAX_CANDIDATES, Filters
from search_app.errors import QueryError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

MODES = ("image", "caption", "hybrid")
CANDIDATE_STEPS = (1, 1.5, 2, 3, 5, 7.5)
"""`num_candidates` that are tried: times `k`, then times 10 `k`, 100 `k`, …"""
MAX_TEXT = 1_000


@dataclass(frozen=True)
class Query:
    """One question: exactly one of `text`, `image`, `like` and `vector`. Raises `QueryError` when not valid.

    A page of a kNN search is the end of a longer answer: page p with `k` hits a page asks
    for the `p * k` nearest neighbours and shows the last `k` of them, so `p * k` is at most 10 000.
    """

    text: str | None = None
    image: bytes | Path | None = None
    """a picture file's content, or where it lies on this machine"""
    like: str | None = None
    """the id of a picture of the index; it is its own first hit"""
    vector: tuple[float, ...] | None = None
    k: int = 10
    """hits a page"""
    page: int = 1
    num_candidates: int | None = None
    """None: the index's tuned operating point, else `default_candidates`"""
    filters: Filters = field(default_factory=Filters)
    exact: bool = False
    mode: str = "image"
    """what is searched: the pictures (`image`), their captions (`caption`), or both and fused (`hybrid`)"""

    min_relevance: str | None = None
    """`strong` or `weak`: hits that are marked lower are left out; for queries in words"""

    def __post_init__(self) -> None:
        """Refuse a query that no search can answer."""
        object.__setattr__(self, "text", None if self.text is None else self.text.strip())
        self._check_subject()
        self._check_numbers()
        if self.mode not in MODES:
            raise QueryError(f"There is no mode '{self.mode}'; choose one of: {', '.join(MODES)}.")
        if self.mode == "hybrid" and self.vector is not None:
            raise QueryError(
                "A raw vector belongs to one space, so mode hybrid takes none: choose mode image or caption."
            )
        self._check_relevance()

    @property
    def depth(self) -> int:
        """How many neighbours Elasticsearch must find to fill this page."""
        return self.k * self.page

    @property
    def label(self) -> str:
        """The query in a few words: the text, the id, the file's name or the number of dims."""
        if self.vector is not None:
            return f"vector of {len(self.vector)} dims"
        if self.image is not None:
            return self.image.name if isinstance(self.image, Path) else "a picture"
        return self.text or self.like or ""

    def _check_subject(self) -> None:
        subjects = (self.text, self.image, self.like, self.vector)
        given = sum(subject is not None for subject in subjects)
        if given > 1:
            raise QueryError("Ask for one thing at a time: a text, a picture, an image id or a vector.")
        if given == 0 or not any(subjects):
            raise QueryError("The query is empty: give some words, a picture, an image id or a vector.")
        if self.text is not None:
            check_text(self.text)
        if self.vector is not None:
            check_vector(self.vector)

    def _check_relevance(self) -> None:
        if self.min_relevance is None:
            return
        if self.min_relevance not in ("strong", "weak"):
            raise QueryError(f"min_relevance is strong or weak, not '{self.min_relevance[:20]}'.")
        if self.text is None:
            raise QueryError("Only hits of queries in words are marked: leave min_relevance out.")

    def _check_numbers(self) -> None:
        if not 1 <= self.k <= MAX_CANDIDATES:
            raise QueryError(f"k must be between 1 and {MAX_CANDIDATES}, and it is {self.k}.")
        if self.page < 1 or self.depth > MAX_CANDIDATES:
            last = MAX_CANDIDATES // self.k
            raise QueryError(f"With k = {self.k}, page must be between 1 and {last}, and it is {self.page}.")
        if self.num_candidates is not None and not self.k <= self.num_candidates <= MAX_CANDIDATES:
            raise QueryError(
                f"num_candidates must be between k ({self.k}) and {MAX_CANDIDATES},"
                f" and it is {self.num_candidates}."
            )


def check_text(text: str) -> None:
    """Raise `QueryError` for a text that is too long or that is not valid Unicode."""
    if len(text) > MAX_TEXT:
        raise QueryError(f"The query has {len(text)} characters; at most {MAX_TEXT} are allowed.")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise QueryError("The query is not valid Unicode text.")


def check_vector(vector: tuple[float, ...]) -> None:
    """Raise `QueryError` for numbers that have no direction or no size."""
    if not all(math.isfinite(value) for value in vector):
        raise QueryError("The vector holds a number that is not finite.")
    if not any(vector):
        raise QueryError("The vector holds only zeros, and so points nowhere.")


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


PLACE = re.compile(r"\s*(-?[\d.]+)\s*,\s*(-?[\d.]+)\s*,\s*(\d+(?:\.\d+)?)\s*(m|km|mi|yd|ft|nmi)\s*")
MAX_DIMS = 4096
"""Elasticsearch's own limit for a `dense_vector`"""
FILTERS = ("date_from", "date_to", "place", "camera", "tag", "path")


def encode_vector(vector: np.ndarray) -> str:
    """Return a vector as text for an address: base64url of little-endian float16, without padding.

    512 dims take 1 366 characters. The rounding moves the cosine by less than 0.001.
    """
    return base64.urlsafe_b64encode(vector.astype("<f2").tobytes()).decode().rstrip("=")


def decode_vector(text: str) -> tuple[float, ...]:
    """Decode a vector that `encode_vector` wrote, scaled to unit length. Raises `QueryError`."""
    import numpy as np

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


def parse_place(text: str) -> tuple[float, float, str]:
    """Return (latitude, longitude, distance) of `48.85,2.35,10km`. Raises `QueryError`."""
    match = PLACE.fullmatch(text)
    latitude = longitude = math.nan
    with suppress(ValueError):  # the pattern lets 1.2.3 through
        if match:
            latitude, longitude = float(match[1]), float(match[2])
    if match is None or not (-90 <= latitude <= 90 and -180 <= longitude <= 180):
        raise QueryError(
            f"place must be latitude,longitude,distance like 48.85,2.35,10km, not '{text[:60]}'."
        )
    return latitude, longitude, match[3] + match[4]


READERS = {"vector": parse_vector, "place": parse_place}


def said(description: str, **more: Any) -> dict[str, Any]:
    """Return a value's metadata for the OpenAPI document."""
    return {"description": description, **more}


UNKNOWN = "unknown parameter"
"""what marshmallow is made to say, so that its own words decide nothing"""


class SearchArguments(Schema):
    """The parameters of one search."""

    class Meta:
        """Unknown parameters are mistakes, not noise."""

        unknown = RAISE

    error_messages = {"unknown": UNKNOWN}  # noqa: RUF012 - as marshmallow declares it

    q = fields.String(metadata=said("words to search for, at most 1 000 characters"))
    like = fields.String(metadata=said("id of a picture of the index: find pictures like it"))
    vector = fields.Raw(
        metadata=said("base64url of little-endian float16 numbers, as the page writes", type="string")
    )
    k = fields.Integer(strict=False, metadata=said("hits a page", maximum=MAX_CANDIDATES))
    page = fields.Integer(metadata=said("1 for the k nearest, 2 for the next k; page * k ≤ 10 000"))
    num_candidates = fields.Integer(
        metadata=said("candidates per shard; default: the tuned operating point, else 2 * k or 100")
    )
    mode = fields.String(
        validate=validate.OneOf(MODES),
        metadata=said("search the pictures, their captions, or both and fuse the ranks"),
    )
    min_relevance = fields.String(
        validate=validate.OneOf(("strong", "weak")),
        metadata=said("leave out hits of words that are marked lower; for a calibrated index"),
    )
    exact = fields.Boolean(metadata=said("look at every vector instead of the graph"))
    date_from = fields.Date(metadata=said("taken on this day or later"))
    date_to = fields.Date(metadata=said("taken on this day or earlier"))
    place = fields.String(
        metadata=said("latitude,longitude,distance", type="string", example="48.85,2.35,10km")
    )
    camera = fields.String(validate=validate.Length(max=200))
    tag = fields.String(validate=validate.Length(max=100), metadata=said("a keyword that the picture has"))
    path = fields.String(
        validate=validate.Length(max=1000),
        metadata=said("start of the relative path, or a pattern with *"),
    )


def load_query(arguments: Mapping[str, Any], *, k: int, image: bytes | Path | None = None) -> Query:
    """Read a mapping of parameters. Raises `QueryError` naming the parameter that is unknown or garbled."""
    try:
        return query_of(SearchArguments().load(arguments), k=k, image=image)
    except ValidationError as error:
        raise QueryError(first_mistake(error.normalized_messages())) from error


def query_of(values: Mapping[str, Any], *, k: int, image: bytes | Path | None = None) -> Query:
    """Build a query from loaded `SearchArguments`, with `k` as the default. Raises `QueryError`."""
    plain = {name: value for name, value in values.items() if name not in (*FILTERS, *READERS, "q")}
    read = {name: reader(values[name]) for name, reader in READERS.items() if name in values}
    wanted = {name: values[name] for name in FILTERS if values.get(name) not in (None, "")}
    filters = Filters(**{**wanted, **{name: read.pop(name) for name in FILTERS if name in read}})
    if filters.date_from and filters.date_to and filters.date_from > filters.date_to:
        raise QueryError("date_from is later than date_to, and so no picture can match.")
    return Query(**{"k": k, **plain, **read}, text=values.get("q"), image=image, filters=filters)


def first_mistake(messages: Mapping[str, Any]) -> str:
    """Return one sentence for marshmallow's messages, such as `k: Not a valid integer.`"""
    name, reasons = min(messages.items(), key=lambda item: str(item[0]))
    if isinstance(reasons, dict):  # webargs nests them below the location
        return first_mistake(reasons)
    if reasons == [UNKNOWN]:
        return f"There is no parameter '{str(name)[:60]}'."
    return f"{name}: {reasons[0]}"


def query_arguments(query: Query, *, k: int) -> dict[str, str]:
    """Return the parameters that give `query` again, without defaults. Not for `image`."""
    import numpy as np

    filters = {name: getattr(query.filters, name) for name in FILTERS}
    place = filters.pop("place")
    written = {
        "q": query.text,
        "like": query.like,
        "vector": encode_vector(np.asarray(query.vector)) if query.vector else None,
        "mode": query.mode if query.mode != "image" else None,
        **filters,
        "place": ",".join(str(part) for part in place) if place else None,
        "exact": "true" if query.exact else None,
        "k": query.k if query.k != k else None,
        "num_candidates": query.num_candidates,
        "min_relevance": query.min_relevance,
        "page": query.page if query.page != 1 else None,
    }
    return {name: str(value) for name, value in written.items() if value is not None}
