"""Fill an index for other models beside the one that answers, switch at once, and say the next steps."""

from __future__ import annotations

import os
import shlex
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL.Image import Image

from es_config.aliases import (
    CAPTION_VECTOR,
    Alias,
    CopiedDocument,
    Document,
    ReindexReader,
    ReindexWriter,
    Switched,
    options_of,
)
from es_config.client import cache_folder, connect, engine_settings, glimpse_home
from es_config.documents import content_id, paths_of, shown_path
from es_config.errors import EngineError
from es_config.hidden import HiddenPictures
from es_config.index import ImageIndex
from es_config.scan import PAGE, read_sample
from es_config.text_model import TrainedModel
from ingest.errors import Fault, IngestError, UnreadableImageError
from ingest.files.film import decode_moment
from ingest.files.picture import FileContent, decode, pixel_limit
from ingest.files.walk import Failure, valid_unicode
from ingest.history.ingested_files import HISTORY_FILE, IngestHistory, nowhere
from ingest.options import IngestOptions
from ingest.pipeline.embed import embed_by_key
from ingest.pipeline.parallel import READ_AHEAD, ahead, ordered_map, write_behind
from ingest.pipeline.read import transform
from ingest.report import Progress
from ingest.sources.places import NotedFiles
from ingest.wiring import SAMPLE_PICTURES, IngestSettings, index_meta, lazy_encoders
from ingest.workers.driver import SharedWork
from ingest.workers.lease import Lease, PlaceNotes, noted_folders
from models.encoders import ImageEncoder, Lazy, TextEncoder, embed_prepared
from models.hub import fetch_missing
from models.pixels import LONG_EDGE, register_formats
from models.profiles import PROFILES, Profile, Weights, default_profile, get_profile
from storage.errors import StorageError
from storage.store import Storage, default_store, find_original, open_storage

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

FEW = 100
"""changes in one pass after which the rest waits for the switch, when nobody may write"""
EVERYTHING = -1
NO_LIMIT = 1 << 40
"""pixels; the index accepted its pictures before, and they are recognised by their content"""
IMAGE_VECTOR = "image_embedding"


class SameModelsError(IngestError):
    """The index holds the vectors of these models already."""


@dataclass(frozen=True)
class ReindexSummary:
    """The state of the next index after one run of `glimpse reindex`."""

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
    switched: Switched | None = None
    """None if the next index is not behind the alias"""

    def as_dict(self) -> dict[str, object]:
        """Return the JSON object of `glimpse reindex --json`."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class OriginalReader:
    """Reads pictures by image id: from where they were ingested, from given folders, from the store.

    Thread-safe. Every method raises `StorageError` when the store cannot be asked.
    """

    places: Callable[[str], Sequence[bytes]]
    """returns where a content was ingested, by its id"""
    folders: Sequence[Path]
    storage: Storage
    files: NotedFiles = field(default_factory=NotedFiles)

    def read(self, image_id: str, source: Mapping[str, Any]) -> tuple[Image, bool]:
        """Return the decoded picture of a document, and whether a copy of it was read.

        Raises `UnreadableImageError` when the picture is nowhere, or cannot be used.
        """
        if film := source.get("film"):
            return self._moment(film, paths_of(source)), False
        content, path = self._content(image_id, paths_of(source))
        is_copy = content.image_id != image_id
        return decode(content, path=path, max_pixels=NO_LIMIT).image, is_copy

    def _moment(self, film: Mapping[str, Any], paths: Sequence[str]) -> Image:
        """Return the picture of a film at its time. A thumbnail of it does not count."""
        for path in self._places(film["id"], paths):
            with suppress(UnreadableImageError):
                if found := self.files.open(path, film["id"]):
                    return decode_moment(found.content, found.path, time_ms=film["time_ms"], edge=LONG_EDGE)
        raise UnreadableImageError("its film is not where it was")

    def _content(self, image_id: str, paths: Sequence[str]) -> tuple[FileContent, Path]:
        for path in self._places(image_id, paths):
            # A path with a null byte is not usable, and a bucket may be away.
            with suppress(UnreadableImageError, StorageError, ValueError):
                content = self.files.places.content(path)
                if content.image_id == image_id:
                    return content, Path(os.fsdecode(path))
        key = find_original(self.storage, image_id, names=paths)
        if key is None:
            raise UnreadableImageError("its file is not where it was, and the store keeps no original")
        data = self.storage.get(key)
        content = FileContent(data, sha256(data).hexdigest())
        if content.image_id != image_id and not key.endswith(".webp"):
            raise UnreadableImageError("its file is not where it was, and the store's original is damaged")
        return content, Path(key)

    def _places(self, image_id: str, paths: Sequence[str]) -> Iterator[bytes]:
        yield from self.places(image_id)
        for folder in self.folders:
            yield from (os.fsencode(folder / path) for path in paths)


@dataclass(frozen=True)
class _Task:
    """A document that the next index lacks, or of which it has another version: `known`."""

    document: Document
    known: dict[str, Any] | None
    pixels: np.ndarray | None = None
    """the encoder's input, as its `preprocess` returns it, if the picture is to be embedded"""
    is_copy: bool = False
    fault: Fault | None = None
    """why the picture could not be read"""


@dataclass(frozen=True)
class ReindexPart:
    """The work of another process for a reindex."""

    embedded: int = 0
    from_copies: int = 0
    updated: int = 0
    written: tuple[str, ...] = ()
    """ids of the pictures whose documents the next index has now"""
    missing: Mapping[str, Failure] = field(default_factory=dict)
    """by image id"""


@dataclass(kw_only=True)
class Reindexer:
    """Fills the next index and switches to it. After an interruption, a new one continues.

    It does the pictures itself, or shares them out. In a worker it does leases of them.
    """

    alias: Alias
    reader: ReindexReader
    writer: ReindexWriter
    client: Elasticsearch
    profile: Profile
    """of the next index"""
    image_encoder: Lazy[ImageEncoder]
    caption_encoder: Lazy[TextEncoder]
    originals: OriginalReader
    history: IngestHistory | None
    options: IngestOptions
    progress: Progress
    turn: threading.Lock = field(default_factory=threading.Lock)
    """is held while a batch is in the models, which several leases of one process share"""
    work: SharedWork | None = None
    """workers that read, embed and write in place of this process"""
    embedded: int = field(default=0, init=False)
    from_copies: int = field(default=0, init=False)
    updated: int = field(default=0, init=False)
    deleted: int = field(default=0, init=False)
    missing: dict[str, Failure] = field(default_factory=dict, init=False)
    """by image id, the pictures that could not be embedded or written"""
    _begin: float = field(default_factory=time.monotonic, init=False)
    _since: int = field(default=EVERYTHING, init=False)

    @property
    def old(self) -> ImageIndex:
        """The index that answers."""
        return self.reader.index

    @property
    def new(self) -> ImageIndex:
        """The next index."""
        return self.writer.index

    def run(self, *, switch: bool, allow_missing: bool) -> ReindexSummary:
        """Fill the next index, then `switch` unless that would lose pictures. Raises as these two do."""
        with self.progress:
            summary = self.fill()
        if summary.interrupted or not switch or (summary.missing and not allow_missing):
            return summary
        return self.switch(allow_missing=allow_missing)

    def fill(self) -> ReindexSummary:
        """Bring the next index as near to the one that answers as possible while that one changes.

        Ctrl-C ends it early. Raises `ModelError`, or `IngestError` when Elasticsearch or the store fails.
        """
        register_formats()
        self.progress.start(self.old.count())
        try:
            with pixel_limit(NO_LIMIT):
                while self._catch_up() > FEW:
                    continue
                self.deleted += self.writer.drop_absent(self.old)
        except KeyboardInterrupt:
            return self._summary(interrupted=True)
        except (EngineError, StorageError) as error:
            raise IngestError(
                f"Stopped after {self.embedded} pictures were embedded. {error} Searches go on in the former"
                " index, and nothing is lost: once that is mended, the same command goes on from there."
            ) from error
        return self._summary()

    def switch(self, *, allow_missing: bool) -> ReindexSummary:
        """Apply the last changes while nobody may write, then put the next index behind the alias.

        Without `allow_missing` nothing is switched while a picture is missing. Raises `EngineError`,
        `StorageError`, `ModelError` or `IngestError`; the former index then takes writes again.
        """
        with pixel_limit(NO_LIMIT), self.alias.closed():
            self._catch_up()
            self.deleted += self.writer.drop_absent(self.old)
            listed = self.old.listed(list(self.missing))  # a picture that left meanwhile is not missing
            self.missing = {each: self.missing[each] for each in self.missing if each in listed}
            if self.missing and not allow_missing:
                return self._summary()
            if self.history:
                self.history.copy(old=self.old.uuid(), new=self.new.uuid())
            summary = self._summary(switch=True)
        HiddenPictures(ImageIndex(self.client, alias=self.alias.name)).finish()  # moves that the block cut
        return summary

    def _summary(self, *, interrupted: bool = False, switch: bool = False) -> ReindexSummary:
        self.new.refresh()
        return ReindexSummary(
            index=self.new.name(),
            images=self.new.count(),
            embedded=self.embedded,
            from_copies=self.from_copies,
            updated=self.updated,
            deleted=self.deleted,
            missing=tuple(self.missing.values()),
            seconds=round(time.monotonic() - self._begin, 3),
            interrupted=interrupted,
            switched=self.alias.switch() if switch else None,
        )

    def _catch_up(self) -> int:
        """Write the changes since the last call, the whole index at first, and return how many these were.

        Raises `EngineError`, `StorageError`, `ModelError` or `IngestError`; the next call goes on there.
        """
        before, done = self.embedded + self.updated, self.reader.checkpoint()
        if self.work:
            self._share(self.work)
        else:
            self._do(self._tasks())
        self._since = done
        return self.embedded + self.updated - before

    def lease(self, lease: Lease) -> ReindexPart:
        """Do documents that another process has listed, and return the outcome. Thread-safe."""
        notes: PlaceNotes = lease.notes
        part = replace(
            self,
            originals=replace(self.originals, places=lambda content_id: notes.get(content_id, ())),
            progress=Progress(),
        )
        ids = [task.document.image_id for task in lease.items]
        there = self.writer.known(ids) if lease.deaths else {}  # of the one that died
        left = []
        for task in lease.items:
            if there.get(task.document.image_id) == task.document.source:
                part._count(task)
            else:
                left.append(task)
        part._do(iter(left))
        written = tuple(each for each in ids if each not in part.missing)
        return ReindexPart(part.embedded, part.from_copies, part.updated, written, part.missing)

    def _share(self, work: SharedWork) -> None:
        """Let workers do the documents, and take in the outcomes."""
        tasks = self._tasks()
        pages = iter(lambda: list(islice(tasks, PAGE)), [])
        for part in work.answers(pages, failed=_failed, notes=self._notes, folders=noted_folders):
            self.embedded += part.embedded
            self.from_copies += part.from_copies
            self.updated += part.updated
            for image_id in part.written:
                self.missing.pop(image_id, None)
                self.progress.advance()
            for image_id, failure in part.missing.items():
                self._miss(image_id, failure)

    def _notes(self, tasks: Sequence[_Task]) -> PlaceNotes:
        """Return where the pictures of tasks were ingested, if they are to be read."""
        ids = {
            content_id(each.document.image_id, each.document.source) for each in tasks if each.known is None
        }
        return {each: tuple(self.originals.places(each)) for each in ids}

    def _do(self, tasks: Iterator[_Task]) -> None:
        pool = ThreadPoolExecutor(self.options.threads, thread_name_prefix="decode")
        window = max(self.options.batch_size, 2 * self.options.threads)
        try:
            states = ordered_map(pool, self._read, tasks, window=window)
            with closing(ahead(states, size=READ_AHEAD)) as read:
                write_behind(map(self._embed, self._batches(read)), self._write, name="reindex")
        finally:
            pool.shutdown(cancel_futures=True)

    def _tasks(self) -> Iterator[_Task]:
        for page in self.reader.pages(since=self._since):
            known = self.writer.known([each.image_id for each in page])
            for document in page:
                if known.get(document.image_id) == document.source:
                    self.progress.advance()
                else:
                    yield _Task(document, known.get(document.image_id))

    def _read(self, task: _Task) -> _Task:
        """Return the task with the encoder's input if its picture is to be embedded, or with the fault."""
        if task.known is not None:
            return task
        preprocess = self.image_encoder.get().preprocess  # a model that cannot be loaded ends the run
        try:
            image, is_copy = self.originals.read(task.document.image_id, task.document.source)
            return replace(task, pixels=transform(image, preprocess), is_copy=is_copy)
        except UnreadableImageError as error:
            return replace(task, fault=error.fault)

    def _batches(self, tasks: Iterator[_Task]) -> Iterator[list[_Task]]:
        while batch := list(islice(tasks, self.options.batch_size)):
            yield batch

    def _embed(self, batch: Sequence[_Task]) -> list[tuple[_Task, CopiedDocument]]:
        """Return the tasks of a batch whose vectors could be made, and report the others."""
        pixels = {i: task.pixels for i, task in enumerate(batch) if task.pixels is not None}
        with self.turn:
            images = embed_by_key(self._embed_pixels, pixels) if pixels else {}
            captions = self._embed_captions(batch)
        done = []
        for i, task in enumerate(batch):
            found = {IMAGE_VECTOR: task.fault or images.get(i), CAPTION_VECTOR: captions.get(i)}
            vectors = {name: each for name, each in found.items() if isinstance(each, np.ndarray)}
            fault = next((each for each in found.values() if isinstance(each, Fault)), None)
            if fault:
                self._fail(task.document, fault)
            else:
                done.append((task, CopiedDocument(task.document, task.known, vectors)))
        return done

    def _embed_pixels(self, pixels: list[np.ndarray]) -> np.ndarray:
        return embed_prepared(self.image_encoder.get(), pixels)

    def _embed_captions(self, batch: Sequence[_Task]) -> dict[int, np.ndarray | Fault]:
        """Return by position the vectors of new captions. Those of the old index are kept if they fit."""
        vectors: dict[int, np.ndarray | Fault] = {}
        texts: dict[int, str] = {}
        for i, task in enumerate(batch):
            caption, vector = task.document.source.get("caption"), task.document.caption_embedding
            is_known = task.known is not None and task.known.get("caption") == caption
            if task.fault or not caption or is_known:
                continue
            if vector is not None and self._is_same_caption_model:
                vectors[i] = vector
            else:
                texts[i] = caption
        return vectors | (embed_by_key(self.caption_encoder.get().embed_texts, texts) if texts else {})

    @cached_property
    def _is_same_caption_model(self) -> bool:
        """Whether vectors of captions may be copied. Reading this loads the model, which notes itself."""
        return self.caption_encoder.get().revision == self.old.meta().revisions.get("caption_text")

    def _write(self, copies: Sequence[tuple[_Task, CopiedDocument]]) -> None:
        refused = self.writer.write([copy for _, copy in copies])
        for task, _ in copies:
            if reason := refused.get(task.document.image_id):
                self._fail(task.document, Fault(f"the index refused it: {reason}"))
            else:
                self._count(task)

    def _count(self, task: _Task) -> None:
        """Count a document that the next index has now."""
        self.missing.pop(task.document.image_id, None)
        self.embedded += task.known is None
        self.updated += task.known is not None
        self.from_copies += task.is_copy
        self.progress.advance()

    def _fail(self, document: Document, fault: Fault) -> None:
        self._miss(document.image_id, _failure(document, fault))

    def _miss(self, image_id: str, failure: Failure) -> None:
        self.missing[image_id] = failure
        self.progress.failed(failure)
        self.progress.advance()


def _failure(document: Document, fault: Fault) -> Failure:
    return Failure(valid_unicode(shown_path(document.source, document.image_id)), fault.reason)


def _failed(task: _Task, fault: Fault) -> ReindexPart:
    """Return the outcome for a picture that no worker survives."""
    return ReindexPart(missing={task.document.image_id: _failure(task.document, fault)})


@contextmanager
def open_reindexer(
    settings: IngestSettings,
    environ: Mapping[str, str],
    *,
    folders: Sequence[Path],
    progress: Progress,
    options: IngestOptions | None = None,
    begin: bool = True,
) -> Iterator[Reindexer]:
    """Connect, and find the next index or `begin` it for the profile of `settings`.

    A worker begins none, and has no history.

    Raises `SameModelsError` when the index holds such vectors already, `IngestError` when the next index is
    one for other models; `EngineError`, `ModelError` or `StorageError`.
    """
    home = glimpse_home(environ)
    profile = get_profile(settings.profile or default_profile(environ), model_dir=settings.model_dir)
    wanted = ("image", "text", "caption_text")  # before the bar, and before their weights are compared
    fetch_missing({role: profile.models()[role] for role in wanted}, say=settings.encoder.say)
    client = connect(engine_settings(environ, home))
    alias = Alias(client, alias=settings.alias)
    old = alias.current()
    new = _next_index(client, alias, old, profile, begin=begin)
    storage = open_storage(settings.store or default_store(home, settings.alias))
    path = home / HISTORY_FILE
    history = IngestHistory(path, index=old.uuid()) if begin and path.exists() else None
    originals = OriginalReader(
        places=history.places if history else nowhere, folders=folders, storage=storage
    )
    encoder = replace(settings.encoder, sample=lambda: _sample(client, old, originals))
    images, texts = lazy_encoders(profile, new, options=encoder, cache=cache_folder(environ))
    with closing(history) if history else nullcontext():
        yield Reindexer(
            alias=alias,
            reader=ReindexReader(client, old),
            writer=ReindexWriter(client, new),
            client=client,
            profile=profile,
            image_encoder=images,
            caption_encoder=texts,
            originals=originals,
            history=history,
            options=options or IngestOptions(),
            progress=progress,
        )


def _next_index(
    client: Elasticsearch, alias: Alias, old: ImageIndex, profile: Profile, *, begin: bool
) -> ImageIndex:
    """Return the index that an earlier run began, or `begin` a new one. Raises as `open_reindexer` does."""
    weights = [profile.weights("text"), profile.weights("image")]
    if _is_of(old, profile, weights) and {"text", "image"} <= old.meta().revisions.keys():
        raise SameModelsError(
            f"{old.name()} holds the vectors of profile '{profile.name}' with these weights already: name"
            " another --profile, or other weights with --model-dir."
        )
    begun = alias.behind(alias.next)
    if begun is None and not begin:
        raise IngestError(f"The next index of '{alias.name}' is gone: run the same command again.")
    if begun is None:
        return alias.begin(index_meta(profile), options_of(client, old.name()))
    new = ImageIndex(client, alias=alias.next)
    if not _is_of(new, profile, weights):
        raise IngestError(
            f"{begun}, which no search sees, was begun for other models, of profile '{new.meta().profile}':"
            f" go on with them, or run `glimpse index delete --index {alias.next}` first."
        )
    return new


def _is_of(index: ImageIndex, profile: Profile, weights: Sequence[Weights]) -> bool:
    """Whether an index was made for a profile with these weights, or notes no weights."""
    meta = index.meta()
    noted = [(each, meta.revisions.get(each.role)) for each in weights]
    ours = (profile.name, profile.dims, profile.caption_dims)
    return (meta.profile, meta.dims, meta.caption_dims) == ours and all(
        revision is None or each.matches(revision) for each, revision in noted
    )


def _sample(client: Elasticsearch, old: ImageIndex, originals: OriginalReader) -> list[Image]:
    """Return some pictures of the index, to compare vectors of different precision on."""
    drawn = read_sample(
        client, old.name(), fields=["image_embedding"], size=SAMPLE_PICTURES, source=["relative_path"]
    )
    found = []
    with pixel_limit(NO_LIMIT):
        for image_id, source in zip(drawn.ids, drawn.sources, strict=True):
            try:
                found.append(originals.read(image_id, source)[0])
            except UnreadableImageError:
                continue
    return found


GO_ON = "Interrupted. Searches go on in the former index; the same command goes on from there."


@dataclass(frozen=True, kw_only=True)
class ReindexReport:
    """Words for the summaries of one `reindexer`."""

    reindexer: Reindexer
    model_dir: Path | None
    """of the next index's models, if that was given"""
    former: Profile | None
    """the models of the index that answered before, or None if they are not here"""
    former_dir: Path | None
    """their folder, if they are not those of the profile table"""
    store: str | None

    def paragraphs(self, summary: ReindexSummary) -> str:
        """Return the outcome, and the commands that may follow."""
        alias = self.reindexer.alias
        paragraphs = [_counts(summary)]
        if summary.switched:
            paragraphs.append(self._switched(summary.switched))
        elif not (summary.missing or summary.interrupted):
            paragraphs.append(
                f"'{alias.name}' is {self.reindexer.old.name()} as before. The same command without"
                f" --no-switch puts {summary.index} in its place; `glimpse search --index {alias.next}`"
                " tries it."
            )
        if self.former and not summary.interrupted:
            paragraphs.append(
                "To compare the former models with the new ones on your pictures:\n"
                f"  {self._evaluate_command(self.former)}"
            )
        return "\n\n".join(paragraphs)

    def not_switched(self, summary: ReindexSummary) -> str:
        """Return why the next index is not put behind the alias, and the way out."""
        return (
            f"Error: '{self.reindexer.alias.name}' is {self.reindexer.old.name()} as before:"
            f" {len(summary.missing)} of its pictures would be lost. Name the folders that hold them with"
            " --originals-from, or add --allow-missing."
        )

    def _switched(self, switched: Switched) -> str:
        old, former_alias = self.reindexer.old, self.reindexer.alias.former
        folder = f" --model-dir {shlex.quote(str(self.model_dir))}" if self.model_dir else ""
        calibrate = " and `glimpse calibrate`" if old.meta().relevance else ""
        lines = [
            f"'{self.reindexer.alias.name}' is {switched.now} now, in place of {switched.former}.",
            *([f"Commands need{folder} now."] if folder else []),
            "A running `glimpse serve` follows by itself.",
            f"Run `glimpse tune`{calibrate}: what was measured belongs to the former vectors.",
            *self._text_model(folder),
            f"`glimpse reindex --back` goes back to {switched.former}; `glimpse index delete --index"
            f" {former_alias}` deletes it.",
        ]
        if switched.left:
            lines.append(
                f"No alias names {switched.left} any more: `glimpse index delete --index {switched.left}`."
            )
        return "\n".join(lines)

    def _text_model(self, folder: str) -> list[str]:
        """Say which text model Elasticsearch needs, if it embedded texts for the former index."""
        client, new = self.reindexer.client, self.reindexer.profile
        if self.former is None:
            return []
        if TrainedModel(client, model_id=self.former.es_model_id).status().state != "started":
            return []
        if "infer" not in new.text_lanes:
            return [f"The text model of profile {new.name} runs in the commands, not in Elasticsearch."]
        status = TrainedModel(client, model_id=new.es_model_id).status()
        noted = status.revision
        if status.state == "started" and (noted is None or new.weights("text").matches(noted)):
            return []
        clear = "" if status.state == "absent" else " --clear-previous"
        command = f"glimpse model upload{folder}{clear} --start"
        return [f"Run `{command}`: until then texts are embedded in the commands, not in Elasticsearch."]

    def _evaluate_command(self, former: Profile) -> str:
        new, alias = self.reindexer.profile, self.reindexer.alias.name
        names = (former.name, "new" if new.name == former.name else new.name)
        folders = (None if former == PROFILES[former.name] else self.former_dir, self.model_dir)
        pair = [f"{name}={folder}" if folder else name for name, folder in zip(names, folders, strict=True)]
        words = ["glimpse", "evaluate", "--profiles", ",".join(pair)]
        words += ["--index", alias] if alias != "images" else []
        return shlex.join(words + (["--store", self.store] if self.store else []))


def _counts(summary: ReindexSummary) -> str:
    copies = f" ({summary.from_copies} from WebP copies)" if summary.from_copies else ""
    parts = [f"{summary.embedded} embedded{copies}"]
    parts += [f"{summary.updated} otherwise changed"] if summary.updated else []
    parts += [f"{summary.deleted} left"] if summary.deleted else []
    parts += [f"{len(summary.missing)} missing"] if summary.missing else []
    counts = ", ".join(parts)
    return f"{summary.index} holds {summary.images} pictures: {counts}, in {summary.seconds:.1f} s."
