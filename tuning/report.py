"""A tuning run for people and for programs: text, JSON and a plot."""

from __future__ import annotations

import html
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from es_config.index import ImageIndex
from es_config.vector_field import VectorField
from search_app.core.recall_chart import Dot, RecallChart
from search_app.core.searcher import point_key
from tuning.errors import TuneError
from tuning.points import SERVED, HeldOut, Point, in_order, stored_points
from tuning.queries import SOURCES
from tuning.run import Tuning

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch
    from rich.table import Table

NEARLY = 0.0005
KINDS = (".png", ".svg", ".html")
WIDEST_NAME = 40
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


def to_json(tuning: Tuning, *, written: bool) -> dict[str, Any]:
    """Return the object that `glimpse tune --json` prints. `pick` is null when nothing meets the target."""
    field, goal = tuning.subject.field, tuning.goal
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
        "pick": tuning.pick.to_json() if tuning.pick else None,
        "held_out": vars(tuning.held_out) if tuning.held_out else None,
        "default": tuning.default.to_json() if tuning.default else None,
        "exact": {"p50_ms": round(tuning.exact.p50_ms, 3), "p95_ms": round(tuning.exact.p95_ms, 3)},
        "points": [point.to_json() for point in in_order(tuning.points)],
        "changed": tuning.changed,
        "written": written,
    }


def store_pick(client: Elasticsearch, tuning: Tuning, *, any_index: bool) -> bool:
    """Write the pick into the `_meta` of the index that was measured, and return whether that was done.

    A pick with filters is never stored, and an index that Glimpse did not make is only written to with
    `any_index`. Raises EngineError.
    """
    field, k = tuning.subject.field, tuning.subject.k
    if tuning.pick is None or tuning.held_out is None or tuning.subject.filters:
        return False
    if not (field.is_ours or any_index):
        return False
    entry = operating_point(tuning, tuning.pick, tuning.held_out)
    ImageIndex(client, alias=field.index).note("operating_points", {point_key(field.name, k): entry})
    return True


def operating_point(tuning: Tuning, pick: Point, held_out: HeldOut) -> dict[str, Any]:
    """Return the entry of `_meta.operating_points` for a picked point."""
    goal, default = tuning.goal, tuning.default
    point = pick.to_json()
    return {
        **{name: point[name] for name in ("num_candidates", "oversample", "recall", "recall_low")},
        "held_out_recall": round(held_out.recall, 5),
        **{name: point[name] for name in ("p50_ms", "p95_ms", "vector_operations_count")},
        "target": goal.target,
        "documents": tuning.documents,
        "field": tuning.subject.field.name,
        "queries": tuning.source,
        "exact_p50_ms": round(tuning.exact.p50_ms, 3),
        "default_num_candidates": default.setting.num_candidates if default else None,
        "points": stored_points(tuning.points, keep=(pick.setting, goal.default)),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


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
        marks = ["pick"] * is_pick + ["default"] * (point.setting == tuning.goal.default)
        style = "bold" if is_pick else None if point.meets(tuning.goal.target) else "dim"
        p95 = f"{point.latency.p95_ms:.2f}" if point.latency else ""
        shown.add_row(*cells(point), p95, f"{point.operations:.0f}", ", ".join(marks), style=style)
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


def lines(tuning: Tuning) -> list[str]:
    """Return a line about the measurement, and one about the pick if there is one."""
    field = tuning.subject.field
    narrowed = ", filtered" if tuning.subject.filters else ""
    found = [
        f"{field.index}, {field.name} ({field.index_type}, {field.dims} dims, {field.similarity}): "
        f"{tuning.documents} documents{narrowed}, k = {tuning.subject.k}, {tuning.queries} queries: "
        f"{SOURCES[tuning.source]}."
    ]
    pick, held_out = tuning.pick, tuning.held_out
    if pick and held_out:
        found.append(
            f"Pick: {pick.setting}. Recall {pick.recall:.4f} (at least {pick.recall_low:.4f} with 95 % "
            f"confidence), {held_out.recall:.4f} on {held_out.queries} other queries; "
            f"p50 {pick.p50_ms:.2f} ms, exact search {tuning.exact.p50_ms:.2f} ms."
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
    """Return the change that promises most."""
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


def check_plot_name(path: Path) -> None:
    """Raise TuneError unless a plot can be written under this name: before the work, not after it."""
    if path.suffix.lower() not in KINDS:
        raise TuneError(f"A plot is written as {', '.join(KINDS)}, and {path} is none of them.")
    if not path.parent.is_dir():
        raise TuneError(f"There is no folder {path.parent} for the plot.")


def write_plot(tuning: Tuning, path: Path) -> None:
    """Write the plot in the format of the name's ending. Raises TuneError when it cannot be written."""
    check_plot_name(path)
    kind = path.suffix.lower()
    drawn = recall_chart(tuning).draw("png" if kind == ".png" else "svg")
    if kind == ".html":
        paragraphs = "\n".join(f"<p>{html.escape(line)}</p>" for line in lines(tuning))
        svg = drawn.decode()[drawn.decode().index("<svg") :]
        drawn = PAGE.format(title="Recall against latency", paragraphs=paragraphs, svg=svg).encode()
    try:
        path.write_bytes(drawn)
    except OSError as error:
        raise TuneError(f"The plot cannot be written to {path}: {error.strerror}.") from error


def recall_chart(tuning: Tuning) -> RecallChart:
    """Return the chart of a run's points."""
    index, timed = tuning.subject.field.index, [point for point in tuning.points if point.latency]
    name = index if len(index) <= WIDEST_NAME else f"{index[: WIDEST_NAME - 1]}…"
    curves = groupby(in_order(timed), key=lambda point: (point.index_type, point.rescored))

    def marked(name: str, point: Point | None) -> Dot | None:
        return Dot(point.p50_ms, point.recall, f"{name}: {point.setting}") if point else None

    return RecallChart(
        title=f"{name} · {tuning.documents} documents · k = {tuning.subject.k}",
        k=tuning.subject.k,
        target=tuning.goal.target,
        curves={
            kind if rescored == 1 else f"{kind}, oversample {rescored:g}": [
                Dot(point.p50_ms, point.recall) for point in some
            ]
            for (kind, rescored), some in curves
        },
        default=marked("default", tuning.default),
        pick=marked("pick", tuning.pick),
        exact_ms=tuning.exact.p50_ms,
    )
