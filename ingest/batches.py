"""Batches: cut from what is to be written, and embedded."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from ingest.embed import embed_pictures
from ingest.items import BadFile, LostThumbnail, NewPath, Prepared
from ingest.writer import Embedded, ToWrite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from models.encoders import ImageEncoder, TextEncoder

Item = TypeVar("Item")
OTHERS = 4
"""a batch holds at most so many times as many items as pictures to embed: paths of known ones cost little"""


def batches(items: Iterable[Item], *, size: int) -> Iterator[list[Item]]:
    """Cut after `size` new pictures; what follows a picture stays behind it."""
    batch, pictures = [], 0
    for item in items:
        batch.append(item)
        pictures += isinstance(item, Prepared)
        if pictures == size or len(batch) == OTHERS * size:
            yield batch
            batch, pictures = [], 0
    if batch:
        yield batch


def embed_batch(
    batch: Sequence[Prepared | NewPath | LostThumbnail],
    *,
    image_encoder: ImageEncoder,
    caption_encoder: TextEncoder,
    drop: Callable[[BadFile], None],
) -> list[ToWrite]:
    """Return the batch with documents in place of its new pictures, in the same order.

    A picture that the model cannot embed is handed to `drop` and left out.
    """
    pictures = [item for item in batch if isinstance(item, Prepared)]
    encoders = {"image_encoder": image_encoder, "caption_encoder": caption_encoder}
    documents = iter(embed_pictures(pictures, **encoders) if pictures else ())
    ready: list[ToWrite] = []
    for item in batch:
        document = next(documents) if isinstance(item, Prepared) else None
        if document is None:
            ready.append(item)
        elif isinstance(document, str):
            drop(BadFile(item.candidate, document, item.file.image_id))
        else:
            ready.append(Embedded(item.candidate, document, item.thumbnail))
    return ready
