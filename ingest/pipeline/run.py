"""Runs of ingest: from paths to documents, with the history of earlier runs and the captions that follow."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from es_config.bulk import BulkLoad
from es_config.client import afterwards, glimpse_home
from es_config.errors import EngineError
from es_config.hidden import HiddenPictures
from es_config.runs import RunFile
from ingest.errors import Fault, IngestError
from ingest.files.picture import pixel_limit
from ingest.files.walk import Candidate, Failure, PassedOver, outermost
from ingest.history.ingested_files import IngestHistory
from ingest.history.prune import prune_paths
from ingest.metrics import RunMeter
from ingest.options import CaptionOptions, Changes, IngestOptions, WordsOptions
from ingest.pipeline.captions import caption_pictures
from ingest.pipeline.embed import (
    CaptionNow,
    PlacesNow,
    batches,
    complete_documents,
    describe_news,
    embed_batch,
)
from ingest.pipeline.parallel import READ_AHEAD, ahead
from ingest.pipeline.read import (
    BadFile,
    FileState,
    KnownPicture,
    NewPicture,
    OpenCopy,
    PictureState,
    Reader,
    Skipped,
)
from ingest.pipeline.words import WordsNow, read_words
from ingest.pipeline.write import Writer
from ingest.report import (
    IngestSummary,
    PassSummary,
    Progress,
    PruneSummary,
    RunCounts,
    WordsSummary,
    open_progress,
)
from ingest.sources.archive import ArchiveMember
from ingest.sources.source import FETCHERS, ExternalSource, gather
from ingest.wiring import Dependencies, open_history
from ingest.workers.driver import SharedWork
from ingest.workers.lease import LeaseAnswer, SidecarNotes
from models.errors import ModelError
from models.pixels import register_formats
from storage.errors import StorageError

TOGETHER = 500
"""files that are compared with the history at once"""
WALK_AHEAD = 200
"""chunks of files that a walk may be ahead, so that the number of files is soon known: 70 MB of names"""


def ingest_paths(
    paths: Sequence[Path],
    *,
    dependencies: Dependencies,
    options: IngestOptions,
    progress: Progress | None = None,
    history: IngestHistory | None = None,
    changes: Changes | None = None,
    sources: Sequence[ExternalSource] = (),
    meter: RunMeter | None = None,
    work: SharedWork | None = None,
) -> IngestSummary:
    """Make the pictures of `paths` and of other `sources`, or `changes` below paths, documents of the index.

    With shared `work`, its workers read, embed and write what the history does not know.

    A bad file or folder is reported in the summary and costs nothing else; so is a captioner that cannot be
    loaded. With a `history`, files that have not changed are not read again, and paths of files that are
    changed or gone leave the index. Ctrl-C ends the run early with a summary. Raises `IngestError` if
    Elasticsearch or the store fails: everything written stays, and the same call goes on there.
    """
    begin, interrupted = time.monotonic(), False
    with nullcontext(history) if history else closing(IngestHistory()) as known:
        counts = RunCounts(progress or Progress(), meter)
        run = IngestRun(
            dependencies=dependencies,
            options=options,
            history=known,
            counts=counts,
            sources=sources,
            work=work,
        )
        with pixel_limit(options.max_pixels):
            try:
                run.all(paths, changes)
            except KeyboardInterrupt:
                interrupted = True
            except (EngineError, StorageError) as error:
                raise IngestError(
                    f"Stopped after {counts.indexed} pictures were indexed. {error} Nothing is lost: once"
                    " that is mended, the same command goes on from there."
                ) from error
    summary = counts.summary(time.monotonic() - begin, interrupted=interrupted, dry_run=options.dry_run)
    is_whole = changes is None and options.limit is None and not interrupted
    return replace(
        summary,
        pruned=run.pruned,
        passed_over=run.passed_over,
        unused_patterns=options.exclude.unused(run.passed_over) if is_whole else (),
    )


@dataclass(kw_only=True)
class IngestRun:
    """One run, or the part of one that a lease is."""

    dependencies: Dependencies
    options: IngestOptions
    history: IngestHistory
    counts: RunCounts
    sources: Sequence[ExternalSource] = ()
    work: SharedWork | None = None
    """workers that read, embed and write in place of this process"""
    turn: AbstractContextManager[object] = field(default_factory=nullcontext)
    """is held while a batch is in the models, which several leases of one process share"""
    pruned: PruneSummary = field(default_factory=PruneSummary, init=False)
    passed_over: PassedOver = field(default_factory=PassedOver, init=False)

    def all(self, paths: Sequence[Path], changes: Changes | None) -> None:
        """Do the whole run. On an interrupt, write the pictures embedded so far."""
        needs, options = self.dependencies, self.options
        is_far = any(source.is_far for source in self.sources)
        with afterwards(lambda: self.history.save(last=False)):
            with (
                self._reader(is_far=is_far) as reader,
                closing(ahead(self._find(paths, changes), size=WALK_AHEAD)) as chunks,
            ):
                if self.work:
                    self._share(chunks, reader, self.work)
                else:
                    with closing(ahead(reader.states(chunks), size=READ_AHEAD)) as states:
                        if options.dry_run:
                            self._count_only(self._settle(states, reader))
                        else:
                            self._write(states, reader)
            self.history.save(last=True)
            gone = None if changes is None else changes.gone
            if options.prune.prune or gone or self.history.has_outdated():
                self.pruned = prune_paths(
                    self.history,
                    index=needs.index,
                    storage=needs.storage,
                    folders=paths,
                    options=options,
                    gone=gone,
                    sources=self.sources,
                )

    def lease(self, files: Sequence[Candidate]) -> None:
        """Read, embed and write files that another process has compared with its history."""
        is_far = any(each.origin and not isinstance(each.origin, ArchiveMember) for each in files)
        with (
            self._reader(is_far=is_far) as reader,
            closing(ahead(reader.states_of(files), size=READ_AHEAD)) as states,
        ):
            self._write_pictures(states, reader, wrote=lambda _: None, finish=lambda: None)

    @contextmanager
    def _reader(self, *, is_far: bool) -> Iterator[Reader]:
        """Make a reader, and end its threads at the end."""
        register_formats()
        needs, options = self.dependencies, self.options
        pool = ThreadPoolExecutor(options.threads, thread_name_prefix="decode")
        fetch_pool = ThreadPoolExecutor(FETCHERS, thread_name_prefix="fetch") if is_far else None
        reader = Reader(
            index=needs.index,
            image_encoder=needs.image_encoder,
            storage=needs.storage,
            options=options,
            history=self.history,
            faults=self.counts.faults,
            pool=pool,
            failed=self.counts.add_folder_failure,
            fetch_pool=fetch_pool,
            meter=self.counts.meter,
        )
        try:
            yield reader
        finally:
            pool.shutdown(cancel_futures=True)
            if fetch_pool:
                fetch_pool.shutdown(cancel_futures=True)

    def _find(self, paths: Sequence[Path], changes: Changes | None) -> Generator[list[Candidate]]:
        """Yield files in chunks, and tell the progress how many there are so far."""
        options, expected, files = self.options, 0, 0
        found: Iterator[Candidate | Failure]
        if changes is None:
            found = gather(
                paths,
                self.sources,
                exclude=options.exclude,
                limit=options.limit,
                shard=options.shard,
                passed_over=self.passed_over,
            )
            if options.shard.of == 1 and options.limit is None:
                expected = sum(map(self.history.count, outermost(paths)))
                expected += sum(self.history.count_below(each.address) for each in self.sources)
        else:
            found = iter(changes.files)
        self.counts.found(expected, so_far=True)
        while chunk := list(islice(found, TOGETHER)):
            candidates = [each for each in chunk if isinstance(each, Candidate)]
            for each in chunk:
                if isinstance(each, Failure):
                    self.counts.add_folder_failure(each)
            files += len(candidates)
            self.counts.found(max(files, expected), so_far=True)
            yield candidates
        self.counts.found(files, so_far=False)

    def _settle(self, states: Iterable[FileState], reader: Reader) -> Iterator[PictureState]:
        """Count the files that end here and yield the pictures that change the index."""
        for state in states:
            match state:
                case Skipped(failed_before=True):
                    self.counts.add(failed_before=1)
                case Skipped():
                    self.counts.add(skipped=1)
                case BadFile():
                    self._drop(state, reader)
                case OpenCopy():
                    self.history.leave_open(state.candidate, state.image_id)
                case KnownPicture(new_path=False, thumbnail=b"", facts=None):
                    self.counts.add(skipped=1, updated=state.candidate.has_news)
                    self.history.record_ok(state.candidate, state.image_id)
                case KnownPicture() | NewPicture():
                    yield state

    def _drop(self, bad: BadFile, reader: Reader) -> None:
        if bad.is_moment:
            self.counts.add_moment(bad.candidate, bad.fault)
            return
        if bad.image_id is not None:  # the fault first: a copy must find one or the other
            self.counts.faults[bad.image_id] = bad.fault
            reader.in_flight.discard(bad.image_id)
        self.counts.add_failure(bad.candidate, bad.fault)
        self.history.record_failure(bad.candidate, bad.fault)

    def _count_only(self, pictures: Iterable[PictureState]) -> None:
        for picture in pictures:
            if isinstance(picture, NewPicture):
                self.counts.add(indexed=1)
            elif fault := self.counts.faults.get(picture.image_id):
                self.counts.add_failure(picture.candidate, fault)
            else:
                self.counts.add(skipped=1, paths_added=1, updated=picture.candidate.has_news)
                self.history.mark_moved(picture.image_id)

    @contextmanager
    def _loading(self) -> Iterator[BulkLoad]:
        """Prepare the index for much that is written, and complete documents of earlier versions after it."""
        index = self.dependencies.index
        index.count()  # one that lacks a part is refused here: a write or refresh would wait a minute for it
        index.complete_mapping()
        HiddenPictures(index).finish()
        with index.bulk_load() as load:
            yield load
            places = None if self.options.no_gps else self.dependencies.places
            self.counts.add_completed(complete_documents(index, places))

    def _write(self, states: Iterable[FileState], reader: Reader) -> None:
        with self._loading() as load:
            refresh = self.dependencies.index.refresh
            self._write_pictures(states, reader, wrote=load.wrote, finish=refresh)

    def _write_pictures(
        self,
        states: Iterable[FileState],
        reader: Reader,
        *,
        wrote: Callable[[int], None],
        finish: Callable[[], None],
    ) -> None:
        needs, size = self.dependencies, self.options.batch_size
        captions = CaptionNow(
            captioner=needs.captioner, caption_encoder=needs.caption_encoder, counts=self.counts
        )
        words = WordsNow(reader=needs.word_reader, counts=self.counts, max_pixels=self.options.max_pixels)
        places = PlacesNow(places=None if self.options.no_gps else needs.places)
        writer = Writer(
            index=needs.index,
            storage=needs.storage,
            counts=self.counts,
            history=self.history,
            in_flight=reader.in_flight,
            wrote=wrote,
            batch_size=size,
        )
        meter = self.counts.meter
        meter.rejections = lambda: needs.index.rejections
        meter.queues |= {
            "pictures_in_flight": lambda: len(reader.in_flight),
            "batches_to_write": writer.waiting,
        }

        def end() -> None:
            writer.finish()
            finish()

        with afterwards(end):
            for batch in batches(self._settle(states, reader), size=size):
                with self.turn:
                    with meter.timed("embed"):
                        ready = embed_batch(
                            batch,
                            image_encoder=needs.image_encoder,
                            caption_encoder=needs.caption_encoder,
                            drop=lambda bad: self._drop(bad, reader),
                        )
                    self.counts.add_embedded(sum(isinstance(each, NewPicture) for each in ready))
                    ready = describe_news(ready, index=needs.index, caption_encoder=needs.caption_encoder)
                    ready = places.add(ready)
                    ready = captions.add(ready) if self.options.caption else ready
                    ready = words.add(ready) if self.options.words else ready
                writer.submit(ready)

    def _share(self, chunks: Iterable[list[Candidate]], reader: Reader, work: SharedWork) -> None:
        """Let workers read the candidates that the history does not know, and note their answers."""
        meter, index, open_copies = self.counts.meter, self.dependencies.index, _OpenCopies()
        rejections = [0]
        meter.rejections = lambda: index.rejections + sum(rejections)
        meter.queues |= work.queues()
        with self._loading() as load, afterwards(index.refresh), closing(work):
            with closing(ahead(self._unknown(chunks, reader), size=READ_AHEAD)) as files:
                for answer in work.answers(files, failed=failed_file):
                    rejections[0] += answer.rejections
                    self._note(answer, load)
                    open_copies.add(answer.left_open)
            self.history.flush()
            again, sidecars = open_copies.with_notes(self.history)
            for answer in work.answers(
                [again] if again else [], failed=failed_file, notes=lambda _: sidecars
            ):
                rejections[0] += answer.rejections
                self._note(answer, load)

    def _unknown(self, chunks: Iterable[list[Candidate]], reader: Reader) -> Generator[list[Candidate]]:
        """Yield the files that have to be read, and count the others."""
        for chunk in chunks:
            compared = reader.compare(chunk)
            yield [_with_whole_path(each) for each in compared if isinstance(each, Candidate)]
            for _ in self._settle([each for each in compared if isinstance(each, Skipped)], reader):
                raise AssertionError("a skipped file changes nothing")

    def _note(self, answer: LeaseAnswer, load: BulkLoad) -> None:
        self.counts.merge(answer.counts)
        for each in answer.noted:
            self.history.record_ok(each.candidate, each.image_id, new_path=each.new_path)
        for candidate, fault in answer.failed:
            self.history.record_failure(candidate, fault)
        load.wrote(answer.counts.counts.get("indexed", 0))


def _with_whole_path(candidate: Candidate) -> Candidate:
    if candidate.origin:
        return candidate
    return replace(candidate, path=Path(os.path.abspath(candidate.path)))  # noqa: PTH100 - links stay


def failed_file(candidate: Candidate, fault: Fault) -> LeaseAnswer:
    """Return the answer for a file that no worker survives."""
    counts = RunCounts(Progress())
    counts.add_failure(candidate, fault)
    return LeaseAnswer(counts.part(), (), ((candidate, fault),), (), 0)


class _OpenCopies:
    """Files with sidecars whose content other files have too. They are done when the rest is noted."""

    def __init__(self) -> None:
        self._files: dict[str, list[Candidate]] = {}

    def add(self, files: Sequence[tuple[Candidate, str]]) -> None:
        """Take in files, and image ids of their contents."""
        for candidate, image_id in files:
            self._files.setdefault(image_id, []).append(candidate)

    def with_notes(self, history: IngestHistory) -> tuple[list[Candidate], SidecarNotes]:
        """Return the files, and for each content the sidecars of all its files."""
        files = [replace(each, has_news=True) for _, group in sorted(self._files.items()) for each in group]
        notes = {
            image_id: history.sidecars_of(image_id) | {each.place: each.sidecars for each in group}
            for image_id, group in self._files.items()
        }
        return files, notes


@dataclass(frozen=True, kw_only=True)
class IngestJob:
    """An ingest of some folders with its dependencies. A watch repeats it in rounds."""

    paths: Sequence[Path]
    dependencies: Dependencies
    options: IngestOptions
    environ: Mapping[str, str]
    sources: Sequence[ExternalSource] = ()
    """places of pictures besides folders; a watch has none"""
    work: SharedWork | None = None
    """workers that do it"""
    meter: RunMeter = field(default_factory=RunMeter)
    """totals of all rounds"""
    captions_later: bool = False
    """caption pictures when all of them are searchable"""
    words_later: bool = False
    """read the text in pictures when all of them are searchable and captioned"""
    retry_failed: bool = False
    after_captions: Callable[[], None] = lambda: None
    """called by a watch when all pictures have captions"""

    def run_all(self) -> IngestSummary:
        """Look through all folders, with a progress on stderr. Raises as `ingest_paths` does."""
        with open_progress(file=None if self.options.dry_run else self.run_file()) as progress:
            return self.run(self.paths, None, progress=progress, retry_failed=self.retry_failed)

    def run_file(self) -> RunFile:
        """Return the file in which this job says to others how far it is."""
        return RunFile(glimpse_home(self.environ), self.dependencies.index.alias)

    def run(
        self,
        folders: Sequence[Path],
        changes: Changes | None,
        *,
        progress: Progress,
        retry_failed: bool = False,
    ) -> IngestSummary:
        """Look through folders, or at `changes` below them. Raises as `ingest_paths` does."""
        index, options = self.dependencies.index, self.options
        with closing(
            open_history(index, self.environ, options=options, retry_failed=retry_failed)
        ) as history:
            return ingest_paths(
                folders,
                dependencies=self.dependencies,
                options=options,
                progress=progress,
                history=history,
                changes=changes,
                sources=self.sources,
                meter=self.meter,
                work=self.work,
            )

    def with_captions(self, summary: IngestSummary, *, say: Callable[[str], None]) -> IngestSummary:
        """Caption the pictures that a run left for `later`. The captions' `error` says why that failed."""
        if not self.captions_later or summary.interrupted or summary.dry_run:
            return summary
        try:
            waiting = self.dependencies.index.captions().count_missing(every=False)
            if not waiting:
                return summary
            say(
                f"The pictures are searchable now; {waiting} captions follow. Ctrl-C is safe:"
                " `glimpse caption` goes on from there."
            )
            self.dependencies.fetch_captioner(say)
            file = self.run_file()
            with open_progress(doing="Captioning", noun="pictures", file=file) as progress:
                captions = caption_pictures(self.dependencies, options=CaptionOptions(), progress=progress)
        except (EngineError, IngestError, ModelError) as error:
            captions = PassSummary(error=str(error))
        return replace(summary, captions=captions)

    def with_words(self, summary: IngestSummary, *, say: Callable[[str], None], hint: bool) -> IngestSummary:
        """Read the text that a run left for `later`. The `error` of `words` says why that failed.

        With `hint`, a run that does not read text counts the pictures that wait and names the command.
        """
        stopped = summary.interrupted or summary.captions.interrupted or summary.dry_run
        if stopped or self.options.words or not (self.words_later or (hint and summary.indexed)):
            return summary
        index, options = self.dependencies.index, self.options
        try:
            waiting = index.words().count_missing(every=False)
            if not waiting:
                return summary
            if not self.words_later:
                say(f"Text inside {waiting} pictures has not been read: `glimpse words` makes it searchable.")
                return summary
            say(f"The text in {waiting} pictures is read now. Ctrl-C is safe: `glimpse words` goes on.")
            with (
                closing(open_history(index, self.environ, options=options)) as history,
                open_progress(doing="Reading text", noun="pictures", file=self.run_file()) as progress,
            ):
                words = read_words(
                    self.dependencies,
                    options=WordsOptions(max_pixels=options.max_pixels),
                    history=history,
                    progress=progress,
                )
        except (EngineError, IngestError, ModelError) as error:
            words = WordsSummary(error=str(error))
        return replace(summary, words=words)
