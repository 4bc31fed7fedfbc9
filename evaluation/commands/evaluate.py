"""`glimpse evaluate`: labelled queries against the index, runs against runs, models against models."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from es_config.commands.options import (
    AS_JSON,
    FILE,
    FOLDER,
    INDEX,
    MODELS,
    open_client,
    say,
    store_option,
    together,
    warn,
)
from evaluation.errors import EvaluationError
from evaluation.labels import pictures_named

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from es_config.index import ImageIndex
    from evaluation.compare_models import Contest
    from evaluation.judge import Estimate, Report, Run, Search
    from evaluation.labels import LabelledQuery
    from search_app.core.searcher import Searcher

PLACE = click.Path(dir_okay=False, path_type=Path)
WHAT = together(
    click.option("--queries", type=FILE, help="Labelled queries: JSONL, or TREC topics with --qrels."),
    click.option("--qrels", type=FILE, help="TREC relevance judgements of the topics."),
    click.option("--mode", "modes", help="Modes, with commas; without it all that the index has."),
    click.option("--lane", "lanes", default="auto", show_default=True, help="Text lanes, with commas."),
    click.option("--k", type=click.IntRange(1, 1000), default=10, show_default=True, help="Hits judged."),
    click.option("--num-candidates", type=click.IntRange(1, 10_000), help="As in `glimpse search`."),
    click.option("--exact", is_flag=True, help="Look at every vector instead of the graph."),
    click.option("--field", help="Search this dense_vector field of any index; the queries are vectors."),
    click.option("--save-run", type=PLACE, help="Keep what was found in this file."),
)
CONTEST = together(
    click.option("--profiles", help="Compare models: names, or name=FOLDER, with commas."),
    click.option(
        "--sample", type=click.IntRange(2, 10_000), default=2000, show_default=True,
        help="Pictures to compare models on.",
    ),
    click.option("--folder", type=FOLDER, help="Compare on these pictures, not on the index's thumbnails."),
    store_option("Where thumbnails are."),
)  # fmt: skip


@click.command()
@WHAT
@click.option("--compare", metavar="RUN.json|PROFILE", help="Pair with a saved run, or with another profile.")
@CONTEST
@click.option("--plot", type=PLACE, help="Draw the comparison of models here: .png, .svg or .pdf.")
@MODELS
@INDEX
@AS_JSON
def evaluate(
    *, as_json: bool, plot: Path | None, profiles: str | None, compare: str | None, **options: Any
) -> None:
    """Measure how well labelled queries are answered, or which model answers them best.

    Each line of --queries is {"query": "...", "relevant": ["image id or path"], "language": "en"}; the
    language may be absent. Intervals are of 95 %.

    \b
    Example:
      glimpse evaluate --queries queries.jsonl --save-run before.json
      glimpse evaluate --queries queries.jsonl --compare before.json
      glimpse evaluate --profiles clip,siglip2 --sample 2000 --plot models.png
    """
    _stop_in_order()
    saved = compare is not None and (Path(compare).suffix == ".json" or Path(compare).is_file())
    if compare and not saved and profiles is None:
        profiles = f"{_own_name(options)},{compare}"
    if profiles is not None:
        _contest(profiles, plot=plot, as_json=as_json, options=options)
        return
    if plot:
        raise click.UsageError("--plot draws a comparison of models: name them with --profiles.")
    if options["queries"] is None:
        raise click.UsageError("Give labelled --queries, or models to compare with --profiles.")

    report = evaluate_index(options, compare=Path(compare) if saved else None)
    for warning in report.warnings:
        warn(warning)
    _print(report_lines(report), report.to_json(), as_json=as_json)


def _contest(profiles: str, *, plot: Path | None, as_json: bool, options: dict[str, Any]) -> None:
    from evaluation.commands.models import contest_of
    from evaluation.compare_models import check_format, plot_contest

    if plot:
        check_format(plot)
    contest, warnings = contest_of(profiles, options)
    for warning in warnings:
        warn(warning)
    _print(contest_lines(contest), contest.to_json(), as_json=as_json)
    if plot:
        plot_contest(contest, plot)
        say(f"The plot is in {plot}")


def _own_name(options: dict[str, Any]) -> str:
    folder = options["model_dir"]
    return f"{options['profile']}={folder}" if folder else options["profile"]


def _stop_in_order() -> None:
    """Let `kill` unwind as Ctrl+C does, so that temporary indices are deleted."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def _print(lines: Iterable[str], data: dict[str, Any], *, as_json: bool) -> None:
    click.echo(json.dumps(data, ensure_ascii=False, indent=2) if as_json else "\n".join(lines))


@dataclass(frozen=True)
class Way:
    """One way of searching that is measured."""

    name: str
    mode: str
    search: Search


def evaluate_index(options: Mapping[str, Any], *, compare: Path | None) -> Report:
    """Ask every labelled query in every way, and judge the hits.

    Raises `EvaluationError`, `LabelError` and what searching raises.
    """
    from evaluation.judge import Report, compare_runs, load_runs, save_runs, score_run
    from evaluation.labels import find_answers, read_labels

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
    from evaluation.judge import make_run

    say(f"{way.name}: asking {len(queries)} queries")
    profile = "none" if options["field"] else options["profile"]
    return make_run(queries, search=way.search, name=way.name, profile=profile, mode=way.mode, k=options["k"])


def _pairs(saved: Sequence[Run], runs: Sequence[Run]) -> Iterator[tuple[Run, Run]]:
    """Pair runs by name, or every saved run with every new one when no names match."""
    same = [(before, run) for before in saved for run in runs if before.name == run.name]
    for before, run in same or [(before, run) for before in saved for run in runs]:
        yield replace(before, name=f"{before.name} (saved)"), run


def _pictures(options: Mapping[str, Any]) -> tuple[Callable, list[Way]]:
    """Return how labels are looked up and the ways to search, for an index of pictures."""
    from evaluation.labels import picture_finder

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
    from es_config.mapping import MODE_FIELDS
    from search_app.core.query import MODES

    if wanted:
        return _listed(wanted)
    captioned = {"query": {"exists": {"field": MODE_FIELDS["caption"]}}, "size": 0}
    return list(MODES) if index.search(captioned).total else ["image"]


def _plain(options: Mapping[str, Any], queries: Sequence[LabelledQuery]) -> tuple[Callable, list[Way]]:
    """Return the same for any index with a `dense_vector` field, which is asked with vectors."""
    import numpy as np

    from es_config.vector_field import PlainIndex
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


def report_lines(report: Report) -> Iterator[str]:
    """Give the lines of an evaluation: every score with its 95 % interval, then every comparison."""
    scores = [
        (score.run, score.language, str(score.queries), *map(_interval, score.metrics.values()))
        for score in report.scores
    ]
    yield from table(("run", "language", "queries", *report.scores[0].metrics), scores)
    for run in report.runs:
        lane = f", text model: {run.lane}" if run.lane else ""
        yield f"{run.name}: {run.query_ms:.1f} ms a query (median){lane}"
    for comparison in report.comparisons:
        yield ""
        yield f"{comparison.second} minus {comparison.first}, {comparison.queries} queries in pairs:"
        differences = [
            (name, f"{found.mean:+.4f}", f"[{found.low:+.4f}, {found.high:+.4f}]", f"{found.p_value:.4f}")
            for name, found in comparison.metrics.items()
        ]
        yield from table(("metric", "difference", "95 % interval", "p"), differences)
        yield comparison.verdict


def contest_lines(contest: Contest) -> Iterator[str]:
    """Give the lines of a contest: a row for each profile, and the recommendation."""
    yield f"{contest.pictures} pictures, {contest.queries} queries ({contest.asked})"
    header = ("profile", *contest.results[0].metrics, "p", "pictures/s", "ms/query", "MB", "dims")
    rows = [
        (
            each.name,
            *map(_interval, each.metrics.values()),
            f"{contest.against_best[each.name].p_value:.4f}" if each.name in contest.against_best else "",
            f"{each.images_per_second:.1f}",
            f"{each.query_ms:.1f}",
            f"{each.index_bytes / 1e6:.2f}",
            str(each.dims),
        )
        for each in contest.results
    ]
    yield from table(header, rows)
    yield contest.recommendation


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield aligned lines, with two spaces between columns."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        yield "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


def _interval(value: Estimate) -> str:
    return f"{value.mean:.3f} [{value.low:.3f}, {value.high:.3f}]"
