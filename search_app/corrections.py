"""Captions that people correct: kept as theirs, embedded anew, found at once."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from search_app.errors import QueryError

if TYPE_CHECKING:
    from search_app.core.searcher import Searcher

MAX_CAPTION = 1_000
CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


def correct_caption(searcher: Searcher, image_id: str, caption: object) -> dict[str, Any]:
    """Write a person's caption of a picture and return the picture's `_source` as it is then.

    Searches find it as soon as this returns, and no captioner overwrites it. Raises `QueryError` for what is
    no caption, `NotFoundError` for an unknown id, `EngineError` when it cannot be written.
    """
    text, searcher = checked_caption(caption), searcher.itself
    searcher.picture(image_id)
    searcher.check_profile()
    vector, _ = searcher.caption_texts.embed(text)
    searcher.index.captions().write_human(image_id, text, vector)
    searcher.index.refresh()
    return searcher.picture(image_id)


def checked_caption(caption: object) -> str:
    """Return a caption on one line. Raises `QueryError` unless it has 1 to 1 000 characters of valid text."""
    if not isinstance(caption, str):
        raise QueryError("caption must be a text.")
    text = " ".join(CONTROLS.sub(" ", caption).split())
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise QueryError("The caption is not valid Unicode text.")
    if not text:
        raise QueryError("The caption is empty: say in a few words what the picture shows.")
    if len(text) > MAX_CAPTION:
        raise QueryError(f"The caption has {len(text)} characters; at most {MAX_CAPTION} are allowed.")
    return text
