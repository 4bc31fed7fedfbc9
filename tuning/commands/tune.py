"""`glimpse tune`: the cheapest setting of kNN search that meets a target recall, now and later."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from es_config.commands.options import AS_JSON, FILTERS, together, warn
from es_config.requests import DEFAULT_K
from tuning.commands.shared import FILE, MEASURE, MeasureOptions, opened, say, table_console

if TYPE_CHECKING:
    from tuning.run import Tuning


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

    date_from: str | None
    date_to: str | None
    place: str | None
    camera: str | None
    tag: str | None
    path: str | None
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

        names = ("path", "camera", "tag", "date_from", "date_to", "place")
        given = {name: getattr(self, name) for name in names if getattr(self, name)}
        clauses = filter_clauses(load_query({"q": "any", **given}, k=1).filters)
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
    from tuning.report import check_plot_name, write_plot

    given = TuneOptions(**options)
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
