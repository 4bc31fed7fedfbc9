"""Reports as text: aligned columns that stay readable in a pipe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evaluation.contest_types import Contest
    from evaluation.judge import Report
    from evaluation.metrics import Estimate


def report_lines(report: Report) -> Iterator[str]:
    """Give the lines of an evaluation: every score with its 95 % interval, then every comparison."""
    scores = [
        (score.run, score.language, str(score.queries), *map(_interval, score.metrics.values()))
        for score in report.scores
    ]
    yield from table(("run", "language", "queries", *report.scores[0].metrics), scores)
    for run in report.runs:
        lane = f", text model: {run.lane}" if run.lane else ""
        yield f"{run.name}: {run.query_ms:.1f} ms a query (median){lane}"
    for comparison in report.comparisons:
        yield ""
        yield f"{comparison.second} minus {comparison.first}, {comparison.queries} queries in pairs:"
        differences = [
            (name, f"{found.mean:+.4f}", f"[{found.low:+.4f}, {found.high:+.4f}]", f"{found.p_value:.4f}")
            for name, found in comparison.metrics.items()
        ]
        yield from table(("metric", "difference", "95 % interval", "p"), differences)
        yield comparison.verdict


def contest_lines(contest: Contest) -> Iterator[str]:
    """Give the lines of a contest: a row for each profile, and the recommendation."""
    yield f"{contest.pictures} pictures, {contest.queries} queries ({contest.asked})"
    header = ("profile", *contest.results[0].metrics, "p", "pictures/s", "ms/query", "MB", "dims")
    rows = [
        (
            each.name,
            *map(_interval, each.metrics.values()),
            f"{contest.against_best[each.name].p_value:.4f}" if each.name in contest.against_best else "",
            f"{each.images_per_second:.1f}",
            f"{each.query_ms:.1f}",
            f"{each.index_bytes / 1e6:.2f}",
            str(each.dims),
        )
        for each in contest.results
    ]
    yield from table(header, rows)
    yield contest.recommendation


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Give aligned lines; columns are two spaces apart."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        yield "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


def _interval(value: Estimate) -> str:
    return f"{value.mean:.3f} [{value.low:.3f}, {value.high:.3f}]"
