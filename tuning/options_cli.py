"""Options that `glimpse tune` and `glimpse advise` share."""

from __future__ import annotations

from pathlib import Path

import click

from es_config.requests import MAX_CANDIDATES
from es_config.commands.options import FILTERS, INDEX, MODELS, together

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
