"""The parts of a question: words, pictures and vectors, each with a weight, wanted or not, and their forms.

In an address or a JSON body a part is a text, an id or a vector, with its weight at the end: `red boats^0.5`.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from search_app.errors import QueryError

MAX_TEXT = 1_000
MAX_PARTS = 16
MAX_WEIGHT = 100
WEIGHT = re.compile(r"\s*(\d{1,9}\.?\d{0,9}|\.\d{1,9})\s*")
SHORTEST, LONGEST = 1e-18, 1e18
"""of a vector: its square and those of distances to it are 32-bit numbers"""


@dataclass(frozen=True)
class Part:
    """One part of a question: a text, a picture, an id or a vector. Raises `QueryError` when not valid."""

    text: str | None = None
    image: bytes | Path | None = None
    """a picture file's content, or its path on this machine"""
    like: str | None = None
    """the id of a picture of the index"""
    vector: tuple[float, ...] | None = None
    weight: float = 1.0
    """beside the other parts, more than 0"""
    wanted: bool = True

    def __post_init__(self) -> None:
        """Refuse a part that no search can use."""
        object.__setattr__(self, "text", (self.text or "").strip() or None)
        subjects = (self.text, self.image, self.like, self.vector)
        if sum(subject is not None for subject in subjects) != 1 or not any(subjects):
            raise QueryError("Each part of a question is a text, a picture, an image id or a vector.")
        if not (math.isfinite(self.weight) and 0 < self.weight <= MAX_WEIGHT):
            raise QueryError(f"A weight is more than 0 and at most {MAX_WEIGHT}, and not {self.weight:g}.")
        if mistake := next(subject_mistakes(self.text, self.like, self.vector), None):
            raise QueryError(mistake)

    @property
    def label(self) -> str:
        """The part in a few words: the text, the id, the file's name, or the number of dims."""
        if self.vector is not None:
            return f"vector of {len(self.vector)} dims"
        if self.image is not None:
            return self.image.name if isinstance(self.image, Path) else "a picture"
        return self.text or self.like or ""

    def written(self) -> str:
        """Return the part as an address holds it. Not for `image`."""
        value = encode_vector(np.asarray(self.vector)) if self.vector else self.text or self.like or ""
        return with_weight(value, self.weight)


def subject_mistakes(text: str | None, like: str | None, vector: tuple[float, ...] | None) -> Iterator[str]:
    """Yield a sentence for each reason why no search can use a text, an id or a vector."""
    if text is not None and len(text) > MAX_TEXT:
        yield f"The query has {len(text)} characters; at most {MAX_TEXT} are allowed."
    if text is not None and has_lone_surrogate(text):
        yield "The query is not valid Unicode text."
    if like is not None and has_lone_surrogate(like):
        yield "like is not valid Unicode text."
    if vector is not None:
        yield from _vector_mistakes(vector)


def with_weight(value: str, weight: float) -> str:
    """Return a value with its weight, which `split_weight` gives again. A weight of 1 need not be said."""
    return value if weight == 1 and split_weight(value) == (value, 1.0) else f"{value}^{weight:.9g}"


def split_weight(value: str) -> tuple[str, float]:
    """Return a value and the weight at its end, as in `red boats^0.5`, or 1 where there is none."""
    before, sign, number = value.rpartition("^")
    if sign and before.strip() and WEIGHT.fullmatch(number):
        return before.rstrip(), float(number)
    return value, 1.0


def _vector_mistakes(vector: tuple[float, ...]) -> Iterator[str]:
    if not all(math.isfinite(value) for value in vector):
        yield "The vector holds a number that is not finite."
    if not any(vector):
        yield "The vector holds only zeros, and so points nowhere."
    if not SHORTEST <= math.hypot(*vector) <= LONGEST:
        yield f"The vector's length must be between {SHORTEST} and {LONGEST}: scale it, as to length 1."


def has_lone_surrogate(text: str) -> bool:
    """Say whether a text holds half a surrogate pair, which no encoding can write."""
    return any("\ud800" <= character <= "\udfff" for character in text)


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
