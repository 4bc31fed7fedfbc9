"""What is asked of the end of a run, and what it removed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class PruneOptions:
    """Whether what is gone leaves the index."""

    prune: bool = False
    anyway: bool = False
    """also when more than a fifth would go"""
    moved_from: tuple[Path, ...] = ()
    """folders that were ingested and are no more: their files count as those of this run's folders"""


@dataclass(frozen=True)
class PruneSummary:
    """What left the index; in a dry run, what would leave it with its last path."""

    gone: tuple[str, ...] = ()
    """files that are gone with no copy left; in a dry run and after a refusal they are still in the index"""
    documents: int = 0
    """documents that were deleted, with what the store kept: of files that are gone or have changed"""
    human_captions: int = 0
    """deleted documents whose caption a person had written; the captions are in removed-captions.jsonl"""
    failures: tuple[str, ...] = ()
    """what the index refused to change"""
    refused: str | None = None
    """why nothing was pruned"""

    @property
    def failed(self) -> bool:
        """Whether something was asked and not done."""
        return bool(self.refused or self.failures)

    def as_dict(self) -> dict[str, object]:
        """Return the part `pruned` of the JSON object of `glimpse ingest --json`."""
        return {
            "gone": list(self.gone),
            "documents": self.documents,
            "human_captions": self.human_captions,
            "failures": list(self.failures),
            "refused": self.refused,
        }
