"""Caption a picture file, and find the captions of the index that are nearest to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from es_config.errors import EngineError
from models.captioning import Captioner
from models.encoders import Lazy
from models.errors import ModelError
from models.pixels import FILES
from search_app.core.pictures import opened_picture
from search_app.core.query import Query, SearchHit
from search_app.core.searcher import Searcher
from search_app.errors import QueryError


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

    Without an engine or an index it warns and returns no neighbours. Raises `QueryError` when there is no
    such file or it is not a picture, `ModelError` when the captioner fails on it.
    """
    if not picture.is_file():
        raise QueryError(f"There is no picture file '{picture}'.")
    with opened_picture(picture.read_bytes(), limits=FILES) as image:
        (written,) = captioner.get().caption_images([image])
    if written.text is None:
        raise ModelError(f"{picture.name} has no caption: {written.error}.")
    try:
        nearest = build_searcher().search(Query(text=written.text, mode="caption", k=k)).hits
    except EngineError as error:
        warn(f"no captions to compare with: {error}")
        nearest = ()
    return Description(picture.name, written.text, nearest)
