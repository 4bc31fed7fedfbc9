"""The types of index side by side, for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tuning.recommend import megabytes

if TYPE_CHECKING:
    from rich.table import Table

    from tuning.advise import Advice


def advice_table(found: Sequence[Advice], chosen: Advice | None) -> Table:
    """Return a table, the recommended row in bold, those that miss the target dim."""
    from rich import box
    from rich.table import Table

    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    shown.add_column("index", no_wrap=True)
    computed = any(advice.weight.memory_source == "computed" for advice in found)
    memory = "memory (computed)" if computed else "memory"
    for name in ("candidates", "oversample", "recall", "at least", "p50 ms", "index s", "disk", memory):
        shown.add_column(name, justify="right", no_wrap=True)
    for advice in found:
        style = "bold" if advice is chosen else None if advice.meets else "dim"
        shown.add_row(_name(advice), *_cells(advice), style=style)
    return shown


def _name(advice: Advice) -> str:
    candidate = advice.candidate
    graph = f", m {candidate.m}, ef {candidate.ef_construction}" if candidate.m else ""
    return f"{candidate.index_type}{graph}"


def _cells(advice: Advice) -> tuple[str, ...]:
    point, weight = advice.point, advice.weight
    oversample = point.setting.oversample
    return (
        str(point.setting.num_candidates),
        "" if oversample is None else f"{oversample:g}",
        f"{point.recall:.4f}",
        f"{point.recall_low:.4f}",
        f"{point.latency.p50_ms:.2f}",
        f"{weight.index_seconds:.1f}",
        megabytes(weight.disk_bytes),
        megabytes(weight.memory_bytes),
    )
