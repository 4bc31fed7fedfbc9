"""The perceptual hash and the paths of every picture, read in blocks from one frozen view of an index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from es_config.scan import point_in_time

if TYPE_CHECKING:
    from collections.abc import Iterator

    from elasticsearch import Elasticsearch

BLOCK = 5000


@dataclass(frozen=True)
class HashedImage:
    """One picture: `phash` is None where the index has none that is 16 hexadecimal digits."""

    image_id: str
    phash: int | None
    paths: tuple[str, ...]
    """every relative path that holds it, in the order of names"""


def scan_hashes(client: Elasticsearch, index: str, *, size: int = BLOCK) -> Iterator[list[HashedImage]]:
    """Yield all pictures of an index, at most `size` at a time. Raises EngineError."""
    with point_in_time(client, index) as view:
        for hits in view.pages(hashes_body(size=size)):
            yield [_read(hit) for hit in hits]


def hashes_body(*, size: int) -> dict[str, Any]:
    """Return the search for one block; columns are read, not documents."""
    return {
        "query": {"match_all": {}},
        "size": size,
        "sort": ["_shard_doc"],
        "track_total_hits": False,
        "_source": False,
        "docvalue_fields": ["phash", "relative_path"],
    }


def _read(hit: dict[str, Any]) -> HashedImage:
    fields = hit.get("fields", {})
    try:
        phash = int(fields["phash"][0], 16)
    except (KeyError, ValueError):
        phash = None
    fits = phash is not None and 0 <= phash < 1 << 64
    return HashedImage(hit["_id"], phash if fits else None, tuple(fields.get("relative_path", ())))
