"""The table of profiles. Adding a model is adding a row.

Revisions are commits of the named repositories on Hugging Face, so that the same row means the same weights.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from models.errors import ModelError
from models.folders import ModelSource, fingerprint, image_dims, local_folder, text_dims

POCKET_WEIGHTS = Path(__file__).parent / "pocket" / "weights"


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
    """what `models.whisper.load_transcriber` takes: a size or a folder"""
    languages: str

    @property
    def caption_shares_space(self) -> bool:
        """Whether a picture's vector can be compared with the vector of a caption."""
        return self.caption_text_model == self.text_model

    @property
    def es_model_id(self) -> str:
        """The text model's id in Elasticsearch: eland's rule, or `glimpse__<name>-text` for a folder."""
        is_folder = Path(self.text_model.name).is_absolute()  # a path says nothing to other machines
        return f"glimpse__{self.name}-text" if is_folder else es_model_id(self.text_model.name)

    def text_revision(self) -> str:
        """Return what tells other text weights from these: the hub's commit, or the folder's fingerprint.

        Raises `ModelError` when the folder does not exist.
        """
        return self.text_model.revision or fingerprint(local_folder(self.text_model))


def es_model_id(hub_name: str) -> str:
    """Return the id that eland gives in Elasticsearch to a model of the hub."""
    return re.sub(r"[\s\\/]", "__", hub_name).lower()[-64:].removeprefix("__")


MINILM = ModelSource(
    "sentence-transformers/paraphrase-MiniLM-L6-v2", "c9a2bfebc254878aee8c3aca9e6844d5bbb102d1"
)
BLIP = ModelSource("Salesforce/blip-image-captioning-base", "82a37760796d32b1411fe092ab5d4e227313294b")
POCKET_TEXT = ModelSource(str(POCKET_WEIGHTS / "text"))

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
        Profile(
            name="clip",
            description="CLIP ViT-B/32 with a multilingual text tower: the one to start with on photographs",
            image_model=ModelSource(
                "sentence-transformers/clip-ViT-B-32", "327ab6726d33c0e22f920c83f2ff9e4bd38ca37f"
            ),
            text_model=ModelSource(
                "sentence-transformers/clip-ViT-B-32-multilingual-v1",
                "58edf8cada9e398793dca955574a48cbb7f18be2",
            ),
            dims=512,
            similarity="cosine",
            licence="MIT (image), Apache-2.0 (text)",
            size_mb=1240,
            text_lanes=("infer", "local"),
            caption_text_model=MINILM,
            caption_dims=384,
            caption_model=BLIP,
            voice_model="small",
            languages="50 and more",
        ),
        Profile(
            name="siglip2",
            description="SigLIP 2 base: a stronger pair, its text tower runs in this process only",
            image_model=ModelSource(
                "google/siglip2-base-patch16-224", "75de2d55ec2d0b4efc50b3e9ad70dba96a7b2fa2"
            ),
            text_model=ModelSource(
                "google/siglip2-base-patch16-224", "75de2d55ec2d0b4efc50b3e9ad70dba96a7b2fa2"
            ),
            dims=768,
            similarity="cosine",
            licence="Apache-2.0",
            size_mb=1540,
            text_lanes=("local",),
            caption_text_model=MINILM,
            caption_dims=384,
            caption_model=BLIP,
            voice_model="small",
            languages="100 and more",
        ),
    )
}


def get_profile(name: str, *, model_dir: Path | None = None) -> Profile:
    """Return the row called `name`; with `model_dir`, the pair of towers comes from that folder.

    The folder holds `image/` and `text/`, or is itself one model with both towers. The dims are then read
    from the folder, and captions are embedded by the folder's text tower, so that nothing is downloaded.
    Where it also holds `caption/` or `voice/`, captions are written and recordings heard by those.
    Raises `ModelError` when there is no such row (naming those there are) or when the folder cannot be used.
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
    return replace(
        profile,
        image_model=ModelSource(str(image.resolve())),
        text_model=text_source,
        caption_text_model=text_source,
        dims=dims,
        caption_dims=dims,
        **_own_parts(folder),
    )


def _own_parts(folder: Path) -> dict[str, ModelSource | str]:
    caption, voice = folder / "caption", folder / "voice"
    parts: dict[str, ModelSource | str] = {}
    if caption.is_dir():
        parts["caption_model"] = ModelSource(str(caption.resolve()))
    if voice.is_dir():
        parts["voice_model"] = str(voice.resolve())
    return parts
