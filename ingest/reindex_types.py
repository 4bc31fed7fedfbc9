"""What is handed to a reindexing, and what comes back."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from ingest.errors import IngestError

if TYPE_CHECKING:
    from es_config.aliases import Switched
    from ingest.files.walk import Failure


class SameModelsError(IngestError):
    """The index holds the vectors of these models already."""


@dataclass(frozen=True)
class Filled:
    """What became of the next index."""

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


@dataclass(frozen=True)
class Compared:
    """The hits of one query in both indices, nearest first: names of pictures by image id."""

    query: str
    former: dict[str, str]
    new: dict[str, str]

    @property
    def overlap(self) -> float:
        """The share of the longer list that both have, from 0 to 1."""
        longest = max(len(self.former), len(self.new))
        return len(self.former.keys() & self.new.keys()) / longest if longest else 1.0


@dataclass(frozen=True)
class Comparison:
    """How the top ten of sample queries differ."""

    source: str
    """where the queries come from, in words"""
    queries: tuple[Compared, ...]

    @property
    def overlap(self) -> float:
        """The mean of the queries' overlaps."""
        return sum(each.overlap for each in self.queries) / len(self.queries)

    def as_dict(self) -> dict[str, object]:
        """Return it as a part of the JSON object of `glimpse reindex --json`."""
        rows = [asdict(each) | {"overlap": round(each.overlap, 4)} for each in self.queries]
        return {"source": self.source, "overlap": round(self.overlap, 4), "queries": rows}


@dataclass(frozen=True)
class Outcome:
    """What one run of `glimpse reindex` did."""

    filled: Filled
    comparison: Comparison | None = None
    switched: Switched | None = None

    def as_dict(self) -> dict[str, object]:
        """Return the JSON object of `glimpse reindex --json`."""
        return {
            **asdict(self.filled),
            "comparison": self.comparison and self.comparison.as_dict(),
            "switched": self.switched and asdict(self.switched),
        }
