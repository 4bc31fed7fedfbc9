"""Hand out leases to workers and take in their answers. The leases of a dead worker go to another one."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from ingest.errors import Fault, IngestError
from ingest.files.walk import Candidate
from ingest.options import IngestOptions
from ingest.report import Progress, RunCounts
from ingest.sources.web import WebLimits
from ingest.wiring import IngestSettings
from ingest.workers.lease import Lease, LeaseAnswer, Parcels, SidecarNotes, WorkerFailure

LEASES_EACH = 2
"""leases that a worker has at once, so that it reads the files of one while it embeds those of the other"""
BATCHES = 4
"""batches in a lease: as much as a run writes together"""
WAIT_S = 0.5
DEATHS = 20
"""workers that die one after the other before any finishes a lease: more than finding one bad file takes"""
ENDS_WORKERS = "every process that reads it ends at once: a decoder crashes, or the memory is too small"


@dataclass(frozen=True)
class WorkerOrder:
    """The order that makes a process a worker. It goes between processes."""

    settings: IngestSettings
    options: IngestOptions
    environ: Mapping[str, str]
    """settings of Glimpse, Elasticsearch and stores that the driver has"""
    paths: tuple[Path, ...] = ()
    """absolute paths that each worker must see"""
    limits: WebLimits = field(default_factory=WebLimits)
    threads: int | None = None
    """that read and decode in each worker; by default one for each processor"""
    mark: str = ""
    """a key that the store holds during the run, so that a worker knows it for the same store"""
    version: str = ""
    """of Glimpse"""


@dataclass(frozen=True)
class Joined:
    """A worker is ready for leases."""

    worker: str


@dataclass(frozen=True)
class Answered:
    """A worker has finished a lease, or fails for good."""

    worker: str
    number: int
    answer: bytes | WorkerFailure


@dataclass(frozen=True)
class Lost:
    """A worker died."""

    worker: str


CrewEvent = Joined | Answered | Lost


class Crew(Protocol):
    """Workers, wherever they run. It replaces those that die."""

    @property
    def size(self) -> int:
        """Return how many workers there are to be."""

    @property
    def threads(self) -> int | None:
        """Return how many threads read and decode in each, or None for one for each processor there."""

    def start(self, order: WorkerOrder) -> None:
        """Start the workers. Raises `IngestError`."""

    def submit(self, worker: str, number: int, lease: bytes) -> None:
        """Give a worker that has joined a lease."""

    def wait(self, seconds: float) -> list[CrewEvent]:
        """Return the events, after at most so long. Raises `IngestError` where no worker is left."""

    def close(self) -> None:
        """End all workers."""


class SharedWork:
    """The work of one run, in leases of a crew."""

    def __init__(
        self,
        crew: Crew,
        order: WorkerOrder,
        *,
        prepare: Callable[[], None] = lambda: None,
        say: Callable[[str], None],
    ) -> None:
        """Take a crew, which is started when there is work, and a function to call just before that."""
        self._crew, self._order, self._prepare, self._say = crew, order, prepare, say
        self._parcels = Parcels(order.limits)
        self._numbers = itertools.count()
        self._waiting: deque[Lease] = deque()
        self._given: dict[str, dict[int, Lease]] = {}
        self._is_started = False
        self._deaths = 0

    def answers(
        self, chunks: Iterable[list[Candidate]], *, sidecars: SidecarNotes | None = None
    ) -> Iterator[LeaseAnswer]:
        """Have the files of `chunks` worked on, and yield the answers as they come, until all have come.

        Raises the error of a worker that cannot go on, such as `EngineError`, and `IngestError`.
        """
        fresh = self._cut(chunks, sidecars or {})
        while True:
            if not self._fill(fresh):
                return
            for event in self._crew.wait(WAIT_S):
                match event:
                    case Joined():
                        self._given[event.worker] = {}
                    case Lost():
                        yield from self._take_back(event.worker)
                    case Answered():
                        yield from self._take_in(event)

    def queues(self) -> dict[str, Callable[[], int]]:
        """Return how many leases wait, and how many the workers have, by name."""
        return {
            "leases_waiting": lambda: len(self._waiting),
            "leases_at_work": lambda: sum(map(len, list(self._given.values()))),
        }

    def close(self) -> None:
        """End the workers."""
        self._crew.close()

    def _cut(self, chunks: Iterable[list[Candidate]], sidecars: SidecarNotes) -> Iterator[Lease]:
        batch = self._order.options.batch_size
        is_first = True
        for chunk in chunks:
            size = BATCHES * batch
            if is_first and chunk:  # a small run is shared out as well
                size = min(size, max(batch, -(-len(chunk) // (LEASES_EACH * self._crew.size))))
                is_first = False
            for start in range(0, len(chunk), size):
                files = tuple(map(_with_whole_path, chunk[start : start + size]))
                yield Lease(next(self._numbers), files, sidecars)

    def _fill(self, fresh: Iterator[Lease]) -> bool:
        """Give out leases to all who have room. Return whether anything is left to wait for."""
        if not self._is_started and not self._waiting:
            first = next(fresh, None)
            if first is None:
                return False
            self._waiting.append(first)
            self._is_started = True
            self._prepare()
            self._crew.start(self._order)
        for worker, given in self._given.items():
            while (lease := self._next(given, fresh)) is not None:
                given[lease.number] = lease
                self._crew.submit(worker, lease.number, self._parcels.pack(lease))
        if not (self._waiting or any(self._given.values())):  # no worker may be there yet
            lease = next(fresh, None)
            if lease is None:
                return False
            self._waiting.append(lease)
        return True

    def _next(self, given: Mapping[int, Lease], fresh: Iterator[Lease]) -> Lease | None:
        if len(given) >= LEASES_EACH or any(each.deaths for each in given.values()):
            return None
        if self._waiting:  # one that a worker died with goes alone, so that it is known for the cause
            return None if self._waiting[0].deaths and given else self._waiting.popleft()
        return next(fresh, None)

    def _take_back(self, worker: str) -> Iterator[LeaseAnswer]:
        """Put back the leases of a dead worker. One file that ended two processes is a failure of its own."""
        leases = list(self._given.pop(worker, {}).values())
        self._deaths += 1
        files = sum(len(lease.files) for lease in leases)
        self._say(f"Worker {worker} died; others go on with its {files} files.")
        if self._deaths >= DEATHS:
            raise IngestError(
                f"{self._deaths} workers died one after the other and none finished its files: see the log of"
                " the system, such as for too little memory, and start fewer workers."
            )
        for lease in reversed(leases):
            if not lease.deaths:
                self._waiting.appendleft(replace(lease, deaths=1))
            elif len(lease.files) > 1:
                middle = len(lease.files) // 2
                for part in (lease.files[middle:], lease.files[:middle]):
                    self._waiting.appendleft(replace(lease, number=next(self._numbers), files=part))
            else:
                yield _failed(lease.files[0], Fault(ENDS_WORKERS))

    def _take_in(self, event: Answered) -> Iterator[LeaseAnswer]:
        if self._given.get(event.worker, {}).pop(event.number, None) is None:
            return  # it was taken for dead before
        if isinstance(event.answer, WorkerFailure):
            raise event.answer.error()
        self._deaths = 0
        yield self._parcels.unpack(event.answer)


def _with_whole_path(candidate: Candidate) -> Candidate:
    if candidate.origin:
        return candidate
    return replace(candidate, path=Path(os.path.abspath(candidate.path)))  # noqa: PTH100 - links stay


def _failed(candidate: Candidate, fault: Fault) -> LeaseAnswer:
    counts = RunCounts(Progress())
    counts.add_failure(candidate, fault)
    return LeaseAnswer(counts.part(), (), ((candidate, fault),), (), 0)
