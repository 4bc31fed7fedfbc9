"""The one error that `models` raises on purpose."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

WAY_OUT = "free some memory, or copy or download it again"


class ModelError(Exception):
    """A profile or a model cannot be used. The message says why, and the way out.

    The message is for the operator and may name folders; `for_visitors` names none.
    """

    for_visitors = "A model cannot be used at the moment: the log of the server says why."


def first_line(error: Exception) -> str:
    """Return the first line of a library's error, or at least its kind."""
    return (str(error).splitlines() or [""])[0] or type(error).__name__


@contextmanager
def running(model: str, *, way_out: str = WAY_OUT) -> Iterator[None]:
    """Turn any error of a model while it runs into a `ModelError` that names the model and the way out."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:  # torch, ONNX Runtime and CTranslate2 each raise their own
        raise ModelError(f"{model} failed while it ran ({first_line(error)}); {way_out}.") from error
