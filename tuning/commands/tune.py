"""`glimpse tune` and `glimpse advise`, with the options that they share."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from es_config.commands.options import AS_JSON, FILTERS, INDEX, MODELS, open_client, together, warn
from es_config.requests import DEFAULT_K, MAX_CANDIDATES

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch
    from rich.console import Console

    from tuning.queries import Corpus, QuerySources
    from tuning.run import Goal, Tuning

WIDTH = 120
"""columns of a table that goes into a file"""
PATIENCE_S = 300
"""seconds for one answer: exact search over everything is slow"""
FILE = click.Path(path_type=Path, dir_okay=False)
MEASURE = together(
    INDEX,
    click.option("--field", default="image_embedding", show_default=True,
                 help="A dense_vector field; that of any index will do."),
    click.option("--target-recall", "target", type=click.FloatRange(0, 1, True, True), default=0.99,
                 show_default=True, help="Mean share of the exact neighbours that must be found."),
    click.option("-k", "--k", "k", type=click.IntRange(1, MAX_CANDIDATES // 2),
                 help="Neighbours.  [default: 10]"),
    click.option("--queries", "labelled", type=FILE,
                 help='Queries as JSONL: {"query": "words"} or {"vector": [numbers]} a line.'),
    click.option("--samples", type=click.IntRange(20, 20_000), default=1600, show_default=True,
                 help="Queries; half of them choose, half confirm."),
    click.option("--rounds", type=click.IntRange(3, 10_000), default=60, show_default=True,
                 help="Requests to time each setting; those that may be picked get five times as many."),
    click.option("--seed", type=int, default=0, show_default=True, help="Seed of every random choice."),
    MODELS,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class MeasureOptions:
    """The options that both commands take."""

    alias: str
    field: str
    target: float
    k: int | None
    labelled: Path | None
    samples: int
    rounds: int
    seed: int
    profile: str | None
    model_dir: Path | None

    def goal(self) -> Goal:
        """Return the goal of a run, with the setting of a search that was not tuned."""
        from search_app.core.query import default_candidates
        from tuning.points import Setting
        from tuning.run import Goal

        default = Setting(default_candidates(self.k or DEFAULT_K))
        return Goal(self.target, default, rounds=self.rounds, seed=self.seed, samples=self.samples)


@contextmanager
def opened(options: MeasureOptions) -> Iterator[tuple[Elasticsearch, Corpus, QuerySources]]:
    """Give a connection, a frozen view of the field, and the sources of queries."""
    from tuning.queries import QuerySources, open_corpus, text_embedder

    client = open_client(timeout_s=PATIENCE_S)
    with stoppable(), open_corpus(client, options.alias, options.field) as corpus:
        embed = text_embedder(
            client,
            corpus.field,
            alias=options.alias,
            profile=options.profile,
            model_dir=options.model_dir,
        )
        labelled = read_queries(options.labelled) if options.labelled else ()
        yield client, corpus, QuerySources(labelled, logged, embed)


def say(text: str) -> None:
    """Write progress to stderr. On a terminal, details overwrite each other."""
    if not text.startswith("  "):
        click.echo(text, err=True)
    elif sys.stderr.isatty():
        click.echo(f"\r\033[K{text}\r", err=True, nl=False)


def read_queries(path: Path) -> list[str | tuple[float, ...]]:
    """Return the words or vectors of labelled queries, without their answers. Raises TuneError."""
    from evaluation.errors import LabelError
    from evaluation.labels import read_labels
    from tuning.errors import TuneError

    try:
        return [query.text or query.vector or () for query in read_labels(path).queries]
    except LabelError as error:
        raise TuneError(str(error)) from error


def logged() -> Iterable[str]:
    """Return the texts of the log of queries that `glimpse serve --query-log` keeps."""
    from es_config.client import glimpse_home
    from search_app.core.logs import log_path, read_query_log

    return read_query_log(log_path(glimpse_home(os.environ)))


@contextmanager
def stoppable() -> Iterator[None]:
    """Let `kill` end the body of a `with` statement as Ctrl-C does, so that its clean-up runs."""

    def stop(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def table_console() -> Console:
    """Return a console on stdout that does not cut tables when they go into a file."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=WIDTH)


def read_clause(_ctx: click.Context, _param: click.Parameter, raw: str | None) -> dict[str, Any] | None:
    """Read a clause of the query language. Raises UsageError unless it is a JSON object."""
    if raw is None:
        return None
    try:
        clause = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"--filter is not JSON: {error}.") from error
    if not isinstance(clause, dict):
        raise click.UsageError('--filter is a clause like {"term": {"tags": "sea"}}.')
    return clause


OUTPUT = together(
    FILTERS,
    click.option("--filter", metavar="JSON", callback=read_clause,
                 help="A clause of the query language."),
    click.option("--plot", type=FILE, help="Draw recall against latency: a .png, .svg or .html file."),
    click.option("--dry-run", is_flag=True, help="Write nothing into the index."),
    click.option("--write", is_flag=True, help="Write into an index that Glimpse did not make, too."),
    click.option("--check", is_flag=True, help="Measure what is stored; exit 1 if it fails."),
    AS_JSON,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TuneOptions(MeasureOptions):
    """The options of `glimpse tune`."""

    filtered: Mapping[str, str | bool]
    """the filters of a search that were given, by name"""
    filter: dict[str, Any] | None
    plot: Path | None
    dry_run: bool
    write: bool
    check: bool
    as_json: bool

    def filters(self) -> tuple[dict[str, Any], ...]:
        """Return the filters as clauses of the query language. Raises QueryError."""
        from es_config.requests import filter_clauses
        from search_app.core.query import load_query

        clauses = filter_clauses(load_query({"q": "any", **self.filtered}, k=1).filters)
        return (*clauses, *([self.filter] if self.filter is not None else []))


@click.command()
@MEASURE
@OUTPUT
def tune(**options: Any) -> None:
    """Find the cheapest num_candidates and oversample that meet a target recall.

    Recall is measured against exact neighbours, latency in a pass of its own. What is found is confirmed on
    other queries and written into the index; page, REST API and commands then use it for that k.

    \b
    Example:
      glimpse tune --target-recall 0.99 -k 10
      glimpse tune --plot recall.svg --dry-run
      glimpse tune --check
      glimpse tune --index products --field embedding
    """
    from search_app.core.query import FILTERS as NAMES
    from tuning.report import check_plot_name, write_plot

    filtered = {name: value for name in NAMES if (value := options.pop(name))}
    given = TuneOptions(filtered=filtered, **options)
    if given.check:
        _check(given)
        return
    if given.plot:
        check_plot_name(given.plot)
    tuning, written = _tuned(given)
    if given.plot:
        write_plot(tuning, given.plot)
    _show(tuning, written=written, as_json=given.as_json)


def _tuned(options: TuneOptions) -> tuple[Tuning, bool]:
    """Measure, store the pick, and return whether it was stored."""
    from tuning.report import store_pick
    from tuning.run import enough_queries, tune
    from tuning.sweep import Subject

    filters, goal, k = options.filters(), options.goal(), options.k or DEFAULT_K
    with opened(options) as (client, corpus, sources):
        queries = enough_queries(corpus, sources, k=k, goal=goal, say=say)
        tuning = tune(client, Subject(corpus.view, corpus.field, k, filters), queries, goal=goal, say=say)
        written = not options.dry_run and store_pick(client, tuning, any_index=options.write)
    if tuning.pick and filters and not options.dry_run:
        warn("a setting for filtered searches is shown, but not written: searches without them need another.")
    return tuning, written


def _show(tuning: Tuning, *, written: bool, as_json: bool) -> None:
    """Print a run. Raises TuneError when no setting meets the target, after the points are printed."""
    from tuning.errors import TuneError
    from tuning.report import lines, table, to_json, unreachable

    if tuning.changed:
        warn(tuning.changed)
    if as_json:
        click.echo(json.dumps(to_json(tuning, written=written), indent=2))
    else:
        console = table_console()
        console.print(table(tuning))
        console.print("\n".join(lines(tuning)), highlight=False, soft_wrap=True)
        if tuning.pick:
            console.print("Written into the index." if written else "Nothing was written.", style="dim")
    if tuning.pick is None:
        raise TuneError(unreachable(tuning.points, tuning.subject.field, tuning.goal.target))


def _check(options: TuneOptions) -> None:
    """Measure the stored operating points of a field, or that of one k. Exit 1 when one fails."""
    from tuning.run import check_stored

    with opened(options) as (_, corpus, sources):
        checks = check_stored(corpus, sources, k=options.k, goal=options.goal(), say=say)
    ok = all(each.ok for each in checks)
    if options.as_json:
        click.echo(json.dumps({"ok": ok, "checks": [each.to_json() for each in checks]}, indent=2))
    else:
        click.echo("\n".join(map(str, checks)))
    if not ok:
        raise SystemExit(1)


SAMPLE = 20_000
USUAL = ("16,100", "32,200")
TYPES = ("flat", "int8_flat", "hnsw", "int8_hnsw", "int4_hnsw", "bbq_hnsw")


def read_types(_ctx: click.Context, _param: click.Parameter, text: str) -> tuple[str, ...]:
    """Read `hnsw,int8_hnsw`."""
    named = tuple(each.strip() for each in text.split(",") if each.strip())
    unknown = [each for each in named if each not in TYPES]
    if unknown:
        raise click.BadParameter(f"there is no type {unknown[0]}; choose from {', '.join(TYPES)}.")
    return named


def read_graphs(
    _ctx: click.Context, _param: click.Parameter, texts: tuple[str, ...]
) -> tuple[tuple[int, int], ...]:
    """Read `16,100`: m and ef_construction."""
    try:
        pairs = tuple((int(m), int(ef)) for m, ef in (text.split(",") for text in texts))
        if all(2 <= m <= 512 and 2 <= ef <= 3200 for m, ef in pairs):
            return pairs
    except ValueError:
        pass
    raise click.BadParameter("write m (2 to 512) and ef_construction (2 to 3200), as in 16,100.")


@dataclass(frozen=True, kw_only=True)
class AdviseOptions(MeasureOptions):
    """The options of `glimpse advise`."""

    sample: int
    types: tuple[str, ...]
    graphs: tuple[tuple[int, int], ...]
    remove_leftovers: bool
    as_json: bool


@click.command()
@MEASURE
@click.option("--sample", type=click.IntRange(2), default=SAMPLE, show_default=True, help="Vectors to copy.")
@click.option("--types", callback=read_types, default=",".join(TYPES), show_default=True)
@click.option(
    "--graph", "graphs", multiple=True, default=USUAL, callback=read_graphs, metavar="M,EF",
    show_default=True, help="m and ef_construction to try; may be repeated.",
)  # fmt: skip
@click.option("--remove-leftovers", is_flag=True, help="Delete what an interrupted run left, without asking.")
@AS_JSON
def advise(**options: Any) -> None:
    """Try every type of index on a sample of your own vectors, and recommend one.

    Each is made in a temporary index called glimpse-advise-…, measured at its own cheapest setting that
    meets the target, and deleted at the end, also when the run is interrupted.

    \b
    Example:
      glimpse advise
      glimpse advise --sample 50000 --types hnsw,int8_hnsw --graph 16,100 --graph 48,300
    """
    from tuning.advise import advice_table, run_trial
    from tuning.run import enough_queries

    given = AdviseOptions(**options)
    clear_leftovers(unasked=given.remove_leftovers)
    goal, k = given.goal(), given.k or DEFAULT_K
    with opened(given) as (client, corpus, sources):
        queries = enough_queries(corpus, sources, k=k, goal=goal, say=say)
        trial = run_trial(
            client, corpus, queries, types=given.types, graphs=given.graphs, size=given.sample,
            k=k, goal=goal, say=say,
        )  # fmt: skip
    if given.as_json:
        click.echo(json.dumps(trial.to_json(), indent=2))
        return
    console = table_console()
    console.print(advice_table(trial.found, trial.recommendation.advice))
    console.print(trial.size, style="dim", highlight=False)
    console.print(trial.recommendation.sentence, highlight=False, soft_wrap=True)


def clear_leftovers(*, unasked: bool) -> None:
    """Offer to delete the trial indices of runs that could not clean up, or warn without a terminal."""
    from es_config.vector_field import delete_indices
    from tuning.advise import trial_names

    connected = open_client(timeout_s=PATIENCE_S)
    names = trial_names(connected)
    if not names:
        return
    said = f"{len(names)} trial indices are left over from a run that was killed, or belong to one that runs"
    if unasked or (sys.stdin.isatty() and click.confirm(f"{said}. Delete them?", err=True)):
        delete_indices(connected, names)
    elif not sys.stdin.isatty():
        warn(f"{said}: --remove-leftovers deletes them.")
