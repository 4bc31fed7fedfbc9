"""The pictures before and after one, in the results that it was opened from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from es_config.errors import EngineError
from es_config.requests import MAX_CANDIDATES
from search_app.core.query import Query, load_query
from search_app.core.searcher import Searcher
from search_app.errors import QueryError

State = Mapping[str, Any]


@dataclass(frozen=True)
class Step:
    """A picture to go on to, with the state of the search that its page leads back to."""

    state: State
    image_id: str


@dataclass(frozen=True)
class Around:
    """The neighbours before and after a picture."""

    previous: Step | None = None
    following: Step | None = None


def around(
    searcher: Searcher, image_id: str, state: State, *, page_size: int, changed: Callable[..., State]
) -> Around:
    """Return the steps from a picture, across pages, too.

    They are none where no results lead to it: the search is not given, fails, or finds the picture no more.
    `changed(state, page=…)` is the state of another page.
    """
    try:
        query = load_query(state, k=page_size)
        ids = _ids(searcher, query)
        here = ids.index(image_id)
        before = after = None
        if here > 0:
            before = Step(state, ids[here - 1])
        elif query.page > 1:
            before = _step(searcher, changed(state, page=query.page - 1), page_size, last=True)
        if here + 1 < len(ids):
            after = Step(state, ids[here + 1])
        elif len(ids) == query.k and query.depth + query.k <= MAX_CANDIDATES:
            after = _step(searcher, changed(state, page=query.page + 1), page_size, last=False)
    except (QueryError, EngineError, ValueError):
        return Around()
    return Around(before, after)


def _step(searcher: Searcher, state: State, page_size: int, *, last: bool) -> Step | None:
    ids = _ids(searcher, load_query(state, k=page_size))
    return Step(state, ids[-1 if last else 0]) if ids else None


def _ids(searcher: Searcher, query: Query) -> list[str]:
    return [hit.image_id for hit in searcher.search(query).hits]
