"""Builds what a run needs from settings: the one place where `ingest` connects and finds models."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from es_config.errors import EngineError
from ingest.tower import TowerChoice, check_weights, load_tower
from models.on_first_use import OnFirstUse

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from es_config.index import ImageIndex
    from es_config.mapping import IndexMeta
    from ingest.memory import Memory
    from ingest.options import IngestOptions
    from models.captioning import Captioner
    from models.encoders import ImageEncoder, TextEncoder
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
    tower: TowerChoice = field(default_factory=TowerChoice)
    """how the vision tower runs"""


@dataclass(frozen=True)
class Parts:
    """What `ingest_paths` and `caption_pictures` are handed: here the models load on first use."""

    index: ImageIndex | None
    image_encoder: ImageEncoder
    caption_encoder: TextEncoder
    storage: Storage
    captioner: Captioner | None = None


def open_parts(
    settings: IngestSettings, environ: Mapping[str, str], *, dry_run: bool = False, create: bool = True
) -> Parts:
    """Connect, check that the index belongs to the profile, and create it when there is none.

    In a dry run nothing is created; without `create`, an index must be there. Raises `EngineError`,
    `ModelError`, `StorageError` or `IngestError`.
    """
    from es_config.client import connect
    from es_config.index import ImageIndex
    from es_config.settings import engine_settings, glimpse_home
    from models.profiles import get_profile
    from storage.store import open_storage

    home = glimpse_home(environ)
    storage = open_storage(settings.store or f"file:{home / 'store'}")
    profile = get_profile(settings.profile, model_dir=settings.model_dir)
    client = connect(engine_settings(environ, home))
    index = ImageIndex(client, alias=settings.alias)
    exists = index.exists()
    if exists or not create:
        index.check_profile(profile.name, profile.dims)
    elif not dry_run:
        create_index(index, profile)
    if index.exists():
        index = index.pinned()  # what reindexing puts in its place meanwhile must not get these vectors
    images, texts = encoders(profile, index, tower=settings.tower, cache=home / "cache")
    return Parts(
        index=None if dry_run and not exists else index,
        image_encoder=images,
        caption_encoder=texts,
        storage=storage,
        captioner=captioner(profile, index),
    )


def open_memory(
    index: ImageIndex | None,
    environ: Mapping[str, str],
    *,
    options: IngestOptions,
    retry_failed: bool = False,
) -> Memory:
    """Return what GLIMPSE_HOME remembers of earlier runs. A dry run writes nothing there.

    Raises `IngestError`, or `EngineError` when the index cannot be asked who it is.
    """
    from es_config.settings import glimpse_home
    from ingest.memory import Memory
    from ingest.history.ingested_files import Notes
    from ingest.history.failed_files import Quarantine

    home, dry = glimpse_home(environ), options.dry_run
    limits = {"max_pixels": options.max_pixels, "retry_failed": retry_failed, "read_only": dry}
    notes, path = None, home / "ingested.sqlite"
    if index and (path.exists() or not dry):
        notes = Notes(path, index=index.uuid(), kept=options.originals, read_only=dry)
    return Memory(notes, Quarantine(home / "failed.jsonl", **limits))


def index_meta(profile: Profile) -> IndexMeta:
    """Return what a new index for the vectors of a profile says that it holds. Raises `ModelError`."""
    from es_config.mapping import IndexMeta

    return IndexMeta(
        profile=profile.name,
        revisions=profile.revisions(),
        dims=profile.dims,
        caption_dims=profile.caption_dims,
        similarity=profile.similarity,
        operating_points={},
    )


def create_index(index: ImageIndex, profile: Profile) -> None:
    """Create the index of a profile with the default options. Raises `EngineError` or `ModelError`."""
    from es_config.mapping import IndexOptions

    try:
        index.create(index_meta(profile), IndexOptions())
    except EngineError:
        if not index.exists():  # another machine created it at the same moment
            raise
        index.check_profile(profile.name, profile.dims)


def encoders(
    profile: Profile, index: ImageIndex, *, tower: TowerChoice, cache: Path
) -> tuple[OnFirstUse, OnFirstUse]:
    """Return the profile's encoders of pictures and captions, checked against the index when they load."""
    from models import embedding

    def load_images() -> object:
        encoder = load_tower(profile, index, tower, cache=cache)
        check_weights(index, "text", profile.text_revision())
        return encoder

    def load_captions() -> object:
        encoder = embedding.load_caption_text_encoder(profile)
        check_weights(index, "caption_text", encoder.revision)
        return encoder

    return OnFirstUse(load_images), OnFirstUse(load_captions)


def captioner(profile: Profile, index: ImageIndex) -> OnFirstUse:
    """Return the profile's captioner; when it loads, the index notes its weights.

    Any captioner may write: sentences of different ones stand side by side, as vectors of one text model.
    """
    from models import captioning

    def load() -> object:
        loaded = captioning.load_captioner(profile.caption_model)
        if index.meta().revisions.get("caption") != loaded.revision:
            index.note_revision("caption", loaded.revision)
        return loaded

    return OnFirstUse(load)
