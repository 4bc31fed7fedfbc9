"""A server follows the alias: what is put behind it is searched with its own models, once these are loaded.

Until then the former index answers, by its name: no search fails because the alias was switched.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

from es_config.errors import EngineError
from es_config.identity import META_SECONDS

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

    from es_config.index import ImageIndex
    from models.profile import Profile
    from search_app.additions import Library
    from search_app.core.searcher import Searcher
    from search_app.settings import SearchSettings


class _Now:
    """Whatever there is at the moment: every attribute is asked of that."""

    def __init__(self, get: Callable[[], object]) -> None:
        self._get = get

    def __getattr__(self, name: str) -> Any:
        return getattr(self._get(), name)


class Following:
    """A searcher and a library that are replaced when `renew` returns another searcher; a context.

    `searcher` and `library` may be handed on once: they are always those of the moment. Inside the context
    a thread asks `renew` every few seconds. What it raises is told once, and all stays as it is.
    """

    def __init__(
        self,
        first: Searcher,
        *,
        renew: Callable[[Searcher], Searcher | None],
        open_library: Callable[[Searcher], Library | None],
        warn: Callable[[str], None],
        every_s: float = META_SECONDS,
    ) -> None:
        self._renew, self._open_library, self._warn, self._every_s = renew, open_library, warn, every_s
        self._pair = (first, open_library(first))
        self._warned: set[str] = set()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="follow", daemon=True)
        self.searcher: Searcher = _Now(lambda: self._pair[0])
        self.library: Library = _Now(lambda: self._pair[1])

    def __enter__(self) -> Self:
        """Begin to follow."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Follow no longer."""
        self._end.set()

    def _follow(self) -> None:
        while True:
            try:
                if newer := self._renew(self._pair[0]):
                    self._pair = (newer, self._open_library(newer))
            except Exception as error:  # whatever loading a model raises: the former one goes on
                if str(error) not in self._warned:
                    self._warned.add(str(error))
                    self._warn(str(error))
            if self._end.wait(self._every_s):
                return


def renewed(
    former: Searcher, settings: SearchSettings, client: Elasticsearch, *, warn: Callable[[str], None]
) -> Searcher | None:
    """Return a searcher of the index behind the alias, its models loaded; None when `former` is one.

    Raises `EngineError` when the models of that index are not known here, and as `build_searcher` does.
    """
    from es_config.index import ImageIndex
    from search_app.wiring import same_models, searcher_of

    index = ImageIndex(client, alias=settings.alias)
    if not index.exists() or index.name() == former.index.target:
        return None
    index = index.pinned()
    profile = profile_of(index, settings)
    if profile is None:
        name = index.meta().profile
        raise EngineError(
            f"{index.name()} is behind '{settings.alias}' now, with other weights of profile {name}: restart"
            f" `glimpse serve --profile {name}` with their --model-dir. What answered before goes on."
        )
    if profile == former.profile:
        return same_models(former, index, client)
    newer = searcher_of(index, profile, client, lane=settings.text_lane, warn=warn, warm=True)
    warn(f"{index.name()} answers from now on, with the models of profile {profile.name}.")
    return newer


def profile_of(index: ImageIndex, settings: SearchSettings) -> Profile | None:
    """Return the profile, from the table or from the folder that was named, whose weights an index notes."""
    from models.profiles import get_profile

    meta = index.meta()
    folders = [settings.model_dir, None] if meta.profile == settings.profile else [None, settings.model_dir]
    for folder in dict.fromkeys(folders):
        profile = get_profile(meta.profile, model_dir=folder)
        revision = profile.text_revision()
        if profile.dims == meta.dims and meta.revisions.get("text", revision) == revision:
            return profile
    return None
