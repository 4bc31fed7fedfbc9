"""What one configuration found for every query, and how it is kept in a file."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from evaluation.errors import EvaluationError, LabelError

if TYPE_CHECKING:
    from evaluation.labels import LabelledQuery

    Search = Callable[[LabelledQuery], tuple[list[str], str | None]]

FORMAT = "glimpse-runs 1"


@dataclass(frozen=True)
class Run:
    """One way of searching, asked everything."""

    name: str
    """such as `image` or `hybrid, infer`"""
    profile: str
    mode: str
    lane: str | None
    """where texts were embedded; None when no text was"""
    k: int
    ranked: dict[str, tuple[str, ...]]
    """ids, best first, by the query's key"""
    query_ms: float
    """median milliseconds of one search, embedding included"""


def make_run(
    queries: Sequence[LabelledQuery],
    *,
    search: Search,
    name: str,
    profile: str,
    mode: str,
    k: int,
) -> Run:
    """Ask every query through `search`, which gives ids, best first, and the lane. Raises what it raises."""
    ranked: dict[str, tuple[str, ...]] = {}
    took: list[float] = []
    lanes: set[str] = set()
    for query in queries:
        started = time.perf_counter()
        ids, lane = search(query)
        took.append(1000 * (time.perf_counter() - started))
        ranked[query.key] = tuple(ids)
        lanes |= {lane} if lane else set()
    lane = " and ".join(sorted(lanes)) or None
    return Run(name, profile, mode, lane, k, ranked, round(median(took), 3))


def save_runs(path: Path, runs: Iterable[Run]) -> None:
    """Write runs as JSON. Raises `EvaluationError`."""
    text = json.dumps({"format": FORMAT, "runs": [asdict(run) for run in runs]}, ensure_ascii=False)
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise EvaluationError(
            f"The runs cannot be written to {path} ({error.strerror}): choose another file."
        ) from error


def load_runs(path: Path) -> list[Run]:
    """Read what `save_runs` wrote. Raises `LabelError` when it is something else."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LabelError(f"{path} cannot be read ({error.strerror}): check the path.") from error
    except ValueError as error:
        raise LabelError(f"{path} is not JSON: name a file that --save-run wrote.") from error
    try:
        if data["format"] != FORMAT:
            raise KeyError("format")
        return [_run(row) for row in data["runs"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise LabelError(
            f"{path} holds no runs of this version: name a file that --save-run wrote."
        ) from error


def _run(row: dict[str, Any]) -> Run:
    ranked = {str(key): tuple(map(str, ids)) for key, ids in row["ranked"].items()}
    return Run(**{each.name: row[each.name] for each in fields(Run)} | {"ranked": ranked})
