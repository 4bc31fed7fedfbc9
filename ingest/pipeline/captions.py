"""The pass that gives captions to pictures of the index, the newest first."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import chain, islice

from PIL.Image import Image

from es_config.bulk import Meanwhile
from es_config.client import afterwards
from es_config.errors import EngineError
from es_config.index import CaptionUpdate, Uncaptioned
from ingest.errors import Fault
from ingest.options import CaptionOptions
from ingest.pipeline.embed import Captioned, caption_each, open_thumbnail
from ingest.pipeline.parallel import ahead, ordered_map, write_behind
from ingest.report import CaptionCounts, CaptionSummary, Progress
from ingest.wiring import Dependencies
from storage.errors import NoSuchKeyError, StorageError
from storage.keys import thumbnail_key

READ_AHEAD_BATCHES = 1
REFRESH_EVERY_S = 10.0
STORE_FAILURES = 20
"""failures in a row that end the pass, because the store itself seems to be away"""


def caption_pictures(
    dependencies: Dependencies, *, options: CaptionOptions, progress: Progress | None = None
) -> CaptionSummary:
    """Caption the pictures of the index that have no caption, from their thumbnails.

    Only captions and their vectors are written. A picture that fails is reported, costs nothing else, and is
    tried again by the next pass. Ctrl-C, or the loss of Elasticsearch or the store, ends the pass early with
    a summary: everything written stays, and the same call goes on from there. No model is loaded if nothing
    is missing. Raises `ModelError` if a model cannot be loaded, and `IngestError` if the index holds vectors
    of another one.
    """
    begin, interrupted, stopped = time.monotonic(), False, None
    run = _Pass(dependencies, options, progress or Progress())
    try:
        run.all()
    except KeyboardInterrupt:
        interrupted = True
    except (EngineError, StorageError) as error:
        stopped = str(error)
    return run.counts.summary(time.monotonic() - begin, interrupted=interrupted, error=stopped)


class _Pass:
    def __init__(self, dependencies: Dependencies, options: CaptionOptions, progress: Progress) -> None:
        self._index = dependencies.index
        self._storage = dependencies.storage
        self._captioner = dependencies.captioner
        self._caption_encoder = dependencies.caption_encoder
        self._captions = dependencies.index.captions()
        self._options = options
        self._progress = progress
        self.counts = CaptionCounts(progress)
        self._refreshed = time.monotonic()
        self._store_failures = 0

    def all(self) -> None:
        """Do the whole pass. On an interrupt, write the captions made so far."""
        self._index.refresh()
        total = self._captions.count_missing(every=self._options.every)
        limit = self._options.limit
        self._progress.start(total if limit is None else min(total, limit))
        if not total or limit == 0:
            return
        # Before any picture is read, so that a model that cannot be loaded is reported at once.
        _ = (self._captioner.get(), self._caption_encoder.get())
        readers = ThreadPoolExecutor(self._options.threads, thread_name_prefix="thumbnails")

        def end() -> None:
            readers.shutdown(cancel_futures=True)
            self._index.refresh()

        with (
            afterwards(end),
            closing(ahead(self._batches(readers), size=READ_AHEAD_BATCHES)) as batches,
        ):
            write_behind(map(self._caption, batches), self._write, name="captions")

    def _batches(self, readers: ThreadPoolExecutor) -> Generator[list[tuple[Uncaptioned, Image | Fault]]]:
        size = self._options.batch_size
        waiting = chain.from_iterable(self._captions.missing(every=self._options.every))
        chosen = islice(waiting, self._options.limit)
        read = ordered_map(readers, self._read, chosen, window=max(size, 2 * self._options.threads))
        while batch := list(islice(read, size)):
            yield batch

    def _read(self, waiting: Uncaptioned) -> tuple[Uncaptioned, Image | Fault]:
        """Return a picture's thumbnail, or a fault. Raises `StorageError` if the store is away."""
        try:
            data = self._storage.get(thumbnail_key(waiting.image_id))
        except NoSuchKeyError as error:
            return waiting, Fault(f"{error} Ingest its folder again, or name its store with --store.")
        except StorageError as error:
            self._store_failures += 1
            if self._store_failures >= STORE_FAILURES:
                raise
            return waiting, Fault(str(error))
        self._store_failures = 0
        try:
            return waiting, open_thumbnail(data)
        except Exception as error:  # decoders raise whatever damaged bytes lead them to
            return waiting, Fault(f"its thumbnail is damaged ({type(error).__name__}: {error})")

    def _caption(self, batch: Sequence[tuple[Uncaptioned, Image | Fault]]) -> list[tuple[str, CaptionUpdate]]:
        """Return an update for each picture that gets a caption, with its path, and report the others."""
        seen = [(waiting, image) for waiting, image in batch if not isinstance(image, Fault)]
        captioned = (
            caption_each(
                [image for _, image in seen],
                captioner=self._captioner,
                caption_encoder=self._caption_encoder,
            )
            if seen
            else []
        )
        results: list[tuple[Uncaptioned, Captioned | Fault]] = [
            (waiting, image) for waiting, image in batch if isinstance(image, Fault)
        ]
        results += [(waiting, one) for (waiting, _), one in zip(seen, captioned, strict=True)]
        updates = []
        for waiting, one in results:
            if isinstance(one, Fault):
                self.counts.add_failure(waiting.relative_path, one.reason)
            else:
                update = CaptionUpdate(
                    waiting.image_id,
                    one.text,
                    one.vector,
                    source="model",
                    seq_no=waiting.seq_no,
                    primary_term=waiting.primary_term,
                )
                updates.append((waiting.relative_path, update))
        return updates

    def _write(self, updates: Sequence[tuple[str, CaptionUpdate]]) -> None:
        refused = self._captions.write([update for _, update in updates]).failed
        for path, update in updates:
            reason = refused.get(update.image_id)
            if reason is None:
                self.counts.add(written=1)
            elif isinstance(reason, Meanwhile):
                self.counts.add(changed=1)
            else:
                self.counts.add_failure(path, f"the index refused its caption: {reason}")
        if time.monotonic() - self._refreshed > REFRESH_EVERY_S:
            self._refreshed = time.monotonic()
            self._index.refresh()
