"""Build the parts of a run from settings: the one place where `ingest` connects and finds models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from PIL.Image import Image

from es_config.client import cache_folder, connect, engine_settings, glimpse_home
from es_config.documents import IndexMeta, IndexOptions
from es_config.errors import EngineError
from es_config.index import ImageIndex, PlaceNames
from ingest.errors import IngestError, UnreadableImageError
from ingest.files.picture import ImageFile, decode
from ingest.files.walk import NO_PATTERNS, Candidate, Exclusions, PassedOver, is_film_name
from ingest.history.ingested_files import HISTORY_FILE, IngestHistory
from ingest.options import IngestOptions
from ingest.pipeline.parallel import ordered_map
from ingest.sources.source import FETCHERS, ExternalSource, gather, read_candidate
from models.captioning import Captioner, load_captioner
from models.encoders import ImageEncoder, Lazy, TextEncoder, load_caption_text_encoder
from models.fast.choose import Chosen, Noted, Requested, load_fast_image_encoder
from models.hub import ModelSource, fetch_missing
from models.pixels import MAX_PIXELS
from models.profiles import Profile, Weights, default_profile, get_profile
from models.words import WordReader, load_word_reader
from search_app.core.places import Gazetteer
from storage.store import Storage, default_store, open_storage


def _say_nothing(_: str) -> None:
    """Take a sentence. A function with a name can be sent to another process."""


@dataclass(frozen=True)
class EncoderOptions:
    """How to run the image encoder."""

    requested: Requested = field(default_factory=Requested)
    sample: Callable[[], Sequence[Image]] = tuple
    """returns some of the pictures of this run, on which backends are compared"""
    say: Callable[[str], None] = _say_nothing
    """receives one sentence about the choice, if there is something to say"""


@dataclass(frozen=True)
class IngestSettings:
    """Names of the models, the index and the store of a run."""

    profile: str | None = None
    """that of the index by default, or for a new one that of the environment"""
    model_dir: Path | None = None
    alias: str = "images"
    store: str | None = None
    """address of the store; by default the folder `store` of GLIMPSE_HOME"""
    encoder: EncoderOptions = field(default_factory=EncoderOptions)


@dataclass(frozen=True)
class Dependencies:
    """The objects that `ingest_paths` and the passes work with. Models load on first use."""

    index: ImageIndex
    image_encoder: Lazy[ImageEncoder]
    caption_encoder: Lazy[TextEncoder]
    storage: Storage
    captioner: Lazy[Captioner]
    word_reader: Lazy[WordReader] = field(default_factory=lambda: Lazy(load_word_reader))
    """reads the text in pictures"""
    models: Mapping[str, ModelSource] = field(default_factory=dict)
    """of the profile, by role"""
    places: PlaceNames | None = None
    """names coordinates"""

    def fetch_captioner(self, say: Callable[[str], None]) -> None:
        """Download the models of captions, unless they are here, before a bar counts pictures.

        Raises `ModelError`.
        """
        wanted = ("caption", "caption_text")
        fetch_missing({role: self.models[role] for role in wanted if role in self.models}, say=say)


class EmptyIndex(ImageIndex):
    """Stands for an index that does not exist, in a dry run, which creates none."""

    def exists(self) -> bool:
        """Return False."""
        return False

    def known(self, image_ids: Sequence[str]) -> dict[str, tuple[str, ...]]:  # noqa: ARG002
        """Return no picture."""
        return {}

    listed = known


def open_dependencies(
    settings: IngestSettings, environ: Mapping[str, str], *, dry_run: bool = False, create: bool = True
) -> Dependencies:
    """Connect, check that the index belongs to the profile, and create it if there is none.

    A dry run creates nothing; without `create`, the index must exist. Raises `EngineError`, `ModelError`,
    `StorageError` or `IngestError`.
    """
    home = glimpse_home(environ)
    storage = open_storage(settings.store or default_store(home, settings.alias))
    client = connect(engine_settings(environ, home))
    index = ImageIndex(client, alias=settings.alias)
    name = index.choose_profile(settings.profile, default=default_profile(environ))
    profile = get_profile(name, model_dir=settings.model_dir)
    exists, cache, first = index.exists(), cache_folder(environ), None
    if exists or not create:
        index.check_profile(profile.name, profile.dims)
    models = profile.models()
    if create and not dry_run:
        noted = index.meta().revisions if exists else {}
        wanted = [role for role in ("image", "text", "caption_text") if role != "text" or role not in noted]
        fetch_missing({role: models[role] for role in wanted}, say=settings.encoder.say)
    if create and not exists and not dry_run:
        # First the model: one that cannot be had leaves no empty index of its profile behind.
        first = choose_image_encoder(profile, settings.encoder, noted={}, cache=cache)
        create_index(index, profile)
    if dry_run and not exists:
        index = EmptyIndex(client, alias=settings.alias)
    elif index.exists():
        index = index.pinned()  # an index that a reindex puts in its place must not get these vectors
    images, texts = lazy_encoders(profile, index, options=settings.encoder, cache=cache, first=first)
    captioner, places = lazy_captioner(profile, index), Gazetteer(cache)
    return Dependencies(index, images, texts, storage, captioner, models=models, places=places)


def open_history(
    index: ImageIndex, environ: Mapping[str, str], *, options: IngestOptions, retry_failed: bool = False
) -> IngestHistory:
    """Open the history of earlier runs in GLIMPSE_HOME. A dry run writes nothing there.

    Raises `IngestError`, or `EngineError` if the index cannot be asked for its uuid.
    """
    path = glimpse_home(environ) / HISTORY_FILE
    return IngestHistory(
        None if options.dry_run and not path.exists() else path,
        index=index.uuid() if index.exists() else "",
        kept=options.originals,
        max_pixels=options.max_pixels,
        retry_failed=retry_failed,
        read_only=options.dry_run,
    )


def index_meta(profile: Profile) -> IndexMeta:
    """Return the `_meta` of a new index for a profile. Raises `ModelError`."""
    return IndexMeta(
        profile=profile.name,
        revisions=profile.revisions(),
        dims=profile.dims,
        caption_dims=profile.caption_dims,
        similarity=profile.similarity,
    )


def create_index(index: ImageIndex, profile: Profile) -> None:
    """Create the index of a profile with the default options. Raises `EngineError` or `ModelError`."""
    try:
        index.create(index_meta(profile), IndexOptions())
    except EngineError:
        if not index.exists():  # another machine created it at the same moment
            raise
        index.check_profile(profile.name, profile.dims)


def check_weights(index: ImageIndex, weights: Weights) -> None:
    """Raise `IngestError` if the index notes other weights for their role, such as `image`.

    An index that notes none for the role takes these, if they are on this machine.
    """
    if not index.exists():
        return
    role = weights.role
    if weights.folder is None:
        noted = index.meta().revisions.get(role, weights.revision)
    else:
        noted = index.claim_revision(role, weights.revision)
    if not weights.matches(noted):
        raise IngestError(
            f"The index '{index.alias}' was made with other weights ({role} {noted}, here"
            f" {weights.revision}): use the models that it was made with, or run `glimpse index delete` and"
            " ingest again."
        )


def lazy_encoders(
    profile: Profile,
    index: ImageIndex,
    *,
    options: EncoderOptions,
    cache: Path,
    first: Chosen | None = None,
) -> tuple[Lazy[ImageEncoder], Lazy[TextEncoder]]:
    """Return the encoders of pictures and captions. Loading one compares its weights with the index.

    `first` is an image encoder that is loaded already.
    """

    chosen = [first]

    def load_images() -> ImageEncoder:
        given = chosen.pop() if chosen else None  # held by the encoder's `Lazy` alone from now on
        encoder = load_image_encoder_for(profile, index, options, cache=cache, first=given)
        check_weights(index, profile.weights("text"))
        return encoder

    def load_captions() -> TextEncoder:
        encoder = load_caption_text_encoder(profile)
        check_weights(index, profile.weights("caption_text"))
        return encoder

    return Lazy(load_images), Lazy(load_captions)


def lazy_captioner(profile: Profile, index: ImageIndex) -> Lazy[Captioner]:
    """Return the profile's captioner. Loading it notes its weights in the index.

    Captions from different captioners may coexist, because one text model embeds all of them.
    """

    def load() -> Captioner:
        captioner = load_captioner(profile.caption_model)
        if index.meta().revisions.get("caption") != captioner.revision:
            index.note("revisions", {"caption": captioner.revision})
        return captioner

    return Lazy(load)


def choose_image_encoder(profile: Profile, options: EncoderOptions, *, noted: Noted, cache: Path) -> Chosen:
    """Load the image encoder beside the precisions that its index has `noted`. Raises `ModelError`."""
    return load_fast_image_encoder(
        profile, requested=options.requested, noted=noted, cache=cache, sample=options.sample
    )


def load_image_encoder_for(
    profile: Profile,
    index: ImageIndex,
    options: EncoderOptions,
    *,
    cache: Path,
    first: Chosen | None = None,
) -> ImageEncoder:
    """Load the image encoder, and note its weights and its precision in the index.

    `first` is one that was chosen before the index was created. Raises `ModelError` if the requested
    precision does not fit, `IngestError` if the weights do not.
    """
    while True:
        written = index.meta().execution if index.exists() else {}
        noted = written or _before_notes(index)
        if first is None or noted:
            first = choose_image_encoder(profile, options, noted=noted, cache=cache)
        chosen, first = first, None
        check_weights(index, profile.weights("image"))
        is_news = chosen.compared or chosen.encoder.execution.precision not in noted
        # If another run has chosen meanwhile, choose again with its notes.
        if (
            not index.exists()
            or (written and not is_news)
            or index.note("execution", {**noted, **chosen.note()}, seen=written)
        ):
            break
    if chosen.sentence:
        options.say(chosen.sentence)
    return chosen.encoder


def _before_notes(index: ImageIndex) -> dict[str, dict[str, object]]:
    """Return the precisions of an index without notes: it was filled when there was only fp32."""
    holds_pictures = index.exists() and "image" in index.meta().revisions and index.count() > 0
    return {"fp32": {}} if holds_pictures else {}


SAMPLE_TRIES = 2
"""objects of other sources that are read at most, for each picture of a sample"""
SAMPLE_PICTURES, SAMPLE_FILES = 64, 2048
"""how many pictures a sample has, and how far the walk looks for them: it never walks a million files"""


def sample_pictures(
    paths: Sequence[Path],
    *,
    exclude: Exclusions = NO_PATTERNS,
    max_pixels: int = MAX_PIXELS,
    count: int = SAMPLE_PICTURES,
    files: int = SAMPLE_FILES,
    sources: Sequence[ExternalSource] = (),
) -> list[Image]:
    """Return up to `count` RGB pictures of different content, spread evenly over the first `files` files.

    Files that cannot be read are left out, since the run itself reports them. Raises `StorageError` where a
    source cannot be listed.
    """
    found = gather(paths, sources, exclude=exclude, passed_over=PassedOver())
    candidates = list(islice((each for each in found if isinstance(each, Candidate)), files))
    step = max(1, len(candidates) // max(1, count))
    spread = [each for start in range(step) for each in candidates[start::step]]
    if any(each.origin for each in spread):  # objects that are away keep a run waiting
        spread = spread[: SAMPLE_TRIES * count]

    def opened(candidate: Candidate) -> ImageFile | None:
        if is_film_name(candidate.path.name):  # far too much to read for a sample
            return None
        try:
            content = read_candidate(candidate).content
            return decode(content, path=candidate.path, max_pixels=max_pixels)
        except UnreadableImageError:
            return None

    pictures: dict[str, Image] = {}
    workers = FETCHERS if sources else 1
    with (
        ThreadPoolExecutor(workers, thread_name_prefix="sample") as pool,
        closing(ordered_map(pool, opened, spread, window=workers)) as read,
    ):
        for file in filter(None, read):
            pictures.setdefault(file.image_id, file.image)
            if len(pictures) == count:
                break
    return list(pictures.values())
