"""Vectors that people bring: JSON, plain numbers or NumPy's format."""

from __future__ import annotations

import io
import json

from search_app.errors import QueryError


def read_vector(data: bytes) -> tuple[float, ...]:
    """Return the one vector in `data`: a JSON array, numbers between spaces or commas, or a .npy file.

    Raises `QueryError` when there is no vector, or more than one.
    """
    import numpy as np

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
    import numpy as np

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
    except ValueError as error:
        raise QueryError(
            "This is not a vector: give a JSON array, numbers between spaces, or a .npy file."
        ) from error
    if not isinstance(values, list):
        raise QueryError("The vector must be a JSON array of numbers.")
    return values
