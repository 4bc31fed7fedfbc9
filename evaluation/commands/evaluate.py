"""`glimpse evaluate`: labelled queries against the index, runs against runs, models against models."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from es_config.commands.options import AS_JSON, FILE, FOLDER, INDEX, MODELS, say, store_option, together, warn

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
    from evaluation.evaluate_cli import evaluate_index
    from evaluation.printing import report_lines

    report = evaluate_index(options, compare=Path(compare) if saved else None)
    for warning in report.warnings:
        warn(warning)
    _print(report_lines(report), report.to_json(), as_json=as_json)


def _contest(profiles: str, *, plot: Path | None, as_json: bool, options: dict[str, Any]) -> None:
    from evaluation.commands.models import contest_of
    from evaluation.plot import check_format, plot_contest
    from evaluation.printing import contest_lines

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
