"""The last step of a run: thumbnails go into the store and documents into the index, in the background."""

from __future__ import annotations

import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from es_config.bulk import Meanwhile
from es_config.index import PathsChanged
from ingest.errors import Fault
from ingest.pipeline.items import Embedded, LostThumbnail, NewPath
from storage.keys import thumbnail_key

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from es_config.index import ImageIndex
    from ingest.files.walk import Candidate
    from ingest.history.ingested_files import Memory
    from ingest.pipeline.items import ToWrite
    from ingest.report import Tally
    from storage.store import Storage

WAITING_BATCHES = 16
TOGETHER = 512
"""pictures of waiting batches that are written at once: an Elasticsearch slower than the model needs that"""
ENOUGH, GATHER_S = 4, 2.0
"""batches that are waited for, and for how long, before they are written together"""
STOP_CHECK_S = 0.1
PUTS = 8
"""thumbnails that are stored at the same time: a store that is far away is waited for once, not 32 times"""


class Writer:
    """Writes batches in their order, in one thread; few wait (512 pictures): a slow index slows the reader.

    After a failure nothing more is written, and `submit` and `finish` raise what went wrong.
    """

    def __init__(
        self,
        *,
        index: ImageIndex,
        storage: Storage,
        tally: Tally,
        in_flight: set[str],
        memory: Memory,
        batch_size: int,
        wrote: Callable[[int], None],
    ) -> None:
        self._index = index
        self._wrote = wrote
        self._storage = storage
        self._tally = tally
        self._in_flight = in_flight
        self._memory = memory
        self._line: queue.Queue[Sequence[ToWrite] | None] = queue.Queue(
            maxsize=min(WAITING_BATCHES, max(2, TOGETHER // batch_size))
        )
        self._enough = ENOUGH * batch_size
        self._error: Exception | None = None
        self._putters = ThreadPoolExecutor(PUTS, thread_name_prefix="store")
        self._thread = threading.Thread(target=self._work, name="writer", daemon=True)
        self._thread.start()

    def submit(self, batch: Sequence[ToWrite]) -> None:
        """Hand over a batch; waits while others are before it. Raises `EngineError` or `StorageError`."""
        while self._error is None:
            try:
                self._line.put(batch, timeout=STOP_CHECK_S)
                return
            except queue.Full:
                continue
        raise self._error

    def finish(self) -> None:
        """Wait until all is written. Raises `EngineError` or `StorageError`."""
        self._line.put(None)
        self._thread.join()
        self._putters.shutdown()
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while batch := self._waiting():
            if self._error is not None:
                continue
            try:
                self._write(batch)
                self._wrote(len(batch))
            except Exception as error:  # raised in the thread that submits
                self._error = error

    def _waiting(self) -> list[ToWrite]:
        """Wait for batches worth a request and return them together; nothing when there will be none.

        Small requests cost Elasticsearch twice as much for each picture; what a kill may cost is bounded by
        time, as a model may be slow.
        """
        together: list[ToWrite] = []
        until: float | None = None
        while len(together) < self._enough or (len(together) < TOGETHER and not self._line.empty()):
            try:
                batch = self._line.get(timeout=until and max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            if batch is None:
                self._line.put(None)  # for the next call
                break
            until = until or time.monotonic() + GATHER_S
            together += batch
        return together

    def _write(self, batch: Sequence[ToWrite]) -> None:
        # Thumbnails first: a document is never without its thumbnail, even when the power fails in between.
        pictures = [item for item in batch if not isinstance(item, NewPath)]
        list(self._putters.map(self._put_thumbnail, pictures))  # a failure of any is raised here
        new = [item for item in batch if isinstance(item, Embedded)]
        others = [item for item in batch if not isinstance(item, Embedded)]
        self._add(new, [item for item in others if isinstance(item, NewPath)])
        self._finish_others(others, merged={_id(item) for item in new})

    def _put_thumbnail(self, item: Embedded | LostThumbnail) -> None:
        self._storage.put(thumbnail_key(_id(item)), item.thumbnail)

    def _add(self, new: Sequence[Embedded], paths: Sequence[NewPath]) -> None:
        """Write new documents, each with every path of this batch that holds its content."""
        documents = {item.document.image_id: item.document for item in new}
        for item in paths:
            document = documents.get(item.image_id)
            if document and item.candidate.relative_path not in document.relative_path:
                more = (*document.relative_path, item.candidate.relative_path)
                documents[item.image_id] = replace(document, relative_path=more)
        refused = self._index.add(list(documents.values()), only_new=True).failed if documents else {}
        # Somebody else indexed the same content at the same time: theirs stays, with our paths.
        taken = {
            each: documents[each].relative_path
            for each, reason in refused.items()
            if reason is Meanwhile.CHANGED
        }
        refused = {each: reason for each, reason in refused.items() if each not in taken}
        refused |= self._index.add_paths(taken).failed if taken else {}
        self._tally.faults.update(
            {image_id: Fault(f"the index refused it: {reason}") for image_id, reason in refused.items()}
        )
        self._in_flight.difference_update(documents)
        for item in new:
            self._finish_new(item, is_new=item.document.image_id not in taken)

    def _finish_new(self, item: Embedded, *, is_new: bool) -> None:
        if fault := self._tally.faults.get(item.document.image_id):
            self._fail(item.candidate, fault)
            return
        self._memory.good(item.candidate, item.document.image_id)
        if is_new:
            self._tally.add(indexed=1, captioned=item.document.caption_source == "model")
        else:
            self._tally.add(skipped=1, paths_added=1)

    def _finish_others(self, others: Sequence[NewPath | LostThumbnail], *, merged: set[str]) -> None:
        """Add the paths of known pictures; those in `merged` were written with them just now."""
        paths: dict[str, list[str]] = {}
        for item in others:
            if _is_new(item) and item.image_id not in merged and item.image_id not in self._tally.faults:
                paths.setdefault(item.image_id, []).append(item.candidate.relative_path)
        changed = self._index.add_paths(paths) if paths else PathsChanged()
        for item in others:
            fault = self._tally.faults.get(item.image_id)
            if fault is None and item.image_id in changed.failed:
                fault = Fault(changed.failed[item.image_id])
            if item.image_id in changed.absent:
                fault = Fault("its picture left the index meanwhile: run the same command again")
            if fault:
                self._fail(item.candidate, fault)
            else:
                self._memory.good(item.candidate, item.image_id, new_path=_is_new(item))
                self._tally.add(skipped=1, paths_added=_is_new(item))

    def _fail(self, candidate: Candidate, fault: Fault) -> None:
        self._tally.add_failure(candidate, fault)
        self._memory.bad(candidate, fault)


def _is_new(item: NewPath | LostThumbnail) -> bool:
    return isinstance(item, NewPath) or item.new_path


def _id(item: ToWrite) -> str:
    return item.document.image_id if isinstance(item, Embedded) else item.image_id
