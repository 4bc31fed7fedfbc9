"""The output of every benchmark: where it ran, and each figure beside its target."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

LIBRARIES = ("elasticsearch", "torch", "transformers", "sentence-transformers", "pillow", "flask")
COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "≥": lambda value, target: value >= target,
    "≤": lambda value, target: value <= target,
}


@dataclass(frozen=True)
class Figure:
    """One measured number. `target` reads as `≥ 0.98`, and is empty when there is none."""

    name: str
    value: float
    unit: str = ""
    target: str = ""

    @property
    def met(self) -> bool:
        """Whether the value meets the target. A figure without one always does."""
        if not self.target:
            return True
        comparison, number = self.target.split()
        return COMPARISONS[comparison](self.value, float(number))


def machine() -> list[str]:
    """Return lines that describe a run's machine: processor, memory, versions, commit, load."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES)
    return [
        f"machine   {_processor()}, {os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB",
        f"system    {platform.system()} {platform.release()}, Python {platform.python_version()}",
        f"versions  {versions}",
        f"commit    {_commit()}, load average {os.getloadavg()[0]:.2f}",
    ]


def show(title: str, figures: Iterable[Figure]) -> bool:
    """Print a table of figures under a title, and return whether all targets are met."""
    rows = list(figures)
    width = max(len(row.name) for row in rows)
    print(f"\n{title}")
    for row in rows:
        verdict = "" if not row.target else ("met" if row.met else "NOT MET")
        print(f"  {row.name:<{width}}  {row.value:>10.4g} {row.unit:<10} {row.target:<8} {verdict}")
    return all(row.met for row in rows)


@dataclass
class Spent:
    """Seconds of wall clock and of CPU that a block took."""

    wall: float = 0.0
    cpu: float = 0.0


@contextmanager
def clock() -> Iterable[Spent]:
    """Measure a block: wall clock, and the CPU of this process and of its threads."""
    spent = Spent()
    wall, cpu = time.perf_counter(), time.process_time()
    yield spent
    spent.wall, spent.cpu = time.perf_counter() - wall, time.process_time() - cpu


def percentile(samples: list[float], q: float) -> float:
    """Return the q-th percentile (0 to 100) of samples, by the nearest rank."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, round(q / 100 * (len(ordered) - 1)))]


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _commit() -> str:
    root = Path(__file__).parent.parent
    command = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
