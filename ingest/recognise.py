"""Telling what need not be read: files that are as an earlier run left them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ingest.pipeline.items import FailedBefore, Unchanged
from ingest.stamp import stamp_of
from ingest.files.walk import Candidate, Failure
from storage.store import thumbnail_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from concurrent.futures import Executor

    from ingest.memory import Memory
    from ingest.history.ingested_files import Note
    from ingest.options import IngestOptions
    from storage.store import Storage

TOGETHER = 500
"""files that are looked up at once"""

Recognised = Candidate | Failure | FailedBefore | Unchanged


@dataclass(frozen=True, kw_only=True)
class Recogniser:
    """Passes on what a walk found: files with their stamps, and what is known of those that did not change.

    A note is believed only where the index has the picture under this path and the store its thumbnail.
    """

    known: Callable[[list[str]], Mapping[str, tuple[str, ...]]]
    """maps image ids to the paths that the index lists for them"""
    storage: Storage
    options: IngestOptions
    memory: Memory
    pool: Executor

    def items(self, chunks: Iterable[list[Candidate | Failure]]) -> Iterator[Recognised]:
        """Yield one item for each thing found, in the same order; each chunk is looked up at once."""
        for chunk in chunks:
            yield from self._told(self._in_slices(_stamped, chunk))

    def _told(self, chunk: list[Candidate | Failure]) -> Iterator[Recognised]:
        files = [each for each in chunk if isinstance(each, Candidate)]
        notes = zip(files, self.memory.look_up(files), strict=True)
        noted = {each: note for each, note in notes if note}
        paths = self.known(list({note.image_id for note in noted.values()})) if noted else {}
        same = {each for each, note in noted.items() if each.relative_path in paths.get(note.image_id, ())}
        stored = self._with_thumbnails([each for each in files if each in same], noted)
        for each in chunk:
            if isinstance(each, Failure):
                yield each
            elif each in stored:
                yield Unchanged(each)
            elif self.memory.failed_before(each):
                yield FailedBefore(each)
            else:
                yield each

    def _with_thumbnails(self, same: Sequence[Candidate], noted: Mapping[Candidate, Note]) -> set[Candidate]:
        if self.options.dry_run:
            return set(same)
        keys = [(each, thumbnail_key(noted[each].image_id)) for each in same]
        stored = self._in_slices(lambda pair: pair[0] if self.storage.exists(pair[1]) else None, keys)
        return {each for each in stored if each}

    def _in_slices(self, function: Callable, items: Sequence) -> list:
        """Call `function` for each item, in the pool: disks and stores may be far. Few tasks cost little."""
        size = max(1, -(-len(items) // self.options.threads))
        slices = [items[start : start + size] for start in range(0, len(items), size)]
        return [one for some in self.pool.map(lambda each: list(map(function, each)), slices) for one in some]


def _stamped(found: Candidate | Failure) -> Candidate | Failure:
    return found if isinstance(found, Failure) else replace(found, stamp=stamp_of(found.path))
