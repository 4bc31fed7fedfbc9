"""Embed and caption batches of pictures, and name their places. One bad picture does not stop the others."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from PIL import Image as pil
from PIL.Image import Image

from es_config.documents import ImageDocument
from es_config.errors import EngineError
from es_config.index import ImageIndex, PlaceNames
from ingest.errors import Fault, IngestError
from ingest.pipeline.read import EMPTY, BadFile, FileState, KnownPicture, NewPicture, PictureState
from ingest.report import RunCounts
from models.captioning import Captioner
from models.encoders import ImageEncoder, Lazy, TextEncoder, embed_prepared
from models.errors import ModelError
from search_app.errors import PlacesError

Key = TypeVar("Key")
Input = TypeVar("Input")
OTHERS = 4
"""a batch has at most this many times as many states as new pictures: a known picture costs little"""


def batches(states: Iterable[PictureState], *, size: int) -> Iterator[list[PictureState]]:
    """Cut after `size` new pictures, and keep the order."""
    batch: list[PictureState] = []
    pictures = 0
    for state in states:
        batch.append(state)
        pictures += isinstance(state, NewPicture)
        if pictures == size or len(batch) == OTHERS * size:
            yield batch
            batch, pictures = [], 0
    if batch:
        yield batch


def embed_batch(
    batch: Sequence[PictureState],
    *,
    image_encoder: Lazy[ImageEncoder],
    caption_encoder: Lazy[TextEncoder],
    drop: Callable[[BadFile], None],
) -> list[PictureState]:
    """Return the batch with its new pictures embedded, in the same order.

    A picture that the model cannot embed is handed to `drop` and left out.
    """
    new = [state for state in batch if isinstance(state, NewPicture)]
    embedded = iter(embed_pictures(new, image_encoder=image_encoder, caption_encoder=caption_encoder))
    ready: list[PictureState] = []
    for state in batch:
        result = next(embedded) if isinstance(state, NewPicture) else state
        if isinstance(result, BadFile):
            drop(result)
        else:
            ready.append(result)
    return ready


def embed_pictures(
    pictures: Sequence[NewPicture],
    *,
    image_encoder: Lazy[ImageEncoder],
    caption_encoder: Lazy[TextEncoder],
) -> list[NewPicture | BadFile]:
    """Return each picture with its vectors and that of its file's caption, in the same order."""
    if not pictures:
        return []
    encoder = image_encoder.get()
    vectors = embed_each(lambda pixels: embed_prepared(encoder, pixels), [each.pixels for each in pictures])
    texts = {each.image_id: each.document.caption for each in pictures if each.document.caption}
    captions = embed_by_key(caption_encoder.get().embed_texts, texts) if texts else {}
    return [
        _embedded(picture, vector, captions.get(picture.image_id))
        for picture, vector in zip(pictures, vectors, strict=True)
    ]


def _embedded(
    picture: NewPicture, vector: np.ndarray | Fault, caption_vector: np.ndarray | Fault | None
) -> NewPicture | BadFile:
    if isinstance(vector, Fault):
        return BadFile(picture.candidate, vector, picture.image_id, picture.is_moment)
    if isinstance(caption_vector, Fault):
        return BadFile(
            picture.candidate, caption_vector.of("its caption"), picture.image_id, picture.is_moment
        )
    document = replace(picture.document, image_embedding=vector, caption_embedding=caption_vector)
    return replace(picture, document=document, pixels=EMPTY)


def embed_each(
    embed: Callable[[list[Input]], np.ndarray], inputs: Sequence[Input]
) -> list[np.ndarray | Fault]:
    """Return a finite vector for each input, or a fault.

    All go through `embed` together. If that fails, each goes alone, so that the others are not lost.
    """
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
    embed: Callable[[list[Input]], np.ndarray], inputs: Mapping[Key, Input]
) -> dict[Key, np.ndarray | Fault]:
    """Apply `embed_each` to the values of `inputs`, which is not empty."""
    return dict(zip(inputs, embed_each(embed, list(inputs.values())), strict=True))


@dataclass(frozen=True)
class Captioned:
    """A sentence about a picture."""

    text: str
    vector: np.ndarray
    """float32 `[caption_dims]`, unit length"""

    def on(self, document: ImageDocument) -> ImageDocument:
        """Return the document with this caption, which a model wrote."""
        return replace(document, caption=self.text, caption_source="model", caption_embedding=self.vector)


def open_thumbnail(data: bytes) -> Image:
    """Return a thumbnail of the store as RGB. Raises whatever damaged bytes lead the decoder to."""
    return pil.open(io.BytesIO(data), formats=("WEBP",)).convert("RGB")


def caption_each(
    images: Sequence[Image], *, captioner: Lazy[Captioner], caption_encoder: Lazy[TextEncoder]
) -> list[Captioned | Fault]:
    """Return a caption for each RGB picture, in the same order, or a fault. Raises `ModelError`."""
    written = captioner.get().caption_images(images, batch_size=max(1, len(images)))
    texts = [one.text for one in written if one.text is not None]
    vectors = iter(embed_each(caption_encoder.get().embed_texts, texts) if texts else ())
    return [
        Fault(one.error or "the captioner gave no reason")
        if one.text is None
        else _joined(one.text, next(vectors))
        for one in written
    ]


def _joined(text: str, vector: np.ndarray | Fault) -> Captioned | Fault:
    return vector.of("its caption") if isinstance(vector, Fault) else Captioned(text, vector)


def describe_news(
    batch: Sequence[PictureState], *, index: ImageIndex, caption_encoder: Lazy[TextEncoder]
) -> list[PictureState]:
    """Return the batch with a vector for each description that a sidecar newly gives a known picture.

    One that the model cannot embed is left out. Raises `EngineError` and `ModelError`.
    """
    said = {
        each.image_id: each.facts.caption for each in batch if isinstance(each, KnownPicture) and each.facts
    }
    there = index.captions_of([image_id for image_id, caption in said.items() if caption])
    texts = {image_id: text for image_id, text in said.items() if text and there.get(image_id) != text}
    vectors = embed_by_key(caption_encoder.get().embed_texts, texts) if texts else {}
    return [_with_news(each, vectors.get(each.image_id)) for each in batch]


def _with_news(picture: PictureState, vector: np.ndarray | Fault | None) -> PictureState:
    if vector is None or not isinstance(picture, KnownPicture) or picture.facts is None:
        return picture
    said = {"caption_embedding": vector} if not isinstance(vector, Fault) else {"caption": None}
    return replace(picture, facts=replace(picture.facts, **said))


@dataclass(frozen=True, kw_only=True)
class CaptionNow:
    """Captions new pictures before they are written. A picture without a caption is written all the same."""

    captioner: Lazy[Captioner]
    caption_encoder: Lazy[TextEncoder]
    counts: RunCounts

    def add(self, batch: Sequence[PictureState]) -> list[PictureState]:
        """Return the batch with a caption for every new picture that has none of its own.

        The captioner sees the thumbnail, so that `glimpse caption` would write the same.
        """
        plain = [each for each in batch if isinstance(each, NewPicture) and each.document.caption is None]
        if not plain or self.counts.caption_error:
            return list(batch)
        try:
            _ = (self.captioner.get(), self.caption_encoder.get())
        except (EngineError, IngestError, ModelError) as error:  # pictures are worth more than captions
            self.counts.caption_error = str(error)
            return list(batch)
        images = [open_thumbnail(each.thumbnail) for each in plain]
        captions = caption_each(images, captioner=self.captioner, caption_encoder=self.caption_encoder)
        by_id = dict(zip((each.image_id for each in plain), captions, strict=True))
        return [
            self._with(state, by_id[state.image_id])
            if isinstance(state, NewPicture) and state.image_id in by_id
            else state
            for state in batch
        ]

    def _with(self, picture: NewPicture, caption: Captioned | Fault) -> NewPicture:
        if isinstance(caption, Fault):
            self.counts.add_caption_failure(picture.candidate, caption)
            return picture
        return replace(picture, document=caption.on(picture.document))


@dataclass(kw_only=True)
class PlacesNow:
    """Names places in batches. Where the list of places cannot be read, pictures are written without.

    A later run completes their documents.
    """

    places: PlaceNames | None

    def add(self, batch: Sequence[PictureState]) -> list[PictureState]:
        """Return the batch with the names of the places of new pictures, and of those with news."""
        documents = [_facts(each) for each in batch]
        named = iter(self.named([each for each in documents if each]))
        rows = zip(batch, documents, strict=True)
        return [_with_facts(each, next(named)) if document else each for each, document in rows]

    def named(self, documents: Sequence[ImageDocument]) -> list[ImageDocument]:
        """Return the documents with the names of their places."""
        points = {each.image_id: each.exif_location for each in documents if each.exif_location}
        if self.places is None or not points:
            return list(documents)
        try:
            named = dict(zip(points, self.places.names(list(points.values())), strict=True))
            source = self.places.source
        except PlacesError as error:
            logging.getLogger(__name__).warning("%s", error)
            self.places = None
            return list(documents)
        return [
            replace(each, exif_places=named[each.image_id], exif_places_by=source)
            if each.image_id in named
            else each
            for each in documents
        ]


def _facts(picture: FileState) -> ImageDocument | None:
    if isinstance(picture, NewPicture):
        return picture.document
    return picture.facts if isinstance(picture, KnownPicture) else None


def _with_facts(picture: PictureState, document: ImageDocument) -> PictureState:
    if isinstance(picture, NewPicture):
        return replace(picture, document=document)
    return replace(picture, facts=document)


def complete_documents(index: ImageIndex, places: PlaceNames | None) -> int:
    """Complete documents of earlier versions, without places where their list cannot be read."""
    try:
        return index.complete_documents(places)
    except PlacesError as error:
        logging.getLogger(__name__).warning("%s", error)
        return index.complete_documents()
