"""Hand out leases to workers and take in their answers. The leases of a dead worker go to another one."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ingest.errors import Fault, IngestError
from ingest.sources.web import WebLimits
from ingest.wiring import IngestSettings
from ingest.workers.lease import Lease, Parcels, WorkerFailure

LEASES_EACH = 2
"""leases that a worker has at once, so that it reads the files of one while it embeds those of the other"""
WAIT_S = 0.5
DEATHS = 20
"""workers that die one after the other before any finishes a lease: more than finding one bad file takes"""
ENDS_WORKERS = Fault(
    "every process that reads it ends at once: a decoder crashes, or the memory is too small"
)
Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Task(Protocol):
    """A kind of work that is shared out. It goes between processes."""

    @property
    def noun(self) -> str:
        """Return the name of the items in messages, such as `files`."""

    @property
    def together(self) -> int:
        """Return how many items the models see together: a lease has no fewer, unless no more are left."""

    @property
    def most(self) -> int:
        """Return how many items a lease has at most."""

    def open(self, order: WorkerOrder, until_end: ExitStack) -> Callable[[Lease], object]:
        """Connect in a worker, and return its function that does a lease. Two threads call that at once.

        `until_end` holds what must stay open meanwhile. Raises `EngineError`, `ModelError`, `StorageError`
        or `IngestError`.
        """


@dataclass(frozen=True)
class WorkerOrder:
    """The order that makes a process a worker. It goes between processes."""

    settings: IngestSettings
    task: Task
    environ: Mapping[str, str]
    """settings of Glimpse, Elasticsearch and stores that the driver has"""
    paths: tuple[Path, ...] = ()
    """absolute paths that each worker must see"""
    limits: WebLimits = field(default_factory=WebLimits)
    threads: int | None = None
    """that read and decode in each worker; by default one for each processor"""
    mark: str = ""
    """a key that the store holds, so that a worker knows it for the same store; empty for no comparison"""
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
        self,
        chunks: Iterable[Sequence[Item]],
        *,
        failed: Callable[[Item, Fault], Answer],
        notes: Callable[[Sequence[Item]], Any] = lambda _: None,
        folders: Callable[[Any], Sequence[Path]] = lambda _: (),
    ) -> Iterator[Answer]:
        """Have the items of `chunks` worked on, and yield the answers as they come, until all have come.

        `failed` returns the answer for an item that no worker survives. `notes` returns those that go with
        some items, and `folders` the ones among them that each worker must see.

        Raises the error of a worker that cannot go on, such as `EngineError`, and `IngestError`.
        """
        fresh = self._cut(chunks, notes)
        while True:
            if not self._fill(fresh, folders):
                return
            for event in self._crew.wait(WAIT_S):
                match event:
                    case Joined():
                        self._given[event.worker] = {}
                    case Lost():
                        yield from map(failed, self._take_back(event.worker), itertools.repeat(ENDS_WORKERS))
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

    def _cut(self, chunks: Iterable[Sequence[Any]], notes: Callable[[Sequence[Any]], Any]) -> Iterator[Lease]:
        task, is_first = self._order.task, True
        for chunk in chunks:
            size = task.most
            if is_first and chunk:  # a small run is shared out as well
                size = min(size, max(task.together, -(-len(chunk) // (LEASES_EACH * self._crew.size))))
                is_first = False
            for start in range(0, len(chunk), size):
                items = tuple(chunk[start : start + size])
                yield Lease(next(self._numbers), items, notes(items))

    def _fill(self, fresh: Iterator[Lease], folders: Callable[[Any], Sequence[Path]]) -> bool:
        """Give out leases to all who have room. Return whether anything is left to wait for."""
        if not self._is_started and not self._waiting:
            first = next(fresh, None)
            if first is None:
                return False
            self._waiting.append(first)
            self._is_started = True
            self._prepare()
            paths = (*self._order.paths, *folders(first.notes))
            self._crew.start(replace(self._order, paths=paths))
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

    def _take_back(self, worker: str) -> Iterator[Any]:
        """Put back the leases of a dead worker, and yield an item that alone ended two processes."""
        leases = list(self._given.pop(worker, {}).values())
        self._deaths += 1
        number, noun = sum(len(lease.items) for lease in leases), self._order.task.noun
        self._say(f"Worker {worker} died; others go on with its {number} {noun}.")
        if self._deaths >= DEATHS:
            raise IngestError(
                f"{self._deaths} workers died one after the other and none finished its {noun}: see the"
                " log of the system, such as for too little memory, and start fewer workers."
            )
        for lease in reversed(leases):
            if not lease.deaths:
                self._waiting.appendleft(replace(lease, deaths=1))
            elif len(lease.items) > 1:
                middle = len(lease.items) // 2
                for part in (lease.items[middle:], lease.items[:middle]):
                    self._waiting.appendleft(replace(lease, number=next(self._numbers), items=part))
            else:
                yield lease.items[0]

    def _take_in(self, event: Answered) -> Iterator[Any]:
        if self._given.get(event.worker, {}).pop(event.number, None) is None:
            return  # it was taken for dead before
        if isinstance(event.answer, WorkerFailure):
            raise event.answer.error()
        self._deaths = 0
        yield self._parcels.unpack(event.answer)
