"""Watch folders: ingest changes in small rounds, and caption in between, until Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Self

from es_config.errors import EngineError
from ingest.errors import IngestError
from ingest.files.events import FolderEvents, GonePaths
from ingest.files.sidecars import is_sidecar, owners_of
from ingest.files.walk import (
    Beside,
    Candidate,
    Entrance,
    Exclusions,
    Failure,
    admits,
    entrances,
    identity_of,
    is_gone,
    is_picture,
    valid_unicode,
)
from ingest.options import CaptionOptions, Changes, IngestOptions
from ingest.pipeline.captions import caption_pictures
from ingest.pipeline.run import IngestJob
from ingest.report import (
    UNCAPTIONED,
    IngestSummary,
    LineProgress,
    PassSummary,
    Progress,
    PruneSummary,
    in_words,
    pruned_in_words,
)
from ingest.wiring import Dependencies
from models.errors import ModelError
from storage.errors import StorageError

TICK_S = 0.25
LONGEST_WAIT_S = 30.0
ROUND_WORDS = {
    "indexed": ("{} picture added", "{} pictures added"),
    "moved": ("{} path changed", "{} paths changed"),
    "updated": ("{} picture with news from a sidecar", "{} pictures with news from sidecars"),
    "pruned": ("{} picture left", "{} pictures left"),
    "failed": ("{} failed", "{} failed"),
    "captioned": ("{} caption written", "{} captions written"),
}


def watch_folders(job: IngestJob, report: WatchReport) -> IngestSummary:
    """Observe, run over all folders, then in rounds until Ctrl-C or SIGTERM. Return the first summary.

    If the first run is interrupted, nothing is watched or reported. Raises as `ingest_paths` does in the
    first run, later failures are reported and retried.
    """
    index = job.dependencies.index
    meta = index.meta()

    def captioned(count: int) -> None:
        report.captions(count)
        job.after_captions()

    captions = IdleCaptions(job.dependencies, say=report.say, written=captioned)

    def run(folders: Sequence[Path], changes: Changes | None) -> IngestSummary:
        # The alias may stand for another index by now, whose vectors are of another model.
        index.write_target()
        index.check_profile(meta.profile, meta.dims, text_revision=meta.revisions.get("text"))
        summary = job.run(folders, changes, progress=LineProgress(sys.stderr))
        if summary.indexed:
            captions.wake()
        return summary

    idle = captions if job.captions_later else lambda: False
    watch = FolderWatch(
        job.paths, options=job.options, run=run, idle=idle, say=report.say, finished=report.round
    )
    with _interrupted_by_sigterm(), watch:
        summary = job.run_all()
        if not summary.interrupted:
            try:
                report.first(summary)
                with suppress(EngineError):  # if it went away, the first round waits for it, and loads
                    if summary.files:
                        job.dependencies.image_encoder.get()  # the first new picture need not wait for it
                report.say("Watching. Ctrl-C ends it.")
                watch.run_forever()
            except KeyboardInterrupt:
                report.ended()
    return summary


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class WatchReport:
    """Writes a line for each round that changed something, or a JSON object on one line for each round."""

    def __init__(self, *, as_json: bool, say: Callable[[str], None], write: Callable[[str], None]) -> None:
        """`say` writes to stderr, `write` to stdout."""
        self.say = say
        self._write = write
        self._as_json = as_json
        self._begin = time.monotonic()
        self._totals: Counter[str] = Counter()

    def first(self, summary: IngestSummary) -> None:
        """Report the run over all folders."""
        for sentence in pruned_in_words(summary.pruned, dry_run=False):
            self.say(sentence)
        self._write(json.dumps(summary.as_dict()) if self._as_json else in_words(summary))

    def round(self, summary: IngestSummary) -> None:
        """Count a round and write its line."""
        pruned = summary.pruned
        for sentence in pruned_in_words(replace(pruned, documents=0), dry_run=False):
            self.say(sentence)
        if summary.files or summary.failed or pruned != PruneSummary():
            self._count(
                summary,
                indexed=summary.indexed,
                moved=summary.paths_added,
                updated=summary.updated,
                pruned=pruned.documents,
                failed=summary.failed,
                captioned=summary.captions.written,
            )

    def captions(self, written: int) -> None:
        """Count captions that were written between rounds, and write their line."""
        self._count(IngestSummary(captions=PassSummary(written)), captioned=written)

    def ended(self) -> None:
        """Report the whole watch."""
        took = timedelta(seconds=round(time.monotonic() - self._begin))
        words = _counts_in_words(self._totals) or "nothing changed"
        sentence = f"Watched for {took}: {words}. The same command goes on from there."
        (self.say if self._as_json else self._write)(sentence)

    def _count(self, summary: IngestSummary, **counts: int) -> None:
        self._totals.update(counts)
        if self._as_json:
            self._write(json.dumps(summary.as_dict()))
        elif words := _counts_in_words(counts):
            self._write(f"{words}, {time.strftime('%H:%M:%S')}")


def _counts_in_words(counts: Mapping[str, int]) -> str:
    return ", ".join(
        words[counts[name] != 1].format(counts[name])
        for name, words in ROUND_WORDS.items()
        if counts.get(name)
    )


class FolderWatch:
    """Observes from the moment it is entered, so that no event of a first full run is missed.

    `run` makes a round of changes, or walks whole folders if these are None; it may raise `EngineError`,
    `IngestError` or `StorageError`. `finished` receives its summary. `idle` is called when no path is due,
    and returns whether it did something.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        options: IngestOptions,
        run: Callable[[Sequence[Path], Changes | None], IngestSummary],
        idle: Callable[[], bool],
        say: Callable[[str], None],
        finished: Callable[[IngestSummary], None],
    ) -> None:
        self._options = options
        self._run = run
        self._idle = idle
        self._say = say
        self._finished = finished
        self._roots = Roots(paths)
        self._events = FolderEvents(say=say)
        self._gone = GonePaths()
        self._walk_again = False
        self._wait, self._not_before = 0.0, 0.0

    def __enter__(self) -> Self:
        """Begin to observe. Raises `OSError` when a folder has just gone."""
        self._observe()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop observing."""
        self._events.close()

    def run_forever(self) -> None:
        """Index changes until `KeyboardInterrupt`, which is raised."""
        while True:
            self._look_at_roots()
            is_due = time.monotonic() >= self._not_before
            if not (is_due and (self._round() or self._idle())):
                time.sleep(TICK_S)

    def _observe(self) -> None:
        self._places = Places(self._roots.there, exclude=self._options.exclude)
        self._events.observe(self._places.to_watch())

    def _look_at_roots(self) -> None:
        for root, is_there in self._roots.look().items():
            self._walk_again |= is_there
            self._say(
                f"{root} is there again: it is looked through."
                if is_there
                else f"{root} is not there any more. Its pictures stay in the index; it is waited for."
            )
        self._walk_again |= self._events.is_lost or self._events.is_limited

    def _round(self) -> bool:
        """Index the paths that are due, and return whether there were any."""
        if self._walk_again:
            self._walk_again = False
            self._attempt(None, [])
            return True
        taken = self._events.pending.take()
        changes = Changes(self._files(taken), self._gone.take())
        if changes.files or changes.gone:
            self._attempt(changes, taken)
        return bool(taken or changes.gone)

    def _attempt(self, changes: Changes | None, taken: list[str]) -> None:
        """Make a round. If Elasticsearch, the store or a disk is away, everything waits for the next one."""
        try:
            if changes is None:
                self._observe()
            there = [path for path in self._roots.there if os.path.lexists(path)]
            summary = self._run(there, changes)
        except (EngineError, IngestError, StorageError, OSError) as error:
            self._walk_again |= changes is None
            self._events.pending.put_back(taken)
            self._gone.add(changes.gone if changes else ())
            self._fail(error)
            return
        if self._wait:
            self._say("It works again.")
            self._wait = 0.0
        self._finished(summary)
        if summary.interrupted:
            raise KeyboardInterrupt

    def _fail(self, error: Exception) -> None:
        if not self._wait:
            cause = error.__cause__ if isinstance(error.__cause__, EngineError | StorageError) else error
            self._say(f"Error: {cause} Nothing is lost: the watch goes on when that is mended.")
        self._wait = min(LONGEST_WAIT_S, 2 * self._wait or 1.0)
        self._not_before = time.monotonic() + self._wait

    def _files(self, taken: list[str]) -> tuple[Candidate, ...]:
        """Return the files of this run among real paths, and keep the paths that are gone."""
        files: dict[Candidate, None] = {}
        beside = Beside()
        for real in [*taken, *owners_of(each for each in taken if is_sidecar(each))]:
            path, was_folder = real.rstrip("/"), real.endswith("/")
            if os.path.isdir(path):  # noqa: PTH112 - false, not an error, where a folder is closed
                # A new link to a folder leads to places that are not observed yet.
                self._walk_again |= os.path.islink(path) and bool(self._places.named(path, folder=True))  # noqa: PTH114
            elif found := self._places.named(path, folder=was_folder):
                if is_gone(path):
                    self._gone.add([found.path] if not self._roots.is_away(found.path) else [])
                elif not was_folder and self._options.shard.holds(found.relative_path):
                    files[beside.joined(found)] = None
        return tuple(files)


class Roots:
    """A path of the command line. For a file, its folder has to exist."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._folders = {path: path if os.path.isdir(path) else path.parent for path in paths}  # noqa: PTH112
        self._seen = {path: _identity(folder) for path, folder in self._folders.items()}

    @property
    def there(self) -> list[Path]:
        """Those whose folders were there at the last look."""
        return [path for path, identity in self._seen.items() if identity]

    def look(self) -> dict[Path, bool]:
        """Look again. Return the roots that are new or another folder (True), or gone (False)."""
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

    def __init__(self, paths: Sequence[Path], *, exclude: Exclusions) -> None:
        """Walk the paths once, for the links to folders that lead out of them."""
        self._exclude = exclude
        self._entrances = [(_real(each), each) for each in entrances(paths, exclude=exclude)]

    def to_watch(self) -> list[tuple[str, bool]]:
        """Return real folders, none below another, each with whether it counts with all below it."""
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
                if self._admits(entrance, rest, folder=folder):
                    return Candidate(entrance.path / rest, relative)
        return None

    def _admits(self, entrance: Entrance, rest: str, *, folder: bool) -> bool:
        is_taken = admits(
            entrance.path, rest, exclude=self._exclude, prefix=entrance.relative, folder=folder, rules={}
        )
        is_wanted = folder or is_picture(entrance.path / rest, gone=True, films=not self._exclude.films)
        return is_taken and is_wanted


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


SLICE = 4
"""pictures that are captioned between two looks at the folders"""
AGAIN_S = 30.0
MOST_FAILED = 64
"""pictures without a caption that a slice looks past; behind more of them, the others wait"""


class IdleCaptions(Progress):
    """Captions pictures without a caption until none is left, and again after each `wake`."""

    def __init__(
        self, dependencies: Dependencies, *, say: Callable[[str], None], written: Callable[[int], None]
    ) -> None:
        """Call `say` once with each problem, and `written` with the number of captions at the end."""
        self._dependencies = dependencies
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
        """Write a slice and return whether there may be more. Raises `KeyboardInterrupt`."""
        if time.monotonic() < self._at:
            return False
        try:
            limit = SLICE + self._failed  # those that failed are looked at again: they come first
            options = CaptionOptions(limit=limit, batch_size=SLICE)
            summary = caption_pictures(self._dependencies, options=options, progress=self)
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
