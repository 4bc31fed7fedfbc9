"""The pass that reads the text in pictures, the newest first, from their files where they still are."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from PIL.Image import Image

from es_config.documents import words_fault, words_fields
from es_config.errors import EngineError
from es_config.index import WaitingPicture, WordsUpdate
from ingest.errors import Fault, IngestError, UnreadableImageError
from ingest.files.film import decode_moment
from ingest.files.picture import THUMBNAIL_EDGE, FileContent, decode_large, pixel_limit
from ingest.history.ingested_files import IngestHistory, nowhere
from ingest.options import WordsOptions
from ingest.pipeline.embed import open_thumbnail
from ingest.pipeline.passes import Made, PicturePass
from ingest.pipeline.read import NewPicture, PictureState
from ingest.report import UNREAD, Progress, RunCounts, WordsSummary
from ingest.sources.places import FoundFile, NotedFiles
from ingest.wiring import Dependencies
from ingest.workers.driver import SharedWork
from ingest.workers.lease import PlaceNotes
from models.encoders import Lazy
from models.errors import ModelError, first_line
from models.pixels import MAX_PIXELS
from models.words import READ_EDGE, WordReader
from storage.keys import thumbnail_key
from storage.store import find_original

ONLY_A_THUMBNAIL = (
    "its file is not where it was ingested, and the store has only the thumbnail, too small for text:"
    " bring the file back and ingest it, or keep whole pictures with --originals webp"
)


def read_words(
    dependencies: Dependencies,
    *,
    options: WordsOptions,
    history: IngestHistory,
    progress: Progress | None = None,
    work: SharedWork | None = None,
) -> WordsSummary:
    """Read the text in the pictures of the index that nobody has read, or let workers do it.

    The file is read where the `history` saw it, else the whole picture that the store keeps. Only the text is
    written. A picture whose content fails is noted as failed and left alone by later passes; one whose file
    is away is tried again. Ctrl-C, or the loss of Elasticsearch or the store, ends the pass early with a
    summary: everything written stays, and the same call goes on from there. Raises `ModelError` if the
    reader cannot be loaded, `EngineError` if the index cannot get the fields.
    """
    dependencies.index.complete_mapping()
    run = WordsPass(dependencies, options, progress or Progress(), places=history.places)
    with pixel_limit(options.max_pixels):
        seconds, interrupted, error = run.run(work)
    return run.counts.words_summary(seconds, interrupted=interrupted, error=error)


class WordsPass(PicturePass[WordsUpdate]):
    """Reads the text in pictures of the index."""

    made = "text"

    def __init__(
        self,
        dependencies: Dependencies,
        options: WordsOptions,
        progress: Progress,
        *,
        places: Callable[[str], Sequence[bytes]] = nowhere,
    ) -> None:
        """Take a function that returns where a content was ingested, by its id."""
        self._words, self._places = dependencies.index.words(), places
        super().__init__(dependencies.index, options, progress, what=UNREAD, lacking=self._words)
        self._storage, self._reader = dependencies.storage, dependencies.word_reader
        self._every, self._again, self._max_pixels = options.every, options.again, options.max_pixels
        self._files = NotedFiles()

    def count(self) -> int:
        """Return how many pictures wait."""
        return self._words.count_missing(every=self._every, again=self._again)

    def waiting(self) -> Iterator[list[WaitingPicture]]:
        """Yield the pictures that wait, in lists."""
        return self._words.missing(every=self._every, again=self._again)

    def load(self) -> None:
        """Load the reader."""
        self._reader.get()

    def notes(self, pictures: Sequence[WaitingPicture]) -> PlaceNotes:
        """Return where the pictures were ingested."""
        return {each: tuple(self._places(each)) for each in {one.content_id for one in pictures}}

    def with_notes(self, notes: PlaceNotes) -> Self:
        """Return a pass that knows these places."""
        part = super().with_notes(notes)
        part._places = lambda content_id: notes.get(content_id, ())
        return part

    def read(self, waiting: WaitingPicture) -> Image | Fault:
        """Return a picture's pixels from its file, or from the store, or a fault."""
        try:
            for place in self._places(waiting.content_id):
                found = self._files.open(place, waiting.content_id)
                if found is not None:
                    return _large(found, time_ms=waiting.time_ms, max_pixels=self._max_pixels)
            return self._stored(waiting)
        except UnreadableImageError as error:
            return error.fault
        except IngestError as error:  # the notes cannot be read
            return Fault(str(error))

    def _stored(self, waiting: WaitingPicture) -> Image | Fault:
        """Return the whole picture from the store. A thumbnail is one only of a picture that small."""
        key = find_original(self._storage, waiting.image_id, names=waiting.relative_paths)
        if key is not None:
            content = FileContent(self._storage.get(key), waiting.image_id)
            return decode_large(content, None, edge=READ_EDGE, max_pixels=self._max_pixels)
        if 0 < max(waiting.size) <= THUMBNAIL_EDGE and self._storage.exists(thumbnail_key(waiting.image_id)):
            try:
                return open_thumbnail(self._storage.get(thumbnail_key(waiting.image_id)))
            except Exception as error:  # decoders raise whatever damaged bytes lead them to
                return Fault(f"its thumbnail is damaged ({type(error).__name__}: {error})")
        return Fault(ONLY_A_THUMBNAIL)

    def make(self, batch: Sequence[tuple[WaitingPicture, Image]]) -> list[Made[WordsUpdate]]:
        """Return the text in each picture, or a fault."""
        return [self._made(waiting, words_of(image, self._reader)) for waiting, image in batch]

    def _made(self, waiting: WaitingPicture, read: Mapping[str, Any] | Fault) -> Made[WordsUpdate]:
        if isinstance(read, Fault):
            return self.failed(waiting, read)
        if read["words"]:
            self.counts.add_text()
        return Made(waiting, _update(waiting, read))

    def failed(self, waiting: WaitingPicture, fault: Fault) -> Made[WordsUpdate]:
        """Note a fault that lies in the picture's content, so that no later pass meets it again."""
        is_noted = fault.lasting or fault.pixels is not None
        return Made(waiting, _update(waiting, words_fault(fault.reason[:500])) if is_noted else None, fault)

    def write(self, updates: Sequence[WordsUpdate]) -> Mapping[str, str]:
        """Write text and return the reason for each refusal, by image id."""
        return self._words.write(updates).failed

    def recount(self, waiting: WaitingPicture, fields: Mapping[str, Any]) -> bool:
        """Count a picture that a worker read, or noted as failed, before it died."""
        if reason := fields.get("words_fault"):
            self.counts.add_failure(waiting.relative_path, reason)
            return True
        if fields.get("words"):
            self.counts.add_text()
        self.counts.add(written=1)
        return True


def _large(file: FoundFile, *, time_ms: int, max_pixels: int) -> Image:
    """Decode a picture, or a film's at a time, with the detail of letters. Raises `UnreadableImageError`."""
    if file.content.film is not None:
        return decode_moment(file.content, file.path, time_ms=time_ms, edge=READ_EDGE)
    return decode_large(file.content, file.path, edge=READ_EDGE, max_pixels=max_pixels)


def _update(waiting: WaitingPicture, fields: Mapping[str, Any]) -> WordsUpdate:
    return WordsUpdate(waiting.image_id, fields, waiting.seq_no, waiting.primary_term)


def words_of(image: Image, reader: Lazy[WordReader]) -> Mapping[str, Any] | Fault:
    """Return a document's fields for the text in an upright RGB picture, or a fault. Raises `ModelError`."""
    loaded = reader.get()
    try:
        return words_fields(loaded.read(image), by=loaded.revision)
    except Exception as error:  # ONNX Runtime and OpenCV raise their own for a strange picture
        return Fault(f"the text in it cannot be read ({first_line(error)})", lasting=True)


@dataclass(frozen=True, kw_only=True)
class WordsNow:
    """Reads the text in new pictures before they are written. One that fails is written all the same."""

    reader: Lazy[WordReader]
    counts: RunCounts
    max_pixels: int = MAX_PIXELS
    files: NotedFiles = field(default_factory=NotedFiles)

    def add(self, batch: Sequence[PictureState]) -> list[PictureState]:
        """Return the batch with the text in every new picture, from its file as it lies there."""
        if not any(isinstance(each, NewPicture) for each in batch) or self.counts.words_error:
            return list(batch)
        try:
            self.reader.get()
        except (EngineError, IngestError, ModelError) as error:  # pictures are worth more than their text
            self.counts.words_error = str(error)
            return list(batch)
        return [self._with(each) if isinstance(each, NewPicture) else each for each in batch]

    def _with(self, picture: NewPicture) -> NewPicture:
        try:
            film, origin = picture.document.film, picture.candidate.origin
            place = origin.address if origin else str(picture.candidate.path)
            found = self.files.open(os.fsencode(place), film.id if film else picture.image_id)
            if found is None:  # a later pass finds the content elsewhere, or says that it is gone
                return picture
            image = _large(found, time_ms=film.time_ms if film else 0, max_pixels=self.max_pixels)
            read = words_of(image, self.reader)
        except UnreadableImageError as error:
            read = error.fault
        if isinstance(read, Fault):
            self.counts.add_words_failure(picture.candidate, read)
            if not read.lasting:
                return picture
            read = words_fault(read.reason[:500])
        else:
            self.counts.add_words(text=bool(read["words"]))
        return replace(picture, document=replace(picture.document, words=read))
