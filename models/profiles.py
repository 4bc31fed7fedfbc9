"""The table of profiles: adding a model is adding a row.

Revisions are commits of the named repositories on Hugging Face, so that the same row means the same weights.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from models.errors import ModelError, first_line

DOWNLOADED = ["*.json", "*.txt", "*.model", "*.safetensors", "*_Dense/*"]
NOT_DOWNLOADED = ["onnx/*", "openvino/*", "open_clip*"]
OLD_WEIGHTS = "pytorch_model.bin"
"""the weights of a repository without safetensors; transformers reads only numbers from it"""


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from: a hub name with a pinned revision, or a local folder."""

    name: str
    revision: str | None = None


def local_folder(
    source: ModelSource, *, files: Sequence[str] = DOWNLOADED, option: str = "--model-dir"
) -> Path:
    """Return the folder that holds the model, downloading `files` (patterns) on first use.

    Honours `HF_HOME` and `HF_HUB_OFFLINE`. Raises `ModelError`, which names `option` as the way out, when it
    is neither here nor to be had.
    """
    if Path(source.name).is_absolute():
        return _existing(Path(source.name))
    try:
        folder = _downloaded(source, files)
        if "*.safetensors" in files and not any(folder.rglob("*.safetensors")):
            folder = _downloaded(source, [OLD_WEIGHTS])
        return folder
    # The hub's client raises its own errors, httpx's, requests' and OSError: each means the same here.
    except Exception as error:
        raise ModelError(
            f"The model {source.name} is not on this machine and cannot be downloaded from Hugging Face"
            f" ({type(error).__name__}); connect once, or copy it and name its folder with {option}."
        ) from error


def _downloaded(source: ModelSource, files: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download

    return Path(
        snapshot_download(
            source.name,
            revision=source.revision,
            allow_patterns=list(files),
            ignore_patterns=NOT_DOWNLOADED,
        )
    )


def _existing(folder: Path) -> Path:
    if not folder.is_dir():
        raise ModelError(f"There is no model folder {folder}; check --model-dir.")
    return folder


def fingerprint(folder: Path) -> str:
    """Return `sha256:` and 16 hex digits over the folder's weights: equal weights, equal fingerprint."""
    digest = hashlib.sha256()
    weights = sorted([*folder.rglob("*.safetensors"), *folder.rglob("pytorch_model.bin")])
    for path in weights:
        with path.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return f"sha256:{digest.hexdigest()[:16]}"


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


def towers_folder(folder: Path) -> Path:
    """Return the folder that holds a pair's weights: sentence-transformers keeps CLIP in `0_CLIPModel`."""
    nested = folder / "0_CLIPModel"
    return nested if nested.is_dir() else folder


def image_dims(folder: Path) -> int:
    """Return the width of the vectors that an image tower gives, from its config alone."""
    config = read_config(towers_folder(_existing(folder)))
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
    return ModelError(
        f"{part} in {folder} cannot be loaded ({first_line(error)}); {get} or download it again."
    )


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
    size_mb: int
    """megabytes that are downloaded on first use"""
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

    @property
    def es_model_id(self) -> str:
        """The text model's id in Elasticsearch: eland's rule, or `glimpse__<name>-text` for a folder."""
        if _is_local(self.text_model):  # a path says nothing to other machines
            return f"glimpse__{self.name}-text"
        return es_model_id(self.text_model.name)

    def to_json(self) -> dict[str, Any]:
        """Return the object as `glimpse model list --json` prints it."""
        sources = {key: vars(self)[key].name for key in ("image_model", "text_model", "caption_text_model")}
        es_id = self.es_model_id if "infer" in self.text_lanes else None
        return {**asdict(self), **sources, "es_model_id": es_id}

    def text_revision(self) -> str:
        """Return the identity of the text weights: the hub's commit, or the folder's fingerprint.

        Raises `ModelError` when the folder does not exist.
        """
        return self.text_model.revision or fingerprint(local_folder(self.text_model))

    def image_revision(self) -> str:
        """Return the fingerprint of the image weights, as their encoder has it. Raises `ModelError`."""
        return fingerprint(towers_folder(local_folder(self.image_model)))

    def revisions(self, *, download: bool = True) -> dict[str, str]:
        """Return the identity of the weights of each tower that a new index notes.

        Captions may never be written, so their model counts only when it is the text model. Without
        `download`, weights that are not in a local folder are left out. Raises `ModelError`.
        """
        found = {}
        if download or _is_local(self.image_model):
            found["image"] = self.image_revision()
        if download or self.text_model.revision or _is_local(self.text_model):
            found["text"] = self.text_revision()
        if self.caption_shares_space and (download or _is_local(self.text_model)):
            found["caption_text"] = fingerprint(towers_folder(local_folder(self.text_model)))
        return found


def _is_local(source: ModelSource) -> bool:
    return Path(source.name).is_absolute()


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


WEIGHTS = Path(__file__).parent / "weights"
POCKET_WEIGHTS = WEIGHTS / "pocket"
CALIBRATION_PICTURES = WEIGHTS / "calibration.png"
"""square drawn pictures side by side, on which any eight-bit model is calibrated"""

MINILM = ModelSource(
    "sentence-transformers/paraphrase-MiniLM-L6-v2", "c9a2bfebc254878aee8c3aca9e6844d5bbb102d1"
)
BLIP = ModelSource("Salesforce/blip-image-captioning-base", "82a37760796d32b1411fe092ab5d4e227313294b")
POCKET_TEXT = ModelSource(str(POCKET_WEIGHTS / "text"))


def _photographs(
    name: str,
    description: str,
    image_model: ModelSource,
    text_model: ModelSource | None = None,
    *,
    licence: str,
    dims: int = 512,
    size_mb: int = 610,
    languages: str = "en",
) -> Profile:
    """Return a row for a pair of towers that know photographs.

    Without a `text_model`, the image model holds both towers, and its text tower runs in this process only.
    Captions and voice are the same in all such rows. The defaults fit a CLIP of the size ViT-B/32.
    """
    return Profile(
        name=name,
        description=description,
        image_model=image_model,
        text_model=text_model or image_model,
        dims=dims,
        similarity="cosine",
        licence=licence,
        size_mb=size_mb,
        text_lanes=("infer", "local") if text_model else ("local",),
        caption_text_model=MINILM,
        caption_dims=384,
        caption_model=BLIP,
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
            size_mb=0,
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
            ModelSource("sentence-transformers/clip-ViT-B-32", "327ab6726d33c0e22f920c83f2ff9e4bd38ca37f"),
            ModelSource(
                "sentence-transformers/clip-ViT-B-32-multilingual-v1",
                "58edf8cada9e398793dca955574a48cbb7f18be2",
            ),
            licence="MIT (image), Apache-2.0 (text)",
            size_mb=1240,
            languages="50 and more",
        ),
        _photographs(
            "siglip2",
            "SigLIP 2 base: a stronger pair, its text tower runs in this process only",
            ModelSource("google/siglip2-base-patch16-224", "75de2d55ec2d0b4efc50b3e9ad70dba96a7b2fa2"),
            licence="Apache-2.0",
            dims=768,
            size_mb=1540,
            languages="100 and more",
        ),
        _photographs(
            "clip-b32",
            "OpenAI's CLIP ViT-B/32 with its own English text tower",
            ModelSource("openai/clip-vit-base-patch32", "3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268"),
            licence="MIT",
        ),
        _photographs(
            "clip-b16",
            "OpenAI's CLIP ViT-B/16: smaller patches, about four times the work of B/32",
            ModelSource("openai/clip-vit-base-patch16", "57c216476eefef5ab752ec549e440a49ae4ae5f3"),
            licence="MIT",
        ),
        _photographs(
            "clip-l14",
            "OpenAI's CLIP ViT-L/14: the largest here, about eighteen times the work of B/32",
            ModelSource("openai/clip-vit-large-patch14", "32bd64288804d66eefd0ccbe215aa642df71cc41"),
            licence="MIT",
            dims=768,
            size_mb=1710,
        ),
        _photographs(
            "laion-b32",
            "CLIP ViT-B/32 trained on LAION-2B",
            ModelSource("laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "1a25a446712ba5ee05982a381eed697ef9b435cf"),
            licence="MIT",
        ),
        _photographs(
            "datacomp-b32",
            "CLIP ViT-B/32 trained on DataComp-1B",
            ModelSource(
                "laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K", "f0e2ffa09cbadab3db6a261ec1ec56407ce42912"
            ),
            licence="MIT",
        ),
    )
}


def get_profile(name: str, *, model_dir: Path | None = None) -> Profile:
    """Return the row called `name`, with its pair of towers from `model_dir` if that is given.

    The folder holds `image/` and `text/`, or is itself one model with both towers. The dims are then read
    from the folder, and captions are embedded by the folder's text tower, so that nothing is downloaded.
    Where it also holds `caption/` or `voice/`, captions are written and recordings heard by those.
    Raises `ModelError` for an unknown name, with the known ones, and for a folder that cannot be used.
    """
    if name not in PROFILES:
        raise ModelError(f"There is no profile '{name}'; choose one of: {', '.join(PROFILES)}.")
    if model_dir is None:
        return PROFILES[name]
    return _from_folder(PROFILES[name], model_dir)


def _from_folder(profile: Profile, folder: Path) -> Profile:
    image, text = (folder / part if (folder / part).is_dir() else folder for part in ("image", "text"))
    dims, text_width = image_dims(image), text_dims(text)
    if dims != text_width:
        raise ModelError(
            f"The towers in {folder} do not belong together: pictures get {dims} dims and texts {text_width};"
            " put a pair with equal dims into its folders image/ and text/."
        )
    text_source = ModelSource(str(text.resolve()))
    caption, voice = folder / "caption", folder / "voice"
    return replace(
        profile,
        image_model=ModelSource(str(image.resolve())),
        text_model=text_source,
        caption_text_model=text_source,
        dims=dims,
        caption_dims=dims,
        caption_model=ModelSource(str(caption.resolve())) if caption.is_dir() else profile.caption_model,
        voice_model=str(voice.resolve()) if voice.is_dir() else profile.voice_model,
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
        folder = local_folder(ModelSource(str(path.resolve()) if path.is_dir() else hub_model_id))
        return UploadSource(folder, hub_model_id, fingerprint(folder), model_id, dims=None)
    profile = row or get_profile(profile_name, model_dir=model_dir)
    if "infer" not in profile.text_lanes:
        raise ModelError(
            f"The text model of profile {profile.name} runs in Glimpse's own process only: there is nothing"
            " to upload; search with it as it is."
        )
    name = profile.text_model.name
    return UploadSource(
        folder=local_folder(profile.text_model),
        name=f"the text model of profile {profile.name}" if _is_local(profile.text_model) else name,
        revision=profile.text_revision(),
        es_model_id=given_id or profile.es_model_id,
        dims=profile.dims,
    )
