"""What is looked for: a query's words, picture, id or numbers become what `knn_body` takes.

The vectors of words that were asked before are remembered.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search_app.errors import NotFoundError, QueryError
from search_app.core.pictures import open_picture

if TYPE_CHECKING:
    import numpy as np

    from es_config.index import ImageIndex
    from models.encoders import ImageEncoder, TextEncoder
    from models.profiles import Profile
    from search_app.core.query import Query

FIELDS = {"image": "image_embedding", "caption": "caption_embedding"}


@dataclass(frozen=True)
class Subjects:
    """Turns queries into vectors of the space that is searched."""

    index: ImageIndex
    profile: Profile
    texts: TextVectors
    caption_texts: TextVectors
    image_encoder: ImageEncoder

    def of(self, query: Query, mode: str) -> tuple[dict[str, Any], str | None]:
        """Return what is looked for in the vectors of `mode`, and the lane that embedded a text.

        Raises `QueryError` for what has no place in that space, `NotFoundError` for an unknown id.
        """
        if query.text is not None:
            texts = self.caption_texts if mode == "caption" else self.texts
            vector, lane = texts.embed(query.text)
            return {"query_vector": vector}, lane
        if query.vector is not None:
            return {"query_vector": self._raw_vector(query.vector, mode)}, None
        if mode == "caption":
            self.check_shared_space()
        if query.image is not None:
            return {"query_vector": self.embed_picture(query.image)}, None
        if mode == "caption":
            return {"query_vector": self._stored_vector(query.like)}, None
        return {"like_id": query.like, "index": self.index.name()}, None

    def embed_picture(self, picture: bytes | Path) -> np.ndarray:
        """Return float32 `[dims]`, unit length, for a picture file's content or path. Raises `QueryError`."""
        image = open_picture(picture.read_bytes() if isinstance(picture, Path) else picture)
        return self.image_encoder.embed_images([image])[0]

    def _raw_vector(self, vector: tuple[float, ...], mode: str) -> np.ndarray:
        import numpy as np

        meta = self.index.meta()
        dims = meta.caption_dims if mode == "caption" else meta.dims
        if len(vector) != dims:
            raise QueryError(
                f"The vector has {len(vector)} dims, and {FIELDS[mode]} of the index has {dims}."
            )
        return np.asarray(vector, np.float32)

    def _stored_vector(self, image_id: str) -> np.ndarray:
        vector = self.index.vector(image_id)
        if vector is None:
            raise no_picture(image_id)
        return vector

    def check_shared_space(self) -> None:
        """Raise `QueryError` unless a picture can be compared with captions."""
        if not self.profile.caption_shares_space:
            raise QueryError(
                f"Profile {self.profile.name} embeds captions with another model than pictures, so a picture"
                " cannot be compared with captions: use words, or mode image."
            )


def no_picture(image_id: str) -> NotFoundError:
    """Return the error that says that the index holds no picture with this id."""
    return NotFoundError(f"The index holds no picture with the id '{image_id[:70]}'.")


def lane_of(encoder: TextEncoder) -> str:
    """Return where `encoder` runs its model: its `lane`, or `local` when it does not say."""
    return getattr(encoder, "lane", "local")


class TextVectors:
    """Embeds one text at a time; keeps the last `size` vectors by text, model and lane. Thread-safe."""

    def __init__(self, encoder: TextEncoder, *, size: int = 1024) -> None:
        self.encoder = encoder
        self._size = size
        self._kept: OrderedDict[tuple[str, str, str], np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def embed(self, text: str) -> tuple[np.ndarray, str]:
        """Return the vector float32 `[dims]` and the lane that made it."""
        lane = lane_of(self.encoder)
        with self._lock:
            vector = self._kept.get((text, self.encoder.revision, lane))
        if vector is None:
            vector, lane = self._made(text)
        self._keep((text, self.encoder.revision, lane), vector)
        return vector, lane

    def _made(self, text: str) -> tuple[np.ndarray, str]:
        if hasattr(self.encoder, "embed"):  # an encoder of several lanes says which one answered
            vectors, lane = self.encoder.embed([text])
        else:
            vectors, lane = self.encoder.embed_texts([text]), lane_of(self.encoder)
        return vectors[0], lane

    def _keep(self, key: tuple[str, str, str], vector: np.ndarray) -> None:
        with self._lock:
            self._kept[key] = vector
            self._kept.move_to_end(key)
            if len(self._kept) > self._size:
                self._kept.popitem(last=False)
