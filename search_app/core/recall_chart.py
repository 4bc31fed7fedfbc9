"""The chart of recall against latency, which `glimpse tune --plot` writes and the page shows."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
"""Okabe and Ito's, told apart by everyone"""


@dataclass(frozen=True)
class Dot:
    """A setting in the chart."""

    p50_ms: float
    recall: float
    label: str = ""


@dataclass(frozen=True)
class RecallChart:
    """One curve for each oversampling, and the settings that stand out."""

    title: str
    k: int
    target: float
    curves: Mapping[str, Sequence[Dot]]
    """by label; the dots of each by rising candidates"""
    default: Dot | None
    pick: Dot | None
    exact_ms: float | None
    """p50 of exact search"""

    def draw(self, kind: Literal["png", "svg"], *, transparent: bool = False) -> bytes:
        """Return the content of a file."""
        import matplotlib
        from matplotlib.figure import Figure

        matplotlib.rcParams.update(
            {"svg.hashsalt": "glimpse", "svg.fonttype": "none", "font.family": "sans-serif"}
        )
        figure = Figure(figsize=(8, 5), layout="constrained")
        axes = figure.subplots()
        for number, (label, dots) in enumerate(self.curves.items()):
            times, recalls = [dot.p50_ms for dot in dots], [dot.recall for dot in dots]
            colour = COLOURS[number % len(COLOURS)]
            axes.plot(times, recalls, "o-", markersize=4, linewidth=1, color=colour, label=label)
        axes.axhline(self.target, color="#777777", linestyle="--", linewidth=1, label="target")
        _mark(axes, self.default, "s", markersize=10, markerfacecolor="none")
        _mark(axes, self.pick, "*", markersize=18, markerfacecolor="#ffd400")
        if self.exact_ms is not None:
            _mark(axes, Dot(self.exact_ms, 1.0, "exact"), "D", markersize=8, markerfacecolor="black")
        axes.set_title(self.title, fontsize=11)
        axes.set_xlabel("p50 of a request, milliseconds")
        axes.set_ylabel(f"mean recall@{self.k}")
        axes.set_xscale("log")
        _write_milliseconds(axes)
        axes.grid(visible=True, color="#888888", alpha=0.3, linewidth=0.6)
        axes.legend(loc="lower right", fontsize=9)
        content = io.BytesIO()
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        figure.savefig(content, format=kind, dpi=120, transparent=transparent, metadata=metadata)
        return content.getvalue()


def _mark(axes: Axes, dot: Dot | None, marker: str, **look: Any) -> None:
    if dot:
        axes.plot(
            dot.p50_ms, dot.recall, marker, label=dot.label, linestyle="none", markeredgecolor="black", **look
        )


def _write_milliseconds(axes: Axes) -> None:
    """Write milliseconds as plain numbers: 2 and 20, not powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def stored_chart(point: Mapping[str, Any], *, k: int) -> RecallChart | None:
    """Return the chart of an operating point as `_meta` stores it, or None without measurements."""
    rows = point.get("points") or ()
    if not rows:
        return None

    def marked(name: str, candidates: int | None, oversample: float | None) -> Dot | None:
        found = next((row for row in rows if (row[0], row[1]) == (candidates, oversample)), None)
        rescored = f", oversample {oversample:g}" if oversample else ""
        return Dot(found[3], found[2], f"{name}: num_candidates {candidates}{rescored}") if found else None

    return RecallChart(
        title=f"{point['documents']} documents · k = {k}",
        k=k,
        target=point["target"],
        curves={
            f"oversample {oversample:g}" if oversample else "as the index says": [
                Dot(row[3], row[2]) for row in some
            ]
            for oversample, some in groupby(rows, key=lambda row: row[1])
        },
        default=marked("default", point.get("default_num_candidates"), None),
        pick=marked("pick", point["num_candidates"], point["oversample"]),
        exact_ms=point.get("exact_p50_ms"),
    )
