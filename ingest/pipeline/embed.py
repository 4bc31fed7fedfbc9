"""Batches of pictures and their vectors, where one bad picture costs itself alone."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from es_config.documents import ImageDocument
from ingest.errors import Fault, UnreadableImageError
from ingest.pipeline.items import BadFile, Embedded, Prepared

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import numpy as np
    from PIL.Image import Image

    from ingest.pipeline.items import ToEmbed, ToWrite
    from models.encoders import ImageEncoder, TextEncoder

Key = TypeVar("Key")
OTHERS = 4
"""a batch holds at most so many times as many items as pictures to embed: paths of known ones cost little"""


def made_of(image: Image, *functions: Callable[[Image], Any]) -> list[Any]:
    """Return what each function makes of a picture, the encoder's `preprocess` or `thumbnail`.

    Raises `UnreadableImageError`.
    """
    try:
        return [function(image) for function in functions]
    except Exception as error:  # whatever a library raises for a strange picture
        reason = f"the model cannot take it ({type(error).__name__}: {error})"
        raise UnreadableImageError(reason) from error


def batches(items: Iterable[ToEmbed], *, size: int) -> Iterator[list[ToEmbed]]:
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
    batch: Sequence[ToEmbed],
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
        elif isinstance(document, Fault):
            drop(BadFile(item.candidate, document, item.file.image_id))
        else:
            ready.append(Embedded(item.candidate, document, item.thumbnail))
    return ready


def embed_pictures(
    pictures: Sequence[Prepared], *, image_encoder: ImageEncoder, caption_encoder: TextEncoder
) -> list[ImageDocument | Fault]:
    """Return for each picture, in the same order, its document, or why it has none."""
    import numpy as np

    embed_pixels = image_encoder.embed_pixels
    vectors = embed_each(lambda pixels: embed_pixels(np.stack(pixels)), [each.pixels for each in pictures])
    described = ((each.file.image_id, each.file.exif.description) for each in pictures)
    texts = {image_id: text for image_id, text in described if text}
    captions = embed_by_key(caption_encoder.embed_texts, texts) if texts else {}
    return [
        _document(picture, vector, captions.get(picture.file.image_id))
        for picture, vector in zip(pictures, vectors, strict=True)
    ]


def embed_each(embed: Callable[[list], np.ndarray], inputs: Sequence[object]) -> list[np.ndarray | Fault]:
    """Return a finite vector for each input, or why it has none.

    All go through `embed` together; when that fails, each goes alone, so that the others are not lost.
    """
    import numpy as np

    try:
        rows = embed(list(inputs))
        if len(rows) != len(inputs):
            raise ValueError(f"{len(rows)} vectors for {len(inputs)} inputs")
        if not np.isfinite(rows).all():
            raise ValueError("the vector holds values that are no numbers")
    except Exception as error:  # whatever a model raises, the run goes on
        if len(inputs) == 1:
            return [Fault(f"the model cannot embed it ({type(error).__name__}: {error})")]
        return [embed_each(embed, [each])[0] for each in inputs]
    return list(rows)


def embed_by_key(
    embed: Callable[[list], np.ndarray], inputs: Mapping[Key, Any]
) -> dict[Key, np.ndarray | Fault]:
    """Return for each key of `inputs`, of which there are some, what `embed_each` does."""
    return dict(zip(inputs, embed_each(embed, list(inputs.values())), strict=True))


def _document(
    picture: Prepared, vector: np.ndarray | Fault, caption_vector: np.ndarray | Fault | None
) -> ImageDocument | Fault:
    if isinstance(vector, Fault):
        return vector
    if isinstance(caption_vector, Fault):
        return caption_vector.of("its caption")
    file, relative_path = picture.file, picture.candidate.relative_path
    return ImageDocument(
        image_id=file.image_id,
        image_name=relative_path.rsplit("/", 1)[-1],
        relative_path=(relative_path,),
        image_embedding=vector,
        width=file.width,
        height=file.height,
        size_bytes=file.size_bytes,
        indexed_at=datetime.now(UTC),
        phash=file.phash,
        caption=file.exif.description,
        caption_source="description" if file.exif.description else None,
        caption_embedding=caption_vector,
        exif_date=file.exif.date,
        exif_location=file.exif.location,
        exif_camera=file.exif.camera,
        tags=file.tags,
    )
