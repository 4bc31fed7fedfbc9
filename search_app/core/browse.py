"""Browse an index: counts by facet, months, and texts that a search may be completed to or was meant as.

Counts are those of the pictures that pass the filters, or for a question of its nearest hits. Answers are
kept for a few seconds, so that a start page that many people open costs one request.
"""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from es_config.facets import (
    FACETS,
    MOST_VALUES,
    Facet,
    FacetCounts,
    counts_body,
    facets_body,
    read_facets,
)
from es_config.requests import Filters
from search_app.core.query import Query
from search_app.core.searcher import Searcher
from search_app.errors import QueryError

KEPT_S = 5.0
"""seconds for which counts are believed"""
KEPT_ANSWERS = 256


class Kept:
    """Answers by index and request, for a few seconds. Thread-safe."""

    def __init__(self, *, seconds: float = KEPT_S, size: int = KEPT_ANSWERS) -> None:
        self._seconds, self._size = seconds, size
        self._answers: OrderedDict[str, tuple[float, Any]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str, make: Callable[[], Any]) -> Any:
        """Return the answer for a key that is young enough, or a new one."""
        now = time.monotonic()
        with self._lock:
            kept = self._answers.get(key)
        if kept and now - kept[0] < self._seconds:
            return kept[1]
        answer = make()
        with self._lock:
            self._answers[key] = (now, answer)
            self._answers.move_to_end(key)
            while len(self._answers) > self._size:
                self._answers.popitem(last=False)
        return answer


@dataclass(frozen=True)
class FacetsAnswer:
    """The counts of a question or of a list."""

    counted: Annotated[
        str,
        "filters: all pictures that pass the filters are counted; hits: only the nearest of the question,"
        " of which total says how many",
        {"enum": ["filters", "hits"]},
    ]
    total: Annotated[int, "pictures that were counted, with every filter"]
    facets: tuple[Facet, ...]

    def facet(self, name: str) -> Facet:
        """Return one facet, without values when it was not asked for."""
        return next((each for each in self.facets if each.name == name), Facet(name, ()))

    def to_json(self) -> dict[str, Any]:
        """Return the object as the REST API sends it."""
        facets = [{**vars(each), "values": [vars(value) for value in each.values]} for each in self.facets]
        return {**vars(self), "facets": facets}


class Browser:
    """Counts the pictures of the index that a searcher asks. Thread-safe."""

    def __init__(self, searcher: Callable[[], Searcher]) -> None:
        """Take a function that returns the searcher which answers now."""
        self._searcher = searcher
        self._kept = Kept()

    def facets(self, query: Query, *, names: Sequence[str] = FACETS, size: int = 12) -> FacetsAnswer:
        """Return counts of the pictures that a query lists, or of the 100 nearest hits of a question.

        Raises `QueryError` for an unknown facet, and as `Searcher.search` does.
        """
        for name in names:
            if name not in FACETS:
                raise QueryError(f"There is no facet '{name[:40]}'; choose of: {', '.join(FACETS)}.")
        if not 1 <= size <= MOST_VALUES:
            raise QueryError(f"size must be between 1 and {MOST_VALUES}, and it is {size}.")
        searcher = self._searcher()
        filters = searcher.resolved(query).filters
        if query.is_listing:
            found = self._count(searcher, filters, names, size)
            return FacetsAnswer("filters", found.total, found.facets)
        nearest = replace(query.nearest(), min_relevance=query.min_relevance)
        ids = [hit.image_id for hit in searcher.search(nearest).hits]
        body = facets_body(filters, names=names, size=size, ids=ids)
        found = read_facets(searcher.index.aggregate(body), filters, names=names, size=size)
        return FacetsAnswer("hits", found.total, found.facets)

    def count(self) -> int:
        """Return the number of pictures, a few seconds old at most. Raises `EngineError`."""
        searcher = self._searcher()
        return int(self._kept.get(f"{searcher.index.name()} count", searcher.index.count))

    def passing(self, query: Query) -> int:
        """Return how many pictures pass the filters of a query, a few seconds old at most.

        Raises `EngineError`.
        """
        if query.filters == Filters():
            return self.count()
        searcher = self._searcher()
        filters = searcher.resolved(query, wait=False).filters
        key = f"{searcher.index.name()} passing {filters}"
        return int(self._kept.get(key, lambda: self.counts([filters])[0]))

    def _count(self, searcher: Searcher, filters: Filters, names: Sequence[str], size: int) -> FacetCounts:
        body = facets_body(filters, names=names, size=size)

        def ask() -> FacetCounts:
            return read_facets(searcher.index.aggregate(body), filters, names=names, size=size)

        found: FacetCounts = self._kept.get(f"{searcher.index.name()} {json.dumps(body)}", ask)
        return found

    def counts(self, many: Sequence[Filters]) -> list[int]:
        """Return how many pictures pass each of several filters. Raises `EngineError`."""
        if not many:
            return []
        answer = self._searcher().index.aggregate(counts_body(many))["aggregations"]
        return [int(answer[str(number)]["doc_count"]) for number in range(len(many))]
