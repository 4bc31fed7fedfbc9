"""Caption a picture file, and find the captions of the index that are nearest to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from es_config.errors import EngineError
from models.captioning import Captioner
from models.errors import ModelError
from models.pixels import FILES
from models.profiles import Profile
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
    build_searcher: Callable[[], Searcher],
    load_captioner: Callable[[Profile | None], Captioner],
    k: int,
    warn: Callable[[str], None],
) -> Description:
    """Caption a picture file and find the `k` nearest captions of the index.

    `load_captioner` gets the searcher's profile, or None when the searcher cannot be built. Without an engine
    or an index it warns and returns no neighbours. Raises `QueryError` when there is no
    such file or it is not a picture, `ModelError` when the captioner fails on it.
    """
    if not picture.is_file():
        raise QueryError(f"There is no picture file '{picture}'.")
    searcher, trouble = None, None
    try:
        searcher = build_searcher()
    except EngineError as error:
        trouble = error
    with opened_picture(picture.read_bytes(), limits=FILES) as image:
        captioner = load_captioner(searcher.profile if searcher else None)
        (written,) = captioner.caption_images([image])
    if written.text is None:
        raise ModelError(f"{picture.name} has no caption: {written.error}.")
    nearest: tuple[SearchHit, ...] = ()
    try:
        if searcher:
            nearest = searcher.search(Query(text=written.text, mode="caption", k=k)).hits
    except EngineError as error:
        trouble = error
    if trouble:
        warn(f"no captions to compare with: {trouble}")
    return Description(picture.name, written.text, nearest)
