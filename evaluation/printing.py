"""Reports as text: aligned columns that stay readable in a pipe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evaluation.contest_types import Contest
    from evaluation.judge import Comparison, Report, Score
    from evaluation.statistics import Difference, Estimate


def report_lines(report: Report) -> Iterator[str]:
    """Give the lines of an evaluation: every score with its 95 % interval, then every comparison."""
    yield from table(_header(report.scores), [_score(score) for score in report.scores])
    for run in report.runs:
        lane = f", text model: {run.lane}" if run.lane else ""
        yield f"{run.name}: {run.query_ms:.1f} ms a query (median){lane}"
    for comparison in report.comparisons:
        yield ""
        yield f"{comparison.second} minus {comparison.first}, {comparison.queries} queries in pairs:"
        yield from table(("metric", "difference", "95 % interval", "p"), _comparison(comparison))
        yield comparison.verdict


def contest_lines(contest: Contest) -> Iterator[str]:
    """Give the lines of a contest: a row for each profile, and the recommendation."""
    yield f"{contest.pictures} pictures, {contest.queries} queries ({contest.asked})"
    header = ("profile", *contest.results[0].metrics, "p", "pictures/s", "ms/query", "MB", "dims")
    rows = [
        (
            each.name,
            *(_interval(value) for value in each.metrics.values()),
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


def _header(scores: Sequence[Score]) -> tuple[str, ...]:
    return ("run", "language", "queries", *scores[0].metrics)


def _score(score: Score) -> tuple[str, ...]:
    values = (_interval(value) for value in score.metrics.values())
    return (score.run, score.language, str(score.queries), *values)


def _interval(value: Estimate) -> str:
    return f"{value.mean:.3f} [{value.low:.3f}, {value.high:.3f}]"


def _comparison(comparison: Comparison) -> list[tuple[str, ...]]:
    return [(name, *_difference(value)) for name, value in comparison.metrics.items()]


def _difference(value: Difference) -> tuple[str, ...]:
    return (f"{value.mean:+.4f}", f"[{value.low:+.4f}, {value.high:+.4f}]", f"{value.p_value:.4f}")
