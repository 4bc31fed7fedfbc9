"""Why no setting meets a target, what the best is, and which change would raise it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tuning.points import SERVED, Point

if TYPE_CHECKING:
    from es_config.vector_field import VectorField

NEARLY = 0.0005


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
