"""The last step of a run: thumbnails go into the store and documents into the index, in the background."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from es_config.bulk import Meanwhile
from es_config.hidden import HiddenPictures
from es_config.index import ImageIndex, PathsChanged
from ingest.errors import Fault
from ingest.files.walk import UNSETTLED, Candidate
from ingest.history.ingested_files import IngestHistory
from ingest.pipeline.parallel import STOP_CHECK_S
from ingest.pipeline.read import KnownPicture, NewPicture, PictureState
from ingest.report import RunCounts
from storage.keys import thumbnail_key
from storage.store import Storage

WAITING_BATCHES = 16
TOGETHER = 512
"""pictures that one request writes at most: a slow Elasticsearch needs large requests"""
ENOUGH, GATHER_S = 4, 2.0
"""batches that are waited for, and for how long, before they are written together"""
PUTS = 8
"""thumbnails that are stored at the same time, because a store may be slow to answer"""


class Writer:
    """Writes batches in their order, in one thread. At most 512 pictures wait: a slow index slows the reader.

    After a failure nothing more is written, and `submit` and `finish` raise the error.
    """

    def __init__(
        self,
        *,
        index: ImageIndex,
        storage: Storage,
        counts: RunCounts,
        in_flight: set[str],
        history: IngestHistory,
        batch_size: int,
        wrote: Callable[[int], None],
    ) -> None:
        self._index = index
        self._storage = storage
        self._counts = counts
        self._in_flight = in_flight
        self._history = history
        self._wrote = wrote
        self._line: queue.Queue[Sequence[PictureState] | None] = queue.Queue(
            maxsize=min(WAITING_BATCHES, max(2, TOGETHER // batch_size))
        )
        self._enough = ENOUGH * batch_size
        self._error: Exception | None = None
        self._putters = ThreadPoolExecutor(PUTS, thread_name_prefix="store")
        self._thread = threading.Thread(target=self._work, name="writer", daemon=True)
        self._thread.start()

    def waiting(self) -> int:
        """Return how many batches wait to be written."""
        return self._line.qsize()

    def submit(self, batch: Sequence[PictureState]) -> None:
        """Hand over a batch, waiting while the line is full. Raises `EngineError` or `StorageError`."""
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
        while batch := self._gather():
            if self._error is not None:
                continue
            try:
                with self._counts.meter.timed("write"):
                    self._write(batch)
                self._wrote(len(batch))
            except Exception as error:  # raised in the thread that submits
                self._error = error

    def _gather(self) -> list[PictureState]:
        """Wait for batches worth a request and return them together, or none at the end.

        Small requests cost Elasticsearch twice as much for each picture. The wait is short, because a kill
        loses the waiting pictures.
        """
        together: list[PictureState] = []
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

    def _write(self, batch: Sequence[PictureState]) -> None:
        # Thumbnails first: no document is without its thumbnail, even if the power fails in between.
        list(self._putters.map(self._put_thumbnail, batch))  # a failure of any is raised here
        new = [each for each in batch if isinstance(each, NewPicture)]
        known = [each for each in batch if isinstance(each, KnownPicture)]
        self._add(new, known)
        facts = {each.image_id: each.facts for each in known if each.facts}
        unwritten = self._index.change_facts(list(facts.values())).failed if facts else {}
        # A film's moments may have been written before this batch, so its copies are added like later ones.
        merged = {each.image_id for each in new if each.document.film is None}
        self._add_paths(known, merged=merged, unwritten=unwritten)
        self._set_moments(known)

    def _put_thumbnail(self, picture: PictureState) -> None:
        if picture.thumbnail:
            self._storage.put(thumbnail_key(picture.image_id), picture.thumbnail)

    def _add(self, new: Sequence[NewPicture], known: Sequence[KnownPicture]) -> None:
        """Write new documents, each with every path of this batch that holds its content."""
        documents = {each.image_id: each.document for each in new}
        films = {each.image_id for each in new if each.document.film}
        for copy in (each for each in known if each.image_id not in films):
            document, path = documents.get(copy.image_id), copy.candidate.relative_path
            if document and path not in document.relative_path:
                documents[copy.image_id] = replace(document, relative_path=(*document.relative_path, path))
        refused = self._index.add(list(documents.values()), only_new=True).failed if documents else {}
        # Another machine indexed the same content at the same time: its document stays, with our paths.
        taken = {
            image_id: documents[image_id].relative_path
            for image_id, reason in refused.items()
            if reason is Meanwhile.CHANGED
        }
        refused = {image_id: reason for image_id, reason in refused.items() if image_id not in taken}
        refused |= self._index.add_paths(taken).failed if taken else {}
        for image_id, reason in refused.items():
            self._counts.faults[image_id] = Fault(f"the index refused it: {reason}")
        self._in_flight.difference_update(documents)
        for picture in new:
            fault = self._counts.faults.get(picture.image_id)
            if picture.is_moment:
                self._counts.add_moment(picture.candidate, fault)
                continue
            if fault:
                self._fail(picture.candidate, fault)
                continue
            is_taken = picture.image_id in taken
            if is_taken and picture.candidate.sidecars and self._history.lacks_sidecars_of(picture.image_id):
                self._history.leave_open(picture.candidate, picture.image_id)
                continue
            self._history.record_ok(picture.candidate, picture.image_id)
            if is_taken:
                self._counts.add(skipped=1, paths_added=1)
            else:
                if picture.document.cut_short:
                    self._counts.add_cut_short(picture.candidate)
                self._counts.add(indexed=1, captioned=picture.document.caption_source == "model")

    def _add_paths(
        self, known: Sequence[KnownPicture], *, merged: set[str], unwritten: Mapping[str, str]
    ) -> None:
        """Add the paths of known pictures. Those in `merged` were written with their documents just now.

        Of those in `unwritten`, by image id, the news of sidecars were refused, for this reason.
        """
        paths: dict[str, list[str]] = {}
        for each in known:
            if each.new_path and each.image_id not in merged and each.image_id not in self._counts.faults:
                paths.setdefault(each.image_id, []).append(each.candidate.relative_path)
        changed = self._index.add_paths(paths) if paths else PathsChanged()
        away = {image_id: paths[image_id] for image_id in changed.absent}
        hidden = HiddenPictures(self._index).add_paths(away)
        failed = changed.failed | hidden.failed
        for each in known:
            fault = self._counts.faults.get(each.image_id)
            if fault is None and each.image_id in failed:
                fault = Fault(failed[each.image_id])
            if each.image_id in hidden.absent:
                fault = Fault("its picture left the index meanwhile: run the same command again")
            candidate, refused = each.candidate, unwritten.get(each.image_id) if each.facts else None
            if refused is Meanwhile.DELETED:  # it was put away, and has to be told when it is back
                candidate = replace(candidate, sidecars_stamp=UNSETTLED)
            elif refused and fault is None:
                fault = Fault(f"the index refused the news of its sidecar: {refused}")
            if fault:
                self._fail(each.candidate, fault)
            else:
                self._history.record_ok(candidate, each.image_id, new_path=each.new_path)
                news = each.facts is not None
                self._counts.add(skipped=1, paths_added=each.new_path, updated=news)

    def _set_moments(self, known: Sequence[KnownPicture]) -> None:
        """Note the moments of films that were in the index without them."""
        found = {each.image_id: each.moments for each in known if each.moments is not None}
        refused = self._index.set_moments(found) if found else {}
        for each in known:
            if each.image_id in refused:
                self._counts.add_moment(each.candidate, Fault(refused[each.image_id]))

    def _fail(self, candidate: Candidate, fault: Fault) -> None:
        self._counts.add_failure(candidate, fault)
        self._history.record_failure(candidate, fault)
