"""Tell other processes of this machine how far a run on an index is, in a small file of GLIMPSE_HOME."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from es_config.bulk import LoadingRun
from es_config.home import files_for_owner, private_folder

FOLDER = "runs"


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


class RunFile:
    """The file in which this process tells its progress. A context that leaves no file behind.

    It never raises: a run does not end because nobody can see it.
    """

    def __init__(self, home: Path, alias: str) -> None:
        self._path = home / FOLDER / f"{os.getpid()}.json"
        self._alias = alias
        self._run = LoadingRun.of_this_process()

    def __enter__(self) -> Self:
        """Write nothing yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Delete the file."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def write(self, doing: str, *, noun: str = "", done: int = 0, total: int | None = None) -> None:
        """Replace the state in the file at once: a reader sees all of it or the former."""
        state = RunState(self._alias, doing, noun, done, total, self._run)
        part = self._path.with_suffix(".part")
        with suppress(OSError), files_for_owner():
            private_folder(self._path.parent)
            part.write_text(json.dumps(asdict(state)), encoding="utf-8")
            part.replace(self._path)


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
