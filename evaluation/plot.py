"""A picture of a contest: quality, speed and size of each profile side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from evaluation.errors import EvaluationError

if TYPE_CHECKING:
    from evaluation.contest_types import Contest

FORMATS = (".png", ".svg", ".pdf")
COLOUR = "#2f6f8f"


def check_format(path: Path) -> None:
    """Raise `EvaluationError` for a file that no plot can be written to; to be asked before measuring."""
    if path.suffix.lower() not in FORMATS:
        raise EvaluationError(f"A plot can be {', '.join(FORMATS)}, and '{path.name}' is none of them.")
    if not path.absolute().parent.is_dir():
        raise EvaluationError(f"There is no folder {path.absolute().parent} for the plot: make it first.")


def plot_contest(contest: Contest, path: Path) -> None:
    """Draw four bar charts in one row, one for each thing that was measured. Raises `EvaluationError`."""
    from matplotlib.figure import Figure

    results = contest.results[::-1]  # matplotlib draws the first at the bottom
    names = [each.name for each in results]
    quality = [each.metrics[f"ndcg@{contest.k}"] for each in results]
    charts = {
        f"nDCG@{contest.k}": [each.mean for each in quality],
        "pictures embedded a second": [each.images_per_second for each in results],
        "milliseconds a query": [each.query_ms for each in results],
        "MB of index": [each.index_bytes / 1e6 for each in results],
    }
    figure = Figure(figsize=(13, 1.6 + 0.45 * len(names)), layout="constrained")
    axes = figure.subplots(1, len(charts), sharey=True)
    for axis, (title, values) in zip(axes, charts.items(), strict=True):
        bars = axis.barh(names, values, color=COLOUR)
        axis.bar_label(bars, fmt="{:.3g}", padding=4)
        axis.set_title(title, fontsize=10)
        axis.set_xlim(0, 1.25 * max(values) or 1)
        axis.spines[["top", "right"]].set_visible(False)
    low_high = [[each.mean - each.low for each in quality], [each.high - each.mean for each in quality]]
    axes[0].errorbar(
        [each.mean for each in quality], names, xerr=low_high, fmt="none", ecolor="black", capsize=3
    )
    figure.suptitle(f"{contest.pictures} pictures, {contest.queries} queries ({contest.asked})", fontsize=10)
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise EvaluationError(f"The plot cannot be written to {path} ({error.strerror}).") from error
