"""Name the places of new pictures by their coordinates, before they are written."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from es_config.documents import ImageDocument
from es_config.index import ImageIndex, PlaceNames
from ingest.pipeline.read import FileState, KnownPicture, NewPicture, PictureState
from search_app.errors import PlacesError


@dataclass(kw_only=True)
class PlacesNow:
    """Names places in batches. Where the list of places cannot be read, pictures are written without.

    A later run completes their documents.
    """

    places: PlaceNames | None

    def add(self, batch: Sequence[PictureState]) -> list[PictureState]:
        """Return the batch with the names of the places of new pictures, and of those with news."""
        documents = [_document(each) for each in batch]
        named = iter(self.named([each for each in documents if each]))
        rows = zip(batch, documents, strict=True)
        return [_with_document(each, next(named)) if document else each for each, document in rows]

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


def _document(picture: FileState) -> ImageDocument | None:
    if isinstance(picture, NewPicture):
        return picture.document
    return picture.facts if isinstance(picture, KnownPicture) else None


def _with_document(picture: PictureState, document: ImageDocument) -> PictureState:
    if isinstance(picture, NewPicture):
        return replace(picture, document=document)
    return replace(picture, facts=document)


def complete(index: ImageIndex, places: PlaceNames | None) -> int:
    """Complete documents of earlier versions, without places where their list cannot be read."""
    try:
        return index.complete_documents(places)
    except PlacesError as error:
        logging.getLogger(__name__).warning("%s", error)
        return index.complete_documents()
