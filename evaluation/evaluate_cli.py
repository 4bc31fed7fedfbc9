"""The door of `glimpse evaluate`: settings and labels become runs, and runs a report."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from es_config.documents import paths_of
from es_config.commands.options import open_client, say, warn
from evaluation.errors import EvaluationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from es_config.index import ImageIndex
    from evaluation.judge import Report
    from evaluation.labels import LabelledQuery
    from evaluation.run import Run, Search
    from search_app.core.searcher import Searcher

NAMES_AT_ONCE = 500
MOST_PICTURES = 10_000
"""pictures that one look-up of names may give: Elasticsearch's own limit"""


@dataclass(frozen=True)
class Way:
    """One way of searching that is measured."""

    name: str
    mode: str
    search: Search


def evaluate_index(options: Mapping[str, Any], *, compare: Path | None) -> Report:
    """Ask every labelled query in every way, and judge what was found.

    Raises `EvaluationError`, `LabelError` and what searching raises.
    """
    from evaluation.answers import find_answers
    from evaluation.judge import Report, compare_runs, score_run
    from evaluation.labels import read_labels
    from evaluation.run import load_runs, save_runs

    saved = load_runs(compare) if compare else []
    labels = read_labels(options["queries"], qrels=options["qrels"])
    if options["field"]:
        find, ways = _plain(options, labels.queries)
    else:
        find, ways = _pictures(options)
    answers = find_answers(labels.queries, find=find)
    runs = [_ask(way, answers.queries, options) for way in ways]
    if options["save_run"]:
        save_runs(options["save_run"], runs)
    pairs = [compare_runs(before, run, answers) for before, run in _pairs(saved, runs)]
    scores = [score for run in runs for score in score_run(run, answers)]
    return Report(tuple(scores), tuple(pairs), tuple(runs), (*labels.warnings, *answers.warnings))


def _ask(way: Way, queries: Sequence[LabelledQuery], options: Mapping[str, Any]) -> Run:
    from evaluation.run import make_run

    say(f"{way.name}: asking {len(queries)} queries")
    profile = "none" if options["field"] else options["profile"]
    return make_run(queries, search=way.search, name=way.name, profile=profile, mode=way.mode, k=options["k"])


def _pairs(saved: Sequence[Run], runs: Sequence[Run]) -> Iterator[tuple[Run, Run]]:
    """Pair runs of one name; where nothing has the name, every saved run with every new one."""
    same = [(before, run) for before in saved for run in runs if before.name == run.name]
    for before, run in same or [(before, run) for before in saved for run in runs]:
        yield replace(before, name=f"{before.name} (saved)"), run


def _pictures(options: Mapping[str, Any]) -> tuple[Callable, list[Way]]:
    """Return how labels are looked up and the ways to search, for an index of pictures."""
    from evaluation.answers import picture_finder

    lanes = _listed(options["lanes"])
    searchers = {lane: _searcher(options, lane) for lane in lanes}
    index = next(iter(searchers.values())).index
    ways = [
        Way(mode if len(lanes) == 1 else f"{mode}, {lane}", mode, _search(searcher, mode, options))
        for mode in _modes(options["modes"], index)
        for lane, searcher in searchers.items()
    ]
    return picture_finder(known=index.known, by_name=lambda names: pictures_named(index, names)), ways


def _searcher(options: Mapping[str, Any], lane: str) -> Searcher:
    from search_app.settings import SearchSettings
    from search_app.wiring import build_searcher

    settings = SearchSettings(options["profile"], options["model_dir"], options["alias"], lane)
    return build_searcher(settings, os.environ, warn=warn)


def _search(searcher: Searcher, mode: str, options: Mapping[str, Any]) -> Search:
    from search_app.core.query import Query

    how = {name: options[name] for name in ("k", "num_candidates", "exact")}

    def search(query: LabelledQuery) -> tuple[list[str], str | None]:
        vector = None if query.text else query.vector
        response = searcher.search(Query(text=query.text, vector=vector, mode=mode, **how))
        return [hit.image_id for hit in response.hits], response.lane

    return search


def _modes(wanted: str | None, index: ImageIndex) -> list[str]:
    from search_app.core.query import MODES
    from search_app.subjects import FIELDS

    if wanted:
        return _listed(wanted)
    captioned = {"query": {"exists": {"field": FIELDS["caption"]}}, "size": 0}
    return list(MODES) if index.search(captioned).total else ["image"]


def pictures_named(index: ImageIndex, names: Sequence[str]) -> Iterator[tuple[str, Sequence[str]]]:
    """Give id and relative paths of the pictures whose file has one of these names. Raises `EngineError`."""
    for start in range(0, len(names), NAMES_AT_ONCE):
        wanted = {"terms": {"image_name": list(names[start : start + NAMES_AT_ONCE])}}
        body = {"query": wanted, "size": MOST_PICTURES, "_source": ["relative_path"]}
        for hit in index.search(body).hits:
            yield hit.image_id, paths_of(hit.source)


def _plain(options: Mapping[str, Any], queries: Sequence[LabelledQuery]) -> tuple[Callable, list[Way]]:
    """Return the same for any index with a `dense_vector` field, which is asked with vectors."""
    import numpy as np

    from es_config.plain_index import PlainIndex
    from search_app.core.query import default_candidates

    unasked = next((query for query in queries if query.vector is None), None)
    if unasked:
        raise EvaluationError(
            f"With --field every query is a vector, and '{unasked.label[:60]}' has none: add"
            ' "vector": [...] to it, or evaluate an index of pictures without --field.'
        )
    index = PlainIndex(open_client(), index=options["alias"], field=options["field"])
    k = options["k"]
    candidates = max(k, options["num_candidates"] or default_candidates(k))

    def search(query: LabelledQuery) -> tuple[list[str], None]:
        vector = np.asarray(query.vector, np.float32)
        return index.nearest(vector, k=k, num_candidates=candidates, exact=options["exact"]), None

    def find(names: Sequence[str]) -> dict[str, list[str]]:
        return {name: [name] for name in index.known(names)}

    return find, [Way("exact" if options["exact"] else "knn", options["field"], search)]


def _listed(text: str) -> list[str]:
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
