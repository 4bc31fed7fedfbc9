"""`glimpse evaluate`: labelled queries against the index, runs against runs, models against models."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
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
    own_profile,
    say,
    store_option,
    together,
    warn,
)

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

    from evaluation.compare_models import FolderFile, Picture, PictureSource
    from evaluation.evaluate import EvaluationReport, MeasuredSearch
    from evaluation.labels import Find, LabelledQuery

PLACE = click.Path(dir_okay=False, path_type=Path)
ASK = together(
    click.option("--queries", type=FILE, help="Labelled queries: JSONL, or TREC topics with --qrels."),
    click.option("--qrels", type=FILE, help="TREC relevance judgements of the topics."),
    click.option("--mode", "modes", help="Modes, with commas; without it all that the index has."),
    click.option("--lane", "lanes", default="auto", show_default=True, help="Text lanes, with commas."),
    click.option(
        "-k", "--k", type=click.IntRange(1, 1000), default=10, show_default=True, help="Hits judged."
    ),
    click.option("--num-candidates", type=click.IntRange(1, 10_000), help="As in `glimpse search`."),
    click.option("--exact", is_flag=True, help="Look at every vector instead of the graph."),
    click.option("--field", help="Search this dense_vector field of any index; the queries are vectors."),
    click.option("--save-run", type=PLACE, help="Keep what was found in this file."),
    click.option(
        "--compare", metavar="RUN.json|PROFILE", help="Pair with a saved run, or with another profile."
    ),
)
COMPARE = together(
    click.option("--profiles", help="Compare models: names, or name=FOLDER, with commas."),
    click.option(
        "--sample", type=click.IntRange(2, 10_000), default=2000, show_default=True,
        help="Pictures to compare models on.",
    ),
    click.option("--folder", type=FOLDER, help="Compare on these pictures, not on the index's thumbnails."),
    store_option("Where thumbnails are."),
    click.option("--plot", type=PLACE, help="Draw the comparison of models here: .png, .svg or .pdf."),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """The options of `glimpse evaluate`."""

    queries: Path | None
    qrels: Path | None
    modes: str | None
    lanes: str
    k: int
    num_candidates: int | None
    exact: bool
    field: str | None
    save_run: Path | None
    compare: str | None
    profiles: str | None
    sample: int
    folder: Path | None
    store: str | None
    plot: Path | None
    profile: str | None
    model_dir: Path | None
    alias: str
    as_json: bool

    @property
    def saved_run(self) -> Path | None:
        """The file of `--compare`, or None when it names a profile."""
        path = Path(self.compare) if self.compare else None
        return path if path and (path.suffix == ".json" or path.is_file()) else None

    def compared(self) -> str | None:
        """Return the profiles to compare, or None for one that is measured alone. Raises `EngineError`."""
        if self.profiles is not None or not self.compare or self.saved_run:
            return self.profiles
        own = self.profile or own_profile(open_client(), self.alias)
        return f"{own}={self.model_dir},{self.compare}" if self.model_dir else f"{own},{self.compare}"


@click.command()
@ASK
@COMPARE
@MODELS
@INDEX
@AS_JSON
def evaluate(**options: Any) -> None:
    """Measure how well labelled queries are answered, or which model answers them best.

    Each line of --queries is {"query": "...", "relevant": ["image id or path"], "language": "en"}; the
    language may be absent. Intervals are of 95 %.

    \b
    Example:
      glimpse evaluate --queries queries.jsonl --save-run before.json
      glimpse evaluate --queries queries.jsonl --compare before.json
      glimpse evaluate --profiles clip,siglip2 --sample 2000 --plot models.png
    """
    given = EvaluateOptions(**options)
    # `kill` unwinds as Ctrl+C does, so that temporary indices are deleted.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if (compared := given.compared()) is not None:
        _compare_models(given, compared)
        return
    if given.plot:
        raise click.UsageError("--plot draws a comparison of models: name them with --profiles.")
    if given.queries is None:
        raise click.UsageError("Give labelled --queries, or models to compare with --profiles.")
    report = _evaluated(given, given.queries)
    _print(report.warnings, report.lines(), report.to_json(), as_json=given.as_json)


def _print(warnings: Iterable[str], lines: Iterable[str], data: dict[str, Any], *, as_json: bool) -> None:
    for warning in warnings:
        warn(warning)
    click.echo(json.dumps(data, ensure_ascii=False, indent=2) if as_json else "\n".join(lines))


def _listed(text: str) -> list[str]:
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _evaluated(options: EvaluateOptions, queries: Path) -> EvaluationReport:
    """Ask and judge. Raises `EvaluationError`, `LabelError` and the errors of searching."""
    from evaluation.evaluate import evaluate_searches, load_runs
    from evaluation.labels import read_labels

    saved = load_runs(options.saved_run) if options.saved_run else []
    labels = read_labels(queries, qrels=options.qrels)
    if options.field:
        profile, (find, searches) = "none", _plain(options, options.field, labels.queries)
    else:
        profile, (find, searches) = _pictures(options)
    return evaluate_searches(
        labels,
        searches,
        find=find,
        profile=profile,
        k=options.k,
        saved=saved,
        save_to=options.save_run,
        say=say,
    )


def _pictures(options: EvaluateOptions) -> tuple[str, tuple[Find, list[MeasuredSearch]]]:
    """Return the profile of an index of pictures, how labels are looked up and the ways to search."""
    from evaluation.evaluate import modes_of, picture_searches
    from evaluation.labels import index_finder
    from search_app.settings import SearchSettings
    from search_app.wiring import build_searcher

    searchers = {
        lane: build_searcher(
            SearchSettings(options.profile, options.model_dir, options.alias, lane), os.environ, warn=warn
        )
        for lane in _listed(options.lanes)
    }
    first = next(iter(searchers.values()))
    index = first.index
    searches = picture_searches(
        searchers,
        _listed(options.modes) if options.modes else modes_of(index),
        k=options.k,
        num_candidates=options.num_candidates,
        exact=options.exact,
    )
    return first.profile.name, (index_finder(index), list(searches))


def _plain(
    options: EvaluateOptions, field: str, queries: Sequence[LabelledQuery]
) -> tuple[Find, list[MeasuredSearch]]:
    """Return the same for any index with a `dense_vector` field, which is asked with vectors."""
    from es_config.vector_field import PlainIndex
    from evaluation.evaluate import check_vectors, vector_search

    check_vectors(queries)
    index = PlainIndex(open_client(), index=options.alias, field=field)
    search = vector_search(index, k=options.k, num_candidates=options.num_candidates, exact=options.exact)
    return lambda names: {name: [name] for name in index.known(names)}, [search]


def _compare_models(options: EvaluateOptions, profiles: str) -> None:
    from evaluation.compare_models import (
        check_format,
        choose_data,
        compare_models,
        named_profiles,
        plot_comparison,
    )
    from evaluation.labels import read_labels

    if options.plot:
        check_format(options.plot)
    rows, client = named_profiles(profiles), open_client()
    source = _source(options, client)
    labels = read_labels(options.queries, qrels=options.qrels) if options.queries else None
    data = choose_data(source, size=options.sample, labels=labels)
    comparison = compare_models(client, rows, data, k=options.k, say=say)
    _print(data.warnings, comparison.lines(), comparison.to_json(), as_json=options.as_json)
    if options.plot:
        plot_comparison(comparison, options.plot)
        say(f"The plot is in {options.plot}")


def _source(options: EvaluateOptions, client: Elasticsearch) -> PictureSource:
    from es_config.client import glimpse_home
    from es_config.index import ImageIndex
    from evaluation.compare_models import folder_source, index_source
    from search_app.settings import store_uri
    from storage.store import open_storage

    if options.folder:
        say(f"Reading the pictures of {options.folder}")
        return folder_source(folder_files(options.folder))
    store = open_storage(options.store or store_uri(os.environ, glimpse_home(os.environ), options.alias))
    return index_source(ImageIndex(client, alias=options.alias), store)


def folder_files(folder: Path) -> Iterator[FolderFile]:
    """Yield the files below a folder. Every file is read once for its id."""
    from evaluation.compare_models import FolderFile, Picture
    from ingest.errors import UnreadableImageError
    from ingest.files.picture import read_content, read_image
    from ingest.files.walk import Candidate, walk

    def load(image_id: str, path: Path) -> Picture | None:
        try:
            said = read_image(path).exif.description
        except UnreadableImageError:
            return None
        return Picture(image_id, lambda: read_image(path).image, (said,) if said else ())

    for found in walk([folder]):
        try:
            if isinstance(found, Candidate):
                image_id = read_content(found.path).image_id
                yield FolderFile(image_id, found.relative_path, partial(load, image_id, found.path))
        except UnreadableImageError:
            continue
