"""Queries in addresses: the parameters that the page and the REST API share, read and written."""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING, Any

from marshmallow import RAISE, Schema, ValidationError, fields, validate

from es_config.requests import Filters
from search_app.errors import QueryError
from search_app.core.query import MAX_CANDIDATES, MODES, Query

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

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
    """Return what `encode_vector` wrote, scaled to unit length. Raises `QueryError`."""
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
    numbers = isinstance(value, list) and all(type(item) in (int, float) for item in value)
    if not numbers or not 1 <= len(value) <= MAX_DIMS:
        raise QueryError(f"vector must be an array of 1 to {MAX_DIMS} numbers.")
    try:
        return tuple(float(item) for item in value)
    except OverflowError as error:
        raise QueryError("The vector holds a number that is too large.") from error


def parse_place(text: str) -> tuple[float, float, str]:
    """Return (latitude, longitude, distance) of `48.85,2.35,10km`. Raises `QueryError`."""
    match = PLACE.fullmatch(text)
    try:
        latitude, longitude = float(match.group(1)), float(match.group(2))
    except (AttributeError, ValueError):
        latitude = longitude = float("nan")
    if not (-90 <= latitude <= 90 and -180 <= longitude <= 180):
        raise QueryError(
            f"place must be latitude,longitude,distance like 48.85,2.35,10km, not '{text[:60]}'."
        )
    return latitude, longitude, match.group(3) + match.group(4)


READERS = {"vector": parse_vector, "place": parse_place}


def said(description: str, **more: Any) -> dict[str, Any]:
    """Return what the OpenAPI document says about a value."""
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


def load_query(arguments: Mapping[str, Any], *, k: int, image: bytes | None = None) -> Query:
    """Read a mapping of parameters. Raises `QueryError` naming the parameter that is unknown or garbled."""
    try:
        return query_of(SearchArguments().load(arguments), k=k, image=image)
    except ValidationError as error:
        raise QueryError(first_mistake(error.normalized_messages())) from error


def query_of(values: Mapping[str, Any], *, k: int, image: bytes | None = None) -> Query:
    """Build a query from what `SearchArguments` loaded; `k` is the default. Raises `QueryError`."""
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
    """Return the parameters that give `query` again; defaults are left out. Not for `image`."""
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
