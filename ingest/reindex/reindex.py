"""Reindexing: an index for other models grows beside the one that answers, and takes its place at once."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from es_config.errors import EngineError
from ingest.errors import IngestError
from ingest.files.picture import pixel_limit
from ingest.reindex_sources import NO_LIMIT
from ingest.reindex_types import Filled
from models.pixels import register_formats
from storage.errors import StorageError

if TYPE_CHECKING:
    from es_config.aliases import Alias, Switched
    from ingest.history.ingested_files import Notes
    from ingest.reindex_pass import Passes

FEW = 100
"""changes in one pass after which the rest waits for the switch, when nobody may write"""
EVERYTHING = -1


@dataclass(kw_only=True)
class Reindexing:
    """Fills the next index and switches to it. Whatever stops it, a new one goes on from there."""

    alias: Alias
    passes: Passes
    notes: Notes | None
    _begin: float = field(default_factory=time.monotonic, init=False)
    _since: int = field(default=EVERYTHING, init=False)
    _deleted: int = field(default=0, init=False)

    def fill(self) -> Filled:
        """Bring the next index as near to the one that answers as it can be while that one changes.

        Ctrl-C ends it early. Raises `ModelError`, or `IngestError` when Elasticsearch or the store fails.
        """
        register_formats()
        self.passes.progress.start(self.passes.copies.old.count())
        try:
            with pixel_limit(NO_LIMIT):
                while self._catch_up() > FEW:
                    continue
                self._deleted += self.passes.copies.drop_absent()
        except KeyboardInterrupt:
            return self._filled(interrupted=True)
        except (EngineError, StorageError) as error:
            done = self.passes.embedded
            raise IngestError(
                f"Stopped after {done} pictures were embedded. {error} Searches go on in the former index,"
                " and nothing is lost: once that is mended, the same command goes on from there."
            ) from error
        return self._filled()

    def switch(self, *, allow_missing: bool) -> tuple[Filled, Switched | None]:
        """Take in the last changes while nobody may write, then put the next index behind the alias.

        Without `allow_missing` nothing is switched while a picture is missing. Raises `EngineError`,
        `StorageError`, `ModelError` or `IngestError`; the former index then takes writes again.
        """
        with pixel_limit(NO_LIMIT), self.alias.closed():
            self._catch_up()
            self._deleted += self.passes.copies.drop_absent()
            self._forget_gone()
            filled = self._filled()
            if filled.missing and not allow_missing:
                return filled, None
            if self.notes:
                self.notes.copy(old=self.passes.copies.old.uuid(), new=self.passes.copies.new.uuid())
            return filled, self.alias.switch()

    def _catch_up(self) -> int:
        done = self.passes.copies.checkpoint()
        changed = self.passes.run(since=self._since)
        self._since = done
        return changed

    def _forget_gone(self) -> None:
        """Pictures that left meanwhile are not missing."""
        missing = self.passes.missing
        for image_id in missing.keys() - self.passes.copies.old.listed(list(missing)).keys():
            del missing[image_id]

    def _filled(self, *, interrupted: bool = False) -> Filled:
        self.passes.copies.new.refresh()
        return Filled(
            index=self.passes.copies.new.name(),
            images=self.passes.copies.new.count(),
            embedded=self.passes.embedded,
            from_copies=self.passes.from_copies,
            updated=self.passes.updated,
            deleted=self._deleted,
            missing=tuple(self.passes.missing.values()),
            seconds=round(time.monotonic() - self._begin, 3),
            interrupted=interrupted,
        )
