"""A small gallery on a real index: drawn pictures, the pocket models, thumbnails in a folder."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from demo.world.draw import draw
from demo.world.scene import Group, Scene, sample
from es_config.documents import ImageDocument, IndexMeta, IndexOptions
from es_config.index import ImageIndex
from models.encoders import Lazy, load_image_encoder, load_text_encoder
from models.profiles import get_profile
from search_app.core.searcher import Searcher
from storage.keys import thumbnail_key
from storage.store import open_storage
from training.pocket.sentences.grammar import caption

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

    from models.profiles import Profile
    from storage.store import Storage

NAMED = {
    "boat": Scene("sea", "sunny", (Group("boat", "red", 1),), None, 11),
    "cats": Scene("meadow", "cloudy", (Group("cat", "black", 2),), None, 12),
    "house": Scene("desert", "night", (Group("house", "blue", 1),), None, 13),
    "car": Scene("city", "rain", (Group("car", "yellow", 1),), None, 14),
}
DATES = {"boat": datetime(2021, 7, 1, 12, tzinfo=UTC), "cats": datetime(2023, 3, 5, 9, tzinfo=UTC)}
PLACES = {"boat": (48.85, 2.35), "cats": (52.52, 13.40)}
CAMERAS = {"boat": "Drawn World Pencil", "cats": "Drawn World Brush"}
TAGS = {"boat": ("Sea", "summer day"), "cats": ("summer day",)}
FILLERS = 56


@dataclass(frozen=True)
class Gallery:
    """The search tests' shared fixture: 60 pictures behind an alias, and the parts to query them."""

    searcher: Searcher
    storage: Storage
    ids: dict[str, str]
    files: dict[str, bytes]
    """JPEG by name; the index holds exactly these bytes' hashes"""
    alias: str
    store_uri: str


@cache
def pocket() -> tuple[Profile, object, object]:
    """Return the pocket profile with its two encoders, loaded once for the run."""
    profile = get_profile("pocket")
    return profile, load_text_encoder(profile), load_image_encoder(profile)


@cache
def pictures() -> dict[str, tuple[Scene, bytes]]:
    """Return the scenes and their JPEG files by name."""
    named = {(scene.place, group.kind) for scene in NAMED.values() for group in scene.groups}
    others = [
        scene for scene in sample("demo", 2 * FILLERS)
        if not any((scene.place, group.kind) in named for group in scene.groups)
    ]  # fmt: skip
    scenes = {**NAMED, **{f"other{n}": scene for n, scene in enumerate(others[:FILLERS])}}
    return {name: (scene, jpeg(scene)) for name, scene in scenes.items()}


def jpeg(scene: Scene, size: int = 128) -> bytes:
    """Return a drawn picture as a JPEG file's content."""
    data = io.BytesIO()
    draw(scene, size).save(data, "JPEG", quality=90)
    return data.getvalue()


def build_gallery(client: Elasticsearch, alias: str, folder: Path) -> Gallery:
    """Index the gallery behind `alias` and keep its thumbnails in `folder`."""
    profile, texts, images = pocket()
    index = ImageIndex(client, alias=alias)
    meta = IndexMeta(
        profile=profile.name,
        revisions={},
        dims=profile.dims,
        caption_dims=profile.caption_dims,
        similarity=profile.similarity,
    )
    index.create(meta, IndexOptions())
    storage = open_storage(f"file:{folder}")
    documents = {name: _document(name, *picture) for name, picture in _embedded().items()}
    assert not index.add(list(documents.values())).failed
    index.refresh()
    for name, document in documents.items():
        storage.put(thumbnail_key(document.image_id), _webp(pictures()[name][0]))
    return Gallery(
        searcher=Searcher(
            index=index, profile=profile, text_encoder=Lazy(lambda: texts), image_encoder=Lazy(lambda: images)
        ),
        storage=storage,
        ids={name: document.image_id for name, document in documents.items()},
        files={name: data for name, (_, data) in pictures().items()},
        alias=alias,
        store_uri=f"file:{folder}",
    )


@cache
def _embedded() -> dict[str, tuple]:
    from PIL import Image

    _, texts, images = pocket()
    opened = [Image.open(io.BytesIO(data)).convert("RGB") for _, data in pictures().values()]
    said = [caption(scene, "en", Random(1)) for scene, _ in pictures().values()]
    rows = zip(pictures(), said, images.embed_images(opened), texts.embed_texts(said), strict=True)
    return {name: row for name, *row in rows}


def _document(name: str, said: str, image_vector, caption_vector) -> ImageDocument:
    data = pictures()[name][1]
    captioned = name in NAMED
    return ImageDocument(
        image_id=hashlib.sha256(data).hexdigest(),
        image_name=f"{name}.jpg",
        relative_path=(f"{'named' if name in NAMED else 'others'}/{name}.jpg",),
        image_embedding=image_vector,
        width=128,
        height=128,
        size_bytes=len(data),
        indexed_at=datetime.now(UTC),
        caption=said if captioned else None,
        caption_embedding=caption_vector if captioned else None,
        exif_date=DATES.get(name),
        exif_location=PLACES.get(name),
        exif_camera=CAMERAS.get(name),
        tags=TAGS.get(name, ()),
    )


def _webp(scene: Scene) -> bytes:
    data = io.BytesIO()
    draw(scene, 256).save(data, "WEBP", quality=80)
    return data.getvalue()
