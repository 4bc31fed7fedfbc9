"""What a run remembers of the runs before it: the notes of good files and the log of bad ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ingest.errors import Fault
    from ingest.history.ingested_files import Note, Notes
    from ingest.history.failed_files import Quarantine
    from ingest.files.walk import Candidate


@dataclass(frozen=True)
class Memory:
    """Either may be missing: then nothing is remembered of that kind."""

    notes: Notes | None = None
    quarantine: Quarantine | None = None

    def look_up(self, candidates: Sequence[Candidate]) -> list[Note | None]:
        """Return for each file what was noted of it, if it is as it was then."""
        return self.notes.look_up(candidates) if self.notes else [None] * len(candidates)

    def count(self, folders: Sequence[Path]) -> int:
        """Return how many files below folders, each of which is below no other, earlier runs noted."""
        return sum(map(self.notes.count, folders)) if self.notes else 0

    def failed_before(self, candidate: Candidate) -> bool:
        """Whether a file need not be tried again."""
        return bool(self.quarantine and self.quarantine.reason(candidate.path, candidate.stamp))

    def good(self, candidate: Candidate, image_id: str, *, new_path: bool = False) -> None:
        """The index has a file's content under its path; with `new_path`, it had it under another before."""
        if self.quarantine:
            self.quarantine.discard(candidate.path)
        if self.notes:
            self.notes.record(candidate, image_id)
        if new_path:
            self.came(image_id)

    def came(self, image_id: str) -> None:
        """A known content was found under another path: it may have moved."""
        if self.notes:
            self.notes.came(image_id)

    def bad(self, candidate: Candidate, fault: Fault) -> None:
        """A file cannot be used."""
        if self.quarantine:
            self.quarantine.add(candidate.path, fault, candidate.stamp)

    def save(self, *, last: bool) -> None:
        """Write what waits; `last` at the end of a whole run."""
        if self.notes:
            self.notes.flush()
        if self.quarantine:
            self.quarantine.save(last=last)

    def close(self) -> None:
        """Let the files go."""
        if self.notes:
            self.notes.close()
