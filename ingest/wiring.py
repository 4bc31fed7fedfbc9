"""Builds what a run needs from settings: the one place where `ingest` connects and finds models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ingest.weights import check_weights
from models.on_first_use import OnFirstUse

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from es_config.index import ImageIndex
    from models.profiles import Profile
    from storage.store import Storage


@dataclass(frozen=True)
class IngestSettings:
    """Which models make the vectors, and where vectors and thumbnails go."""

    profile: str = "pocket"
    model_dir: Path | None = None
    alias: str = "images"
    store: str | None = None
    """address of the store; by default the folder `store` of GLIMPSE_HOME"""


@dataclass(frozen=True)
class Parts:
    """What `ingest_paths` is handed: the encoders load on first use."""

    index: ImageIndex | None
    image_encoder: OnFirstUse
    caption_encoder: OnFirstUse
    storage: Storage


def open_parts(settings: IngestSettings, environ: Mapping[str, str], *, dry_run: bool = False) -> Parts:
    """Connect, check that the index belongs to the profile, and create it when there is none.

    In a dry run nothing is created. Raises `EngineError`, `ModelError`, `StorageError` or `IngestError`.
    """
    from es_config.client import connect
    from es_config.index import ImageIndex
    from es_config.settings import engine_settings, glimpse_home
    from models.profiles import get_profile
    from storage.store import open_storage

    home = glimpse_home(environ)
    storage = open_storage(settings.store or f"file:{home / 'store'}")
    profile = get_profile(settings.profile, model_dir=settings.model_dir)
    index = ImageIndex(connect(engine_settings(environ, home)), alias=settings.alias)
    images, captions = encoders(profile, index)
    if index.exists():
        index.check_profile(profile.name, profile.dims)
    elif dry_run:
        return Parts(None, images, captions, storage)
    else:
        create_index(index, profile)
    return Parts(index, images, captions, storage)


def create_index(index: ImageIndex, profile: Profile) -> None:
    """Create the index of a profile with the default options. Raises `EngineError`."""
    from es_config.mapping import IndexMeta, IndexOptions

    meta = IndexMeta(
        profile=profile.name,
        revisions={},
        dims=profile.dims,
        caption_dims=profile.caption_dims,
        similarity=profile.similarity,
        operating_points={},
    )
    index.create(meta, IndexOptions())


def encoders(profile: Profile, index: ImageIndex) -> tuple[OnFirstUse, OnFirstUse]:
    """Return the profile's encoders of pictures and captions, checked against the index when they load."""
    from models import embedding

    def load_images() -> object:
        encoder = embedding.load_image_encoder(profile)
        check_weights(index, "image", encoder.revision)
        check_weights(index, "text", profile.text_revision())
        return encoder

    def load_captions() -> object:
        encoder = embedding.load_caption_text_encoder(profile)
        check_weights(index, "caption_text", encoder.revision)
        return encoder

    return OnFirstUse(load_images), OnFirstUse(load_captions)
