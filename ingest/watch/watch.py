"""Watch folders: ingest changes in small rounds, and caption in between, until Ctrl-C."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from es_config.errors import EngineError
from ingest.errors import IngestError
from ingest.files.walk import (
    EXTENSIONS,
    Candidate,
    entrances,
    identity_of,
    is_excluded,
    is_gone,
    valid_unicode,
)
from ingest.options import UNCAPTIONED, CaptionOptions, Changes, Progress
from ingest.pipeline.captions import caption_pictures
from ingest.watch.events import Gone, Listener, Pending, close, listen
from models.errors import ModelError
from storage.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from watchdog.observers.api import BaseObserver

    from ingest.files.walk import Candidate, Entrance, Failure
    from ingest.options import IngestOptions, IngestSummary
    from ingest.wiring import Parts


class Roots:
    """What was named on the command line; for a file, the folder it is in has to be there."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._folders = {path: path if os.path.isdir(path) else path.parent for path in paths}  # noqa: PTH112
        self._seen = {path: _identity(folder) for path, folder in self._folders.items()}

    @property
    def there(self) -> list[Path]:
        """Those whose folders were there at the last look."""
        return [path for path, identity in self._seen.items() if identity]

    def look(self) -> dict[Path, bool]:
        """Look again: return what has come or is another folder now (True), and what has gone (False)."""
        now = {path: _identity(folder) for path, folder in self._folders.items()}
        changed = {path: bool(now[path]) for path in now if now[path] != self._seen[path]}
        self._seen = now
        return changed

    def is_away(self, path: Path) -> bool:
        """Whether a path is below a folder that is away."""
        away = {folder for root, folder in self._folders.items() if not self._seen[root]}
        return bool(away & {path, *path.parents})


class Places:
    """The folders and files of a watch. Paths that go in are real: no part of them but the last is a link."""

    def __init__(self, paths: Sequence[Path], *, exclude: Sequence[str]) -> None:
        """Walk the paths once, for the links to folders that lead out of them."""
        self._exclude = exclude
        self._entrances = [(_real(each), each) for each in entrances(paths, exclude=exclude)]

    def to_watch(self) -> list[tuple[str, bool]]:
        """Return real folders, with whether what is below them counts too; none is below another."""
        whole = {real for real, each in self._entrances if not _is_file(each)}
        folders = [real for real in sorted(whole) if not any(_below(real, other) for other in whole)]
        alone = {os.path.dirname(real) for real, each in self._entrances if _is_file(each)}  # noqa: PTH120
        alone = {real for real in alone if not any(_below(f"{real}/.", other) for other in folders)}
        return [(real, True) for real in folders] + [(real, False) for real in sorted(alone)]

    def named(self, real: str, *, folder: bool = False) -> Candidate | None:
        """Return a file as a walk would name it, or None where a walk passes it over.

        A `folder` has a name too; whether there is anything at the path does not matter.
        """
        for place, entrance in self._entrances:
            if real == place and _is_file(entrance) and not folder:
                return Candidate(entrance.path, entrance.relative)
            if _below(real, place) and not _is_file(entrance):
                rest = real[len(place.rstrip("/")) + 1 :]
                relative = entrance.relative + "/".join(valid_unicode(name) for name in rest.split("/"))
                if self._admits(entrance.relative, rest, folder=folder):
                    return Candidate(entrance.path / rest, relative)
        return None

    def below(self, folder: str) -> Iterator[str]:
        """Yield the real paths below a folder that a walk would look at, and those of links to folders."""
        for here, folders, files in os.walk(folder):
            folders[:] = [each for each in folders if self.named(f"{here}/{each}", folder=True)]
            links = (each for each in folders if os.path.islink(f"{here}/{each}"))  # noqa: PTH114
            yield from (f"{here}/{each}" for each in (*files, *links))

    def _admits(self, prefix: str, rest: str, *, folder: bool) -> bool:
        names = rest.split("/")
        for number, name in enumerate(names, 1):
            relative = prefix + "/".join(map(valid_unicode, names[:number]))
            if name.startswith(".") or is_excluded(name, relative, self._exclude):
                return False
        return folder or os.path.splitext(rest)[1].lower() in EXTENSIONS  # noqa: PTH122


def _real(entrance: Entrance) -> str:
    if not _is_file(entrance):
        return os.path.realpath(entrance.path)
    return os.path.join(os.path.realpath(entrance.path.parent), entrance.path.name)  # noqa: PTH118


def _is_file(entrance: Entrance) -> bool:
    return bool(entrance.relative) and not entrance.relative.endswith("/")


def _below(real: str, folder: str) -> bool:
    return real.startswith(folder.rstrip("/") + "/")


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        return identity_of(folder)
    except OSError:
        return None


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


SLICE = 4
"""pictures that are captioned between two looks at the folders"""
AGAIN_S = 30.0
MOST_FAILED = 64
"""pictures without a caption that a slice looks past; behind more of them, the others wait"""


class IdleCaptions(Progress):
    """Captions what has none, until nothing is left that can be captioned and `wake` is called."""

    def __init__(self, parts: Parts, *, say: Callable[[str], None], written: Callable[[int], None]) -> None:
        """`say` is told what goes wrong, once; `written` how many there were when the last is done."""
        self._parts = parts
        self._say = say
        self._written = written
        self._count, self._failed, self._at = 0, 0, 0.0
        self._said: set[object] = set()

    def wake(self) -> None:
        """There are new pictures."""
        self._at = min(self._at, time.monotonic())

    def failed(self, failure: Failure, *, what: str = UNCAPTIONED) -> None:
        """A picture gets no caption."""
        self._once(f"{what} {failure.path}: {failure.reason}")

    def __call__(self) -> bool:
        """Write a slice; return whether there may be more. Raises `KeyboardInterrupt`."""
        if time.monotonic() < self._at:
            return False
        try:
            limit = SLICE + self._failed  # those that failed are looked at again: they come first
            options = CaptionOptions(limit=limit, batch_size=SLICE)
            summary = caption_pictures(self._parts, options=options, progress=self)
        except (EngineError, IngestError, ModelError) as error:
            return self._rest(AGAIN_S, str(error))
        self._count += summary.written
        if summary.interrupted:
            raise KeyboardInterrupt
        self._failed = summary.failed
        is_last = summary.pictures < limit or self._failed > MOST_FAILED
        if summary.error or (is_last and not summary.written):
            return self._rest(AGAIN_S if summary.error else float("inf"), summary.error)
        return True

    def _rest(self, seconds: float, error: str | None) -> bool:
        self._at = time.monotonic() + seconds
        if error:
            self._once(f"Error: Captions wait: {error}")
        if self._count:
            self._written(self._count)
            self._count = 0
        return False

    def _once(self, sentence: str) -> None:
        if sentence not in self._said:
            self._said.add(sentence)
            self._say(sentence)
