"""Build a reindexer from settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from PIL.Image import Image

from es_config.aliases import Alias, ReindexReader, ReindexWriter, options_of
from es_config.client import connect, engine_settings, glimpse_home
from es_config.index import ImageIndex
from es_config.scan import read_sample
from ingest.errors import IngestError, UnreadableImageError
from ingest.files.picture import pixel_limit
from ingest.history.ingested_files import IngestHistory
from ingest.options import IngestOptions
from ingest.reindex.reindex import NO_LIMIT, OriginalReader, Reindexer, SameModelsError
from ingest.report import Progress
from ingest.wiring import SAMPLE_PICTURES, IngestSettings, index_meta, lazy_encoders
from models.profiles import Profile, get_profile
from storage.store import open_storage

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch


@contextmanager
def open_reindexer(
    settings: IngestSettings, environ: Mapping[str, str], *, folders: Sequence[Path], progress: Progress
) -> Iterator[Reindexer]:
    """Connect, and find the next index or create it for the profile of `settings`.

    Raises `SameModelsError` when the index holds such vectors already, `IngestError` when the next index is
    one for other models; `EngineError`, `ModelError` or `StorageError`.
    """
    home = glimpse_home(environ)
    profile = get_profile(settings.profile, model_dir=settings.model_dir)
    client = connect(engine_settings(environ, home))
    alias = Alias(client, alias=settings.alias)
    old = alias.current()
    new = _next_index(client, alias, old, profile)
    storage = open_storage(settings.store or f"file:{home / 'store'}")
    path = home / "ingested.sqlite"
    history = IngestHistory(path, index=old.uuid()) if path.exists() else None
    originals = OriginalReader(history=history, folders=folders, storage=storage)
    encoder = replace(settings.encoder, sample=lambda: _sample(client, old, originals))
    images, texts = lazy_encoders(profile, new, options=encoder, cache=home / "cache")
    with closing(history) if history else nullcontext():
        yield Reindexer(
            alias=alias,
            reader=ReindexReader(client, old),
            writer=ReindexWriter(client, new),
            client=client,
            profile=profile,
            image_encoder=images,
            caption_encoder=texts,
            originals=originals,
            options=IngestOptions(),
            progress=progress,
        )


def _next_index(client: Elasticsearch, alias: Alias, old: ImageIndex, profile: Profile) -> ImageIndex:
    """Return the index that an earlier run began, or a new one. Raises as `open_reindex` does."""
    weights = {"text": profile.text_revision(), "image": profile.image_revision()}
    if _is_of(old, profile, weights) and weights.items() <= old.meta().revisions.items():
        raise SameModelsError(
            f"{old.name()} holds the vectors of profile '{profile.name}' with these weights already: name"
            " another --profile, or other weights with --model-dir."
        )
    begun = alias.behind(alias.next)
    if begun is None:
        return alias.begin(index_meta(profile), options_of(client, old.name()))
    new = ImageIndex(client, alias=alias.next)
    if not _is_of(new, profile, weights):
        raise IngestError(
            f"{begun}, which no search sees, was begun for other models, of profile '{new.meta().profile}':"
            f" go on with them, or run `glimpse index delete --index {alias.next}` first."
        )
    return new


def _is_of(index: ImageIndex, profile: Profile, weights: Mapping[str, str]) -> bool:
    """Whether an index was made for a profile with these weights, or notes no weights."""
    meta = index.meta()
    noted = {tower: meta.revisions.get(tower, revision) for tower, revision in weights.items()}
    ours = (profile.name, profile.dims, profile.caption_dims)
    return (meta.profile, meta.dims, meta.caption_dims) == ours and noted == weights


def _sample(client: Elasticsearch, old: ImageIndex, originals: OriginalReader) -> list[Image]:
    """Return some pictures of the index, to compare vectors of different precision on."""
    drawn = read_sample(
        client, old.name(), fields=["image_embedding"], size=SAMPLE_PICTURES, source=["relative_path"]
    )
    found = []
    with pixel_limit(NO_LIMIT):
        for image_id, source in zip(drawn.ids, drawn.sources, strict=True):
            try:
                found.append(originals.read(image_id, source)[0].image)
            except UnreadableImageError:
                continue
    return found
