"""Recall against latency as a picture: PNG, SVG, or a page of HTML that holds the SVG."""

from __future__ import annotations

import html
import io
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuning.errors import TuneError
from tuning.report import in_order, lines

if TYPE_CHECKING:
    from tuning.points import Point
    from tuning.run import Tuning

KINDS = (".png", ".svg", ".html")
WIDEST_NAME = 40
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
"""Okabe and Ito's, told apart by everyone"""
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
svg {{ width: 100%; height: auto }}</style>
<h1>{title}</h1>
{paragraphs}
{svg}
</html>
"""


def check_plot_name(path: Path) -> None:
    """Raise TuneError unless a plot can be written under this name: before the work, not after it."""
    if path.suffix.lower() not in KINDS:
        raise TuneError(f"A plot is written as {', '.join(KINDS)}, and {path} is none of them.")
    if not path.parent.is_dir():
        raise TuneError(f"There is no folder {path.parent} for the plot.")


def write_plot(tuning: Tuning, path: Path) -> None:
    """Write the plot in the format of the name's ending. Raises TuneError when it cannot be written."""
    check_plot_name(path)
    kind = path.suffix.lower()[1:]
    drawn = draw(tuning, "png" if kind == "png" else "svg")
    if kind == "html":
        paragraphs = "\n".join(f"<p>{html.escape(line)}</p>" for line in lines(tuning))
        svg = drawn.decode()[drawn.decode().index("<svg") :]
        drawn = PAGE.format(title="Recall against latency", paragraphs=paragraphs, svg=svg).encode()
    try:
        path.write_bytes(drawn)
    except OSError as error:
        raise TuneError(f"The plot cannot be written to {path}: {error.strerror}.") from error


def draw(tuning: Tuning, kind: str) -> bytes:
    """Return the content of a `png` or `svg` file."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.hashsalt": "glimpse", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure = Figure(figsize=(8, 5), layout="constrained")
        axes = figure.subplots()
        curves = groupby(in_order(tuning.points), key=lambda point: (point.index_type, point.rescored))
        for number, (name, points) in enumerate(curves):
            _curve(axes, _label(name), list(points), COLOURS[number % len(COLOURS)])
        _marks(axes, tuning)
        field = tuning.subject.field
        name = field.index if len(field.index) <= WIDEST_NAME else f"{field.index[: WIDEST_NAME - 1]}…"
        axes.set_title(f"{name} · {tuning.documents} documents · k = {tuning.subject.k}", fontsize=11)
        axes.set_xlabel("p50 of a request, milliseconds")
        axes.set_ylabel(f"mean recall@{tuning.subject.k}")
        axes.set_xscale("log")
        _ticks(axes)
        axes.grid(visible=True, color="#dddddd", linewidth=0.6)
        axes.legend(loc="lower right", fontsize=9)
        content = io.BytesIO()
        figure.savefig(
            content, format=kind, dpi=120, metadata={"Date": None} if kind == "svg" else {"Software": None}
        )
    return content.getvalue()


def _label(curve: tuple[str, float]) -> str:
    index_type, rescored = curve
    return index_type if rescored == 1 else f"{index_type}, oversample {rescored:g}"


def _curve(axes: Any, label: str, points: list[Point], colour: str) -> None:
    timed = [point for point in points if point.latency]
    axes.plot(
        [point.latency.p50_ms for point in timed],
        [point.recall for point in timed],
        marker="o",
        markersize=4,
        linewidth=1,
        color=colour,
        label=label,
    )


def _marks(axes: Any, tuning: Tuning) -> None:
    axes.axhline(tuning.goal.target, color="#777777", linestyle="--", linewidth=1, label="target")
    for point, name, marker in ((tuning.default, "default", "s"), (tuning.pick, "pick", "*")):
        if point and point.latency:
            size = 18 if marker == "*" else 10
            axes.plot(
                point.latency.p50_ms,
                point.recall,
                marker,
                markersize=size,
                markerfacecolor="none" if marker == "s" else "#ffd400",
                markeredgecolor="black",
                linestyle="none",
                label=f"{name}: {point.setting}",
            )
    axes.plot(tuning.exact.p50_ms, 1.0, "D", markersize=8, color="black", linestyle="none", label="exact")


def _ticks(axes: Any) -> None:
    """Write milliseconds as plain numbers: 2 and 20, not powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    plain = FuncFormatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(plain)
    axes.xaxis.set_minor_formatter("")
