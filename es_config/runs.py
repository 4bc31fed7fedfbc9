"""Tell other processes of this machine how far a run on an index is, in a small file of GLIMPSE_HOME."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Self

from es_config.bulk import LoadingRun
from es_config.home import files_for_owner, private_folder

FOLDER, ENDED = "runs", "ended"


@dataclass(frozen=True)
class RunState:
    """The work of one process on one index at a moment."""

    alias: str
    doing: str
    """such as `Ingesting`"""
    noun: str
    """what is counted, such as `files`"""
    done: int
    total: int | None
    """None while it is not known"""
    run: LoadingRun

    def __str__(self) -> str:
        """Return it as people read it: `Ingesting 123 of 400 files`."""
        if not self.done and not self.total:
            return self.doing
        of = f" of {self.total:,}" if self.total else ""
        return f"{self.doing} {self.done:,}{of} {self.noun}"


@dataclass(frozen=True)
class RunOutcome:
    """How the last run of its kind on one index ended."""

    alias: str
    doing: str
    noun: str
    done: int
    total: int | None
    failed: int
    ended_at: str
    """ISO 8601"""
    whole: bool
    """whether it came to its end"""
    fault: str | None = None
    """the error that ended it"""


class RunFile:
    """The file in which this process tells its progress. A context that leaves only how the run ended.

    It leaves nothing without `keep_outcome`. It never raises: a run does not end because nobody can see it.
    """

    def __init__(self, home: Path, alias: str, *, keep_outcome: bool = True) -> None:
        self._path = home / FOLDER / f"{os.getpid()}.json"
        self._alias, self._keep_outcome = alias, keep_outcome
        self._run = LoadingRun.of_this_process()
        self._state: RunState | None = None
        self._failed = 0

    def __enter__(self) -> Self:
        """Write nothing yet."""
        return self

    def __exit__(self, *error: object) -> None:
        """Delete the file, and keep how the run ended, if it had begun."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
        if self._state is not None and self._keep_outcome:
            fault = error[1] if len(error) > 1 and isinstance(error[1], Exception) else None
            _write(self._path.parent / ENDED / _name_of(self._state), self._outcome(self._state, fault))

    def _outcome(self, state: RunState, fault: Exception | None) -> RunOutcome:
        whole = fault is None and (state.total is None or state.done >= state.total)
        return RunOutcome(
            state.alias,
            state.doing,
            state.noun,
            state.done,
            state.total,
            self._failed,
            datetime.now(UTC).isoformat(timespec="seconds"),
            whole,
            str(fault) if fault else None,
        )

    def write(
        self, doing: str, *, noun: str = "", done: int = 0, total: int | None = None, failed: int = 0
    ) -> None:
        """Replace the state in the file at once: a reader sees all of it or the former."""
        self._state, self._failed = RunState(self._alias, doing, noun, done, total, self._run), failed
        _write(self._path, self._state)


def _write(path: Path, values: RunState | RunOutcome) -> None:
    part = path.with_suffix(f".{os.getpid()}.part")
    with suppress(OSError), files_for_owner():
        private_folder(path.parent)
        part.write_text(json.dumps(asdict(values)), encoding="utf-8")
        part.replace(path)


def _name_of(state: RunState) -> str:
    return f"{sha256(f'{state.alias} {state.doing}'.encode()).hexdigest()[:16]}.json"


def read_outcomes(home: Path, alias: str) -> Sequence[RunOutcome]:
    """Return how the last run of each kind ended for an index, the latest first."""
    found = []
    for path in (home / FOLDER / ENDED).glob("*.json"):
        with suppress(OSError, ValueError, TypeError):  # of another version
            outcome = RunOutcome(**json.loads(path.read_text(encoding="utf-8")))
            if outcome.alias == alias:
                found.append(outcome)
    return sorted(found, key=lambda outcome: outcome.ended_at, reverse=True)


def read_runs(home: Path, alias: str) -> Sequence[RunState]:
    """Return the states of living processes of this machine for an index, the oldest first."""
    found = []
    for path in (home / FOLDER).glob("*.json"):
        with suppress(OSError, ValueError, TypeError, KeyError):  # just deleted, or of another version
            values = json.loads(path.read_text(encoding="utf-8"))
            state = RunState(**{**values, "run": LoadingRun(**values["run"])})
            if state.alias == alias and state.run.may_be_running():
                found.append(state)
    return sorted(found, key=lambda state: state.run.since)


def in_words(runs: Sequence[RunState]) -> str:
    """Return the states of runs as one line, empty without any."""
    return ", ".join(map(str, runs)) + " …" if runs else ""
