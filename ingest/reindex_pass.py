"""One pass over an index: what the next one lacks is embedded and written, what it has is left alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from es_config.copies import CAPTION_VECTOR, Copy
from es_config.documents import shown_path
from ingest.pipeline.embed import embed_by_key, made_of
from ingest.errors import Fault, UnreadableImageError
from ingest.names import valid_unicode
from ingest.pipeline.parallel import ahead, ordered_map, write_behind
from ingest.files.walk import Failure

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    import numpy as np

    from es_config.copies import Copies, Document
    from ingest.reindex_sources import WholePictures
    from ingest.options import IngestOptions, Progress
    from models.encoders import ImageEncoder, TextEncoder

READ_AHEAD = 4
IMAGE_VECTOR = "image_embedding"


@dataclass(frozen=True)
class _Task:
    """A document that the next index lacks, or has otherwise: `known` is then what it has."""

    document: Document
    known: dict | None
    pixels: np.ndarray | None = None
    is_copy: bool = False


@dataclass(kw_only=True)
class Passes:
    """Makes the next index like the one that answers, as often as it is called, and counts what was done."""

    copies: Copies
    image_encoder: ImageEncoder
    caption_encoder: TextEncoder
    pictures: WholePictures
    options: IngestOptions
    progress: Progress
    embedded: int = field(default=0, init=False)
    from_copies: int = field(default=0, init=False)
    updated: int = field(default=0, init=False)
    missing: dict[str, Failure] = field(default_factory=dict, init=False)
    """by image id, what could not be embedded or written"""

    def run(self, *, since: int) -> int:
        """Do what changed after a checkpoint and return how many documents were written.

        Raises `EngineError`, `StorageError`, `ModelError` or `IngestError`; the next pass goes on there.
        """
        before = self.embedded + self.updated
        pool = ThreadPoolExecutor(self.options.threads, thread_name_prefix="decode")
        window = max(self.options.batch_size, 2 * self.options.threads)
        try:
            read = ordered_map(pool, self._read, self._tasks(since), window=window)
            with closing(ahead(read, size=READ_AHEAD)) as tasks:
                write_behind(map(self._embed, self._batches(tasks)), self._write, name="reindex")
        finally:
            pool.shutdown(cancel_futures=True)
        return self.embedded + self.updated - before

    def _tasks(self, since: int) -> Iterator[_Task]:
        for page in self.copies.pages(since=since):
            known = self.copies.known([each.image_id for each in page])
            for document in page:
                if known.get(document.image_id) == document.source:
                    self.progress.advance()
                else:
                    yield _Task(document, known.get(document.image_id))

    def _read(self, task: _Task) -> _Task | tuple[_Task, Fault]:
        """Return the task with its encoder's input, where the picture is to be embedded, or why not."""
        if task.known is not None:
            return task
        preprocess = self.image_encoder.preprocess  # may load the model, which failing is no picture's fault
        try:
            file, is_copy = self.pictures.read(task.document.image_id, task.document.source)
            return _Task(task.document, None, *made_of(file.image, preprocess), is_copy)
        except UnreadableImageError as error:
            return task, error.fault

    def _batches(self, tasks: Iterator[_Task | tuple[_Task, Fault]]) -> Generator[list[_Task]]:
        batch: list[_Task] = []
        for task in tasks:
            if isinstance(task, tuple):
                self._fail(task[0].document, task[1].reason)
                continue
            batch.append(task)
            if len(batch) == self.options.batch_size:
                yield batch
                batch = []
        if batch:
            yield batch

    def _embed(self, batch: Sequence[_Task]) -> list[tuple[_Task, Copy]]:
        import numpy as np

        def embed_pixels(pixels: list) -> np.ndarray:
            return self.image_encoder.embed_pixels(np.stack(pixels))

        pixels = {i: task.pixels for i, task in enumerate(batch) if task.known is None}
        images = embed_by_key(embed_pixels, pixels) if pixels else {}
        captions = self._captions(batch)
        done = []
        for i, task in enumerate(batch):
            named = {IMAGE_VECTOR: images.get(i), CAPTION_VECTOR: captions.get(i)}
            vectors = {field: each for field, each in named.items() if each is not None}
            fault = next((each for each in vectors.values() if isinstance(each, Fault)), None)
            if fault:
                self._fail(task.document, fault.reason)
            else:
                done.append((task, Copy(task.document, task.known, vectors)))
        return done

    def _captions(self, batch: Sequence[_Task]) -> dict[int, np.ndarray | Fault]:
        """Return by position the vectors of captions that are new: those that exist where they fit."""
        news = {i: task.document for i, task in enumerate(batch) if _has_new_caption(task)}
        ready = {i: each.caption_embedding for i, each in news.items() if self._fits(each)}
        texts = {i: each.source["caption"] for i, each in news.items() if i not in ready}
        return ready | (embed_by_key(self.caption_encoder.embed_texts, texts) if texts else {})

    def _fits(self, document: Document) -> bool:
        return document.caption_embedding is not None and self._same_caption_model

    @cached_property
    def _same_caption_model(self) -> bool:
        """Whether vectors of captions may be copied; asking loads the model, which notes itself."""
        noted = self.copies.old.meta().revisions.get("caption_text")
        return self.caption_encoder.revision == noted

    def _write(self, copies: Sequence[tuple[_Task, Copy]]) -> None:
        refused = self.copies.write([copy for _, copy in copies])
        for task, copy in copies:
            image_id = copy.document.image_id
            if reason := refused.get(image_id):
                self._fail(copy.document, f"the index refused it: {reason}")
                continue
            self.missing.pop(image_id, None)
            self.embedded += task.known is None
            self.updated += task.known is not None
            self.from_copies += task.is_copy
            self.progress.advance()

    def _fail(self, document: Document, reason: str) -> None:
        path = shown_path(document.source, document.image_id)
        failure = Failure(valid_unicode(path), reason)
        self.missing[document.image_id] = failure
        self.progress.failed(failure)
        self.progress.advance()


def _has_new_caption(task: _Task) -> bool:
    caption = task.document.source.get("caption")
    return bool(caption) and (task.known is None or task.known.get("caption") != caption)
