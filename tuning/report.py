"""A tuning run for people and for programs: text, JSON and a plot."""

from __future__ import annotations

import html
import io
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuning.errors import TuneError
from tuning.points import SERVED, Point, stored_points
from tuning.queries import SOURCES

if TYPE_CHECKING:
    from rich.table import Table

    from es_config.vector_field import VectorField
    from tuning.points import Point
    from tuning.run import Tuning

NEARLY = 0.0005


def to_json(tuning: Tuning, *, written: bool) -> dict[str, Any]:
    """Return the JSON of `glimpse tune --json`. `pick` is null when no setting meets the target."""
    field, goal = tuning.subject.field, tuning.goal
    pick = tuning.pick.to_json() if tuning.pick else None
    held_out = vars(tuning.held_out) if tuning.held_out else None
    return {
        "index": field.index,
        "field": field.name,
        "index_type": field.index_type,
        "similarity": field.similarity,
        "k": tuning.subject.k,
        "target": goal.target,
        "documents": tuning.documents,
        "queries": {"source": tuning.source, "count": tuning.queries},
        "filters": list(tuning.subject.filters),
        "pick": pick,
        "held_out": held_out,
        "default": tuning.default.to_json() if tuning.default else None,
        "exact": {"p50_ms": round(tuning.exact.p50_ms, 3), "p95_ms": round(tuning.exact.p95_ms, 3)},
        "points": [point.to_json() for point in in_order(tuning.points)],
        "changed": tuning.changed,
        "written": written,
    }


def operating_point(tuning: Tuning) -> dict[str, Any]:
    """Return the entry of `_meta.operating_points` for a picked point."""
    pick, held_out, goal = tuning.pick, tuning.held_out, tuning.goal
    default = tuning.default
    return {
        "num_candidates": pick.setting.num_candidates,
        "oversample": pick.setting.oversample,
        "recall": round(pick.recall, 5),
        "recall_low": round(pick.recall_low, 5),
        "held_out_recall": round(held_out.recall, 5),
        "p50_ms": round(pick.latency.p50_ms, 3),
        "p95_ms": round(pick.latency.p95_ms, 3),
        "vector_operations_count": round(pick.operations, 1),
        "target": goal.target,
        "documents": tuning.documents,
        "field": tuning.subject.field.name,
        "queries": tuning.source,
        "exact_p50_ms": round(tuning.exact.p50_ms, 3),
        "default_num_candidates": default.setting.num_candidates if default else None,
        "points": stored_points(tuning.points, keep=(pick.setting, goal.default)),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def in_order(points: tuple[Point, ...]) -> list[Point]:
    """Return points by oversampling, then by candidates."""
    return sorted(points, key=lambda each: (each.rescored, each.setting.num_candidates))


def table(tuning: Tuning) -> Table:
    """Return the points as a table that names the default, the pick and exact search."""
    from rich import box
    from rich.table import Table

    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("num_candidates", "oversample", "recall", "at least", "p50 ms", "p95 ms", "compared"):
        shown.add_column(name, justify="right", no_wrap=True)
    shown.add_column("", no_wrap=True)
    for point in in_order(tuning.points):
        is_pick = tuning.pick is not None and point.setting == tuning.pick.setting
        style = "bold" if is_pick else None if point.meets(tuning.goal.target) else "dim"
        p95 = f"{point.latency.p95_ms:.2f}" if point.latency else ""
        shown.add_row(*cells(point), p95, f"{point.operations:.0f}", _mark(tuning, point), style=style)
    exact = tuning.exact
    shown.add_row(
        "all", "", "1.0000", "", f"{exact.p50_ms:.2f}", f"{exact.p95_ms:.2f}", str(tuning.documents), "exact"
    )
    return shown


def cells(point: Point) -> tuple[str, ...]:
    """Return candidates, oversample, recall, its bound and p50 of a point, as tables show them."""
    setting, latency = point.setting, point.latency
    return (
        str(setting.num_candidates),
        "" if setting.oversample is None else f"{setting.oversample:g}",
        f"{point.recall:.4f}",
        f"{point.recall_low:.4f}",
        f"{latency.p50_ms:.2f}" if latency else "",
    )


def _mark(tuning: Tuning, point: Point) -> str:
    marks = ["pick"] if tuning.pick and point.setting == tuning.pick.setting else []
    marks += ["default"] if point.setting == tuning.goal.default else []
    return ", ".join(marks)


def lines(tuning: Tuning) -> list[str]:
    """Return the measurements and the findings, a sentence a line."""
    field = tuning.subject.field
    narrowed = ", filtered" if tuning.subject.filters else ""
    found = [
        f"{field.index}, {field.name} ({field.index_type}, {field.dims} dims, {field.similarity}): "
        f"{tuning.documents} documents{narrowed}, k = {tuning.subject.k}, {tuning.queries} queries: "
        f"{SOURCES[tuning.source]}."
    ]
    pick, held_out = tuning.pick, tuning.held_out
    if pick and pick.latency and held_out:
        found.append(
            f"Pick: {pick.setting}. Recall {pick.recall:.4f} (at least {pick.recall_low:.4f} with 95 % "
            f"confidence), {held_out.recall:.4f} on {held_out.queries} other queries; "
            f"p50 {pick.latency.p50_ms:.2f} ms, exact search {tuning.exact.p50_ms:.2f} ms."
        )
    return found


def unreachable(points: Sequence[Point], field: VectorField, target: float) -> str:
    """Return one or two sentences for a run that found nothing to pick."""
    best = max(points, key=lambda point: (point.recall_low, point.recall))
    reached = (
        f"No setting of {field.name} in {field.index} meets recall {target:g}: the best is {best.setting}, "
        f"with {best.recall:.4f} (at least {best.recall_low:.4f} with 95 % confidence)"
    )
    if best.recall_low >= target and best.served < SERVED:
        reached += f", but only {best.served:.0%} of the queries reach 0.9"
    return f"{reached}. {way_up(best, field, target)}"


def way_up(best: Point, field: VectorField, target: float) -> str:
    """Return advice, most promising first."""
    if best.meets(target):
        return "It did not hold on the queries that were kept apart: tune with more queries (--samples)."
    if best.recall >= target and best.served >= SERVED:
        return "The mean meets it, but so few queries do not show it for sure: give more (--samples)."
    if field.index_type.startswith("bbq"):
        return (
            "One bit for each number is too coarse for these vectors: make the index with --index-type "
            "int8_hnsw, or ask `glimpse advise`."
        )
    if field.is_quantised and best.rescored < 1 + NEARLY:
        return "Rescoring (oversample) does not help here: make the index with --index-type hnsw."
    if field.has_graph:
        m, ef = field.m or 16, field.ef_construction or 100
        return (
            f"The graph is too thin: make the index with m {2 * m} and ef_construction {2 * ef} instead of "
            f"{m} and {ef}, or use exact search; `glimpse advise` measures what that costs."
        )
    return "Lower the target, or use exact search."


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
