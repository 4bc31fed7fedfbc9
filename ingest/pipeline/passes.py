"""A pass over pictures of the index that lack something, the newest first: captions, or the text in them."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, islice
from typing import Generic, Protocol, TypeVar

from PIL.Image import Image

from es_config.bulk import Meanwhile
from es_config.client import afterwards
from es_config.errors import EngineError
from es_config.index import ImageIndex, WaitingPicture
from ingest.errors import Fault
from ingest.pipeline.parallel import ahead, ordered_map, write_behind
from ingest.report import PassCounts, Progress
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


class PicturePass(ABC, Generic[Update]):
    """Reads pictures ahead, makes an update for each, and writes the updates behind."""

    made: str
    """the thing that the index may refuse, such as `caption`"""

    def __init__(
        self, index: ImageIndex, options: PassOptions, progress: Progress, counts: PassCounts
    ) -> None:
        self.counts = counts
        self._index, self._options, self._progress = index, options, progress
        self._refreshed = time.monotonic()
        self._store_failures = 0

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

    def failed(self, waiting: WaitingPicture, fault: Fault) -> Made[Update]:
        """Return the result for a picture that could not be read."""
        return Made(waiting, fault=fault)

    def run(self) -> tuple[float, bool, str | None]:
        """Do the whole pass. Return its seconds, whether Ctrl-C ended it, and the error that ended it.

        Everything written stays, and the next pass goes on from there.
        """
        begin, interrupted, stopped = time.monotonic(), False, None
        try:
            self._all()
        except KeyboardInterrupt:
            interrupted = True
        except (EngineError, StorageError) as error:
            stopped = str(error)
        return time.monotonic() - begin, interrupted, stopped

    def _all(self) -> None:
        """Do the whole pass. On an interrupt, write the updates made so far."""
        self._index.refresh()
        total, limit = self.count(), self._options.limit
        self._progress.start(total if limit is None else min(total, limit))
        if not total or limit == 0:
            return
        self.load()
        readers = ThreadPoolExecutor(self._options.threads, thread_name_prefix="pictures")

        def end() -> None:
            readers.shutdown(cancel_futures=True)
            self._index.refresh()

        with (
            afterwards(end),
            closing(ahead(self._batches(readers), size=READ_AHEAD_BATCHES)) as batches,
        ):
            write_behind(map(self._make, batches), self._write, name=self.made)

    def _batches(self, readers: ThreadPoolExecutor) -> Generator[list[tuple[WaitingPicture, Image | Fault]]]:
        size = self._options.batch_size
        chosen = islice(chain.from_iterable(self.waiting()), self._options.limit)
        read = ordered_map(readers, self._read, chosen, window=max(size, 2 * self._options.threads))
        while batch := list(islice(read, size)):
            yield batch

    def _read(self, waiting: WaitingPicture) -> tuple[WaitingPicture, Image | Fault]:
        try:
            seen = self.read(waiting)
        except StorageError as error:
            self._store_failures += 1
            if self._store_failures >= STORE_FAILURES:
                raise
            return waiting, Fault(str(error))
        self._store_failures = 0
        return waiting, seen

    def _make(self, batch: Sequence[tuple[WaitingPicture, Image | Fault]]) -> list[Made[Update]]:
        seen = [(waiting, image) for waiting, image in batch if not isinstance(image, Fault)]
        made = [self.failed(waiting, image) for waiting, image in batch if isinstance(image, Fault)]
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
        if time.monotonic() - self._refreshed > REFRESH_EVERY_S:
            self._refreshed = time.monotonic()
            self._index.refresh()
