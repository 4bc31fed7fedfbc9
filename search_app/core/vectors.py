"""Query vectors as people bring them: in an address, in a JSON body, or in a file."""

from __future__ import annotations

import base64
import binascii
import io
import json

import numpy as np

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
