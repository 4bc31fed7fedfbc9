"""Reindex: fill an index for other models beside the one that answers, then switch at once."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from es_config.aliases import CAPTION_VECTOR, CopiedDocument
from es_config.documents import paths_of, shown_path
from es_config.errors import EngineError
from ingest.errors import Fault, IngestError, UnreadableImageError
from ingest.files.picture import FileContent, ImageFile, decode, pixel_limit, read_content
from ingest.files.walk import Failure, valid_unicode
from ingest.pipeline.embed import embed_by_key, transform
from ingest.pipeline.parallel import READ_AHEAD, ahead, ordered_map, write_behind
from models.pixels import register_formats
from storage.errors import StorageError
from storage.store import find_original

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence

    import numpy as np

    from es_config.aliases import Alias, Document, ReindexReader, ReindexWriter, Switched
    from ingest.history.ingested_files import IngestHistory
    from ingest.options import IngestOptions
    from ingest.report import Progress
    from models.encoders import ImageEncoder, Lazy, TextEncoder
    from storage.store import Storage


class SameModelsError(IngestError):
    """The index holds the vectors of these models already."""


@dataclass(frozen=True)
class Filled:
    """The outcome for the next index."""

    index: str
    """its name"""
    images: int
    """pictures that it holds"""
    embedded: int
    """pictures that this run embedded"""
    from_copies: int
    """those of them that were read from WebP copies in the store, their originals being away"""
    updated: int
    """pictures of which something else had changed than the picture"""
    deleted: int
    """pictures that left the former index meanwhile"""
    missing: tuple[Failure, ...]
    """pictures that are in the former index only, each with the reason"""
    seconds: float
    interrupted: bool = False


@dataclass(frozen=True)
class Outcome:
    """The result of one run of `glimpse reindex`."""

    filled: Filled
    switched: Switched | None = None

    def as_dict(self) -> dict[str, object]:
        """Return the JSON object of `glimpse reindex --json`."""
        return {
            **asdict(self.filled),
            "switched": self.switched and asdict(self.switched),
        }


NO_LIMIT = 1 << 40
"""pixels; what is in the index was let in before, and is recognised by its content"""


@dataclass(frozen=True, kw_only=True)
class WholePictures:
    """Reads pictures by image id: from where they were ingested, from given folders, from the store.

    Thread-safe. Every method raises `StorageError` when the store cannot be asked.
    """

    history: IngestHistory | None
    folders: Sequence[Path]
    storage: Storage

    def read(self, image_id: str, source: Mapping[str, Any]) -> tuple[ImageFile, bool]:
        """Return the decoded picture of a document, and whether a copy of it was read.

        Raises `UnreadableImageError` when the picture is nowhere, or cannot be used.
        """
        paths = paths_of(source)
        content, path = self._file(image_id, paths) or self._kept(image_id, paths)
        file = decode(content, path=path, max_pixels=NO_LIMIT)
        return file, content.image_id != image_id

    def _file(self, image_id: str, paths: Sequence[str]) -> tuple[FileContent, Path] | None:
        for path in self._places(image_id, paths):
            try:
                content = read_content(path)
            except (UnreadableImageError, ValueError):  # a path with a null byte is none
                continue
            if content.image_id == image_id:
                return content, path
        return None

    def _places(self, image_id: str, paths: Sequence[str]) -> Iterator[Path]:
        if self.history:
            yield from (Path(os.fsdecode(note.path)) for note in self.history.of_image(image_id))
        for folder in self.folders:
            yield from (folder / path for path in paths)

    def _kept(self, image_id: str, paths: Sequence[str]) -> tuple[FileContent, Path]:
        key = find_original(self.storage, image_id, names=paths)
        if key is None:
            raise UnreadableImageError("its file is not where it was, and the store keeps no original")
        data = self.storage.get(key)
        content = FileContent(data, sha256(data).hexdigest())
        if content.image_id != image_id and not key.endswith(".webp"):
            raise UnreadableImageError("its file is not where it was, and the store's original is damaged")
        return content, Path(key)


FEW = 100
"""changes in one pass after which the rest waits for the switch, when nobody may write"""
EVERYTHING = -1


@dataclass(kw_only=True)
class Reindexing:
    """Fills the next index and switches to it. Whatever stops it, a new one goes on from there."""

    alias: Alias
    passes: Passes
    history: IngestHistory | None
    _begin: float = field(default_factory=time.monotonic, init=False)
    _since: int = field(default=EVERYTHING, init=False)
    _deleted: int = field(default=0, init=False)

    def fill(self) -> Filled:
        """Bring the next index as near to the one that answers as it can be while that one changes.

        Ctrl-C ends it early. Raises `ModelError`, or `IngestError` when Elasticsearch or the store fails.
        """
        register_formats()
        self.passes.progress.start(self.passes.reader.index.count())
        try:
            with pixel_limit(NO_LIMIT):
                while self._catch_up() > FEW:
                    continue
                self._deleted += self.passes.writer.drop_absent(self.passes.reader.index)
        except KeyboardInterrupt:
            return self._filled(interrupted=True)
        except (EngineError, StorageError) as error:
            done = self.passes.embedded
            raise IngestError(
                f"Stopped after {done} pictures were embedded. {error} Searches go on in the former index,"
                " and nothing is lost: once that is mended, the same command goes on from there."
            ) from error
        return self._filled()

    def switch(self, *, allow_missing: bool) -> tuple[Filled, Switched | None]:
        """Take in the last changes while nobody may write, then put the next index behind the alias.

        Without `allow_missing` nothing is switched while a picture is missing. Raises `EngineError`,
        `StorageError`, `ModelError` or `IngestError`; the former index then takes writes again.
        """
        with pixel_limit(NO_LIMIT), self.alias.closed():
            self._catch_up()
            self._deleted += self.passes.writer.drop_absent(self.passes.reader.index)
            self._forget_gone()
            filled = self._filled()
            if filled.missing and not allow_missing:
                return filled, None
            if self.history:
                self.history.copy(old=self.passes.reader.index.uuid(), new=self.passes.writer.index.uuid())
            return filled, self.alias.switch()

    def _catch_up(self) -> int:
        done = self.passes.reader.checkpoint()
        changed = self.passes.run(since=self._since)
        self._since = done
        return changed

    def _forget_gone(self) -> None:
        """Pictures that left meanwhile are not missing."""
        missing = self.passes.missing
        for image_id in missing.keys() - self.passes.reader.index.listed(list(missing)).keys():
            del missing[image_id]

    def _filled(self, *, interrupted: bool = False) -> Filled:
        self.passes.writer.index.refresh()
        return Filled(
            index=self.passes.writer.index.name(),
            images=self.passes.writer.index.count(),
            embedded=self.passes.embedded,
            from_copies=self.passes.from_copies,
            updated=self.passes.updated,
            deleted=self._deleted,
            missing=tuple(self.passes.missing.values()),
            seconds=round(time.monotonic() - self._begin, 3),
            interrupted=interrupted,
        )


IMAGE_VECTOR = "image_embedding"


@dataclass(frozen=True)
class _Task:
    """A document that the next index lacks, or has in another form, which is `known`."""

    document: Document
    known: dict[str, Any] | None
    pixels: np.ndarray | None = None
    is_copy: bool = False


@dataclass(kw_only=True)
class Passes:
    """Makes the next index like the one that answers, as often as it is called, and counts its writes."""

    reader: ReindexReader
    writer: ReindexWriter
    image_encoder: Lazy[ImageEncoder]
    caption_encoder: Lazy[TextEncoder]
    pictures: WholePictures
    options: IngestOptions
    progress: Progress
    embedded: int = field(default=0, init=False)
    from_copies: int = field(default=0, init=False)
    updated: int = field(default=0, init=False)
    missing: dict[str, Failure] = field(default_factory=dict, init=False)
    """by image id, what could not be embedded or written"""

    def run(self, *, since: int) -> int:
        """Copy the changes after a checkpoint and return how many documents were written.

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
        for page in self.reader.pages(since=since):
            known = self.writer.known([each.image_id for each in page])
            for document in page:
                if known.get(document.image_id) == document.source:
                    self.progress.advance()
                else:
                    yield _Task(document, known.get(document.image_id))

    def _read(self, task: _Task) -> _Task | tuple[_Task, Fault]:
        """Return the task with its encoder's input, where the picture is to be embedded, or why not."""
        if task.known is not None:
            return task
        preprocess = self.image_encoder.get().preprocess  # a model that cannot be loaded ends the run
        try:
            file, is_copy = self.pictures.read(task.document.image_id, task.document.source)
            pixels = transform(file.image, preprocess)
            return _Task(task.document, None, pixels, is_copy)
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

    def _embed(self, batch: Sequence[_Task]) -> list[tuple[_Task, CopiedDocument]]:
        import numpy as np

        def embed_pixels(pixels: list[np.ndarray]) -> np.ndarray:
            return self.image_encoder.get().embed_pixels(np.stack(pixels))

        pixels = {i: task.pixels for i, task in enumerate(batch) if task.known is None}
        images = embed_by_key(embed_pixels, pixels) if pixels else {}
        captions = self._captions(batch)
        done = []
        for i, task in enumerate(batch):
            named = {IMAGE_VECTOR: images.get(i), CAPTION_VECTOR: captions.get(i)}
            fault = next((each for each in named.values() if isinstance(each, Fault)), None)
            if fault:
                self._fail(task.document, fault.reason)
            else:
                vectors = {
                    field: each
                    for field, each in named.items()
                    if each is not None and not isinstance(each, Fault)
                }
                done.append((task, CopiedDocument(task.document, task.known, vectors)))
        return done

    def _captions(self, batch: Sequence[_Task]) -> dict[int, np.ndarray | Fault]:
        """Return by position the vectors of captions that are new: those that exist where they fit."""
        news = {i: task.document for i, task in enumerate(batch) if _has_new_caption(task)}
        ready = {i: each.caption_embedding for i, each in news.items() if self._fits(each)}
        texts = {i: each.source["caption"] for i, each in news.items() if i not in ready}
        return ready | (embed_by_key(self.caption_encoder.get().embed_texts, texts) if texts else {})

    def _fits(self, document: Document) -> bool:
        return document.caption_embedding is not None and self._same_caption_model

    @cached_property
    def _same_caption_model(self) -> bool:
        """Whether vectors of captions may be copied. Asking loads the model, which notes itself."""
        noted = self.reader.index.meta().revisions.get("caption_text")
        return self.caption_encoder.get().revision == noted

    def _write(self, copies: Sequence[tuple[_Task, CopiedDocument]]) -> None:
        refused = self.writer.write([copy for _, copy in copies])
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
