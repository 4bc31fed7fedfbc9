"""Reindexing: an index for other models grows beside the one that answers, and takes its place at once."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from es_config.errors import EngineError
from ingest.errors import IngestError
from ingest.pictures import pixel_limit
from ingest.reindex_pass import Passes
from ingest.reindex_sources import NO_LIMIT
from ingest.reindex_types import Filled
from models.pixels import register_formats
from storage.errors import StorageError

if TYPE_CHECKING:
    from es_config.alias import Alias, Switched
    from es_config.copies import Copies
    from ingest.notes import Notes
    from ingest.reindex_sources import WholePictures
    from ingest.reindex_types import ReindexOptions
    from ingest.run_types import Progress
    from models.encoders import ImageEncoder, TextEncoder

FEW = 100
"""changes in one pass after which the rest waits for the switch, when nobody may write"""
EVERYTHING = -1


class Reindexing:
    """Fills the next index and switches to it. Whatever stops it, a new one goes on from there."""

    def __init__(
        self,
        *,
        alias: Alias,
        copies: Copies,
        image_encoder: ImageEncoder,
        caption_encoder: TextEncoder,
        pictures: WholePictures,
        notes: Notes | None,
        options: ReindexOptions,
        progress: Progress,
    ) -> None:
        self._alias = alias
        self._copies = copies
        self._notes = notes
        self._progress = progress
        self._passes = Passes(
            copies=copies,
            image_encoder=image_encoder,
            caption_encoder=caption_encoder,
            pictures=pictures,
            options=options,
            progress=progress,
        )
        self._begin = time.monotonic()
        self._since = EVERYTHING
        self._deleted = 0

    def fill(self) -> Filled:
        """Bring the next index as near to the one that answers as it can be while that one changes.

        Ctrl-C ends it early. Raises `ModelError`, or `IngestError` when Elasticsearch or the store fails.
        """
        register_formats()
        self._progress.start(self._copies.old.count())
        try:
            with pixel_limit(NO_LIMIT):
                while self._catch_up() > FEW:
                    continue
                self._deleted += self._copies.drop_absent()
        except KeyboardInterrupt:
            return self._filled(interrupted=True)
        except (EngineError, StorageError) as error:
            done = self._passes.embedded
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
        with pixel_limit(NO_LIMIT), self._alias.closed():
            self._catch_up()
            self._deleted += self._copies.drop_absent()
            self._forget_gone()
            filled = self._filled()
            if filled.missing and not allow_missing:
                return filled, None
            if self._notes:
                self._notes.copy(old=self._copies.old.uuid(), new=self._copies.new.uuid())
            return filled, self._alias.switch()

    def _catch_up(self) -> int:
        done = self._copies.checkpoint()
        changed = self._passes.run(since=self._since)
        self._since = done
        return changed

    def _forget_gone(self) -> None:
        """Pictures that left meanwhile are not missing."""
        missing = self._passes.missing
        for image_id in missing.keys() - self._copies.old.listed(list(missing)).keys():
            del missing[image_id]

    def _filled(self, *, interrupted: bool = False) -> Filled:
        self._copies.new.refresh()
        return Filled(
            index=self._copies.new.name(),
            images=self._copies.new.count(),
            embedded=self._passes.embedded,
            from_copies=self._passes.from_copies,
            updated=self._passes.updated,
            deleted=self._deleted,
            missing=tuple(self._passes.missing.values()),
            seconds=round(time.monotonic() - self._begin, 3),
            interrupted=interrupted,
        )
