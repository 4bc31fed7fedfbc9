"""Print the files of the product that one command passes, in order, with its calls into each.

    .venv/bin/python scripts/follow.py search "a red boat"
    .venv/bin/python scripts/follow.py ingest ~/one-picture --captions off

Every thread is followed. The counts of docs/architecture.md come from here.
"""

from __future__ import annotations

import inspect
import sys
import threading
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


def main(arguments: list[str]) -> int:
    """Run `glimpse` with `arguments`, and print the files to stderr."""
    calls: dict[str, int] = {}

    def note(frame: FrameType, event: str, _: object) -> None:
        name = frame.f_code.co_filename
        if event != "call" or not name.startswith(f"{ROOT}/") or "/.venv/" in name:
            return
        if frame.f_code.co_flags & inspect.CO_OPTIMIZED:  # a function, not a class body
            place = str(Path(name).relative_to(ROOT))
            calls[place] = calls.get(place, 0) + 1

    from glimpse import main as glimpse

    # A profile function would be told of every call into C and every return as well, which takes far longer.
    threading.settrace(note)
    sys.settrace(note)
    try:
        glimpse(arguments, standalone_mode=False)
    finally:
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]  # the stubs forget that None ends it
    shown = {name: count for name, count in calls.items() if not name.startswith("scripts/")}
    for name, count in shown.items():
        print(f"{count:7}  {name}", file=sys.stderr)
    print(f"{len(shown)} files", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
