"""`python -m benchmarks [NAME...]`: run all measurements but those of hours, or those named."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from benchmarks.report import machine

NOT_BENCHMARKS = {
    *("__init__", "__main__", "crowd", "engine", "geometry", "graph_library", "report", "serving", "sound"),
}
BY_NAME = {"million"}
"""take hours, so they run only if named"""


def main(names: list[str]) -> int:
    """Run the named benchmarks and return 1 when a target was missed."""
    known = sorted(
        path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in NOT_BENCHMARKS
    )
    unknown = set(names) - set(known)
    if unknown:
        print(f"No benchmark is called {', '.join(sorted(unknown))}; choose from: {', '.join(known)}.")
        return 2
    print("\n".join(machine()))
    results = [
        importlib.import_module(f"benchmarks.{name}").main() for name in names or sorted(set(known) - BY_NAME)
    ]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
