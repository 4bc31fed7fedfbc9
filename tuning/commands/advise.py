"""`glimpse advise`: a sample of the vectors in every type of index, side by side."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from es_config.commands.options import AS_JSON, open_client, warn
from es_config.requests import DEFAULT_K
from tuning.commands import shared as parts
from tuning.commands.shared import QUERIES, SUBJECT, TYPES, K, graphs, index_types

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch
    from rich.console import Console

    from tuning.advise import Advice, Recommendation
    from tuning.queries import Corpus, Queries
    from tuning.run import Goal

SAMPLE = 20_000
USUAL = ("16,100", "32,200")


@dataclass(frozen=True)
class Trial:
    """The results of the types of index on a sample."""

    found: tuple[Advice, ...]
    recommendation: Recommendation
    sample: int
    documents: int

    def to_json(self) -> dict[str, Any]:
        """Return the JSON of `glimpse advise --json`."""
        chosen = self.recommendation.advice
        return {
            "sample": self.sample,
            "documents": self.documents,
            "types": [advice.to_json() for advice in self.found],
            "recommended": chosen.to_json() if chosen else None,
            "why": self.recommendation.sentence,
        }

    def print(self, console: Console) -> None:
        """Print a table and the sentence why."""
        from tuning.advise import advice_table

        console.print(advice_table(self.found, self.recommendation.advice))
        of = "all" if self.sample == self.documents else f"{self.sample} of {self.documents}"
        console.print(f"Measured on {of} vectors.", style="dim", highlight=False)
        console.print(self.recommendation.sentence, highlight=False, soft_wrap=True)


@click.command()
@SUBJECT
@K
@QUERIES
@click.option("--sample", type=click.IntRange(2), default=SAMPLE, show_default=True, help="Vectors to copy.")
@click.option("--types", "tried", callback=index_types, default=",".join(TYPES), show_default=True)
@click.option(
    "--graph", "shapes", multiple=True, default=USUAL, callback=graphs, metavar="M,EF", show_default=True,
    help="m and ef_construction to try; may be repeated.",
)  # fmt: skip
@click.option("--remove-leftovers", is_flag=True, help="Delete what an interrupted run left, without asking.")
@AS_JSON
def advise(*, as_json: bool, remove_leftovers: bool, **options: Any) -> None:
    """Try every type of index on a sample of your own vectors, and recommend one.

    Each is made in a temporary index called glimpse-advise-…, measured at its own cheapest setting that
    meets the target, and deleted at the end, also when the run is interrupted.

    \b
    Example:
      glimpse advise
      glimpse advise --sample 50000 --types hnsw,int8_hnsw --graph 16,100 --graph 48,300
    """
    clear_leftovers(unasked=remove_leftovers)
    trial = run_advise(**options)
    if as_json:
        click.echo(json.dumps(trial.to_json(), indent=2))
    else:
        trial.print(parts.table_console())


def run_advise(
    *, alias: str, field: str, k: int | None, target: float, sample: int, tried: tuple[str, ...],
    shapes: tuple[tuple[int, int], ...], seed: int, rounds: int, **options: Any,
) -> Trial:  # fmt: skip
    """Draw queries and a sample, and try the types. Raises as `tuning.advise.advise`."""
    from tuning.run import Goal

    k = k or DEFAULT_K
    with parts.stoppable(), parts.opened(alias, field) as (client, corpus):
        drawn = parts.queries(corpus, alias=alias, seed=seed, target=target, k=k, **options)
        goal = Goal(target=target, seed=seed, rounds=rounds)
        return run_trial(client, corpus, drawn, tried, k=k, goal=goal, size=sample, shapes=shapes)


def run_trial(
    client: Elasticsearch,
    corpus: Corpus,
    drawn: Queries,
    types: Sequence[str],
    *,
    k: int,
    goal: Goal,
    size: int = SAMPLE,
    shapes: Sequence[tuple[int, int]] = (),
) -> Trial:
    """Copy a sample into an index of each type, measure, and delete the indices."""
    from es_config.scan import sample_view
    from tuning.advise import GRAPHS, Material, advise, candidates, recommend
    from tuning.trials import trials

    field = corpus.field
    ids, vectors = sample_view(
        corpus.view, field=field.name, size=size, documents=corpus.documents, seed=goal.seed, dims=field.dims
    )
    material = Material(ids, vectors, drawn, field.similarity)
    wanted = candidates(types, shapes or GRAPHS, dims=field.dims)
    with trials(client) as ours:
        found = advise(client, ours, material, wanted, k=k, goal=goal, say=parts.say)
    documents = max(corpus.documents, len(ids)) if len(ids) >= size else len(ids)
    chosen = recommend(found, target=goal.target, sample=len(ids), documents=documents)
    return Trial(tuple(found), chosen, len(ids), documents)


def clear_leftovers(*, unasked: bool) -> None:
    """Offer to delete the trial indices of runs that could not clean up. Without a terminal, only say so."""
    from es_config.vector_field import delete_indices
    from tuning.trials import trial_names

    connected = open_client(timeout_s=parts.PATIENCE_S)
    names = trial_names(connected)
    if not names:
        return
    said = f"{len(names)} trial indices are left over from a run that was killed, or belong to one that runs"
    if unasked or (sys.stdin.isatty() and click.confirm(f"{said}. Delete them?", err=True)):
        delete_indices(connected, names)
    elif not sys.stdin.isatty():
        warn(f"{said}: --remove-leftovers deletes them.")
