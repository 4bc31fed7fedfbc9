"""From a picture to words: a caption for any picture file, and the captions of the index nearest to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from es_config.errors import EngineError
from models.errors import ModelError
from search_app.core.pictures import open_picture
from search_app.core.query import Query
from search_app.errors import QueryError

if TYPE_CHECKING:
    from collections.abc import Callable

    from models.captioning import Captioner
    from models.encoders import Lazy
    from search_app.core.response import SearchHit
    from search_app.core.searcher import Searcher


@dataclass(frozen=True)
class Description:
    """The caption of a picture file, and the nearest captions of the index."""

    picture: str
    caption: str
    nearest: tuple[SearchHit, ...]
    """by caption kNN, nearest first; none without an index"""

    def to_json(self) -> dict[str, Any]:
        """Return the object as `glimpse describe --json` prints it."""
        return {**vars(self), "nearest": [vars(hit) for hit in self.nearest]}


def describe(
    picture: Path,
    *,
    captioner: Lazy[Captioner],
    build_searcher: Callable[[], Searcher],
    k: int,
    warn: Callable[[str], None],
) -> Description:
    """Caption a picture file and find the `k` nearest captions of the index.

    Without an engine or an index there is a warning and no neighbour. Raises `QueryError` when there is no
    such file or it is no picture, `ModelError` when the captioner fails on it.
    """
    caption = _caption(picture, captioner)
    try:
        nearest = build_searcher().search(Query(text=caption, mode="caption", k=k)).hits
    except EngineError as error:
        warn(f"no captions to compare with: {error}")
        nearest = ()
    return Description(picture.name, caption, nearest)


def _caption(picture: Path, captioner: Lazy[Captioner]) -> str:
    if not picture.is_file():
        raise QueryError(f"There is no picture file '{picture}'.")
    (written,) = captioner.get().caption_images([open_picture(picture.read_bytes())])
    if written.text is None:
        raise ModelError(f"{picture.name} has no caption: {written.error}.")
    return written.text
