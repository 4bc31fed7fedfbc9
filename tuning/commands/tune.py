"""`glimpse tune`: the cheapest setting of kNN search that meets a target recall, now and later."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from es_config.commands.options import AS_JSON, together, warn
from es_config.requests import DEFAULT_K
from tuning.commands import shared as parts
from tuning.commands.shared import FILE, QUERIES, RESTRICTED, SUBJECT, K

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

    from tuning.run import Tuning

NAMED_FILTERS = ("path", "camera", "tag", "date_from", "date_to", "place")
OUTPUT = together(
    click.option("--plot", type=FILE, help="Draw recall against latency: a .png, .svg or .html file."),
    click.option("--dry-run", is_flag=True, help="Write nothing into the index."),
    click.option("--write", is_flag=True, help="Write into an index that Glimpse did not make, too."),
    click.option("--check", "only_check", is_flag=True, help="Measure what is stored; exit 1 if it fails."),
    AS_JSON,
)


@click.command()
@SUBJECT
@K
@QUERIES
@RESTRICTED
@OUTPUT
def tune(*, plot: Path | None, only_check: bool, as_json: bool, **options: Any) -> None:
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
    from tuning.report import check_plot_name, write_plot

    if only_check:
        run_check(options, as_json=as_json)
        return
    if plot:
        check_plot_name(plot)
    tuning, written = run_tune(**options)
    if plot:
        write_plot(tuning, plot)
    show(tuning, written=written, as_json=as_json)


def run_tune(
    *, alias: str, field: str, k: int | None, target: float, seed: int, rounds: int,
    raw_filter: str | None, dry_run: bool, write: bool, **options: Any,
) -> tuple[Tuning, bool]:  # fmt: skip
    """Measure, write the result, and return whether it was written. Raises as `tuning.run.tune`."""
    from tuning.run import Goal, tune
    from tuning.sweep import Subject

    filters = parts.clauses(raw_filter, {name: options.pop(name) for name in NAMED_FILTERS})
    k = k or DEFAULT_K
    goal = Goal(target=target, default=parts.default_setting(k), seed=seed, rounds=rounds)
    with parts.stoppable(), parts.opened(alias, field) as (client, corpus):
        drawn = parts.queries(corpus, alias=alias, seed=seed, target=target, k=k, **options)
        subject = Subject(corpus.view, corpus.field, k, filters)
        tuning = tune(client, subject, drawn, goal=goal, say=parts.say)
        written = not dry_run and store(client, tuning, write=write)
    return tuning, written


def store(client: Elasticsearch, tuning: Tuning, *, write: bool) -> bool:
    """Write the pick into the index's `_meta`, if that is wanted and right, and return whether it was."""
    from es_config.index import ImageIndex
    from search_app.core.searcher import point_key
    from tuning.report import operating_point

    field = tuning.subject.field
    if tuning.pick is None:
        return False
    if tuning.subject.filters:
        warn("a setting for filtered searches is shown, but not written: searches without them need another.")
        return False
    entries = {point_key(field.name, tuning.subject.k): operating_point(tuning)}
    if field.is_ours or write:  # into the index that was measured, whatever the alias stands for now
        ImageIndex(client, alias=field.index).note("operating_points", entries)
    return field.is_ours or write


def show(tuning: Tuning, *, written: bool, as_json: bool) -> None:
    """Print a run. Raises TuneError afterwards when no setting meets the target."""
    from tuning.errors import TuneError
    from tuning.report import lines, table, to_json, unreachable

    if tuning.changed:
        warn(tuning.changed)
    if as_json:
        click.echo(json.dumps(to_json(tuning, written=written), indent=2))
    else:
        console = parts.table_console()
        console.print(table(tuning))
        console.print("\n".join(lines(tuning)), highlight=False, soft_wrap=True)
        if tuning.pick:
            console.print("Written into the index." if written else "Nothing was written.", style="dim")
    if tuning.pick is None:
        raise TuneError(unreachable(tuning.points, tuning.subject.field, tuning.goal.target))


def run_check(options: dict[str, Any], *, as_json: bool) -> None:
    """Measure the stored operating points of a field, or that of one k. Exit 1 when one fails."""
    found = measured(**options)
    ok = all(each.ok for each in found)
    if as_json:
        click.echo(json.dumps({"ok": ok, "checks": [each.to_json() for each in found]}, indent=2))
    else:
        click.echo("\n".join(map(str, found)))
    if not ok:
        raise SystemExit(1)


def measured(*, alias: str, field: str, k: int | None, seed: int, **options: Any) -> list:
    """Return a check of each stored point. Raises TuneError when none is stored."""
    from search_app.core.searcher import tuned_points
    from tuning.errors import TuneError
    from tuning.run import check, with_truth
    from tuning.sweep import Subject

    found = []
    with parts.stoppable(), parts.opened(alias, field) as (_, corpus):
        stored = tuned_points(corpus.field.meta.get("operating_points", {}), field)
        for each in [k] if k else stored:
            if each not in stored:
                raise TuneError(
                    f"No operating point is stored for k = {each}: run `glimpse tune -k {each}` first."
                )
            entry = stored[each]
            more = {**options, "target": entry["target"]}
            # Other queries than those that chose the point, and the same ones in every run.
            drawn = parts.queries(corpus, alias=alias, seed=seed + 1, k=each, **more)
            subject = Subject(corpus.view, corpus.field, each)
            sample = with_truth(subject, drawn, say=parts.say)
            found.append(check(subject, sample, entry))
    if not found:
        raise TuneError("No operating point is stored: run `glimpse tune` first.")
    return found
