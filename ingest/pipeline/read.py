"""The first half of a run: hash files, skip what is known, decode what is new."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ingest.errors import Fault, UnreadableImageError
from ingest.files.picture import FileContent, decode, keep_original, read_content, thumbnail
from ingest.files.walk import Candidate, Failure, stamp_of
from ingest.pipeline.embed import made_of
from ingest.pipeline.items import BadFile, FailedBefore, Item, LostThumbnail, NewPath, Prepared, Unchanged
from ingest.pipeline.parallel import ordered_map
from storage.errors import StorageError
from storage.keys import thumbnail_key

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
    from concurrent.futures import Executor

    import numpy as np
    from PIL.Image import Image

    from ingest.files.picture import ImageFile
    from ingest.history.ingested_files import Memory, Note
    from ingest.options import IngestOptions
    from storage.store import Storage

LOOKUP_FILES = 128
LOOKUP_BYTES = 32 << 20
"""files are looked up together until they are so many or so large"""


@dataclass(frozen=True)
class _File:
    candidate: Candidate
    content: FileContent
    known_paths: tuple[str, ...] | None = None
    """None for a new picture, or before the index is asked; of a known one only the thumbnail is made"""


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Turns what a walk found into items, in the same order, ahead of their use."""

    known: Callable[[list[str]], Mapping[str, tuple[str, ...]]]
    """maps image ids to the paths that the index has for them"""
    preprocess: Callable[[], Callable[[Image], np.ndarray]]
    """returns the function that turns an RGB picture into the encoder's input"""
    storage: Storage
    options: IngestOptions
    faults: Mapping[str, Fault]
    """image id -> why a content failed before"""
    pool: Executor
    in_flight: set[str] = field(default_factory=set, init=False)
    """ids of new pictures that are not written yet; whoever writes or drops one takes it out"""

    def items(self, found: Iterable[Recognised]) -> Generator[Item]:
        """Yield one item for each thing found; what was recognised already is passed on."""
        window = 4 * self.options.threads
        hashed = ordered_map(self.pool, _hash, found, window=window, needed=_is_candidate)
        window = max(self.options.batch_size, 2 * self.options.threads)
        sorted_out = self._sort(hashed)
        yield from ordered_map(self.pool, self._prepare, sorted_out, window=window, needed=_is_file)

    def _sort(self, hashed: Iterator[_File | Item]) -> Iterator[Item | _File]:
        for chunk in _chunks(hashed):
            ids = list(dict.fromkeys(each.content.image_id for each in chunk if _is_file(each)))
            # Taken before the index is asked: a picture that is written in between is then in the answer.
            flying = {image_id for image_id in ids if image_id in self.in_flight}
            paths = self.known(ids) if ids else {}
            for each in chunk:
                yield self._place(each, paths, flying) if _is_file(each) else each

    def _place(self, file: _File, paths: Mapping[str, tuple[str, ...]], flying: set[str]) -> Item | _File:
        candidate, image_id = file.candidate, file.content.image_id
        if image_id in self.faults:
            return BadFile(candidate, self.faults[image_id])
        if image_id in flying:
            return NewPath(candidate, image_id)
        if image_id not in paths:
            flying.add(image_id)
            self.in_flight.add(image_id)
            return file
        return replace(file, known_paths=paths[image_id])

    def _prepare(self, item: _File) -> Item:
        candidate, image_id = item.candidate, item.content.image_id
        if item.known_paths is not None and self._is_stored(item):
            return (
                Unchanged(candidate, image_id)
                if candidate.relative_path in item.known_paths
                else NewPath(candidate, image_id)
            )
        return self._decode(item)

    def _is_stored(self, item: _File) -> bool:
        """Whether the store has a known picture's thumbnail: asked in a thread, for a store may be far."""
        if self.options.dry_run:
            return True
        if not self.storage.exists(thumbnail_key(item.content.image_id)):
            return False
        with suppress(UnreadableImageError):  # the index has it: what became of the file is no matter now
            self._keep(item)
        return True

    def _keep(self, item: _File) -> None:
        keep_original(
            item.content,
            path=item.candidate.path,
            storage=self.storage,
            form=self.options.originals,
            max_pixels=self.options.max_pixels,
        )

    def _decode(self, item: _File) -> Item:
        try:
            file = decode(item.content, path=item.candidate.path, max_pixels=self.options.max_pixels)
            if self.options.no_gps:
                file = replace(file, exif=replace(file.exif, location=None))
            small = b"" if self.options.dry_run else thumbnail(file.image)
            if not self.options.dry_run:
                self._keep(item)
        except StorageError:
            raise
        except UnreadableImageError as error:
            return BadFile(item.candidate, error.fault, item.content.image_id)
        except Exception as error:  # one strange picture must not end the run
            return BadFile(item.candidate, Fault(str(error) or type(error).__name__), item.content.image_id)
        if item.known_paths is not None:
            new_path = item.candidate.relative_path not in item.known_paths
            return LostThumbnail(item.candidate, file.image_id, small, new_path)
        if self.options.dry_run:
            return Prepared(item.candidate, replace(file, image=None), None, small)
        return self._with_pixels(item.candidate, file, small)

    def _with_pixels(self, candidate: Candidate, file: ImageFile, small: bytes) -> Item:
        preprocess = self.preprocess()  # may load the model, which failing is no fault of the picture
        try:
            (pixels,) = made_of(file.image, preprocess)
        except UnreadableImageError as error:
            return BadFile(candidate, error.fault, file.image_id)
        return Prepared(candidate, replace(file, image=None), pixels, small)


def _is_candidate(found: Recognised) -> bool:
    return isinstance(found, Candidate)


def _is_file(item: Item | _File) -> bool:
    return isinstance(item, _File)


def _hash(found: Candidate) -> _File | BadFile:
    try:
        return _File(found, read_content(found.path))
    except UnreadableImageError as error:
        return BadFile(found, error.fault)


def _chunks(hashed: Iterator[_File | Item]) -> Iterator[list[_File | Item]]:
    chunk: list[_File | Item] = []
    size = 0
    for each in hashed:
        chunk.append(each)
        size += len(each.content.data) if isinstance(each, _File) else 0
        if len(chunk) >= LOOKUP_FILES or size >= LOOKUP_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


TOGETHER = 500
"""files that are looked up at once"""

Recognised = Candidate | Failure | FailedBefore | Unchanged


@dataclass(frozen=True, kw_only=True)
class Recogniser:
    """Passes on what a walk found: files with their stamps, and what is known of those that did not change.

    A note is believed only where the index has the picture under this path and the store its thumbnail.
    """

    known: Callable[[list[str]], Mapping[str, tuple[str, ...]]]
    """maps image ids to the paths that the index lists for them"""
    storage: Storage
    options: IngestOptions
    memory: Memory
    pool: Executor

    def items(self, chunks: Iterable[list[Candidate | Failure]]) -> Iterator[Recognised]:
        """Yield one item for each thing found, in the same order; each chunk is looked up at once."""
        for chunk in chunks:
            yield from self._told(self._in_slices(_stamped, chunk))

    def _told(self, chunk: list[Candidate | Failure]) -> Iterator[Recognised]:
        files = [each for each in chunk if isinstance(each, Candidate)]
        notes = zip(files, self.memory.look_up(files), strict=True)
        noted = {each: note for each, note in notes if note}
        paths = self.known(list({note.image_id for note in noted.values()})) if noted else {}
        same = {each for each, note in noted.items() if each.relative_path in paths.get(note.image_id, ())}
        stored = self._with_thumbnails([each for each in files if each in same], noted)
        for each in chunk:
            if isinstance(each, Failure):
                yield each
            elif each in stored:
                yield Unchanged(each)
            elif self.memory.failed_before(each):
                yield FailedBefore(each)
            else:
                yield each

    def _with_thumbnails(self, same: Sequence[Candidate], noted: Mapping[Candidate, Note]) -> set[Candidate]:
        if self.options.dry_run:
            return set(same)
        keys = [(each, thumbnail_key(noted[each].image_id)) for each in same]
        stored = self._in_slices(lambda pair: pair[0] if self.storage.exists(pair[1]) else None, keys)
        return {each for each in stored if each}

    def _in_slices(self, function: Callable, items: Sequence) -> list:
        """Call `function` for each item, in the pool: disks and stores may be far. Few tasks cost little."""
        size = max(1, -(-len(items) // self.options.threads))
        slices = [items[start : start + size] for start in range(0, len(items), size)]
        return [one for some in self.pool.map(lambda each: list(map(function, each)), slices) for one in some]


def _stamped(found: Candidate | Failure) -> Candidate | Failure:
    return found if isinstance(found, Failure) else replace(found, stamp=stamp_of(found.path))
