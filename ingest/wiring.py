"""Build what a run needs from settings: the one place where `ingest` connects and finds models."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from es_config.errors import EngineError
from ingest.errors import IngestError, UnreadableImageError
from ingest.files.picture import read_image
from ingest.files.walk import Candidate, walk
from models.encoders import OnFirstUse
from models.fast.execution import Requested
from models.pixels import MAX_PIXELS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from PIL.Image import Image

    from es_config.index import ImageIndex
    from es_config.mapping import IndexMeta
    from ingest.history.ingested_files import Memory
    from ingest.options import IngestOptions
    from models.captioning import Captioner
    from models.encoders import ImageEncoder, TextEncoder
    from models.profiles import Profile
    from storage.store import Storage


@dataclass(frozen=True)
class TowerChoice:
    """What decides how the vision tower runs."""

    requested: Requested = field(default_factory=Requested)
    sample: Callable[[], Sequence[Image]] = tuple
    """some of the pictures to come, on which vectors are compared"""
    say: Callable[[str], None] = lambda _: None
    """told in one sentence what was chosen, where there is something to say"""


def check_weights(index: ImageIndex, tower: str, revision: str) -> None:
    """Raise `IngestError` when the index notes other weights of a tower.

    Most indices note them since they were created. One that does not notes those that come first.
    """
    if not index.exists():
        return
    noted = index.claim_revision(tower, revision)
    if noted != revision:
        raise IngestError(
            f"The index '{index.alias}' was made with other weights ({tower} {noted}, here {revision}):"
            " use the models that it was made with, or run `glimpse index delete` and ingest again."
        )


def load_tower(profile: Profile, index: ImageIndex, choice: TowerChoice, *, cache: Path) -> ImageEncoder:
    """Load the image encoder and note in the index which weights made its vectors, and in which precision.

    Raises `ModelError` when the wished precision does not fit, `IngestError` when the weights do not.
    """
    from models.fast.choose import load_fast_image_encoder

    while True:
        written = index.meta().execution if index.exists() else {}
        noted = written or _before_notes(index)
        chosen = load_fast_image_encoder(
            profile, requested=choice.requested, noted=noted, cache=cache, sample=choice.sample
        )
        check_weights(index, "image", chosen.encoder.revision)
        is_news = chosen.compared or chosen.encoder.execution.precision not in noted
        # Another run may have chosen meanwhile: this one then chooses again, by what that one noted.
        if (
            not index.exists()
            or (written and not is_news)
            or index.note("execution", {**noted, **chosen.note()}, seen=written)
        ):
            break
    if chosen.sentence:
        choice.say(chosen.sentence)
    return chosen.encoder


def _before_notes(index: ImageIndex) -> dict[str, dict]:
    """Return what an index without notes of its vectors holds: before there were such notes, fp32 alone."""
    holds_pictures = index.exists() and "image" in index.meta().revisions and index.count() > 0
    return {"fp32": {}} if holds_pictures else {}


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
    from es_config.client import connect, engine_settings, glimpse_home
    from es_config.index import ImageIndex
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
    from es_config.client import glimpse_home
    from ingest.history.failed_files import Quarantine
    from ingest.history.ingested_files import Memory, Notes

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
    from models.encoders import load_caption_text_encoder

    def load_images() -> object:
        encoder = load_tower(profile, index, tower, cache=cache)
        check_weights(index, "text", profile.text_revision())
        return encoder

    def load_captions() -> object:
        encoder = load_caption_text_encoder(profile)
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
            index.note("revisions", {"caption": loaded.revision})
        return loaded

    return OnFirstUse(load)


PICTURES = 64
FILES = 2048
"""how far the walk goes for them: a million files are not looked through"""


def sample_pictures(
    paths: Sequence[Path],
    *,
    exclude: Sequence[str] = (),
    max_pixels: int = MAX_PIXELS,
    count: int = PICTURES,
    files: int = FILES,
) -> list[Image]:
    """Return up to `count` RGB pictures, each content once, spread evenly over the first `files` files.

    Files that cannot be read are left out: the run itself will say so.
    """
    found = (each for each in walk(paths, exclude=exclude) if isinstance(each, Candidate))
    candidates = list(islice(found, files))
    pictures: dict[str, Image] = {}
    for candidate in _spread(candidates, count):
        if len(pictures) == count:
            break
        try:
            file = read_image(candidate.path, max_pixels=max_pixels)
        except UnreadableImageError:
            continue
        pictures.setdefault(file.image_id, file.image)
    return list(pictures.values())


def _spread(candidates: list[Candidate], count: int) -> list[Candidate]:
    """Return all candidates in an order whose first `count` are spread evenly."""
    step = max(1, len(candidates) // max(1, count))
    return [candidate for start in range(step) for candidate in candidates[start::step]]
