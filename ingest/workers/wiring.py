"""Read `--on`, and build the workers of a run."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from es_config.client import glimpse_home
from ingest.errors import IngestError
from ingest.files.walk import EVERYTHING, NO_PATTERNS
from ingest.options import PROCESSORS, IngestOptions, PruneOptions
from ingest.sources.web import WebLimits
from ingest.wiring import Dependencies, EncoderOptions, IngestSettings
from ingest.workers.driver import Crew, SharedWork, WorkerOrder
from ingest.workers.worker import installed_version, settings_to_send
from storage.keys import thumbnail_key
from storage.store import default_store

LOCAL = re.compile(r"local(?:\[(\d{1,4})\])?")
RAY = "ray://"


def open_crew(place: str) -> Crew:
    """Return the workers at `local[4]` or `ray://head:10001`. Raises `IngestError`."""
    if match := LOCAL.fullmatch(place):
        from ingest.workers.local import LocalCrew

        if (size := int(match[1] or 0) or (0 if match[1] else PROCESSORS)) < 1:
            raise IngestError("local[0] has no worker: write local[4] for four processes of this machine.")
        return LocalCrew(size)
    if place.startswith(RAY):
        from ingest.workers.cluster import RayCrew

        return RayCrew(place)
    raise IngestError(
        f"'{place}' names no workers: write local[4] for four processes of this machine, or ray://HOST:10001."
    )


@contextmanager
def shared_work(
    crew: Crew,
    *,
    dependencies: Dependencies,
    settings: IngestSettings,
    options: IngestOptions,
    environ: Mapping[str, str],
    paths: Sequence[Path],
    limits: WebLimits,
    threads: int | None,
    say: Callable[[str], None],
) -> Iterator[SharedWork]:
    """Give the work of a run to a crew, until the end of the body. Raises `StorageError`."""
    mark = thumbnail_key(hashlib.sha256(secrets.token_bytes(32)).hexdigest())
    order = WorkerOrder(
        settings=replace(
            settings,
            model_dir=settings.model_dir and settings.model_dir.absolute(),
            store=_whole(settings.store or default_store(glimpse_home(environ), settings.alias)),
            encoder=EncoderOptions(settings.encoder.requested),
        ),
        # The driver alone chooses files.
        options=replace(options, exclude=NO_PATTERNS, shard=EVERYTHING, prune=PruneOptions(), limit=None),
        environ=settings_to_send(environ),
        paths=tuple(Path(os.path.abspath(path)) for path in paths),  # noqa: PTH100 - links stay
        limits=limits,
        threads=threads or crew.threads,
        mark=mark,
        version=installed_version(),
    )

    def prepare() -> None:
        """Note the model and its precision in the index, so that all workers take the same."""
        dependencies.image_encoder.get()
        dependencies.image_encoder.release()

    dependencies.storage.put(mark, b"")
    try:
        yield SharedWork(crew, order, prepare=prepare, say=say)
    finally:
        dependencies.storage.delete(mark)


def _whole(store: str) -> str:
    """Return the address of a store with an absolute path, if it is a folder."""
    path = store.removeprefix("file:")
    return store if "://" in store or path.startswith("//") else f"file:{os.path.abspath(path)}"  # noqa: PTH100
