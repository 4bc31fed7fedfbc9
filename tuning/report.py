"""A tuning run for people and for programs; and what to do where no setting meets the target."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tuning.points import SERVED, Point, stored_points
from tuning.queries import SOURCES

if TYPE_CHECKING:
    from rich.table import Table

    from es_config.vector_field import VectorField
    from tuning.run import Tuning

NEARLY = 0.0005


def to_json(tuning: Tuning, *, written: bool) -> dict[str, Any]:
    """Return what `glimpse tune --json` prints; `pick` is null when no setting meets the target."""
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
    """Return what is written into `_meta.operating_points` for a picked point."""
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
    """Return the points as a table; the default, the pick and exact search are named."""
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
    """Return what was measured and what was found, a sentence a line."""
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
    """Return what to change, most promising first."""
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
