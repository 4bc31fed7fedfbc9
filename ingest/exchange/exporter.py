"""Write an index as files that other programs read, vectors included, so that nobody is locked in."""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from es_config.aliases import options_of
from es_config.documents import IndexMeta, StoredDocument, paths_of
from es_config.errors import EngineError
from es_config.index import ImageIndex
from es_config.scan import count_view, point_in_time, scan_documents
from ingest.errors import IngestError
from ingest.exchange.shards import CAPTION_VECTORS, IMAGE_VECTORS, METADATA, NEEDS_PYARROW
from ingest.report import Progress

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

NOTE = "export.json"
"""says which index an export is of, and whether it is whole"""
SHARD_ROWS = 100_000
FIELDS = {IMAGE_VECTORS: "image_embedding", CAPTION_VECTORS: "caption_embedding"}
"""folder of an export -> the vector field that it holds"""
CARRIED = ("profile", "revisions", "dims", "caption_dims", "similarity", "relevance", "execution")
"""the parts of `_meta` that an import takes over"""


@dataclass(frozen=True)
class ExportSummary:
    """The results of an export."""

    folder: str
    documents: int
    shards: int
    seconds: float

    def in_words(self) -> str:
        """Return it as a sentence."""
        files = "1 shard" if self.shards == 1 else f"{self.shards} shards"
        return f"{self.documents} pictures with their vectors are in {self.folder}, in {files}."


def export_index(
    client: Elasticsearch,
    index: ImageIndex,
    folder: Path,
    *,
    progress: Progress,
    shard_rows: int = SHARD_ROWS,
) -> ExportSummary:
    """Write all documents of an index as they are at this moment into `folder`.

    The folder is marked as unfinished until all is written; a later call begins anew there. Raises
    `IngestError` and `EngineError`.
    """
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise IngestError(f"{NEEDS_PYARROW}.") from error
    begin, meta = time.monotonic(), index.meta()
    with point_in_time(client, index.name()) as view, progress:
        documents = count_view(view, field=FIELDS[IMAGE_VECTORS])
        note = {
            "format": 1,
            "whole": False,
            "documents": documents,
            "meta": {name: each for name, each in asdict(meta).items() if name in CARRIED},
            "options": asdict(options_of(client, index.name())) | {"similarity": meta.similarity},
        }
        try:
            _prepare(folder, note)
            progress.start(documents)
            found = chain.from_iterable(scan_documents(view, fields=list(FIELDS.values())))
            shards = max(1, -(-documents // shard_rows))
            for number in range(shards):
                rows = min(shard_rows, documents - number * shard_rows)
                part = islice(found, rows)
                _write_shard(folder, part, number=number, rows=rows, meta=meta, progress=progress)
            _write_note(folder, note | {"whole": True})
        except OSError as error:
            full = " Free some space, then run the same command again." if error.errno == errno.ENOSPC else ""
            raise IngestError(
                f"{error.filename or folder} cannot be written: {error.strerror or error}.{full}"
            ) from error
    return ExportSummary(str(folder), documents, shards, round(time.monotonic() - begin, 3))


def read_export(folder: Path) -> IndexMeta | None:
    """Return the `_meta` of the index that a folder is a whole export of, or None for another folder.

    Raises `IngestError` for an export that was cut short.
    """
    try:
        note = json.loads((folder / NOTE).read_text(encoding="utf-8"))
        meta, whole = IndexMeta(**note["meta"]), note["whole"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IngestError(f"{folder / NOTE} is damaged: export the index once more.") from error
    if not whole:
        raise IngestError(f"The export in {folder} was cut short: export the index there once more.")
    return meta


def _prepare(folder: Path, note: dict[str, Any]) -> None:
    """Empty a folder of an unfinished export, or make it. Raises `IngestError` if it holds anything else."""
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / NOTE).exists():
        with suppress(ValueError):
            if json.loads((folder / NOTE).read_text(encoding="utf-8")).get("whole"):
                raise IngestError(f"{folder} holds an export already: name another folder, or delete it.")
    elif any(folder.iterdir()):
        raise IngestError(f"{folder} is not empty: name another folder for the export.")
    _write_note(folder, note)
    for name in (*FIELDS, METADATA):
        (folder / name).mkdir(exist_ok=True)
        for former in (folder / name).iterdir():
            former.unlink()


def _write_note(folder: Path, note: dict[str, Any]) -> None:
    part = folder / f"{NOTE}.part"
    part.write_text(json.dumps(note, indent=2), encoding="utf-8")
    part.replace(folder / NOTE)


def _write_shard(
    folder: Path,
    documents: Iterator[StoredDocument],
    *,
    number: int,
    rows: int,
    meta: IndexMeta,
    progress: Progress,
) -> None:
    import pyarrow as arrow
    from pyarrow import parquet

    schema = arrow.schema(
        [
            ("image_path", arrow.string()),
            ("caption", arrow.string()),
            ("width", arrow.int32()),
            ("height", arrow.int32()),
            ("sha256", arrow.string()),
            ("document", arrow.string()),
        ]
    )
    dims = {IMAGE_VECTORS: meta.dims, CAPTION_VECTORS: meta.caption_dims}
    maps = {name: _new_vectors(folder, name, number, (rows, width)) for name, width in dims.items()}
    target = folder / METADATA / f"{METADATA}_{number:04}.parquet"
    written = 0
    with ExitStack() as opened:
        table = opened.enter_context(parquet.ParquetWriter(target, schema, compression="zstd"))
        while batch := list(islice(documents, 1000)):
            columns = [_row(each) for each in batch]
            table.write_table(arrow.Table.from_pylist(columns, schema=schema))
            for name, vectors in maps.items():
                for place, each in enumerate(batch):
                    if (vector := each.vectors.get(FIELDS[name])) is not None:
                        vectors[written + place] = vector
            written += len(batch)
            for _ in batch:
                progress.advance()
    for vectors in maps.values():
        if isinstance(vectors, np.memmap):
            vectors.flush()
    if written != rows:
        raise EngineError(f"Elasticsearch gave {written} of {rows} pictures: run the same command again.")


def _new_vectors(folder: Path, name: str, number: int, shape: tuple[int, int]) -> np.ndarray:
    path = folder / name / f"{name}_{number:04}.npy"
    if not shape[0]:  # nothing can be mapped
        empty = np.zeros(shape, np.float32)
        np.save(path, empty)
        return empty
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)


def _row(document: StoredDocument) -> dict[str, Any]:
    source = document.source
    paths: Sequence[str] = paths_of(source)
    return {
        "image_path": paths[0] if paths else None,
        "caption": source.get("caption"),
        "width": source.get("width"),
        "height": source.get("height"),
        "sha256": document.image_id,
        "document": json.dumps(source, ensure_ascii=False),
    }
