"""A pass over pictures of the index that lack something, the newest first: captions, or the text in them."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from copy import copy
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Generic, Protocol, Self, TypeVar

from PIL.Image import Image

from es_config.bulk import Meanwhile
from es_config.client import afterwards
from es_config.errors import EngineError
from es_config.index import LISTED_TOGETHER, ImageIndex, WaitingList, WaitingPicture
from ingest.errors import Fault
from ingest.files.walk import Failure
from ingest.pipeline.parallel import ahead, ordered_map, write_behind
from ingest.report import PassCounts, PassPart, Progress
from ingest.workers.driver import SharedWork
from ingest.workers.lease import Lease, PlaceNotes, noted_folders
from storage.errors import StorageError

READ_AHEAD_BATCHES = 1
REFRESH_EVERY_S = 10.0
STORE_FAILURES = 20
"""failures in a row that end a pass, because the store itself seems to be away"""


class PassOptions(Protocol):
    """The options that every pass has."""

    @property
    def limit(self) -> int | None:
        """Return how many pictures to look at."""

    @property
    def batch_size(self) -> int:
        """Return how many pictures are written together."""

    @property
    def threads(self) -> int:
        """Return how many threads read pictures."""


Update = TypeVar("Update")


@dataclass(frozen=True)
class Made(Generic[Update]):
    """The result for one picture: an update of its document, the fault of the picture, or both."""

    picture: WaitingPicture
    update: Update | None = None
    fault: Fault | None = None
    """reported; an update beside it notes that the picture failed"""


class _StoreHealth:
    """Ends a pass when the store fails for one picture after the other. Leases of one process share it."""

    def __init__(self) -> None:
        self._failures = 0

    def failed(self, error: StorageError) -> None:
        """Count a failure, and raise the one that is too many."""
        self._failures += 1
        if self._failures >= STORE_FAILURES:
            raise error

    def answered(self) -> None:
        """Begin to count anew."""
        self._failures = 0


class PicturePass(ABC, Generic[Update]):
    """Reads pictures ahead, makes an update for each, and writes the updates behind.

    It lists the pictures that wait and does them, or shares them out to workers. In a worker it does leases
    of pictures that the driver has listed.
    """

    made: str
    """the thing that the index may refuse, such as `caption`"""

    def __init__(
        self,
        index: ImageIndex,
        options: PassOptions,
        progress: Progress,
        *,
        what: str,
        lacking: WaitingList,
    ) -> None:
        """Take the list of pictures that are `lacking` something. `what` begins the line of a failure."""
        self.counts = PassCounts(progress, what=what)
        self._index, self._options, self._progress, self._lacking = index, options, progress, lacking
        self._refreshed = time.monotonic()
        self._store = _StoreHealth()
        self._turn = threading.Lock()
        """is held while a batch is in the models, which several leases of one process share"""

    @abstractmethod
    def count(self) -> int:
        """Return how many pictures wait."""

    @abstractmethod
    def waiting(self) -> Iterator[list[WaitingPicture]]:
        """Yield the pictures that wait, in lists."""

    @abstractmethod
    def load(self) -> None:
        """Load the models, before any picture is read, so that one that cannot be loaded is told at once."""

    @abstractmethod
    def read(self, waiting: WaitingPicture) -> Image | Fault:
        """Return a picture's pixels, or a fault. Raises `StorageError` when the store cannot be asked."""

    @abstractmethod
    def make(self, batch: Sequence[tuple[WaitingPicture, Image]]) -> list[Made[Update]]:
        """Return a result for each picture."""

    @abstractmethod
    def write(self, updates: Sequence[Update]) -> Mapping[str, str]:
        """Write updates and return the reason for each refusal, by image id."""

    @abstractmethod
    def recount(self, waiting: WaitingPicture, fields: Mapping[str, Any]) -> bool:
        """Count a picture that a worker has done before it died, by the `fields` that its document has now.

        Return whether one did.
        """

    def failed(self, waiting: WaitingPicture, fault: Fault) -> Made[Update]:
        """Return the result for a picture that could not be read."""
        return Made(waiting, fault=fault)

    def notes(self, pictures: Sequence[WaitingPicture]) -> PlaceNotes:  # noqa: ARG002
        """Return the notes that workers need about these pictures."""
        return {}

    def with_notes(self, notes: PlaceNotes) -> Self:  # noqa: ARG002
        """Return a pass of the same kind, which has these notes, for one lease."""
        return copy(self)

    def run(self, work: SharedWork | None = None) -> tuple[float, bool, str | None]:
        """Do the whole pass, or share the `work` out.

        Return its seconds, whether Ctrl-C ended it, and the error that ended it. Everything written stays,
        and the next pass goes on from there.
        """
        begin, interrupted, stopped = time.monotonic(), False, None
        try:
            self._all(work)
        except KeyboardInterrupt:
            interrupted = True
        except (EngineError, StorageError) as error:
            stopped = str(error)
        return time.monotonic() - begin, interrupted, stopped

    def lease(self, lease: Lease) -> PassPart:
        """Do pictures that another process has listed, and return the counts. Thread-safe."""
        part = self.with_notes(lease.notes)
        part.counts = PassCounts(Progress(), what=self.counts.what)
        part._refreshed = time.monotonic()  # the driver refreshes
        pictures = lease.items
        if lease.deaths:
            served = self._lacking.served(pictures)
            done = {
                each.image_id
                for each in pictures
                if each.image_id in served and part.recount(each, served[each.image_id])
            }
            pictures = tuple(each for each in pictures if each.image_id not in done)
        part._do(pictures)
        return part.counts.part()

    def _all(self, work: SharedWork | None) -> None:
        """Do the whole pass. On an interrupt, write the updates made so far."""
        self._index.refresh()
        total, limit = self.count(), self._options.limit
        self._progress.start(total if limit is None else min(total, limit))
        if not total or limit == 0:
            return
        chosen = islice(chain.from_iterable(self.waiting()), limit)
        with afterwards(self._index.refresh):
            if work:
                self._share(chosen, work)
            else:
                self._do(chosen)

    def _share(self, chosen: Iterator[WaitingPicture], work: SharedWork) -> None:
        """Let workers do the pictures, and count their answers."""
        lists = iter(lambda: list(islice(chosen, LISTED_TOGETHER)), [])
        with closing(work):
            for part in work.answers(lists, failed=_failed, notes=self.notes, folders=noted_folders):
                self.counts.merge(part)
                self._refresh_now_and_then()

    def _do(self, pictures: Iterable[WaitingPicture]) -> None:
        self.load()
        readers = ThreadPoolExecutor(self._options.threads, thread_name_prefix="pictures")
        with (
            afterwards(lambda: readers.shutdown(cancel_futures=True)),
            closing(ahead(self._batches(pictures, readers), size=READ_AHEAD_BATCHES)) as batches,
        ):
            write_behind(map(self._make, batches), self._write, name=self.made)

    def _batches(
        self, pictures: Iterable[WaitingPicture], readers: ThreadPoolExecutor
    ) -> Generator[list[tuple[WaitingPicture, Image | Fault]]]:
        size = self._options.batch_size
        read = ordered_map(readers, self._read, pictures, window=max(size, 2 * self._options.threads))
        while batch := list(islice(read, size)):
            yield batch

    def _read(self, waiting: WaitingPicture) -> tuple[WaitingPicture, Image | Fault]:
        try:
            seen = self.read(waiting)
        except StorageError as error:
            self._store.failed(error)
            return waiting, Fault(str(error))
        self._store.answered()
        return waiting, seen

    def _make(self, batch: Sequence[tuple[WaitingPicture, Image | Fault]]) -> list[Made[Update]]:
        seen = [(waiting, image) for waiting, image in batch if not isinstance(image, Fault)]
        made = [self.failed(waiting, image) for waiting, image in batch if isinstance(image, Fault)]
        with self._turn:
            made += self.make(seen) if seen else []
        for each in made:
            if each.update is None and each.fault is not None:
                self.counts.add_failure(each.picture.relative_path, each.fault.reason)
        return made

    def _write(self, made: Sequence[Made[Update]]) -> None:
        written = [each for each in made if each.update is not None]
        refused = self.write([each.update for each in written if each.update is not None])
        for each in written:
            path, reason = each.picture.relative_path, refused.get(each.picture.image_id)
            if isinstance(reason, Meanwhile):
                self.counts.add(changed=1)
            elif reason is not None:
                self.counts.add_failure(path, f"the index refused its {self.made}: {reason}")
            elif each.fault is not None:
                self.counts.add_failure(path, each.fault.reason)
            else:
                self.counts.add(written=1)
        self._refresh_now_and_then()

    def _refresh_now_and_then(self) -> None:
        if time.monotonic() - self._refreshed > REFRESH_EVERY_S:
            self._refreshed = time.monotonic()
            self._index.refresh()


def _failed(waiting: WaitingPicture, fault: Fault) -> PassPart:
    """Return the counts for a picture that no worker survives."""
    return PassPart(failures=(Failure(waiting.relative_path, fault.reason),))
