"""Vectors of different weights never meet in one index."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ingest.errors import IngestError

if TYPE_CHECKING:
    from es_config.index import ImageIndex


def check_weights(index: ImageIndex, tower: str, revision: str) -> None:
    """Raise `IngestError` when the index notes other weights of a tower; where it notes none, note these."""
    if not index.exists():
        return
    recorded = index.meta().revisions.get(tower)
    if recorded is None:
        index.note_revision(tower, revision)
    elif recorded != revision:
        raise IngestError(
            f"The index '{index.alias}' was made with other weights ({tower} {recorded}, here {revision}):"
            " use the models that it was made with, or run `glimpse index delete` and ingest again."
        )
