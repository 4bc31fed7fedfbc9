"""The table of profiles: adding a model is adding a row.

Revisions are commits of the named repositories on Hugging Face, so that the same row means the same weights.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from models.errors import ModelError, first_line
from models.hub import (
    ROLES,
    MissingModel,
    ModelSource,
    fingerprint,
    found_folder,
    is_cached,
    local_folder,
    missing,
    older_fingerprints,
    towers_folder,
)


def read_config(folder: Path) -> dict[str, Any]:
    """Return `config.json` of a model folder. Raises `ModelError` when it is absent or not JSON."""
    path = folder / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"{folder} is not a model folder: it has no config.json; it needs a model saved by"
            " sentence-transformers or transformers."
        ) from None
    except (ValueError, RecursionError, OSError) as error:
        raise ModelError(f"{path} is not valid JSON ({first_line(error)}); copy the model again.") from error
    if not isinstance(config, dict):
        raise ModelError(f"{path} is not the configuration of a model; copy the model again.")
    return config


def image_dims(folder: Path) -> int:
    """Return the width of the vectors that an image tower gives, from its config alone."""
    config = read_config(towers_folder(folder))
    vision = config.get("vision_config")
    width = config.get("projection_dim") or (vision.get("hidden_size") if isinstance(vision, dict) else None)
    return _known(
        width, folder, config, "which cannot embed pictures; it needs a CLIP or SigLIP vision tower"
    )


def text_dims(folder: Path) -> int:
    """Return the width of the vectors that a text tower gives, from its configs alone."""
    if not (folder / "modules.json").is_file() or (folder / "0_CLIPModel").is_dir():
        return image_dims(folder)
    for dense in sorted(folder.glob("*_Dense"), reverse=True):
        config = read_config(dense)
        return _known(config.get("out_features"), dense, config, WITHOUT_WIDTH)
    config = read_config(folder)
    width = config.get("dim") or config.get("hidden_size")
    return _known(width, folder, config, WITHOUT_WIDTH)


WITHOUT_WIDTH = "whose width its config.json does not say; copy the model again"


def _known(width: object, folder: Path, config: Mapping[str, Any], what: str) -> int:
    if not width:
        raise ModelError(f"{folder} holds a '{config.get('model_type')}' model, {what}.")
    if not isinstance(width, int) or width < 1:
        raise ModelError(
            f"The config.json of {folder} gives {width!r} as the width of its vectors; copy the model again."
        )
    return width


def unusable(part: str, folder: Path, error: Exception, *, get: str = "copy") -> ModelError:
    """Return the error of a part of a model that a library cannot load, where `get` is how people got it."""
    way_out = f"{get} or download it again"
    if is_cached(folder):
        way_out = f"it is damaged or not whole, so run `{_fetch_command(folder)}`, which downloads that anew"
    return ModelError(f"{part} in {folder} cannot be loaded ({first_line(error)}); {way_out}.")


def _fetch_command(folder: Path) -> str:
    """Return the command that compares a cached model with the hub's checksums."""
    for row in PROFILES.values():
        if any(is_cached(folder, source) for source in row.models().values()):
            return f"glimpse model fetch --profile {row.name} --verify"
    size = next((size for size, source in VOICE_MODELS.items() if is_cached(folder, source)), None)
    return f"glimpse model fetch --voice-model {size} --verify" if size else "glimpse model fetch --verify"


@dataclass(frozen=True)
class Weights:
    """The identity of a model's weights, of which an index and Elasticsearch take note."""

    source: ModelSource
    role: str

    @cached_property
    def folder(self) -> Path | None:
        """The model's folder if it is on this machine."""
        return found_folder(self.source, role=self.role)

    @cached_property
    def revision(self) -> str:
        """The fingerprint of the weights, or the hub's commit while they are not on this machine."""
        return fingerprint(self.folder) if self.folder else str(self.source.revision)

    def matches(self, noted: str) -> bool:
        """Whether these are the weights that were noted, by this version or an older one.

        Of weights that are not on this machine only a commit tells that they are others: whoever loads them
        compares again.
        """
        if noted in (self.revision, self.source.revision):
            return True
        if self.folder is None:
            return noted.startswith("sha256:")
        return noted in older_fingerprints(self.folder)


@contextmanager
def loading(part: str, folder: Path, *, get: str = "copy") -> Iterator[None]:
    """Turn any error of loading a part of a model, or of trying it, into a `ModelError`.

    A folder is judged by this, not by the names of its files. `get` is as for `unusable`.
    """
    try:
        yield
    except ModelError:
        raise
    except Exception as error:  # transformers, safetensors, CTranslate2 and torch each raise their own
        raise unusable(part, folder, error, get=get) from error


@dataclass(frozen=True)
class Profile:
    """Models that belong together: vectors of different profiles are never compared."""

    name: str
    description: str
    image_model: ModelSource
    text_model: ModelSource
    dims: int
    similarity: str
    licence: str
    text_lanes: tuple[str, ...]
    """`infer`: the text model can be deployed in Elasticsearch; `local`: it runs in this process"""
    caption_text_model: ModelSource
    caption_dims: int
    caption_model: ModelSource
    """writes captions"""
    voice_model: str
    """a size or a folder, as `models.voice.load_transcriber` takes it"""
    languages: str

    @property
    def caption_shares_space(self) -> bool:
        """Whether a picture's vector can be compared with the vector of a caption."""
        return self.caption_text_model == self.text_model

    def models(self) -> dict[str, ModelSource]:
        """Return the five models by role. One that has two roles is there twice."""
        voice = VOICE_MODELS.get(self.voice_model) or ModelSource(self.voice_model)
        return {
            "image": self.image_model,
            "text": self.text_model,
            "caption": self.caption_model,
            "caption_text": self.caption_text_model,
            "voice": voice,
        }

    @property
    def size_mb(self) -> int:
        """Megabytes of all models together, which are downloaded on first use."""
        return sum(source.size_mb for source in set(self.models().values()))

    @property
    def memory_mb(self) -> int:
        """Megabytes of memory, about, that an ingest with captions takes: the libraries and three models.

        Weights are computed with in four bytes, and Florence-2 keeps them in two.
        """
        stored_in_two = {FLORENCE: 2}
        models = {self.image_model, self.caption_model, self.caption_text_model}
        return LIBRARIES_MB + sum(source.size_mb * stored_in_two.get(source, 1) for source in models)

    def lacks(self, *, memory_mb: int, disk_mb: int) -> str:
        """Say why a machine is too small for this profile, or return nothing. Does not ask the hub."""
        left_mb = round(sum(each.size_bytes for each in self.missing()) / 1e6)
        if memory_mb < self.memory_mb:
            return f"this machine has {memory_mb / 1000:.1f} GB of memory"
        if disk_mb < left_mb:
            return (
                f"{left_mb / 1000:.1f} GB are to be downloaded, and {disk_mb / 1000:.1f} GB of disk are free"
            )
        return ""

    def missing(self, roles: Sequence[str] = ROLES) -> list[MissingModel]:
        """Return the models with these roles that are not on this machine. Does not ask the hub."""
        return missing({role: source for role, source in self.models().items() if role in roles})

    def weights(self, role: str) -> Weights:
        """Return the identity of the weights that have a role, such as `text`."""
        return Weights(self.models()[role], role)

    @property
    def es_model_id(self) -> str:
        """The text model's id in Elasticsearch: eland's rule, or `glimpse__<name>-text` for a folder."""
        if self.text_model.is_local:  # a path says nothing to other machines
            return f"glimpse__{self.name}-text"
        return es_model_id(self.text_model.name)

    def to_json(self) -> dict[str, Any]:
        """Return the object as `glimpse model list --json` prints it."""
        sources = {key: vars(self)[key].name for key in ("image_model", "text_model", "caption_text_model")}
        es_id = self.es_model_id if "infer" in self.text_lanes else None
        return {
            **asdict(self),
            **sources,
            "size_mb": self.size_mb,
            "memory_mb": self.memory_mb,
            "es_model_id": es_id,
        }

    def text_revision(self) -> str:
        """Return the identity of the text weights, see `Weights.revision`."""
        return self.weights("text").revision

    def image_revision(self) -> str:
        """Return the identity of the image weights, see `Weights.revision`."""
        return self.weights("image").revision

    def revisions(self) -> dict[str, str]:
        """Return the identity of the weights of each tower that a new index notes.

        Captions may never be written, so their model counts only when it is the text model. Weights that are
        not on this machine yet are left out: whoever loads them first notes them.
        """
        roles = ("image", "text", "caption_text") if self.caption_shares_space else ("image", "text")
        found = {role: self.weights(role) for role in roles}
        return {role: weights.revision for role, weights in found.items() if weights.folder}


def es_model_id(hub_name: str) -> str:
    """Return the id that eland gives in Elasticsearch to a model of the hub."""
    return re.sub(r"[\s\\/]", "__", hub_name).lower()[-64:].strip("_.-")


def folder_model_id(folder: Path) -> str:
    """Return an id for Elasticsearch made of a folder's own name, as a path says nothing to other machines.

    Raises `ModelError` when the name has no letter that Elasticsearch takes.
    """
    name = folder.resolve().name
    plain = unicodedata.normalize("NFKD", name.casefold()).encode("ascii", "ignore").decode()
    found = re.sub(r"[^a-z0-9_.-]+", "_", plain)[-64:].strip("_.-")
    if not found:
        raise ModelError(
            f"No id for Elasticsearch can be made of the folder name '{name}'; give one with --es-model-id."
        )
    return found


LIBRARIES_MB = 1200
"""of memory, for Python with torch and a batch of pictures"""
WEIGHTS = Path(__file__).parent / "weights"
POCKET_WEIGHTS = WEIGHTS / "pocket"
CALIBRATION_PICTURES = WEIGHTS / "calibration.png"
"""square drawn pictures side by side, on which any eight-bit model is calibrated"""

MINILM = ModelSource(
    "sentence-transformers/paraphrase-MiniLM-L6-v2", "c9a2bfebc254878aee8c3aca9e6844d5bbb102d1", size_mb=91
)
BLIP = ModelSource(
    "Salesforce/blip-image-captioning-base", "82a37760796d32b1411fe092ab5d4e227313294b", size_mb=990
)
FLORENCE = ModelSource(
    "florence-community/Florence-2-base", "00921df66db728a9ceb750f5eca43e5c203a2051", size_mb=468
)
POCKET_TEXT = ModelSource(str(POCKET_WEIGHTS / "text"))
VOICE_MODELS: dict[str, ModelSource] = {
    name: ModelSource(repository, revision, size_mb)
    for name, repository, revision, size_mb in (
        ("tiny", "Systran/faster-whisper-tiny", "d90ca5fe260221311c53c58e660288d3deb8d356", 78),
        ("base", "Systran/faster-whisper-base", "ebe41f70d5b6dfa9166e2c581c45c9c0cfc57b66", 148),
        ("small", "Systran/faster-whisper-small", "536b0662742c02347bc0e980a01041f333bce120", 487),
        ("medium", "Systran/faster-whisper-medium", "08e178d48790749d25932bbc082711ddcfdfbc4f", 1531),
        ("large-v3", "Systran/faster-whisper-large-v3", "edaa852ec7e145841d8ffdb056a99866b5f0a478", 3091),
        (
            "turbo",
            "mobiuslabsgmbh/faster-whisper-large-v3-turbo",
            "0a363e9161cbc7ed1431c9597a8ceaf0c4f78fcf",
            1621,
        ),
        ("tiny.en", "Systran/faster-whisper-tiny.en", "0d3d19a32d3338f10357c0889762bd8d64bbdeba", 78),
        ("base.en", "Systran/faster-whisper-base.en", "3d3d5dee26484f91867d81cb899cfcf72b96be6c", 148),
        ("small.en", "Systran/faster-whisper-small.en", "d1d751a5f8271d482d14ca55d9e2deeebbae577f", 487),
    )
}


def _photographs(
    name: str,
    description: str,
    image_model: ModelSource,
    text_model: ModelSource | None = None,
    *,
    licence: str,
    dims: int = 512,
    languages: str = "en",
    caption_model: ModelSource = BLIP,
) -> Profile:
    """Return a row for a pair of towers that know photographs.

    Without a `text_model`, the image model holds both towers, and its text tower runs in this process only.
    The voice is the same in all such rows.
    """
    return Profile(
        name=name,
        description=description,
        image_model=image_model,
        text_model=text_model or image_model,
        dims=dims,
        similarity="cosine",
        licence=licence,
        text_lanes=("infer", "local") if text_model else ("local",),
        caption_text_model=MINILM,
        caption_dims=384,
        caption_model=caption_model,
        voice_model="small",
        languages=languages,
    )


PROFILES: dict[str, Profile] = {
    row.name: row
    for row in (
        Profile(
            name="pocket",
            description="tiny towers that know the drawn world, not photographs; part of Glimpse",
            image_model=ModelSource(str(POCKET_WEIGHTS / "image")),
            text_model=POCKET_TEXT,
            dims=128,
            similarity="cosine",
            licence="Apache-2.0",
            text_lanes=("infer", "local"),
            caption_text_model=POCKET_TEXT,
            caption_dims=128,
            caption_model=ModelSource(str(POCKET_WEIGHTS / "caption")),
            voice_model=str(POCKET_WEIGHTS / "voice"),
            languages="en, fr, de, es",
        ),
        _photographs(
            "clip",
            "CLIP ViT-B/32 with a multilingual text tower: the one to start with on photographs",
            ModelSource(
                "sentence-transformers/clip-ViT-B-32", "327ab6726d33c0e22f920c83f2ff9e4bd38ca37f", size_mb=609
            ),
            ModelSource(
                "sentence-transformers/clip-ViT-B-32-multilingual-v1",
                "58edf8cada9e398793dca955574a48cbb7f18be2",
                size_mb=543,
            ),
            licence="MIT (image), Apache-2.0 (text)",
            languages="50 and more",
        ),
        _photographs(
            "siglip2",
            "SigLIP 2 base: a stronger pair for a machine of today; texts are embedded in this process only",
            ModelSource("google/siglip2-base-patch16-224", "75de2d55ec2d0b4efc50b3e9ad70dba96a7b2fa2", 1540),
            licence="Apache-2.0",
            dims=768,
            languages="100 and more",
        ),
        _photographs(
            "siglip2-l",
            "SigLIP 2 large: more exact than base for five times its work; captions by Florence-2",
            ModelSource("google/siglip2-large-patch16-256", "787800c8990e6f058423089178e718139608408c", 3562),
            licence="Apache-2.0 (pair), MIT (captions)",
            dims=1024,
            languages="100 and more",
            caption_model=FLORENCE,
        ),
        _photographs(
            "siglip2-so400m",
            "SigLIP 2 so400m at 384 pixels: the strongest here, 18 times base's work: for a graphics card",
            ModelSource(
                "google/siglip2-so400m-patch14-384", "e8e487298228002f3d8a82e0cd5c8ea9c567f57f", 4580
            ),
            licence="Apache-2.0 (pair), MIT (captions)",
            dims=1152,
            languages="100 and more",
            caption_model=FLORENCE,
        ),
        _photographs(
            "datacomp-l14",
            "CLIP ViT-L/14 trained on DataComp-1B: the strongest of the English CLIPs here",
            ModelSource(
                "laion/CLIP-ViT-L-14-DataComp.XL-s13B-b90K", "84c9828e63dc9a9351d1fe637c346d4c1c4db341", 1714
            ),
            licence="MIT",
            dims=768,
            caption_model=FLORENCE,
        ),
        _photographs(
            "clip-b32",
            "OpenAI's CLIP ViT-B/32 with its own English text tower",
            ModelSource("openai/clip-vit-base-patch32", "3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268", 609),
            licence="MIT",
        ),
        _photographs(
            "clip-b16",
            "OpenAI's CLIP ViT-B/16: smaller patches, about four times the work of B/32",
            ModelSource("openai/clip-vit-base-patch16", "57c216476eefef5ab752ec549e440a49ae4ae5f3", 603),
            licence="MIT",
        ),
        _photographs(
            "clip-l14",
            "OpenAI's CLIP ViT-L/14: about eighteen times the work of B/32, like datacomp-l14",
            ModelSource("openai/clip-vit-large-patch14", "32bd64288804d66eefd0ccbe215aa642df71cc41", 1714),
            licence="MIT",
            dims=768,
        ),
        _photographs(
            "laion-b32",
            "CLIP ViT-B/32 trained on LAION-2B",
            ModelSource(
                "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "1a25a446712ba5ee05982a381eed697ef9b435cf", 609
            ),
            licence="MIT",
        ),
        _photographs(
            "datacomp-b32",
            "CLIP ViT-B/32 trained on DataComp-1B",
            ModelSource(
                "laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K", "f0e2ffa09cbadab3db6a261ec1ec56407ce42912", 609
            ),
            licence="MIT",
        ),
    )
}


DEFAULT_PROFILE = "clip"


def default_profile(environ: Mapping[str, str]) -> str:
    """Return the name of the profile of new indices: `GLIMPSE_PROFILE`, else `clip`."""
    return environ.get("GLIMPSE_PROFILE") or DEFAULT_PROFILE


def get_profile(name: str, *, model_dir: Path | None = None) -> Profile:
    """Return the row called `name`, with models from `model_dir` if that is given.

    The folder holds a folder for each role, see `ROLES`, or is itself one model with both towers. The dims
    are read from there. A row whose text tower also embeds captions needs no `caption_text/`, and one whose
    image model holds both towers no `text/`. Other models that the folder lacks stay the row's own.
    Raises `ModelError` for an unknown name, with the known ones, and for a folder that cannot be used.
    """
    if name not in PROFILES:
        raise ModelError(f"There is no profile '{name}'; choose one of: {', '.join(PROFILES)}.")
    if model_dir is None:
        return PROFILES[name]
    return _from_folder(PROFILES[name], model_dir)


def _from_folder(profile: Profile, folder: Path) -> Profile:
    if not folder.is_dir():
        raise ModelError(f"There is no model folder {folder}; check --model-dir.")
    folder = folder.resolve()
    found = {role: ModelSource(str((folder / role).resolve())) for role in ROLES if (folder / role).is_dir()}
    is_model = any((folder / name).exists() for name in ("config.json", "modules.json", "0_CLIPModel"))
    if is_model:
        found = {role: ModelSource(str(folder)) for role in ("image", "text")} | found
    elif not found:
        raise ModelError(
            f"{folder} is not a model folder: it has no config.json, and none of the folders"
            f" {', '.join(f'{role}/' for role in ROLES)}; `glimpse model fetch --to` fills one."
        )
    dims = image_dims(Path(found["image"].name)) if "image" in found else profile.dims
    if "text" not in found and profile.text_model == profile.image_model and "image" in found:
        found["text"] = found["image"]
    _check_pair(profile, folder, found, dims)
    if "caption_text" not in found and profile.caption_shares_space and "text" in found:
        found["caption_text"] = found["text"]
    models = {
        role: found.get(role) or replace(source, slot=folder / role)
        for role, source in profile.models().items()
    }
    captions = found.get("caption_text")
    return replace(
        profile,
        image_model=models["image"],
        text_model=models["text"],
        caption_model=models["caption"],
        caption_text_model=models["caption_text"],
        dims=dims,
        caption_dims=text_dims(Path(captions.name)) if captions else profile.caption_dims,
        voice_model=found["voice"].name if "voice" in found else profile.voice_model,
    )


def _check_pair(profile: Profile, folder: Path, found: Mapping[str, ModelSource], dims: int) -> None:
    """Raise `ModelError` unless the folder holds both towers of a pair with equal dims, or none."""
    lacks = {"image", "text"} - found.keys()
    if len(lacks) == 1:
        (role,) = lacks
        (other,) = {"image", "text"} - lacks
        raise ModelError(
            f"{folder} holds {other}/ and not its other half: put {profile.models()[role].name}, or the"
            f" {role} model that belongs to yours, into {folder / role}."
        )
    if not lacks and (text_width := text_dims(Path(found["text"].name))) != dims:
        raise ModelError(
            f"The towers in {folder} do not belong together: pictures get {dims} dims and texts {text_width};"
            " put a pair with equal dims into its folders image/ and text/."
        )


HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)


@dataclass(frozen=True)
class UploadSource:
    """A text model on this machine with its id for Elasticsearch."""

    folder: Path
    name: str
    revision: str
    es_model_id: str
    dims: int | None
    """the width that its vectors must have, or None for any"""


def upload_source(
    profile_name: str, *, model_dir: Path | None, hub_model_id: str | None, given_id: str | None = None
) -> UploadSource:
    """Return the text model to upload, downloaded if it comes from the hub.

    The hub name of a profile's text model means that profile, with its pinned revision. A folder's model gets
    its id from the folder's name, unless `given_id` is one. Raises `ModelError`.
    """
    row = next((each for each in PROFILES.values() if each.text_model.name == hub_model_id), None)
    if hub_model_id and row is None:
        path = Path(hub_model_id).expanduser()
        if not path.is_dir() and not HUB_NAME.fullmatch(hub_model_id):
            raise ModelError(f"There is no model folder {hub_model_id}; check --hub-model-id.")
        model_id = given_id or (folder_model_id(path) if path.is_dir() else es_model_id(hub_model_id))
        source = ModelSource(str(path.resolve()) if path.is_dir() else hub_model_id)
        folder = local_folder(source, role="text")
        return UploadSource(folder, hub_model_id, fingerprint(folder), model_id, dims=None)
    profile = row or get_profile(profile_name, model_dir=model_dir)
    if "infer" not in profile.text_lanes:
        raise ModelError(
            f"The text model of profile {profile.name} runs in Glimpse's own process only: there is nothing"
            " to upload; search with it as it is."
        )
    name = profile.text_model.name
    return UploadSource(
        folder=local_folder(profile.text_model, role="text"),
        name=f"the text model of profile {profile.name}" if profile.text_model.is_local else name,
        revision=profile.text_revision(),
        es_model_id=given_id or profile.es_model_id,
        dims=profile.dims,
    )
