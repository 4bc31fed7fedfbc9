"""The first half of a run: skip files that have not changed, hash the others, decode new pictures.

Each file of a walk becomes one of four states: `Skipped`, `BadFile`, `KnownPicture` or `NewPicture`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, tzinfo
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from PIL.Image import Image

from es_config.documents import FilmMoment, ImageDocument
from es_config.hidden import HiddenPictures
from es_config.index import ImageIndex
from ingest.errors import Fault, UnreadableImageError
from ingest.files.film import FilmFile, decode_film
from ingest.files.metadata import date_in_name
from ingest.files.picture import (
    FileContent,
    ImageFile,
    decode,
    keep_original,
    sidecar_file,
    thumbnail,
)
from ingest.files.sidecars import Sidecar, with_sidecars
from ingest.files.walk import (
    UNSETTLED,
    Candidate,
    Failure,
    is_address,
    is_film_name,
    valid_unicode,
    with_stamps,
)
from ingest.history.ingested_files import IngestHistory
from ingest.metrics import RunMeter
from ingest.options import MOMENTS, OFF, IngestOptions
from ingest.pipeline.parallel import ordered_map
from ingest.sources.places import noted_sidecar
from ingest.sources.source import FETCHERS, FETCHES_AHEAD, local_film, read_candidate
from models.encoders import ImageEncoder, Lazy
from storage.errors import StorageError
from storage.keys import thumbnail_key
from storage.store import Storage

In = TypeVar("In")
Out = TypeVar("Out")
Made = TypeVar("Made")
LOOKUP_FILES, LOOKUP_BYTES = 128, 32 << 20
"""one request looks up this many files, or fewer that have this many bytes together"""
EMPTY = np.empty(0, np.float32)


@dataclass(frozen=True)
class Skipped:
    """A file that is not read, because it has not changed since it was indexed or since it failed."""

    candidate: Candidate
    failed_before: bool = False


@dataclass(frozen=True)
class BadFile:
    """A file that cannot be used."""

    candidate: Candidate
    fault: Fault
    image_id: str | None = None
    """None if the file could not be read, or another file with this content failed before it"""
    is_moment: bool = False
    """whether only a moment of a film is lost"""


@dataclass(frozen=True)
class KnownPicture:
    """A file whose content the index has, or will have when the new picture before it is written."""

    candidate: Candidate
    image_id: str
    new_path: bool
    """whether the index lacks the path of this file"""
    thumbnail: bytes = b""
    """WebP, if the store had lost it"""
    moments: tuple[int, ...] | None = None
    """times of a film's moments, if they were looked for only now; their pictures come before this"""
    facts: ImageDocument | None = None
    """what the picture and its sidecars say now, without a vector, if there is news of a sidecar"""


@dataclass(frozen=True)
class NewPicture:
    """A picture that the index lacks."""

    candidate: Candidate
    document: ImageDocument
    """its vectors are empty until it is embedded"""
    thumbnail: bytes
    pixels: np.ndarray = field(default_factory=lambda: EMPTY)
    """the encoder's input, as its `preprocess` returns it; empty in a dry run and after embedding"""

    @property
    def image_id(self) -> str:
        """Return the SHA-256 of the file's content."""
        return self.document.image_id

    @property
    def is_moment(self) -> bool:
        """Whether it is a moment of a film: the film's first picture stands for the file."""
        return self.document.film is not None and self.document.film.is_moment


@dataclass(frozen=True)
class _FilmRead:
    """A film that was decoded: its moments come first, so that a film in the index has them all."""

    last: KnownPicture | NewPicture
    film: FilmFile
    paths: tuple[str, ...]


@dataclass(frozen=True)
class OpenCopy:
    """A file with sidecars whose content is known elsewhere: the history of the run has to be asked."""

    candidate: Candidate
    image_id: str


PictureState = KnownPicture | NewPicture
FileState = Skipped | BadFile | OpenCopy | PictureState


@dataclass(frozen=True)
class _HashedFile:
    candidate: Candidate
    content: FileContent
    known_paths: tuple[str, ...] | None = None
    """paths in the index; None for a new picture, and before the index is asked"""


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Turns the files of a walk into states, in the same order, ahead of their use."""

    index: ImageIndex
    image_encoder: Lazy[ImageEncoder]
    storage: Storage
    options: IngestOptions
    history: IngestHistory
    faults: Mapping[str, Fault]
    """image id -> why a file with this content failed in this run"""
    pool: Executor
    failed: Callable[[Failure], None] = lambda _: None
    """receives each sidecar that cannot be read; called from several threads"""
    meter: RunMeter = field(default_factory=RunMeter)
    fetch_pool: Executor | None = None
    """threads that read the content where sources are far away, so that they wait for each other's answers"""
    in_flight: set[str] = field(default_factory=set, init=False)
    """ids of new pictures that are neither written nor dropped yet"""
    beside: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict, init=False)
    """image id -> paths that this run saw with sidecars, or with news of some, with the names of these"""
    unread: set[str] = field(default_factory=set, init=False)
    """sidecars that could not be read"""

    def states(self, chunks: Iterable[list[Candidate]]) -> Generator[FileState]:
        """Yield one state for each file. Each chunk is compared with the history at once."""
        yield from self.states_of(chain.from_iterable(map(self.compare, chunks)))

    def states_of(self, found: Iterable[Candidate | FileState]) -> Generator[FileState]:
        """Yield one state for each file that was compared with the history."""
        threads = self.options.threads
        fetchers = self.fetch_pool or self.pool
        window = FETCHES_AHEAD if self.fetch_pool else 4 * threads
        hashed = ordered_map(fetchers, self._hash, found, window=window, kind=Candidate)
        window = max(self.options.batch_size, 2 * threads)
        prepared: Generator[FileState | _HashedFile | _FilmRead] = ordered_map(
            self.pool, self._timed_prepare, self._look_up(hashed), window=window, kind=_HashedFile
        )
        for each in prepared:
            if isinstance(each, _FilmRead):
                yield from self._pictures_of(each)
            else:
                yield cast("FileState", each)

    def compare(self, chunk: Sequence[Candidate]) -> list[Candidate | Skipped]:
        """Return files with their stamps, and `Skipped` for those that are as an earlier run left them.

        The history is believed only if the index has the picture under this path, among those to find or
        those that were put away, and the store its thumbnail.
        """
        self.history.see(chunk)
        files = self._in_pool(self._stamped, chunk)
        stamps = zip(files, self.history.sidecar_stamps(files), strict=True)
        files = [replace(each, has_news=True) if _has_news(each, noted) else each for each, noted in stamps]
        notes = zip(files, self.history.look_up(files), strict=True)
        noted = {each: note.image_id for each, note in notes if note and not each.has_news}
        ids = set(noted.values())
        paths = self.index.listed(list(ids)) if noted else {}
        paths |= HiddenPictures(self.index).listed(sorted(ids - paths.keys()))
        same = [each for each, image_id in noted.items() if each.relative_path in paths.get(image_id, ())]
        if not self.options.dry_run:
            stored = self._in_pool(lambda each: self.storage.exists(thumbnail_key(noted[each])), same)
            same = [each for each, is_stored in zip(same, stored, strict=True) if is_stored]
        unchanged = set(same) - self._without_moments(same, noted)
        return [
            Skipped(each)
            if each in unchanged
            else Skipped(each, failed_before=True)
            if self.history.failed_before(each)
            else each
            for each in files
        ]

    def _without_moments(self, files: Sequence[Candidate], noted: Mapping[Candidate, str]) -> set[Candidate]:
        """Return those of the known films whose moments this run wants and nobody has looked for."""
        if self.options.films != MOMENTS:
            return set()
        films = [each for each in files if is_film_name(each.path.name)]
        known = self.index.films([noted[each] for each in films]) if films else {}
        return {each for each in films if _lacks_moments(known.get(noted[each]))}

    def _stamped(self, candidate: Candidate) -> Candidate:
        if candidate.origin is None:
            return with_stamps(candidate)
        # Asking costs as much as reading: it is worth it for objects that may be known.
        if candidate.stamp is None and self.history.knows(candidate):
            return replace(candidate, stamp=candidate.origin.stamp())
        return candidate

    def _in_pool(self, function: Callable[[In], Out], items: Sequence[In]) -> list[Out]:
        """Call `function` for each item in a few large tasks: disks and stores may be slow to answer."""
        pool, workers = (self.fetch_pool, FETCHERS) if self.fetch_pool else (self.pool, self.options.threads)
        size = max(1, -(-len(items) // workers))
        slices = [items[start : start + size] for start in range(0, len(items), size)]
        return [one for some in pool.map(lambda each: list(map(function, each)), slices) for one in some]

    def _hash(self, found: Candidate) -> _HashedFile | FileState:
        try:
            with self.meter.timed("read"):
                read = read_candidate(found)
        except UnreadableImageError as error:
            return BadFile(found, error.fault)
        self.meter.add({"bytes": read.content.size})
        return _HashedFile(read.candidate, read.content)

    def _look_up(self, hashed: Iterable[_HashedFile | FileState]) -> Iterator[_HashedFile | FileState]:
        """Ask the index for the hashed files of many at once."""
        for chunk in _chunks(hashed):
            files = [each for each in chunk if isinstance(each, _HashedFile)]
            ids = list(dict.fromkeys(each.content.image_id for each in files))
            # Taken before the index is asked: a picture that is written in between is then in the answer.
            flying = self.in_flight.intersection(ids)
            paths = self.index.known(ids) if ids else {}
            new = [image_id for image_id in ids if image_id not in paths and image_id not in flying]
            paths |= HiddenPictures(self.index).known(new)  # what was put away stays away
            for each in chunk:
                yield self._place(each, paths, flying) if isinstance(each, _HashedFile) else each

    def _place(
        self, file: _HashedFile, paths: Mapping[str, tuple[str, ...]], flying: set[str]
    ) -> _HashedFile | FileState:
        image_id = file.content.image_id
        if file.candidate.has_sidecars:
            # Noted in the order of the walk, so that the last of several copies knows those of all.
            self.beside.setdefault(image_id, {})[file.candidate.place] = file.candidate.sidecars
        if image_id in self.faults:
            return BadFile(file.candidate, self.faults[image_id])
        if image_id in flying and not file.candidate.has_news:
            return KnownPicture(file.candidate, image_id, new_path=True)
        if image_id in paths or image_id in flying:
            if file.candidate.has_sidecars and self.history.lacks_sidecars_of(image_id):
                return OpenCopy(file.candidate, image_id)
            return replace(file, known_paths=paths.get(image_id, ()))
        flying.add(image_id)
        self.in_flight.add(image_id)
        return file

    def _timed_prepare(self, file: _HashedFile) -> FileState | _FilmRead:
        with self.meter.timed("decode"):
            return self._prepare(file)

    def _prepare(self, file: _HashedFile) -> FileState | _FilmRead:
        candidate, image_id, options = file.candidate, file.content.image_id, self.options
        known = (
            KnownPicture(candidate, image_id, new_path=candidate.relative_path not in file.known_paths)
            if file.known_paths is not None
            else None
        )
        is_stored = known is not None and not options.dry_run and self._is_stored(file)
        moments = file.content.film is not None and options.films == MOMENTS and not options.dry_run
        if moments and is_stored:  # they may be there already
            moments = _lacks_moments(self.index.films([image_id]).get(image_id))
        if known and (options.dry_run or (is_stored and not candidate.has_news and not moments)):
            return known
        if file.content.film is not None:
            return self._prepare_film(file, known, moments=moments)
        try:
            picture = decode(file.content, path=candidate.path, max_pixels=options.max_pixels)
            small = b"" if options.dry_run else thumbnail(picture.image)
            if not (options.dry_run or is_stored):
                self._keep_original(file)
        except StorageError:
            raise
        except UnreadableImageError as error:
            return BadFile(candidate, error.fault, image_id)
        except Exception as error:  # one strange picture must not end the run
            return BadFile(candidate, Fault(str(error) or type(error).__name__), image_id)
        candidate, picture = self._with_sidecars(candidate, picture)
        if known is None:
            return self._new_picture(candidate, picture, small)
        return replace(
            known,
            candidate=candidate,
            thumbnail=b"" if is_stored else small,
            facts=self._document(candidate, picture) if candidate.has_news else None,
        )

    def _with_sidecars(self, candidate: Candidate, picture: ImageFile) -> tuple[Candidate, ImageFile]:
        """Return a picture with the facts of all its files' sidecars, those of the first path first.

        A sidecar that could not be read, but may be later, leaves the candidate without a settled stamp.
        """
        if not candidate.has_sidecars:
            return candidate, picture
        noted = self.history.sidecars_of(picture.image_id)
        seen = dict(self.beside.get(picture.image_id, {}))
        files = sorted((noted | seen | {candidate.place: candidate.sidecars}).items())
        sidecars = [_sidecar(candidate, place, name) for place, names in files for name in names]
        exif, words, faults = with_sidecars(picture.exif, picture.words, sidecars, name=candidate.path.name)
        for place, fault in faults:
            if place not in self.unread:  # two pictures may share it
                self.unread.add(place)
                reason = f"{fault}; the picture beside it is indexed without it"
                self.failed(Failure(valid_unicode(place), reason))
        if not all(fault.lasting for _, fault in faults):
            candidate = replace(candidate, sidecars_stamp=UNSETTLED)
        return candidate, replace(picture, exif=exif, words=words)

    def _prepare_film(
        self, file: _HashedFile, known: KnownPicture | None, *, moments: bool
    ) -> FileState | _FilmRead:
        """Decode a film. The document of the file comes last, after its moments."""
        candidate, options = file.candidate, self.options
        if options.films == OFF:
            return BadFile(candidate, Fault("a film, which --films off leaves out"), None)
        try:
            lies = local_film(candidate, file.content)
            film = decode_film(lies.content, lies.path, name=candidate.path.name, moments=moments)
            picture, of_film = film.first()
            small = b"" if options.dry_run else thumbnail(picture.image)
        except StorageError:
            raise
        except UnreadableImageError as error:
            return BadFile(candidate, error.fault, file.content.image_id)
        except Exception as error:  # one strange film must not end the run
            return BadFile(candidate, Fault(str(error) or type(error).__name__), file.content.image_id)
        candidate, picture = self._with_sidecars(candidate, picture)
        film = replace(film, exif=picture.exif, words=picture.words)  # which its moments have, too
        times = film.times if moments else None
        if known:
            facts = self._document(candidate, picture) if candidate.has_news else None
            known = replace(known, candidate=candidate, facts=facts)
            paths = dict.fromkeys((*(file.known_paths or ()), candidate.relative_path))
            return _FilmRead(replace(known, thumbnail=small, moments=times), film, tuple(paths))
        last = self._new_picture(candidate, picture, small, film=replace(of_film, moments=times))
        return last if isinstance(last, BadFile) else _FilmRead(last, film, (candidate.relative_path,))

    def _pictures_of(self, read: _FilmRead) -> Iterator[FileState]:
        """Yield the moments of a film as new pictures, one unpacked after the other, then the film itself."""
        for picture, of_film in read.film.moments():
            moment = self._new_picture(read.last.candidate, picture, thumbnail(picture.image), film=of_film)
            if isinstance(moment, NewPicture):
                document = replace(moment.document, relative_path=read.paths)
                yield replace(moment, document=document)
        yield read.last

    def _is_stored(self, file: _HashedFile) -> bool:
        """Return whether the store has a known picture's thumbnail."""
        if not self.storage.exists(thumbnail_key(file.content.image_id)):
            return False
        if file.content.film is not None:  # films stay where they lie
            return True
        with suppress(UnreadableImageError):  # the index has the picture, whatever became of this file
            self._keep_original(file)
        return True

    def _keep_original(self, file: _HashedFile) -> None:
        keep_original(
            file.content,
            path=file.candidate.path,
            storage=self.storage,
            form=self.options.originals,
            max_pixels=self.options.max_pixels,
        )

    def _document(self, candidate: Candidate, picture: ImageFile) -> ImageDocument:
        document = new_document(picture, candidate.relative_path, zone=self.options.timezone)
        if candidate.origin and (said := candidate.origin.caption()):
            document = replace(document, caption=said, caption_source="description")
        return replace(document, exif_location=None, places=()) if self.options.no_gps else document

    def _new_picture(
        self, candidate: Candidate, picture: ImageFile, small: bytes, *, film: FilmMoment | None = None
    ) -> NewPicture | BadFile:
        document = self._document(candidate, picture)
        document = replace(document, film=film) if film else document
        if self.options.dry_run:
            return NewPicture(candidate, document, small)
        preprocess = self.image_encoder.get().preprocess  # a model that cannot be loaded ends the run
        try:
            return NewPicture(candidate, document, small, transform(picture.image, preprocess))
        except UnreadableImageError as error:
            return BadFile(candidate, error.fault, document.image_id)


def _has_news(candidate: Candidate, noted: str) -> bool:
    return candidate.sidecars_stamp != noted or candidate.sidecars_stamp == UNSETTLED


def _lacks_moments(film: Mapping[str, Any] | None) -> bool:
    """Return whether nobody has looked for the moments of a film. One that was put away is left alone."""
    return film is not None and film.get("moments") is None


def _sidecar(candidate: Candidate, place: str, name: str) -> Sidecar:
    """Return a sidecar of a file with this picture, at the candidate's own place or at another one."""
    folder = place.rpartition("/")[0]
    path, origin = f"{folder}/{name}", candidate.origin
    if origin and place == origin.address:
        return Sidecar(path, lambda most: origin.beside(name, most))
    return noted_sidecar(path) if is_address(path) else sidecar_file(Path(path))


def _chunks(hashed: Iterable[_HashedFile | FileState]) -> Iterator[list[_HashedFile | FileState]]:
    chunk: list[_HashedFile | FileState] = []
    size = 0
    for each in hashed:
        chunk.append(each)
        size += len(each.content.data) if isinstance(each, _HashedFile) else 0
        if len(chunk) >= LOOKUP_FILES or size >= LOOKUP_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def transform(image: Image, function: Callable[[Image], Made]) -> Made:
    """Return `function(image)`, such as the encoder's `preprocess`. Raises `UnreadableImageError`."""
    try:
        return function(image)
    except Exception as error:  # whatever a library raises for a strange picture
        reason = f"the model cannot take it ({type(error).__name__}: {error})"
        raise UnreadableImageError(reason) from error


def new_document(file: ImageFile, relative_path: str, *, zone: tzinfo | None = None) -> ImageDocument:
    """Return the document of a picture, without its vectors. `zone` is that of cameras that say none."""
    name = relative_path.rsplit("/", 1)[-1]
    taken, words = file.exif.taken or date_in_name(name), file.words
    if taken and zone:
        taken = taken.in_zone(zone)
    return ImageDocument(
        image_id=file.image_id,
        image_name=name,
        relative_path=(relative_path,),
        image_embedding=EMPTY,
        width=file.width,
        height=file.height,
        size_bytes=file.size_bytes,
        indexed_at=datetime.now(UTC),
        phash=file.phash,
        caption=file.exif.description,
        caption_source="description" if file.exif.description else None,
        exif_date=taken.instant if taken else None,
        exif_local_date=taken.local if taken else None,
        exif_offset=taken.offset_text if taken else None,
        exif_date_source=taken.source if taken else None,
        exif_location=file.exif.location,
        exif_camera=file.exif.camera,
        tags=words.tags,
        title=words.title,
        people=words.people,
        places=words.places,
        rating=words.rating,
        cut_short=file.cut_short,
    )
