"""Index single uploaded pictures as a run of ingest would, while people search."""

from __future__ import annotations

import hashlib
import logging
import threading
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from es_config.bulk import Meanwhile
from es_config.documents import ImageDocument, shown_path, words_fault
from es_config.errors import EngineError
from es_config.hidden import Away, HiddenPictures
from es_config.index import ImageIndex, PlaceNames
from ingest.errors import Fault, IngestError, UnreadableImageError
from ingest.files.picture import (
    FORMAT_EXTENSIONS,
    FileContent,
    ImageFile,
    decode_large,
    decode_upload,
    thumbnail,
)
from ingest.files.walk import HEAD_BYTES, Candidate, container_of, safe_name
from ingest.pipeline.embed import PlacesNow, caption_each, embed_pictures
from ingest.pipeline.read import BadFile, NewPicture, new_document, transform
from ingest.pipeline.words import words_of
from ingest.wiring import check_weights, create_index
from models.captioning import Captioner
from models.encoders import ImageEncoder, Lazy, TextEncoder
from models.errors import ModelError
from models.pixels import REQUESTS, NoRoomError
from models.profiles import Profile
from models.words import READ_EDGE, WordReader
from search_app.core.pictures import Addition, no_room
from storage.keys import UPLOADS, original_key, thumbnail_key
from storage.store import Storage

HIDDEN = "it was hidden here: its owner can show it again"
LEAVING = "it was removed, and is being deleted at this moment: add it again in a minute"
"""reasons to refuse a picture"""


FILMS_ARE_NOT_TAKEN = "a film, and only pictures can be added here: put it into a folder for `glimpse ingest`"


@dataclass(kw_only=True)
class UploadIndexer:
    """Adds pictures to an index and keeps their files. Thread-safe: one thread at a time uses the models."""

    index: ImageIndex
    profile: Profile
    image_encoder: Lazy[ImageEncoder]
    caption_encoder: Lazy[TextEncoder]
    captioner: Lazy[Captioner]
    storage: Storage
    word_reader: Lazy[WordReader] | None = None
    """reads the text in pictures; without one, `glimpse words` does so later"""
    places: PlaceNames | None = None
    """names coordinates"""
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _checked: str | None = field(default=None, init=False)
    """name of the index whose weights were compared with these models'"""

    def add(self, name: str, data: bytes) -> Addition:
        """Index one file's content, which searches find after `publish`.

        Nothing of a refused file is kept. Raises `EngineError`, `ModelError` or `StorageError` when no file
        can be added at all, and `BusyError` when too many pictures wait for room.
        """
        image_id = hashlib.sha256(data).hexdigest()
        if container_of(data[:HEAD_BYTES]):
            return Addition(image_id, refused=FILMS_ARE_NOT_TAKEN)
        content = FileContent(data, image_id)
        try:
            first = None if self.index.exists() else self._read(name, content)  # a bad file makes no index
            self._make_ready()
            known = self._known(image_id) or self._put_away(image_id)
            if known and (known.refused or self.storage.exists(thumbnail_key(image_id))):
                return known
            file, picture = first or self._read(name, content)
        except UnreadableImageError as error:
            return Addition(image_id, refused=error.fault.reason)
        with self._lock:  # two requests may add the same content
            known = self._known(image_id)
            if known is None:
                return self._add_new(picture, file, data)
            self.storage.put(thumbnail_key(image_id), picture.thumbnail)
            return known

    def publish(self) -> None:
        """Let searches find the added pictures. Raises `EngineError`."""
        self.index.refresh()

    def _make_ready(self) -> None:
        """Create a missing index, once the models are here.

        Raises `EngineError` if the index was made with other models, and `ModelError`.
        """
        with self._lock:
            if not self.index.exists():
                self.image_encoder.get()
                self.caption_encoder.get()
                create_index(self.index, self.profile)
            self.index.check_profile(self.profile.name, self.profile.dims)
            name = self.index.name()
            if self._checked == name:
                return
            self.index.complete_mapping()
            try:
                for role, encoder in (("image", self.image_encoder), ("caption_text", self.caption_encoder)):
                    encoder.get()  # from here on its weights are on this machine
                    check_weights(self.index, self.profile.weights(role))
                check_weights(self.index, self.profile.weights("text"))
            except IngestError as error:
                raise EngineError(str(error)) from error
            self._checked = name

    def _known(self, image_id: str) -> Addition | None:
        source = self.index.get(image_id)
        if source is None:
            return None
        return Addition(
            image_id,
            path=shown_path(source, image_id),
            caption=source.get("caption"),
            caption_source=source.get("caption_source"),
        )

    def _put_away(self, image_id: str) -> Addition | None:
        """Return a removed picture restored, or a hidden or leaving one refused.

        Of a removed one whose vectors belong to former models nothing is kept: it is new then.
        """
        hidden = HiddenPictures(self.index)
        picture = hidden.get(image_id)
        if picture is None:
            return None
        if picture.state is Away.HIDDEN:
            return Addition(image_id, refused=HIDDEN)
        if picture.state is not Away.LEAVING:
            if hidden.restore([image_id]).done:
                return self._known(image_id)
            hidden.claim([image_id])
            hidden.forget([image_id])
        return Addition(image_id, refused=LEAVING) if hidden.get(image_id) else None

    def _read(self, name: str, content: FileContent) -> tuple[ImageFile, NewPicture]:
        """Decode a file and make its thumbnail and the encoder's input.

        Raises `UnreadableImageError`, and `BusyError` when too many pictures wait for room.
        """
        try:
            file = decode_upload(content)
        except NoRoomError as error:
            raise no_room() from error
        relative_path = UPLOADS + safe_name(name, FORMAT_EXTENSIONS[file.format])
        preprocess = self.image_encoder.get().preprocess  # loading may fail: no fault of the file
        return file, NewPicture(
            Candidate(Path(relative_path), relative_path),
            new_document(file, relative_path),
            transform(file.image, thumbnail),
            transform(file.image, preprocess),
        )

    def _add_new(self, picture: NewPicture, file: ImageFile, data: bytes) -> Addition:
        (embedded,) = embed_pictures(
            [picture], image_encoder=self.image_encoder, caption_encoder=self.caption_encoder
        )
        if isinstance(embedded, BadFile):
            return Addition(picture.image_id, refused=embedded.fault.reason)
        document, caption_error = self._captioned(embedded.document, file)
        (document,) = PlacesNow(places=self.places).named([document])
        document = self._with_words(document, data)
        refused = self._write(document, picture.thumbnail, data, FORMAT_EXTENSIONS[file.format])
        if refused is Meanwhile.CHANGED and (known := self._known(document.image_id)):
            return known  # another process added the same content at the same moment, and its document stays
        if refused:
            return Addition(document.image_id, refused=f"the index refused it: {refused}")
        return Addition(
            document.image_id,
            is_new=True,
            path=picture.candidate.relative_path,
            caption=document.caption,
            caption_source=document.caption_source,
            caption_error=caption_error,
        )

    def _captioned(self, document: ImageDocument, file: ImageFile) -> tuple[ImageDocument, str | None]:
        """Return the document with a caption, or as it is with the reason why the captioner failed."""
        if document.caption:
            return document, None
        try:
            (caption,) = caption_each(
                [file.image], captioner=self.captioner, caption_encoder=self.caption_encoder
            )
        except ModelError as error:  # the captioner cannot be loaded; the picture can still be found
            logging.getLogger(__name__).error("%s", error)
            return document, error.for_visitors
        return (document, caption.reason) if isinstance(caption, Fault) else (caption.on(document), None)

    def _with_words(self, document: ImageDocument, data: bytes) -> ImageDocument:
        """Return the document with the text in its picture, or as it is if that has to wait."""
        if self.word_reader is None:
            return document
        try:
            content = FileContent(data, document.image_id)
            read = words_of(decode_large(content, None, edge=READ_EDGE, limits=REQUESTS), self.word_reader)
        except (NoRoomError, UnreadableImageError):  # `glimpse words` tries again, with more time and room
            return document
        except ModelError as error:  # the reader cannot be loaded; the picture can still be found
            logging.getLogger(__name__).error("%s", error)
            return document
        fields = words_fault(read.reason[:500]) if isinstance(read, Fault) else read
        return replace(document, words=fields)

    def _write(self, document: ImageDocument, webp: bytes, data: bytes, extension: str) -> str | None:
        """Write the files, then the document. If the index refuses it, delete the files and return why."""
        files = {
            thumbnail_key(document.image_id): webp,
            original_key(document.image_id, extension): data,
        }
        new = [key for key in files if not self.storage.exists(key)]
        try:
            for key, content in files.items():
                self.storage.put(key, content)
            refused = self.index.add([document], only_new=True).failed.get(document.image_id)
        except Exception:
            with suppress(Exception):  # the first error is the one to report
                self._forget(document.image_id, new)
            raise
        if refused:
            self._forget(document.image_id, new)
        return refused

    def _forget(self, image_id: str, keys: list[str]) -> None:
        """Remove files that were written for a document, unless it is in the index after all."""
        if self.index.get(image_id) is None:
            for key in keys:
                self.storage.delete(key)
