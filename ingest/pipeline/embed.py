"""Embed and caption batches of pictures; one bad picture costs itself alone."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from es_config.documents import ImageDocument
from es_config.errors import EngineError
from ingest.errors import Fault, IngestError, UnreadableImageError
from ingest.pipeline.items import BadFile, Embedded, Prepared
from models.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import numpy as np
    from PIL.Image import Image

    from ingest.pipeline.items import ToEmbed, ToWrite
    from ingest.report import Tally
    from models.captioning import Captioner
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
            reason = error if isinstance(error, ModelError) else f"{type(error).__name__}: {error}"
            return [Fault(f"the model cannot embed it ({reason})")]
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


@dataclass(frozen=True)
class Captioned:
    """A sentence about a picture."""

    text: str
    vector: np.ndarray
    """float32 `[caption_dims]`, unit length"""

    def on(self, document: ImageDocument) -> ImageDocument:
        """Return the document with this caption, which a model wrote."""
        words = {"caption": self.text, "caption_source": "model", "caption_embedding": self.vector}
        return replace(document, **words)


def open_thumbnail(data: bytes) -> Image:
    """Return a thumbnail of the store as RGB. Raises whatever damaged bytes lead the decoder to."""
    from PIL import Image

    return Image.open(io.BytesIO(data), formats=("WEBP",)).convert("RGB")


def caption_each(
    images: Sequence[Image], *, captioner: Captioner, caption_encoder: TextEncoder
) -> list[Captioned | Fault]:
    """Return for each RGB picture, in the same order, its caption, or why it has none."""
    written = captioner.caption_images(images, batch_size=max(1, len(images)))
    texts = [one.text for one in written if one.text is not None]
    vectors = iter(embed_each(caption_encoder.embed_texts, texts) if texts else ())
    return [
        Fault(one.error or "the captioner gave no reason")
        if one.text is None
        else _joined(one.text, next(vectors))
        for one in written
    ]


def _joined(text: str, vector: np.ndarray | Fault) -> Captioned | Fault:
    return vector.of("its caption") if isinstance(vector, Fault) else Captioned(text, vector)


class CaptionNow:
    """Captions new pictures before they are written; one without a caption is written too, and reported."""

    def __init__(self, *, captioner: Captioner, caption_encoder: TextEncoder, tally: Tally) -> None:
        self._models = {"captioner": captioner, "caption_encoder": caption_encoder}
        self._tally = tally

    def add(self, batch: Sequence[ToWrite]) -> list[ToWrite]:
        """Return the batch with a caption for every new picture that has none of its own.

        A picture is seen as its thumbnail shows it, so that `glimpse caption` would say the same of it.
        """
        plain = [item for item in batch if isinstance(item, Embedded) and item.document.caption is None]
        if not plain or self._tally.caption_error:
            return list(batch)
        try:
            _ = [model.revision for model in self._models.values()]  # loads them, on the first picture
        except (EngineError, IngestError, ModelError) as error:  # pictures are worth more than captions
            self._tally.caption_error = str(error)
            return list(batch)
        images = [open_thumbnail(item.thumbnail) for item in plain]
        captioned = dict(zip(map(id, plain), caption_each(images, **self._models), strict=True))
        return [self._with(item, captioned[id(item)]) if id(item) in captioned else item for item in batch]

    def _with(self, item: Embedded, caption: Captioned | Fault) -> Embedded:
        if isinstance(caption, Fault):
            self._tally.add_caption_failure(item.candidate, caption)
            return item
        return replace(item, document=caption.on(item.document))
