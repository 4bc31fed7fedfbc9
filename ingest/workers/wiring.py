"""Read `--on`, and build the workers of a run."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from es_config.client import glimpse_home
from es_config.index import ImageIndex
from ingest.errors import IngestError
from ingest.files.walk import EVERYTHING, NO_PATTERNS
from ingest.options import PROCESSORS, IngestOptions, PruneOptions
from ingest.reindex import Reindexer
from ingest.sources.web import WebLimits
from ingest.wiring import Dependencies, EncoderOptions, IngestSettings
from ingest.workers.driver import Crew, SharedWork, Task, WorkerOrder
from ingest.workers.worker import IngestTask, ReindexTask, installed_version, settings_to_send
from storage.keys import thumbnail_key
from storage.store import Storage, default_store

LOCAL = re.compile(r"local(?:\[(\d{1,4})\])?")
RAY = "ray://"
MARKS = 10
"""pictures that are looked at for one with a thumbnail"""


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
    crew: Crew | None,
    task: Task,
    *,
    settings: IngestSettings,
    environ: Mapping[str, str],
    mark: str,
    paths: Sequence[Path] = (),
    limits: WebLimits | None = None,
    threads: int | None = None,
    prepare: Callable[[], None] = lambda: None,
    say: Callable[[str], None],
) -> Iterator[SharedWork | None]:
    """Give a task to a crew, if there is one, until the end of the body.

    Workers must see the `paths`, and know the store by `mark`, a key that it holds. `prepare` is called
    before they start.
    """
    if crew is None:
        yield None
        return
    order = WorkerOrder(
        settings=replace(
            settings,
            model_dir=settings.model_dir and settings.model_dir.absolute(),
            store=_whole(settings.store or default_store(glimpse_home(environ), settings.alias)),
            encoder=EncoderOptions(settings.encoder.requested),
        ),
        task=task,
        environ=settings_to_send(environ),
        paths=tuple(Path(os.path.abspath(path)) for path in paths),  # noqa: PTH100 - links stay
        limits=limits or WebLimits(),
        threads=threads or crew.threads,
        mark=mark,
        version=installed_version(),
    )
    with closing(SharedWork(crew, order, prepare=prepare, say=say)) as work:
        yield work


@contextmanager
def shared_ingest(
    crew: Crew | None,
    *,
    dependencies: Dependencies,
    options: IngestOptions,
    **more: Any,
) -> Iterator[SharedWork | None]:
    """Give an ingest to a crew, if there is one, as `shared_work` does. Raises `StorageError`."""
    # The driver alone chooses files.
    options = replace(options, exclude=NO_PATTERNS, shard=EVERYTHING, prune=PruneOptions(), limit=None)
    mark = thumbnail_key(hashlib.sha256(secrets.token_bytes(32)).hexdigest())

    def prepare() -> None:
        """Note the model and its precision in the index, so that all workers take the same."""
        dependencies.image_encoder.get()
        dependencies.image_encoder.release()

    with ExitStack() as stack:
        if crew:
            dependencies.storage.put(mark, b"")
            stack.callback(dependencies.storage.delete, mark)
        yield stack.enter_context(shared_work(crew, IngestTask(options), mark=mark, prepare=prepare, **more))


def shared_pass(
    crew: Crew | None, task: Task, *, dependencies: Dependencies, **more: Any
) -> AbstractContextManager[SharedWork | None]:
    """Give a pass over the pictures of the index to a crew, if there is one, as `shared_work` does."""
    mark = stored_thumbnail(dependencies.index, dependencies.storage) if crew else ""
    return shared_work(crew, task, mark=mark, **more)


def shared_reindex(
    crew: Crew | None, reindexer: Reindexer, **more: Any
) -> AbstractContextManager[SharedWork | None]:
    """Give the pictures of a reindex to a crew, if there is one, as `shared_work` does."""
    originals = reindexer.originals
    mark = stored_thumbnail(reindexer.old, originals.storage) if crew else ""

    def prepare() -> None:
        """Note the models and the precision in the next index, so that all workers take the same."""
        reindexer.image_encoder.get()
        reindexer.image_encoder.release()

    folders = tuple(Path(os.path.abspath(each)) for each in originals.folders)  # noqa: PTH100 - links stay
    task = ReindexTask(reindexer.options, folders)
    return shared_work(crew, task, mark=mark, paths=folders, prepare=prepare, **more)


def stored_thumbnail(index: ImageIndex, storage: Storage) -> str:
    """Return the key of a thumbnail of the index that the store holds, or nothing without one.

    Raises `EngineError` or `StorageError`.
    """
    hits = index.search({"query": {"match_all": {}}, "size": MARKS, "_source": ["image_id"]}).hits
    keys = (thumbnail_key(hit.image_id) for hit in hits)
    return next(filter(storage.exists, keys), "")


def _whole(store: str) -> str:
    """Return the address of a store with an absolute path, if it is a folder."""
    path = store.removeprefix("file:")
    return store if "://" in store or path.startswith("//") else f"file:{os.path.abspath(path)}"  # noqa: PTH100
