"""Which type of index to choose, with the sentence why; and all types side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuning.advise import Advice
from tuning.report import cells

if TYPE_CHECKING:
    from rich.table import Table

NEARLY_AS_FAST = 1.25
NEARLY_AS_SMALL = 1.05


@dataclass(frozen=True)
class Recommendation:
    """The chosen one, if any, and why."""

    advice: Advice | None
    sentence: str


def expected_ms(advice: Advice, *, sample: int, documents: int) -> float:
    """Return the p50 to expect for all documents: without a graph it grows with their number."""
    p50 = advice.point.latency.p50_ms
    return p50 if advice.candidate.m else p50 * max(1.0, documents / sample)


def recommend(found: Sequence[Advice], *, target: float, sample: int, documents: int) -> Recommendation:
    """Return the smallest in memory of those that meet the target and are within 25 % of the fastest.

    Of those of equal size the one that is built sooner.
    """
    able = {
        number: expected_ms(advice, sample=sample, documents=documents)
        for number, advice in enumerate(found)
        if advice.meets
    }
    if not able:
        best = max(found, key=lambda advice: advice.point.recall_low)
        return Recommendation(None, _none(best, target))
    fastest = min(able, key=able.__getitem__)
    near = [found[number] for number, ms in able.items() if ms <= NEARLY_AS_FAST * able[fastest]]
    smallest = min(advice.weight.memory_bytes for advice in near)
    small = [advice for advice in near if advice.weight.memory_bytes <= NEARLY_AS_SMALL * smallest]
    chosen = min(small, key=lambda advice: advice.weight.index_seconds)
    ms = expected_ms(chosen, sample=sample, documents=documents)
    return Recommendation(chosen, _why(chosen, ms, found[fastest], able[fastest]))


def _none(best: Advice, target: float) -> str:
    return (
        f"No type meets recall {target:g} on this sample; the best is {best.candidate} with "
        f"{best.point.setting}: {best.point.recall:.4f} (at least {best.point.recall_low:.4f}). Try larger "
        "m and ef_construction, or a lower target."
    )


def _why(chosen: Advice, ms: float, fastest: Advice, fastest_ms: float) -> str:
    setting = chosen.point.setting
    start = (
        f"Take {chosen.candidate}, and search with {setting}: recall {chosen.point.recall:.4f} in {ms:.2f} "
        f"ms with {megabytes(chosen.weight.memory_bytes)} of memory."
    )
    if chosen is fastest:
        return f"{start} It is the fastest that meets the target, and none as fast is smaller."
    share = chosen.weight.memory_bytes / fastest.weight.memory_bytes
    return (
        f"{start} The fastest, {fastest.candidate}, takes {fastest_ms:.2f} ms; this one is within 25 % of it "
        f"and needs {share:.0%} of its memory."
    )


def megabytes(count: int) -> str:
    """Return bytes as people read them."""
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.2f} GB"


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
        tried, weight = advice.candidate, advice.weight
        graph = f", m {tried.m}, ef {tried.ef_construction}" if tried.m else ""
        sizes = megabytes(weight.disk_bytes), megabytes(weight.memory_bytes)
        row = (f"{tried.index_type}{graph}", *cells(advice.point), f"{weight.index_seconds:.1f}", *sizes)
        shown.add_row(*row, style=style)
    return shown
