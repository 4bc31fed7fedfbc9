"""The pass that gives captions to pictures of the index, the newest first."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import chain, islice
from typing import TYPE_CHECKING

from es_config.bulk import Meanwhile
from es_config.errors import EngineError, afterwards
from es_config.index import CaptionUpdate
from ingest.errors import Fault
from ingest.options import CaptionOptions, CaptionSummary, Progress
from ingest.pipeline.embed import caption_each, open_thumbnail
from ingest.pipeline.parallel import ahead, ordered_map, write_behind
from ingest.report import CaptionTally
from storage.errors import NoSuchKeyError, StorageError
from storage.keys import thumbnail_key

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from PIL.Image import Image

    from es_config.index import Uncaptioned
    from ingest.pipeline.embed import Captioned
    from ingest.wiring import Parts

READ_AHEAD_BATCHES = 1
REFRESH_EVERY_S = 10.0
STORE_FAILURES = 20
"""one after the other, after which the store itself is taken to be away"""


def caption_pictures(
    parts: Parts, *, options: CaptionOptions, progress: Progress | None = None
) -> CaptionSummary:
    """Caption the pictures of the index that have no caption, from their thumbnails, and say what was done.

    Only captions and their vectors are written. A picture that fails is reported, costs nothing else and is
    missing for the next pass too. Ctrl-C, and Elasticsearch or a store that is away, end the pass early with
    a summary: what was written stays, and the same call goes on from there. Where nothing is missing, no
    model is loaded. Raises `ModelError` when a model cannot be loaded and `IngestError` when it is not the
    one whose vectors the index holds.
    """
    begin, interrupted, stopped = time.monotonic(), False, None
    run = _Pass(parts, options, progress or Progress())
    try:
        run.all()
    except KeyboardInterrupt:
        interrupted = True
    except (EngineError, StorageError) as error:
        stopped = str(error)
    return run.tally.summary(time.monotonic() - begin, interrupted=interrupted, error=stopped)


class _Pass:
    def __init__(self, parts: Parts, options: CaptionOptions, progress: Progress) -> None:
        self._parts = parts
        self._captions = parts.index.captions()
        self._options = options
        self._progress = progress
        self.tally = CaptionTally(progress)
        self._refreshed = time.monotonic()
        self._store_failures = 0

    def all(self) -> None:
        """Do the whole pass; when it is interrupted, write what is captioned."""
        self._parts.index.refresh()
        total = self._captions.count_missing(every=self._options.every)
        limit = self._options.limit
        self._progress.start(total if limit is None else min(total, limit))
        if not total or limit == 0:
            return
        # Before any picture is read: what cannot be loaded is said at once.
        _ = (self._parts.captioner.revision, self._parts.caption_encoder.revision)
        readers = ThreadPoolExecutor(self._options.threads, thread_name_prefix="thumbnails")

        def end() -> None:
            readers.shutdown(cancel_futures=True)
            self._parts.index.refresh()

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
        """Return a picture as its thumbnail shows it, or why not. `StorageError` when the store is away."""
        try:
            data = self._parts.storage.get(thumbnail_key(waiting.image_id))
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
        models = {"captioner": self._parts.captioner, "caption_encoder": self._parts.caption_encoder}
        captioned = caption_each([image for _, image in seen], **models) if seen else []
        results: list[tuple[Uncaptioned, Captioned | Fault]] = [
            (waiting, image) for waiting, image in batch if isinstance(image, Fault)
        ]
        results += [(waiting, one) for (waiting, _), one in zip(seen, captioned, strict=True)]
        updates = []
        for waiting, one in results:
            if isinstance(one, Fault):
                self.tally.add_failure(waiting.relative_path, one.reason)
            else:
                updates.append((waiting.relative_path, _update(waiting, one)))
        return updates

    def _write(self, updates: Sequence[tuple[str, CaptionUpdate]]) -> None:
        refused = self._captions.write([update for _, update in updates]).failed
        for path, update in updates:
            reason = refused.get(update.image_id)
            if reason is None:
                self.tally.add(written=1)
            elif isinstance(reason, Meanwhile):
                self.tally.add(changed=1)
            else:
                self.tally.add_failure(path, f"the index refused its caption: {reason}")
        if time.monotonic() - self._refreshed > REFRESH_EVERY_S:
            self._refreshed = time.monotonic()
            self._parts.index.refresh()


def _update(waiting: Uncaptioned, captioned: Captioned) -> CaptionUpdate:
    return CaptionUpdate(
        waiting.image_id,
        captioned.text,
        captioned.vector,
        source="model",
        seq_no=waiting.seq_no,
        primary_term=waiting.primary_term,
    )
