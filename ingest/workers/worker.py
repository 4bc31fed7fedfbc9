"""A worker: a process that holds its models once and does one lease after the other."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version

from ingest.errors import IngestError
from ingest.files.picture import pixel_limit
from ingest.options import PROCESSORS
from ingest.pipeline.run import IngestRun
from ingest.report import Progress, RunCounts
from ingest.wiring import Dependencies, open_dependencies
from ingest.workers.driver import WorkerOrder
from ingest.workers.lease import Lease, LeaseAnswer, LeaseHistory, Parcels, WorkerFailure, failure_of
from models.hub import fetch_missing
from models.pixels import give_memory_back

MOST_THREADS = 16


def installed_version() -> str:
    """Return the version of Glimpse here."""
    with suppress(PackageNotFoundError):
        return version("glimpse-search")
    return "not installed"


class IngestWorker:
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
        self._parcels = Parcels(order.limits)
        threads = order.threads or min(MOST_THREADS, PROCESSORS)
        self._options = replace(order.options, threads=threads)
        self._needs: Dependencies = open_dependencies(order.settings, os.environ, create=False)
        _check_places(order, self._needs)
        wanted = ("image", "caption_text", *(("caption",) if order.options.caption else ()))
        here = {role: self._needs.models[role] for role in wanted if role in self._needs.models}
        fetch_missing(here, say=logging.getLogger(__name__).info)
        self._turn = threading.Lock()
        self._rejections = 0
        self._limit = pixel_limit(order.options.max_pixels)
        self._limit.__enter__()  # until the process ends

    def work(self, packed: bytes) -> bytes | WorkerFailure:
        """Do a lease that was packed, and return the packed answer, or why no lease can be done."""
        try:
            return self._parcels.pack(self._done(self._parcels.unpack(packed)))
        except Exception as error:  # the driver ends the run with it
            return failure_of(error)

    def _done(self, lease: Lease) -> LeaseAnswer:
        counts = RunCounts(Progress())
        with closing(LeaseHistory(lease.sidecars)) as history:
            IngestRun(
                dependencies=self._needs,
                options=self._options,
                history=history,
                counts=counts,
                turn=self._turn,
            ).lease(lease.files)
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


def _check_places(order: WorkerOrder, needs: Dependencies) -> None:
    host = socket.gethostname()
    for path in order.paths:
        if not path.exists():
            raise IngestError(
                f"{host} does not see {path}: mount it there under the same path, or name a bucket."
            )
    if order.mark and not needs.storage.exists(order.mark):
        raise IngestError(
            f"{host} has another store at {order.settings.store}: name one that all machines share, as in"
            " --store s3://bucket/thumbnails."
        )
