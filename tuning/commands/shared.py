"""Options and parts that `glimpse tune` and `glimpse advise` share."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from es_config.commands.options import INDEX, MODELS, open_client, together
from es_config.requests import DEFAULT_K, MAX_CANDIDATES

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch
    from rich.console import Console

    from tuning.queries import Corpus, QuerySources
    from tuning.run import Goal

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
    profile: str
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
