"""Pictures that a list names: a line each, or a column of a table, of paths and addresses."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from ingest.errors import IngestError
from ingest.exchange.shards import TABLES, open_table
from ingest.files.walk import Beside, Candidate, Failure, is_address, valid_unicode
from ingest.sources.bucket import BucketObject
from ingest.sources.source import Rules, candidate
from ingest.sources.web import WebLimits, WebObject, WebReader, relative_of
from storage.buckets import SCHEMES, BucketObjects, open_objects

COLUMNS = ("path", "image_path", "file_name", "url")
"""names of the column that is taken when none is named"""


class ListSource:
    """A list of paths and addresses. That it does not name one proves nothing."""

    is_complete = False
    is_far = True

    def __init__(self, path: Path, *, column: str | None = None, limits: WebLimits | None = None) -> None:
        """Check that there is such a list. Raises `IngestError`."""
        self.address = f"list:{path}"
        self._path, self._column = path, column
        self._web = WebReader(limits or WebLimits())
        self._buckets: dict[str, BucketObjects] = {}
        self._beside = Beside()
        kind = path.suffix.lower()
        if kind not in (".csv", *TABLES) and column:
            raise IngestError(f"{path} has no columns: leave ':{column}' out, or name a CSV or Parquet file.")
        if not path.is_file():
            raise IngestError(f"There is no list {path}.")
        if kind in (".csv", *TABLES):
            self._column = self._chosen(self._columns(kind))

    def candidates(self, rules: Rules) -> Iterator[Candidate | Failure]:
        """Yield the entries of the list, in its order. Raises `IngestError` for a damaged list."""
        for entry in self._entries():
            found = self._of_entry(entry)
            if isinstance(found, Failure) or rules.admit(found.relative_path, named=True):
                yield found

    def close(self) -> None:
        """Close the connections."""
        self._web.close()

    def _of_entry(self, entry: str) -> Candidate | Failure:
        if not is_address(entry):
            path = self._path.parent / Path(entry).expanduser()
            kept = [part for part in Path(entry).parts if part not in ("/", "..", "~")]
            return self._beside.joined(Candidate(path, valid_unicode("/".join(kept)) or entry))
        parts = urlsplit(entry)
        scheme = parts.scheme.lower()
        if scheme in ("http", "https") and parts.hostname:
            return candidate(WebObject(self._web, entry), relative_of(entry), None)
        if scheme in SCHEMES and parts.netloc and parts.path.strip("/"):
            key, place = entry.partition("://")[2].partition("/")[2], f"{scheme}://{parts.netloc}"
            if place not in self._buckets:
                self._buckets[place] = open_objects(place)
            origin = BucketObject(self._buckets[place], key)
            return candidate(origin, valid_unicode(f"{parts.netloc}/{key}"), None)
        return Failure(
            valid_unicode(entry),
            "no address that can be read: they begin with https://, s3://, gs:// or az://",
        )

    def _entries(self) -> Iterator[str]:
        try:
            if self._column is None:
                with self._path.open(encoding="utf-8", errors="surrogateescape") as file:
                    lines = (line.strip("\r\n") for line in file)
                    yield from (line for line in lines if line.strip() and not line.startswith("#"))
            elif self._path.suffix.lower() == ".csv":
                with self._path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
                    for row in csv.DictReader(file):
                        if value := row.get(self._column):
                            yield value
            else:
                for block in open_table(self._path).blocks([self._column]):
                    yield from (str(row[self._column]) for row in block if row.get(self._column))
        except (OSError, csv.Error) as error:
            raise IngestError(f"The list {self._path} cannot be read: {error}.") from error

    def _columns(self, kind: str) -> tuple[str, ...]:
        if kind != ".csv":
            return open_table(self._path).columns
        try:
            with self._path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
                return tuple(csv.DictReader(file).fieldnames or ())
        except (OSError, csv.Error) as error:
            raise IngestError(f"The list {self._path} cannot be read: {error}.") from error

    def _chosen(self, there: tuple[str, ...]) -> str:
        wanted = (self._column,) if self._column else COLUMNS
        found = next((name for name in wanted if name in there), None)
        if found is None:
            raise IngestError(
                f"{self._path} has no column '{wanted[0]}'; it has: {', '.join(there) or 'none'}. Name that"
                f" of the paths or addresses as in @{self._path.name}:COLUMN."
            )
        return found


class AddressSource:
    """One address of the web that somebody named."""

    is_complete = False
    is_far = True

    def __init__(self, url: str, *, limits: WebLimits | None = None) -> None:
        self.address = url
        self._web = WebReader(limits or WebLimits())

    def candidates(self, rules: Rules) -> Iterator[Candidate | Failure]:
        """Yield the address."""
        relative = relative_of(self.address)
        if rules.admit(relative, named=True):
            yield candidate(WebObject(self._web, self.address), relative, None)

    def close(self) -> None:
        """Close the connections."""
        self._web.close()
