"""Put pictures away, take them back, and delete removed uploads for good."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from es_config.client import cache_folder, glimpse_home
from es_config.errors import EngineError
from es_config.hidden import Away, HiddenPicture, HiddenPictures, Moves, StaleVectorsError, Vectors
from es_config.index import ImageIndex
from ingest.errors import IngestError, UnreadableImageError
from ingest.history.ingested_files import IngestHistory
from ingest.history.prune import delete_files
from ingest.options import IngestOptions
from ingest.pipeline.read import transform
from ingest.reindex import OriginalReader
from ingest.wiring import EncoderOptions, IngestSettings, check_weights, lazy_encoders, open_history
from models.encoders import ImageEncoder, Lazy, TextEncoder, embed_prepared
from models.profiles import Profile, get_profile
from search_app.core.hiding import PutAway
from storage.errors import StorageError
from storage.keys import IMAGE_ID, UPLOADS
from storage.store import Storage, default_store, open_storage


@dataclass(kw_only=True)
class Remover:
    """Puts pictures of an index away. Thread-safe. Methods raise as those of `PictureRemover` do."""

    index: ImageIndex
    profile: Profile
    storage: Storage
    image_encoder: Lazy[ImageEncoder]
    caption_encoder: Lazy[TextEncoder]
    open_notes: Callable[[ImageIndex], IngestHistory]
    """opens what this machine knows of ingested files"""
    hidden: HiddenPictures = field(init=False)

    def __post_init__(self) -> None:
        """Look at the pictures that were put away from the index."""
        self.hidden = HiddenPictures(self.index)

    def put_away(self, image_ids: Sequence[str], *, by: str | None = None) -> PutAway:
        """Hide ingested pictures, and remove uploads, which can be restored for some minutes.

        A picture counts as an upload if it was added here alone: what a folder holds too would come back with
        the next ingest.
        """
        paths = self.index.known(list(dict.fromkeys(image_ids)))
        with self._notes() as notes:
            uploads = [
                each
                for each, names in paths.items()
                if names and all(name.startswith(UPLOADS) for name in names) and not notes.of_image(each)
            ]
        ours = set(uploads)
        removed = self.hidden.put_away(uploads, state=Away.REMOVED, by=by) if uploads else Moves()
        others = [each for each in paths if each not in ours]
        hidden = self.hidden.put_away(others, by=by) if others else Moves()
        last = self.hidden.get(removed.done[0]) if removed.done else None
        return PutAway(
            hidden=hidden.done,
            removed=removed.done,
            until=last.until if last else None,
            absent=frozenset(image_ids) - paths.keys() | removed.absent | hidden.absent,
            failed=removed.failed | hidden.failed,
        )

    def restore(self, image_ids: Sequence[str]) -> Moves:
        """Let searches find pictures again. Those whose vectors are of former models are embedded anew."""
        return self.hidden.restore(list(dict.fromkeys(image_ids)), embed=self._embed)

    def delete(self, image_ids: Sequence[str]) -> Moves:
        """Delete removed uploads for good now."""
        claimed = self.hidden.claim(list(dict.fromkeys(image_ids)))
        self._delete(claimed.done)
        return claimed

    def page(self, *, size: int, from_: int = 0) -> tuple[tuple[HiddenPicture, ...], int]:
        """Return pictures that were put away, the last one first, and how many there are in all."""
        return self.hidden.page(size=size, from_=from_)

    def tidy(self) -> None:
        """Complete moves that were killed, and delete removed uploads whose time is over."""
        self.hidden.finish(embed=self._embed)
        self._delete(self.hidden.claim_expired())

    def _delete(self, image_ids: Sequence[str]) -> None:
        """Delete the files of pictures that are leaving, then their documents."""
        if not image_ids:
            return
        there = self.index.known(image_ids)  # whatever brought one back needs its files
        contents = {each: self._content(each) for each in image_ids if each not in there}
        with self._notes() as notes:
            delete_files(contents, notes, index=self.index, storage=self.storage)
        self.hidden.forget(image_ids)

    def _content(self, image_id: str) -> str:
        """Return the id of the film that a picture is of, or nothing."""
        source = self.hidden.documents.get(image_id) or {}
        return str((source.get("film") or {}).get("id", ""))

    @contextmanager
    def _notes(self) -> Iterator[IngestHistory]:
        """Open the notes. A disk that refuses raises `StorageError`, which the page knows."""
        try:
            with closing(self.open_notes(self.index)) as notes:
                yield notes
        except IngestError as error:
            raise StorageError(str(error)) from error

    def _check(self, role: str) -> None:
        """Raise `EngineError` if the index was made with other weights for a role."""
        try:
            check_weights(self.index, self.profile.weights(role))
        except IngestError as error:
            raise EngineError(str(error)) from error

    def _embed(self, image_id: str, source: Mapping[str, Any], fields: Sequence[str]) -> Vectors:
        """Make vectors of a picture for the models that the index has now. Raises `StaleVectorsError`."""
        vectors: dict[str, np.ndarray] = {}
        if "image_embedding" in fields:
            self._check("image")
            encoder = self.image_encoder.get()
            with self._notes() as notes:
                reader = OriginalReader(places=notes.places, folders=(), storage=self.storage)
                try:
                    image, _ = reader.read(image_id, source)
                    pixels = transform(image, encoder.preprocess)
                except UnreadableImageError as error:
                    raise StaleVectorsError(
                        "it was put away before the models of the index were changed, and cannot be read"
                        f" anew: {error.fault.reason}; restore it on the machine that has its file"
                    ) from error
            vectors["image_embedding"] = embed_prepared(encoder, [pixels])[0]
        if "caption_embedding" in fields:
            self._check("caption_text")
            vectors["caption_embedding"] = self.caption_encoder.get().embed_texts([source["caption"]])[0]
        return vectors


def open_remover(settings: IngestSettings, environ: Mapping[str, str], *, index: ImageIndex) -> Remover:
    """Return the remover of an index with its own profile. Models load when they are needed.

    Raises `EngineError`, `ModelError` or `StorageError`.
    """
    home = glimpse_home(environ)
    profile = get_profile(settings.profile or index.meta().profile, model_dir=settings.model_dir)
    images, texts = lazy_encoders(profile, index, options=EncoderOptions(), cache=cache_folder(environ))
    return Remover(
        index=index,
        profile=profile,
        storage=open_storage(settings.store or default_store(home, settings.alias)),
        image_encoder=images,
        caption_encoder=texts,
        open_notes=notes_of(environ),
    )


def notes_of(environ: Mapping[str, str]) -> Callable[[ImageIndex], IngestHistory]:
    """Return a function that opens the notes of ingest in GLIMPSE_HOME to read them."""
    return lambda index: open_history(index, environ, options=IngestOptions(dry_run=True))


def find_pictures(words: Sequence[str], remover: Remover) -> list[str]:
    """Return the ids of pictures that are named by id, by a file or folder, or by a path in the index.

    They may be in the index or put away. Of a folder, its ingested files count. Raises `IngestError` for a
    word that names nothing.
    """
    found: dict[str, None] = {}
    with closing(remover.open_notes(remover.index)) as notes:
        for word in words:
            if not (ids := _named(word, remover, notes)):
                raise IngestError(
                    f"There is no picture '{word}': give its id, the path of its file, or its path in the"
                    " index, as `glimpse search` prints them."
                )
            found |= dict.fromkeys(ids)
    return list(found)


def _named(word: str, remover: Remover, notes: IngestHistory) -> list[str]:
    index, hidden = remover.index, remover.hidden
    if IMAGE_ID.fullmatch(word):
        return [word] if index.known([word]) or hidden.known([word]) else []
    ids: list[str] = []
    if not word.startswith("/"):
        ids += [*index.of_path(word), *hidden.of_path(word)]
    path = Path(word).expanduser()
    try:
        if path.is_file() and not ids:
            with path.open("rb") as file:
                ids.append(hashlib.file_digest(file, "sha256").hexdigest())
    except (OSError, ValueError) as error:
        raise IngestError(f"'{word}' cannot be read: {error}.") from error
    # A file that has gone or changed since is known by its notes.
    ids += [note.image_id for note in notes.at(Path(os.path.abspath(path)))]  # noqa: PTH100 - links stay
    known = index.known(ids).keys() | hidden.known(ids).keys()
    return [each for each in dict.fromkeys(ids) if each in known]
