"""One run of ingest: from paths to documents, with every dependency handed in."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING

from es_config.errors import EngineError, afterwards
from ingest.errors import IngestError
from ingest.files.picture import pixel_limit
from ingest.files.walk import Candidate, Failure, outermost, walk
from ingest.history.ingested_files import Memory
from ingest.history.prune import tidy
from ingest.options import Changes, IngestOptions, IngestSummary, Progress, PruneSummary
from ingest.pipeline.embed import CaptionNow, batches, embed_batch
from ingest.pipeline.items import BadFile, Embedded, FailedBefore, Prepared, Unchanged
from ingest.pipeline.parallel import ahead
from ingest.pipeline.read import TOGETHER, Reader, Recogniser
from ingest.pipeline.write import Writer
from ingest.report import Tally
from models.pixels import register_formats
from storage.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from pathlib import Path

    from ingest.pipeline.items import Item, ToEmbed, ToWrite
    from ingest.wiring import Parts

WALK_AHEAD = 200
"""chunks of files that a walk may be ahead, so that the number of files is soon known: 70 MB of names"""
READ_AHEAD = 4
"""finished items that wait; the bounds that matter are the windows of the reader"""


def ingest_paths(
    paths: Sequence[Path],
    *,
    parts: Parts,
    options: IngestOptions,
    progress: Progress | None = None,
    memory: Memory | None = None,
    changes: Changes | None = None,
) -> IngestSummary:
    """Make the pictures of `paths`, or `changes` below them, documents of the index; say what was done.

    A bad file or folder is reported in the summary and costs nothing else. With a captioner new pictures
    are written with captions; one that cannot be loaded costs the captions alone. With a `memory`, files that
    did not change are not read again, and paths whose files have changed or gone leave the index. Ctrl-C ends
    the run early with a summary. Only in a dry run may there be no index. Raises `IngestError` when
    Elasticsearch or the store fails on the way: what was written stays, and the same call goes on there.
    """
    begin, interrupted = time.monotonic(), False
    run = _Run(parts=parts, options=options, progress=progress or Progress(), memory=memory or Memory())
    with pixel_limit(options.max_pixels):
        try:
            run.all(paths, changes)
        except KeyboardInterrupt:
            interrupted = True
        except (EngineError, StorageError) as error:
            raise IngestError(
                f"Stopped after {run.tally.indexed} pictures were indexed. {error} Nothing is lost: once that"
                " is mended, the same command goes on from there."
            ) from error
    summary = run.tally.summary(time.monotonic() - begin, interrupted=interrupted, dry_run=options.dry_run)
    return replace(summary, pruned=run.pruned)


@dataclass(kw_only=True)
class _Run:
    parts: Parts
    options: IngestOptions
    progress: Progress
    memory: Memory
    pruned: PruneSummary = field(default_factory=PruneSummary, init=False)

    def __post_init__(self) -> None:
        self.tally = Tally(self.progress)
        self.captions = (
            CaptionNow(
                captioner=self.parts.captioner,
                caption_encoder=self.parts.caption_encoder,
                tally=self.tally,
            )
            if self.parts.captioner
            else None
        )

    def all(self, paths: Sequence[Path], changes: Changes | None) -> None:
        """Do the whole run; when it is interrupted, write what is embedded."""
        register_formats()
        options = self.options
        pool = ThreadPoolExecutor(options.threads, thread_name_prefix="decode")
        reader = self._reader(pool)

        def end() -> None:
            pool.shutdown(cancel_futures=True)
            self.memory.save(last=False)

        with afterwards(end):
            recogniser = Recogniser(
                known=self._listed,
                storage=self.parts.storage,
                options=options,
                memory=self.memory,
                pool=pool,
            )
            with (
                closing(ahead(self._found(paths, changes), size=WALK_AHEAD)) as chunks,
                closing(ahead(reader.items(recogniser.items(chunks)), size=READ_AHEAD)) as items,
            ):
                if self.options.dry_run:
                    self._count_only(self._settle(items, reader))
                else:
                    self._write(items, reader)
            self._tidy(paths, changes)

    def _found(
        self, paths: Sequence[Path], changes: Changes | None
    ) -> Generator[list[Candidate | Failure], None, None]:
        """Yield what there is to look at, in chunks, and tell the progress how much that is so far."""
        options, expected, files = self.options, 0, 0
        if changes is None:
            found = walk(paths, exclude=options.exclude, limit=options.limit, part=options.part)
            if options.part.of == 1 and options.limit is None:
                expected = self.memory.count(outermost(paths))
        else:
            found = iter(changes.files)
        self.tally.found(expected, so_far=True)
        while chunk := list(islice(found, TOGETHER)):
            files += sum(isinstance(each, Candidate) for each in chunk)
            self.tally.found(max(files, expected), so_far=True)
            yield chunk
        self.tally.found(files, so_far=False)

    def _known(self, image_ids: list[str]) -> dict[str, tuple[str, ...]]:
        return self.parts.index.known(image_ids) if self.parts.index else {}

    def _listed(self, image_ids: list[str]) -> dict[str, tuple[str, ...]]:
        return self.parts.index.listed(image_ids) if self.parts.index else {}

    def _reader(self, pool: ThreadPoolExecutor) -> Reader:
        return Reader(
            known=self._known,
            preprocess=lambda: self.parts.image_encoder.preprocess,
            storage=self.parts.storage,
            options=self.options,
            faults=self.tally.faults,
            pool=pool,
        )

    def _tidy(self, paths: Sequence[Path], changes: Changes | None) -> None:
        """When all files are seen: take out of the index what they are no longer, or no longer there."""
        self.memory.save(last=True)
        if self.memory.notes and self.parts.index:
            self.pruned = tidy(
                self.memory.notes,
                index=self.parts.index,
                storage=self.parts.storage,
                options=self.options,
                folders=paths,
                gone=None if changes is None else changes.gone,
            )

    def _settle(self, items: Iterator[Item], reader: Reader) -> Iterator[ToEmbed]:
        """Count the items that end here and yield the others."""
        for item in items:
            if isinstance(item, Unchanged):
                self.tally.add(skipped=1)
                if item.image_id is not None:
                    self.memory.good(item.candidate, item.image_id)
            elif isinstance(item, FailedBefore):
                self.tally.add(failed_before=1)
            elif isinstance(item, Failure):
                self.tally.add_folder_failure(item)
            elif isinstance(item, BadFile):
                self._drop(item, reader)
            else:
                yield item

    def _drop(self, bad: BadFile, reader: Reader) -> None:
        if bad.image_id is not None:  # the fault first: a copy must find one or the other
            self.tally.faults[bad.image_id] = bad.fault
            reader.in_flight.discard(bad.image_id)
        self.tally.add_failure(bad.candidate, bad.fault)
        self.memory.bad(bad.candidate, bad.fault)

    def _count_only(self, items: Iterator[ToEmbed]) -> None:
        for item in items:
            if isinstance(item, Prepared):
                self.tally.add(indexed=1)
            elif item.image_id in self.tally.faults:
                self.tally.add_failure(item.candidate, self.tally.faults[item.image_id])
            else:
                self.tally.add(skipped=1, paths_added=1)
                self.memory.came(item.image_id)

    def _write(self, items: Iterator[Item], reader: Reader) -> None:
        with self.parts.index.bulk_load() as load:
            writer = Writer(
                index=self.parts.index,
                storage=self.parts.storage,
                tally=self.tally,
                memory=self.memory,
                in_flight=reader.in_flight,
                wrote=load.wrote,
                batch_size=self.options.batch_size,
            )

            def finish() -> None:
                writer.finish()
                self.parts.index.refresh()

            with afterwards(finish):
                for batch in batches(self._settle(items, reader), size=self.options.batch_size):
                    writer.submit(self._embed(batch, reader))

    def _embed(self, batch: list[ToEmbed], reader: Reader) -> list[ToWrite]:
        ready = embed_batch(
            batch,
            image_encoder=self.parts.image_encoder,
            caption_encoder=self.parts.caption_encoder,
            drop=lambda bad: self._drop(bad, reader),
        )
        self.tally.add_embedded(sum(isinstance(item, Embedded) for item in ready))
        return self.captions.add(ready) if self.captions else ready
