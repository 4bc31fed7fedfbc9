"""Watching folders: what changes in them is ingested in small rounds, until Ctrl-C."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Protocol, Self

from es_config.errors import EngineError
from ingest.errors import IngestError
from ingest.watch.events import Listener, close, listen
from ingest.pending import Gone, Pending
from ingest.places import Places, Roots
from ingest.options import Changes
from ingest.stamp import is_gone
from storage.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from watchdog.observers.api import BaseObserver

    from ingest.options import IngestOptions, IngestSummary
    from ingest.files.walk import Candidate

TICK_S = 0.25
LONGEST_WAIT_S = 30.0


class Report(Protocol):
    """Is told what a watch does."""

    def say(self, sentence: str) -> None:
        """Something to know, such as that a disk is away."""

    def round(self, summary: IngestSummary) -> None:
        """A round has ended."""


class Watch:
    """Observes from the moment it is entered, so that what happens during a first full run is not missed.

    `run` makes a round of changes, or looks through whole folders when these are None; it may raise
    `EngineError`, `IngestError` or `StorageError`. `idle` is called when nothing is to be done, and returns
    whether it did something.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        options: IngestOptions,
        run: Callable[[Sequence[Path], Changes | None], IngestSummary],
        idle: Callable[[], bool],
        report: Report,
    ) -> None:
        self._options = options
        self._run = run
        self._idle = idle
        self._report = report
        self._roots = Roots(paths)
        self._pending = Pending()
        self._gone = Gone()
        self._listener = Listener(self._pending)
        self._observer: BaseObserver | None = None
        self._polling = self._anew = False
        self._wait, self._not_before = 0.0, 0.0

    def __enter__(self) -> Self:
        """Begin to observe. Raises `OSError` when a folder has just gone."""
        self._observe()
        return self

    def __exit__(self, *_: object) -> None:
        """Observe no more."""
        if self._observer:
            close(self._observer)

    def forever(self) -> None:
        """Deal with what happens until `KeyboardInterrupt`, which is raised."""
        while True:
            self._look_at_roots()
            works = time.monotonic() >= self._not_before
            if not (works and (self._round() or self._idle())):
                time.sleep(TICK_S)

    def _observe(self) -> None:
        if self._observer:
            close(self._observer)
            self._observer = None
        self._places = Places(self._roots.there, exclude=self._options.exclude)
        self._observer, self._polling = listen(
            self._places.to_watch(), self._listener, polling=self._polling, say=self._report.say
        )

    def _look_at_roots(self) -> None:
        for root, is_there in self._roots.look().items():
            self._anew |= is_there
            self._report.say(
                f"{root} is there again: it is looked through."
                if is_there
                else f"{root} is not there any more. Its pictures stay in the index; it is waited for."
            )
        self._anew |= self._listener.lost or self._listener.limited

    def _round(self) -> bool:
        """Deal with what is still; return whether there was something."""
        if self._anew:
            self._anew = False
            self._attempt(None, [])
            return True
        while self._listener.new_folders:
            self._enter(self._listener.new_folders.popleft())
        taken = self._pending.take()
        changes = Changes(self._files(taken), self._gone.take())
        if not (changes.files or changes.gone):
            return bool(taken)
        self._attempt(changes, taken)
        return True

    def _attempt(self, changes: Changes | None, taken: list[str]) -> None:
        """Make a round; when Elasticsearch, the store or a disk is away, all waits for the next one."""
        try:
            if changes is None:
                self._observe()
            there = [path for path in self._roots.there if os.path.lexists(path)]
            summary = self._run(there, changes)
        except (EngineError, IngestError, StorageError, OSError) as error:
            self._anew |= changes is None
            self._pending.put_back(taken)
            self._gone.add(changes.gone if changes else ())
            self._fail(error)
            return
        if self._wait:
            self._report.say("It works again.")
            self._wait = 0.0
        self._report.round(summary)
        if summary.interrupted:
            raise KeyboardInterrupt

    def _fail(self, error: Exception) -> None:
        if not self._wait:
            cause = error.__cause__ if isinstance(error.__cause__, EngineError | StorageError) else error
            self._report.say(f"Error: {cause} Nothing is lost: the watch goes on when that is mended.")
        self._wait = min(LONGEST_WAIT_S, 2 * self._wait or 1.0)
        self._not_before = time.monotonic() + self._wait

    def _files(self, taken: list[str]) -> tuple[Candidate, ...]:
        """Return the files among real paths; folders are entered, and what is gone is kept."""
        files: dict[Candidate, None] = {}
        for real in taken:
            place, was_folder = real.rstrip("/"), real.endswith("/")
            if os.path.isdir(place):  # noqa: PTH112 - false, not an error, where a folder is closed
                self._enter(place)
            elif found := self._places.named(place, folder=was_folder):
                if not is_gone(place):
                    files |= {found: None} if self._is_ours(found, was_folder) else {}
                elif not self._roots.is_away(found.path):
                    self._gone.add([found.path])
        return tuple(files)

    def _is_ours(self, found: Candidate, was_folder: bool) -> bool:
        return not was_folder and self._options.part.holds(found.relative_path)

    def _enter(self, folder: str) -> None:
        """Look at what is in a new folder. A link to one leads to places that are not observed yet."""
        if self._places.named(folder, folder=True):
            if os.path.islink(folder):  # noqa: PTH114
                self._anew = True
                return
            for path in self._places.below(folder):
                self._pending.touch(path)
