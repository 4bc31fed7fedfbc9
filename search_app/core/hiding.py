"""Putting pictures away and taking them back, as the page, the REST API and the commands ask for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Protocol

from es_config.errors import EngineError, NotAllowedError
from es_config.hidden import HiddenPicture, HiddenPictures, Moves


@dataclass(frozen=True)
class PutAway:
    """The outcome of putting pictures away, by image id."""

    hidden: tuple[str, ...] = ()
    """pictures of ingested folders: they stay away until somebody restores them"""
    removed: tuple[str, ...] = ()
    """uploads: they are deleted for good at `until`"""
    until: str | None = None
    """ISO 8601, UTC"""
    absent: frozenset[str] = frozenset()
    """the index holds no such picture"""
    failed: dict[str, str] = field(default_factory=dict)
    """reason of a refusal"""


class PictureRemover(Protocol):
    """Puts pictures away. `glimpse serve` builds it from the parts of ingest.

    Every method raises `EngineError` or `StorageError` when nothing can be done at all.
    """

    def put_away(self, image_ids: Sequence[str], *, by: str | None = None) -> PutAway:
        """Hide ingested pictures, and remove uploads, which can be restored for some minutes."""

    def restore(self, image_ids: Sequence[str]) -> Moves:
        """Let searches find pictures again that were put away."""

    def delete(self, image_ids: Sequence[str]) -> Moves:
        """Delete removed uploads for good now, with their files in the store."""

    def page(self, *, size: int, from_: int = 0) -> tuple[tuple[HiddenPicture, ...], int]:
        """Return pictures that were put away, the last one first, and how many there are in all."""

    def tidy(self) -> None:
        """Complete moves that were killed, and delete removed uploads whose time is over."""


class HiddenIds:
    """Knows the ids of pictures that were put away, so that no thumbnail waits for Elasticsearch.

    Thread-safe.
    """

    def __init__(self, opened: Callable[[], HiddenPictures]) -> None:
        self._opened = opened
        self._ids: frozenset[str] | None = None
        self._state: tuple[object, ...] = ()
        self._lock = Lock()

    def refresh(self) -> None:
        """Read them again if anything has changed. Raises `EngineError`, and keeps the former ones then.

        A key that may not see what was put away knows of nothing.
        """
        with self._lock:
            hidden = self._opened()
            try:
                state = hidden.state()
            except NotAllowedError:
                self._ids = self._ids or frozenset()
                raise
            if self._ids is None or state != self._state:
                self._ids = frozenset(hidden.ids())
                self._state = state

    def __contains__(self, image_id: object) -> bool:
        """Say whether a picture was put away. Raises `EngineError` as long as that was never read."""
        if self._ids is None:
            raise EngineError("Which pictures are hidden is not known yet; try again in a few seconds.")
        return image_id in self._ids
