"""A worker: a process that holds its models once and does one lease after the other."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from es_config.client import glimpse_home
from ingest.errors import IngestError
from ingest.files.picture import pixel_limit
from ingest.options import PROCESSORS, CaptionOptions, IngestOptions, WordsOptions
from ingest.pipeline.captions import CaptionPass
from ingest.pipeline.run import IngestRun
from ingest.pipeline.words import WordsPass
from ingest.reindex import NO_LIMIT, ReindexPart, open_reindexer
from ingest.report import PassPart, Progress, RunCounts
from ingest.wiring import Dependencies, open_dependencies
from ingest.workers.driver import WorkerOrder
from ingest.workers.lease import Lease, LeaseAnswer, LeaseHistory, Parcels, WorkerFailure, failure_of
from models.encoders import Lazy
from models.hub import fetch_missing
from models.pixels import give_memory_back
from models.words import load_word_reader
from storage.store import Storage, default_store, open_storage

MOST_THREADS = 16
BATCHES = 4
"""batches in a lease of a run that embeds: as much as it writes together"""


def installed_version() -> str:
    """Return the version of Glimpse here."""
    with suppress(PackageNotFoundError):
        return version("glimpse-search")
    return "not installed"


class LeaseWorker:
    """Does the leases of one order. Thread-safe: of two leases, one is read while the other is embedded."""

    def __init__(self, order: WorkerOrder) -> None:
        """Connect, and download the models that are missing here.

        Raises `IngestError` where this machine does not see what the driver sees, and `EngineError`,
        `ModelError` or `StorageError`.
        """
        os.environ.update(order.environ)
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as for commands
        give_memory_back()
        _check_version(order.version)
        store = order.settings.store or default_store(glimpse_home(os.environ), order.settings.alias)
        _check_places(order, open_storage(store))
        self._parcels = Parcels(order.limits)
        self._until_end = ExitStack()
        self._do = order.task.open(order, self._until_end)

    def work(self, packed: bytes) -> bytes | WorkerFailure:
        """Do a lease that was packed, and return the packed answer, or why no lease can be done."""
        try:
            return self._parcels.pack(self._do(self._parcels.unpack(packed)))
        except Exception as error:  # the driver ends the run with it
            return failure_of(error)


@dataclass(frozen=True)
class IngestTask:
    """Read, embed and write files."""

    options: IngestOptions
    noun = "files"

    @property
    def together(self) -> int:
        """Return how many pictures are embedded together."""
        return self.options.batch_size

    @property
    def most(self) -> int:
        """Return how many files a lease has at most."""
        return BATCHES * self.options.batch_size

    def open(self, order: WorkerOrder, until_end: ExitStack) -> Callable[[Lease], LeaseAnswer]:
        """Connect, and return `IngestLeases.do`."""
        needs = open_dependencies(order.settings, os.environ, create=False)
        wanted = ("image", "caption_text", *(("caption",) if self.options.caption else ()))
        here = {role: needs.models[role] for role in wanted if role in needs.models}
        fetch_missing(here, say=logging.getLogger(__name__).info)
        until_end.enter_context(pixel_limit(self.options.max_pixels))
        return IngestLeases(needs, replace(self.options, threads=_threads(order))).do


class IngestLeases:
    """The leases of an ingest in one worker."""

    def __init__(self, needs: Dependencies, options: IngestOptions) -> None:
        self._needs, self._options = needs, options
        self._turn = threading.Lock()
        self._rejections = 0

    def do(self, lease: Lease) -> LeaseAnswer:
        """Read, embed and write the files of a lease."""
        counts = RunCounts(Progress())
        with closing(LeaseHistory(lease.notes or {})) as history:
            IngestRun(
                dependencies=self._needs,
                options=self._options,
                history=history,
                counts=counts,
                turn=self._turn,
            ).lease(lease.items)
        with self._turn:
            now = self._needs.index.rejections
            turned_away, self._rejections = now - self._rejections, now
        return LeaseAnswer(
            counts.part(),
            tuple(history.noted),
            tuple(history.failed),
            tuple(history.left_open),
            turned_away,
        )


@dataclass(frozen=True)
class CaptionTask:
    """Caption pictures."""

    options: CaptionOptions
    noun = "pictures"

    @property
    def together(self) -> int:
        """Return 1: a captioner takes its time for each."""
        return 1

    @property
    def most(self) -> int:
        """Return how many pictures a lease has at most."""
        return self.options.batch_size

    def open(self, order: WorkerOrder, until_end: ExitStack) -> Callable[[Lease], PassPart]:  # noqa: ARG002
        """Connect, and return `CaptionPass.lease`."""
        needs = open_dependencies(order.settings, os.environ, create=False)
        needs.fetch_captioner(logging.getLogger(__name__).info)
        return CaptionPass(needs, self.options, Progress()).lease


@dataclass(frozen=True)
class WordsTask:
    """Read the text in pictures."""

    options: WordsOptions
    noun = "pictures"

    @property
    def together(self) -> int:
        """Return 1: each picture is read alone."""
        return 1

    @property
    def most(self) -> int:
        """Return how many pictures a lease has at most."""
        return self.options.batch_size

    def open(self, order: WorkerOrder, until_end: ExitStack) -> Callable[[Lease], PassPart]:
        """Connect, and return `WordsPass.lease`."""
        needs = open_dependencies(order.settings, os.environ, create=False)
        threads = order.threads and max(1, order.threads // 2)
        needs = replace(needs, word_reader=Lazy(lambda: load_word_reader(threads=threads)))
        until_end.enter_context(pixel_limit(self.options.max_pixels))
        return WordsPass(needs, self.options, Progress()).lease


@dataclass(frozen=True)
class ReindexTask:
    """Embed the pictures of an index with other models, and write them into the next index."""

    options: IngestOptions
    folders: Sequence[Path]
    """that may hold pictures besides the places where they were ingested"""
    noun = "pictures"

    @property
    def together(self) -> int:
        """Return how many pictures are embedded together."""
        return self.options.batch_size

    @property
    def most(self) -> int:
        """Return how many pictures a lease has at most."""
        return BATCHES * self.options.batch_size

    def open(self, order: WorkerOrder, until_end: ExitStack) -> Callable[[Lease], ReindexPart]:
        """Connect, and return `Reindexer.lease`."""
        reindexer = until_end.enter_context(
            open_reindexer(
                order.settings,
                os.environ,
                folders=self.folders,
                progress=Progress(),
                options=replace(self.options, threads=_threads(order)),
                begin=False,
            )
        )
        until_end.enter_context(pixel_limit(NO_LIMIT))
        return reindexer.lease


def _threads(order: WorkerOrder) -> int:
    return order.threads or min(MOST_THREADS, PROCESSORS)


def settings_to_send(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that lead to Elasticsearch, stores and models."""
    return {name: value for name, value in environ.items() if name.startswith(SENT)}


SENT = ("GLIMPSE_", "ELASTICSEARCH_", "ES_", "AWS_", "HF_")
"""beginnings of the names of variables that a worker needs"""


def _check_version(wanted: str) -> None:
    if (here := installed_version()) != wanted:
        raise IngestError(
            f"Glimpse is {here} on {socket.gethostname()} and {wanted} where the run was started: install the"
            " same version on all machines."
        )


def _check_places(order: WorkerOrder, storage: Storage) -> None:
    host = socket.gethostname()
    for path in order.paths:
        if not path.exists():
            raise IngestError(
                f"{host} does not see {path}: mount it there under the same path, or name a bucket."
            )
    if order.mark and not storage.exists(order.mark):
        raise IngestError(
            f"{host} has another store at {order.settings.store}: name one that all machines share, as in"
            " --store s3://bucket/thumbnails."
        )
