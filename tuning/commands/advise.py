"""`glimpse advise`: a sample of the vectors in every type of index, side by side."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

import click

from es_config.commands.options import AS_JSON, open_client, warn
from es_config.requests import DEFAULT_K
from tuning.commands.shared import (
    MEASURE,
    PATIENCE_S,
    MeasureOptions,
    opened,
    say,
    table_console,
)

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
