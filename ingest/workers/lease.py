"""Leases: some files or pictures that a worker has, and its answer to the run."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from es_config.errors import EngineError
from ingest.errors import Fault, IngestError
from ingest.files.walk import Candidate
from ingest.history.ingested_files import IngestHistory
from ingest.report import PartCounts
from ingest.sources.archive import ArchiveSource
from ingest.sources.places import open_archive
from ingest.sources.web import WebLimits, WebReader
from models.errors import ModelError
from storage.buckets import KINDS, open_objects
from storage.errors import StorageError

SidecarNotes = Mapping[str, Mapping[str, tuple[str, ...]]]
"""image id -> absolute path of a file with this content -> names of its sidecars"""
PlaceNotes = Mapping[str, tuple[bytes, ...]]
"""id of a content -> paths and addresses at which files with it were ingested"""


def noted_folders(notes: PlaceNotes) -> tuple[Path, ...]:
    """Return the folders of noted files that are on this machine, so that all workers must see them."""
    places = {Path(os.fsdecode(place)) for group in notes.values() for place in group if place[:1] == b"/"}
    return tuple(sorted({place.parent for place in places if place.exists()}))


@dataclass(frozen=True)
class Lease:
    """Files or pictures that one worker has. If it dies, another one gets them."""

    number: int
    items: tuple[Any, ...]
    """of an ingest the candidates, with absolute paths; of a pass the pictures; of a reindex the documents"""
    notes: Any = None
    """of the history about these items, which only the driver has: `SidecarNotes` or `PlaceNotes`"""
    deaths: int = 0
    """workers that died with it, and with no other lease if there are several"""


@dataclass(frozen=True)
class NotedFile:
    """A file whose content the index has now under its path."""

    candidate: Candidate
    image_id: str
    new_path: bool
    """whether the index had the content under another path before"""


@dataclass(frozen=True)
class LeaseAnswer:
    """All that a worker of an ingest did with one lease."""

    counts: PartCounts
    noted: tuple[NotedFile, ...]
    failed: tuple[tuple[Candidate, Fault], ...]
    left_open: tuple[tuple[Candidate, str], ...]
    """files with sidecars, and image ids of their contents, which other files have too"""
    rejections: int
    """operations that Elasticsearch turned away for the moment"""


@dataclass(frozen=True)
class WorkerFailure:
    """An error that ends the run of a worker, as it goes between processes."""

    kind: str
    sentence: str

    def error(self) -> Exception:
        """Return it as an error of this process."""
        return ERRORS.get(self.kind, IngestError)(self.sentence)


ERRORS: dict[str, type[Exception]] = {
    "engine": EngineError,
    "storage": StorageError,
    "model": ModelError,
    "ingest": IngestError,
}


def failure_of(error: Exception) -> WorkerFailure:
    """Return an error of a worker. One that nobody expected keeps its type in words."""
    for kind, expected in ERRORS.items():
        if isinstance(error, expected):
            return WorkerFailure(kind, str(error))
    return WorkerFailure("ingest", f"A worker failed unexpectedly ({type(error).__name__}: {error}).")


class LeaseHistory(IngestHistory):
    """Collects the findings of a worker about its lease, for the history of the run."""

    def __init__(self, sidecars: SidecarNotes) -> None:
        super().__init__()
        self._sidecars = sidecars
        self.noted: list[NotedFile] = []
        self.failed: list[tuple[Candidate, Fault]] = []
        self.left_open: list[tuple[Candidate, str]] = []

    def record_ok(self, candidate: Candidate, image_id: str, *, new_path: bool = False) -> None:
        """Note that the index has a file's content under its path."""
        self.noted.append(NotedFile(candidate, image_id, new_path))

    def record_failure(self, candidate: Candidate, fault: Fault) -> None:
        """Note that a file cannot be used."""
        self.failed.append((candidate, fault))

    def sidecars_of(self, image_id: str) -> dict[str, tuple[str, ...]]:
        """Return the files with this content that the lease names, with their sidecars."""
        return dict(self._sidecars.get(image_id, {}))

    def lacks_sidecars_of(self, image_id: str) -> bool:
        """Return whether the lease says nothing about the sidecars of a content."""
        return image_id not in self._sidecars

    def leave_open(self, candidate: Candidate, image_id: str) -> None:
        """Note that a file must be looked at once more, when all copies of its content are noted."""
        self.left_open.append((candidate, image_id))


class Parcels:
    """Packs objects that go between two processes of one program, and unpacks them.

    Connections and open archives go by name, and are made once on each side.
    """

    def __init__(self, limits: WebLimits | None = None) -> None:
        self._limits = limits or WebLimits()
        self._shared: dict[tuple[str, str], Any] = {}

    def pack(self, value: object) -> bytes:
        """Return a value as bytes."""
        stream = io.BytesIO()
        _Packer(stream, self._shared).dump(value)
        return stream.getvalue()

    def unpack(self, data: bytes) -> Any:
        """Return the value of bytes that the other side packed. Raises `StorageError`."""
        return _Unpacker(io.BytesIO(data), self._find).load()

    def _find(self, name: tuple[str, str]) -> Any:
        if name not in self._shared:
            kind, address = name
            self._shared[name] = (
                open_objects(address)
                if kind == BUCKET
                else open_archive(address)
                if kind == ARCHIVE
                else WebReader(self._limits)
            )
        return self._shared[name]


BUCKET, ARCHIVE, WEB = "bucket", "archive", "web"


class _Packer(pickle.Pickler):
    def __init__(self, stream: io.BytesIO, shared: dict[tuple[str, str], Any]) -> None:
        super().__init__(stream, protocol=pickle.HIGHEST_PROTOCOL)
        self._shared = shared

    def persistent_id(self, value: Any) -> tuple[str, str] | None:
        if isinstance(value, KINDS):
            name = (BUCKET, value.place)
        elif isinstance(value, ArchiveSource):
            name = (ARCHIVE, value.address)
        elif isinstance(value, WebReader):
            name = (WEB, "")
        else:
            return None
        self._shared.setdefault(name, value)
        return name


class _Unpacker(pickle.Unpickler):
    def __init__(self, stream: io.BytesIO, find: Any) -> None:
        super().__init__(stream)
        self._find = find

    def persistent_load(self, name: tuple[str, str]) -> Any:
        return self._find(name)
