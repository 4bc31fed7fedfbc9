"""Read vectors with their metadata, shard by shard and in blocks, from NumPy, Parquet and JSON lines.

The layout is that of clip-retrieval and img2dataset: `img_emb/img_emb_0.npy` has one row for each row of
`metadata/metadata_0.parquet`. Nothing is held whole: vectors and rows come in blocks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ingest.errors import IngestError

BLOCK = 1000
"""rows that are read, checked and written together"""
FLOATS = ("float16", "float32", "float64")
IMAGE_VECTORS, CAPTION_VECTORS, METADATA = "img_emb", "caption_emb", "metadata"
"""folders of an export, and the beginnings of the names of their files"""
NEEDS_PYARROW = "Parquet needs a library that is not here: `pip install 'glimpse-search[parquet]'`"

Row = Mapping[str, Any]
"""column -> value"""


@dataclass(frozen=True)
class Block:
    """Some rows that follow each other in a shard."""

    start: int
    """number of the first row, counted from 0"""
    rows: Sequence[Row]
    vectors: np.ndarray
    """float32 `[n, dims]`"""
    caption_vectors: np.ndarray | None = None
    """float32 `[n, caption_dims]`; a row of zeros for a picture without a caption"""


class Table(Protocol):
    """A file of metadata."""

    @property
    def path(self) -> Path:
        """Return the file."""

    @property
    def rows(self) -> int:
        """Return the number of rows."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the names of the columns, as far as the beginning of the file tells them."""

    def blocks(self, columns: Sequence[str] | None) -> Iterator[list[Row]]:
        """Yield rows in order, `BLOCK` at a time, with `columns` or all. Raises `IngestError`."""


class VectorFile:
    """The vectors of a `.npy` file, which are read in parts."""

    def __init__(self, path: Path) -> None:
        """Check the file's head and length. Raises `IngestError`."""
        self.path = path
        try:
            self._array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise IngestError(
                f"{path} is no whole file of NumPy ({_first_line(error)}): copy it again."
            ) from error
        if not isinstance(self._array, np.ndarray) or self._array.dtype.name not in FLOATS:
            kind = getattr(getattr(self._array, "dtype", None), "name", "an archive")
            raise IngestError(f"{path} holds {kind}, no vectors: they are {', '.join(FLOATS)}.")
        if self._array.ndim != 2 or not self._array.shape[1]:
            raise IngestError(
                f"{path} has the shape {self._array.shape}: vectors are one row for each picture, (n, dims)."
            )

    @property
    def rows(self) -> int:
        """Return the number of vectors."""
        return int(self._array.shape[0])

    @property
    def dims(self) -> int:
        """Return the length of each."""
        return int(self._array.shape[1])

    def read(self, start: int, number: int) -> np.ndarray:
        """Return some vectors, float32 `[number, dims]`. Raises `IngestError` when the file is away."""
        part = self._array[start : start + number]
        if not part.flags.c_contiguous:
            return np.array(part, dtype=np.float32)
        # Pages of a map would stay with the process: what it holds would grow with the file.
        offset = int(self._array.offset) + start * self.dims * self._array.itemsize
        try:
            found = np.fromfile(self.path, self._array.dtype, part.size, offset=offset)
            return found.astype(np.float32).reshape(part.shape)
        except (OSError, ValueError) as error:
            raise IngestError(f"{self.path} cannot be read any more ({_first_line(error)}).") from error


class ParquetTable:
    """A Parquet file, read row group by row group. Raises `IngestError` for a file that is none, or cut."""

    def __init__(self, path: Path) -> None:
        try:
            from pyarrow import parquet
        except ImportError as error:
            raise IngestError(f"{path}: {NEEDS_PYARROW}.") from error
        self.path = path
        try:
            self._file = parquet.ParquetFile(path, pre_buffer=False)
        except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
            raise self._broken(error) from error

    @property
    def rows(self) -> int:
        """Return the number of rows, from the file's foot."""
        return int(self._file.metadata.num_rows)

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the names of the columns."""
        return tuple(self._file.schema_arrow.names)

    def blocks(self, columns: Sequence[str] | None) -> Iterator[list[Row]]:
        """Yield rows in order, exactly `BLOCK` at a time but for the last ones."""
        waiting: list[Row] = []
        try:
            for batch in self._file.iter_batches(batch_size=BLOCK, columns=columns and list(columns)):
                waiting += batch.to_pylist()
                while len(waiting) >= BLOCK:
                    yield waiting[:BLOCK]
                    waiting = waiting[BLOCK:]
        except (OSError, ValueError) as error:
            raise self._broken(error) from error
        if waiting:
            yield waiting

    def _broken(self, error: Exception) -> IngestError:
        return IngestError(f"{self.path} is no whole Parquet file ({_first_line(error)}): copy it again.")


class JsonTable:
    """A file of JSON lines, one object for each picture. Raises `IngestError` for anything else."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self.rows = sum(1 for line in file if line.strip())
        except OSError as error:
            raise IngestError(f"{path} cannot be read: {error.strerror}.") from error

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Return the names in the first object."""
        return tuple(next((block[0] for block in self.blocks(None)), {}))

    def blocks(self, columns: Sequence[str] | None) -> Iterator[list[Row]]:
        """Yield rows in order, `BLOCK` at a time."""
        del columns  # a line is read whole
        rows: list[Row] = []
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise IngestError(f"{self.path}, line {number}, is not JSON: {error}.") from error
                if not isinstance(row, dict):
                    raise IngestError(f"{self.path}, line {number}, is no JSON object.")
                rows.append(row)
                if len(rows) == BLOCK:
                    yield rows
                    rows = []
        if rows:
            yield rows


TABLES: dict[str, Callable[[Path], Table]] = {
    ".parquet": ParquetTable,
    ".jsonl": JsonTable,
    ".ndjson": JsonTable,
}
"""extension -> how such metadata is read"""


def open_table(path: Path) -> Table:
    """Open a file of metadata. Raises `IngestError`."""
    if path.suffix.lower() not in TABLES:
        raise IngestError(f"{path} is no metadata that can be read: it ends in {', '.join(TABLES)}.")
    return TABLES[path.suffix.lower()](path)


@dataclass(frozen=True)
class VectorShard:
    """A file of metadata with the vectors of its rows."""

    table: Table
    vectors: VectorFile | None
    """None if a column of the table holds them"""
    caption_vectors: VectorFile | None = None
    vector_column: str | None = None

    @property
    def rows(self) -> int:
        """Return the number of rows."""
        return self.table.rows

    @cached_property
    def dims(self) -> int | None:
        """Return the length of the vectors, or None without any row. Raises `IngestError`."""
        if self.vectors:
            return self.vectors.dims
        first = next(self.table.blocks([str(self.vector_column)]), None)
        return self._column(first[:1], 0).shape[1] if first else None

    def blocks(self) -> Iterator[Block]:
        """Yield the rows with their vectors. Raises `IngestError` for a file that changed or is damaged."""
        start = 0
        for rows in self.table.blocks(None):
            number = len(rows)
            vectors = self.vectors.read(start, number) if self.vectors else self._column(rows, start)
            captions = self.caption_vectors.read(start, number) if self.caption_vectors else None
            if len(vectors) != number:
                raise IngestError(f"{self.table.path} has more rows than its vectors: import them again.")
            yield Block(start, rows, vectors, captions)
            start += number

    def _column(self, rows: Sequence[Row], start: int) -> np.ndarray:
        name = str(self.vector_column)
        try:
            return np.array([row[name] for row in rows], dtype=np.float32).reshape(len(rows), -1)
        except (KeyError, TypeError, ValueError) as error:
            raise IngestError(
                f"{self.table.path}: from row {start} on, '{name}' does not hold lists of numbers of one"
                " length."
            ) from error


def natural(path: Path) -> list[tuple[int, str]]:
    """Return the key by which `part_10` comes after `part_9`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]


def files_of(paths: Sequence[Path], extensions: Sequence[str]) -> list[Path]:
    """Return the files that were named, and those of named folders, in the order of their numbers."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            below = [each for each in path.iterdir() if each.suffix.lower() in extensions]
            found += sorted((each for each in below if not each.name.startswith(".")), key=natural)
        else:
            found.append(path)
    return found


@dataclass(frozen=True)
class VectorSources:
    """Files and folders as they were named on the command line."""

    vectors: Sequence[Path] = ()
    metadata: Sequence[Path] = ()
    caption_vectors: Sequence[Path] = ()
    vector_column: str | None = None
    shards: tuple[VectorShard, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Open all files, and check that they belong together. Raises `IngestError`."""
        tables = files_of(self.metadata, tuple(TABLES))
        if not tables:
            raise IngestError(f"There is no metadata there: files that end in {', '.join(TABLES)}.")
        vectors = self._beside(tables, self.vectors, "vectors")
        captions = self._beside(tables, self.caption_vectors, "vectors of captions")
        if bool(vectors) == bool(self.vector_column):
            raise IngestError("Name the vectors: either with --vectors, or with --vector-column.")
        shards = []
        for place, path in enumerate(tables):
            shard = VectorShard(
                open_table(path),
                VectorFile(vectors[place]) if vectors else None,
                VectorFile(captions[place]) if captions else None,
                self.vector_column,
            )
            _check(shard)
            shards.append(shard)
        widths = {shard.dims for shard in shards if shard.dims is not None}
        if len(widths) > 1:
            listed = ", ".join(map(str, sorted(widths)))
            raise IngestError(f"The vectors have different lengths: {listed} dims.")
        object.__setattr__(self, "shards", tuple(shards))

    @property
    def rows(self) -> int:
        """Return the number of rows of all shards."""
        return sum(shard.rows for shard in self.shards)

    @property
    def dims(self) -> int | None:
        """Return the length of the vectors, or None without any."""
        return next((shard.dims for shard in self.shards if shard.dims is not None), None)

    def _beside(self, tables: Sequence[Path], paths: Sequence[Path], what: str) -> list[Path]:
        """Return one file for each table, or none."""
        found = files_of(paths, (".npy",))
        if paths and len(found) != len(tables):
            raise IngestError(
                f"There are {len(tables)} files of metadata and {len(found)} of {what}: each needs its own."
            )
        return found


def _check(shard: VectorShard) -> None:
    """Raise `IngestError` unless each row of the table has its vector."""
    for vectors in (shard.vectors, shard.caption_vectors):
        if vectors and vectors.rows != shard.table.rows:
            raise IngestError(
                f"{vectors.path} has {vectors.rows} vectors and {shard.table.path} has {shard.table.rows}"
                " rows: they do not belong together."
            )
    if shard.vector_column and shard.table.rows and shard.vector_column not in shard.table.columns:
        raise IngestError(
            f"{shard.table.path} has no column '{shard.vector_column}'; it has:"
            f" {', '.join(shard.table.columns)}."
        )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0].rstrip(".") or type(error).__name__
