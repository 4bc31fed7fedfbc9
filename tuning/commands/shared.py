"""Options and parts that `glimpse tune` and `glimpse advise` share."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from es_config.commands.options import FILTERS, INDEX, MODELS, open_client, together
from es_config.requests import MAX_CANDIDATES

if TYPE_CHECKING:
    import numpy as np
    from elasticsearch import Elasticsearch
    from rich.console import Console

    from es_config.vector_field import VectorField
    from tuning.points import Setting
    from tuning.queries import Corpus, Queries

WIDTH = 120
"""columns of a table that goes into a file"""
PATIENCE_S = 300
"""seconds for one answer: exact search over everything is slow"""
MOST = 4_000
"""queries that are drawn unasked, when a high target needs them"""


@contextmanager
def opened(alias: str, field: str) -> Iterator[tuple[Elasticsearch, Corpus]]:
    """Give a connection and a frozen view of one field. Raises EngineError, TuneError for no documents."""
    from es_config.scan import point_in_time
    from es_config.vector_field import read_extent, read_vector_field
    from tuning.errors import TuneError
    from tuning.queries import Corpus

    connected = open_client(timeout_s=PATIENCE_S)
    found = read_vector_field(connected, alias, field)
    documents = read_extent(connected, found.index).documents
    if documents == 0:
        raise TuneError(f"The index {found.index} is empty: `glimpse ingest` pictures first.")
    with point_in_time(connected, found.index) as view:
        yield connected, Corpus(view, found, documents)


def say(text: str) -> None:
    """Write progress to stderr. On a terminal, details overwrite each other."""
    if not text.startswith("  "):
        click.echo(text, err=True)
    elif sys.stderr.isatty():
        click.echo(f"\r\033[K{text}\r", err=True, nl=False)


def clauses(raw: str | None, named: Mapping[str, str | None]) -> tuple[dict[str, Any], ...]:
    """Return the filters as clauses. Raises QueryError, UsageError for a raw one that is no JSON object."""
    from es_config.requests import filter_clauses
    from search_app.core.query import load_query

    given = {name: value for name, value in named.items() if value}
    found = filter_clauses(load_query({"q": "any", **given}, k=1).filters)
    if raw:
        try:
            clause = json.loads(raw)
        except ValueError as error:
            raise click.UsageError(f"--filter is not JSON: {error}.") from error
        if not isinstance(clause, dict):
            raise click.UsageError('--filter is a clause like {"term": {"tags": "sea"}}.')
        found.append(clause)
    return tuple(found)


def default_setting(k: int) -> Setting:
    """Return the parameters of a search when nothing was tuned."""
    from search_app.core.query import default_candidates
    from tuning.points import Setting

    return Setting(default_candidates(k))


def queries(
    corpus: Corpus,
    *,
    alias: str,
    profile: str,
    model_dir: Path | None,
    labelled: Path | None,
    samples: int,
    seed: int,
    target: float,
    k: int,
    **_: Any,
) -> Queries:
    """Draw queries, more than `samples` if the target needs it. Raises TuneError, EngineError, ModelError."""
    from tuning.queries import SOURCES, draw_queries
    from tuning.truth import needed_queries

    embed = embedder(corpus.field, alias=alias, profile=profile, model_dir=model_dir)
    drawn = draw_queries(
        corpus,
        size=max(samples, min(4 * needed_queries(target, k=min(k, corpus.documents)), MOST)),
        seed=seed,
        labelled=read_queries(labelled) if labelled else (),
        logged=logged,
        embed=embed,
    )
    say(f"{len(drawn.vectors)} queries: {SOURCES[drawn.source]}.")
    return drawn


def read_queries(path: Path) -> list[str | tuple[float, ...]]:
    """Return the words or vectors of labelled queries, without their answers. Raises TuneError."""
    from evaluation.errors import LabelError
    from evaluation.labels import read_labels
    from tuning.errors import TuneError

    try:
        return [query.text or query.vector for query in read_labels(path).queries]
    except LabelError as error:
        raise TuneError(str(error)) from error


def logged() -> Iterable[str]:
    """Return the texts of the log of queries that `glimpse serve` keeps when it is told to."""
    from es_config.client import glimpse_home
    from search_app.core.query_log import log_path, read_query_log

    return read_query_log(log_path(glimpse_home(os.environ)))


def embedder(
    field: VectorField, *, alias: str, profile: str, model_dir: Path | None
) -> Callable[[Sequence[str]], np.ndarray] | None:
    """Return the text encoder for a field of an index that Glimpse made, or None for any other."""
    if not field.is_ours or field.name not in ("image_embedding", "caption_embedding"):
        return None

    def embed(texts: Sequence[str]) -> np.ndarray:
        from es_config.index import ImageIndex
        from models.encoders import load_caption_text_encoder, load_text_encoder, plain_text
        from models.profiles import get_profile

        row = get_profile(profile, model_dir=model_dir)
        ImageIndex(open_client(), alias=alias).check_profile(row.name, row.dims)
        load = load_caption_text_encoder if field.name == "caption_embedding" else load_text_encoder
        return load(row).embed_texts([plain_text(text) for text in texts])

    return embed


@contextmanager
def stoppable() -> Iterator[None]:
    """Let `kill` end the body of a `with` statement as Ctrl-C does, so that it cleans up."""

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


TYPES = ("flat", "int8_flat", "hnsw", "int8_hnsw", "int4_hnsw", "bbq_hnsw")
FILE = click.Path(path_type=Path, dir_okay=False)


def index_types(_ctx: click.Context, _param: click.Parameter, text: str | None) -> tuple[str, ...]:
    """Read `hnsw,int8_hnsw`."""
    named = tuple(each.strip() for each in (text or "").split(",") if each.strip())
    unknown = [each for each in named if each not in TYPES]
    if unknown:
        raise click.BadParameter(f"there is no type {unknown[0]}; choose from {', '.join(TYPES)}.")
    return named


def graphs(
    _ctx: click.Context, _param: click.Parameter, texts: tuple[str, ...]
) -> tuple[tuple[int, int], ...]:
    """Read `16,100`: m and ef_construction."""
    try:
        pairs = tuple(tuple(int(part) for part in text.split(",")) for text in texts)
        if all(2 <= m <= 512 and 2 <= ef <= 3200 for m, ef in pairs):
            return pairs
    except ValueError:
        pass
    raise click.BadParameter("write m (2 to 512) and ef_construction (2 to 3200), as in 16,100.")


SUBJECT = together(
    INDEX,
    click.option("--field", default="image_embedding", show_default=True,
                 help="A dense_vector field; that of any index will do."),
    click.option("--target-recall", "target", type=click.FloatRange(0, 1, True, True), default=0.99,
                 show_default=True, help="Mean share of the exact neighbours that must be found."),
)  # fmt: skip
K = click.option(
    "-k", "--k", "k", type=click.IntRange(1, MAX_CANDIDATES // 2), help="Neighbours.  [default: 10]"
)
QUERIES = together(
    click.option("--queries", "labelled", type=FILE,
                 help='Queries as JSONL: {"query": "words"} or {"vector": [numbers]} a line.'),
    click.option("--samples", type=click.IntRange(20, 20_000), default=1600, show_default=True,
                 help="Queries; half of them choose, half confirm."),
    click.option("--rounds", type=click.IntRange(3, 10_000), default=60, show_default=True,
                 help="Requests to time each setting; those that may be picked get five times as many."),
    click.option("--seed", type=int, default=0, show_default=True, help="Of everything drawn by chance."),
    MODELS,
)  # fmt: skip
RESTRICTED = together(
    FILTERS,
    click.option("--filter", "raw_filter", metavar="JSON", help="A clause of the query language."),
)  # fmt: skip
