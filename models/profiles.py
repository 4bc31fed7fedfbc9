"""The table of profiles. Adding a model is adding a row.

Revisions are commits of the named repositories on Hugging Face, so that the same row means the same weights.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from models.errors import ModelError
from models.folders import ModelSource, image_dims, text_dims
from models.profile import Profile

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
    """Return a pair of towers for photographs; without a `text_model` one model holds both.

    The text tower of such a model runs in this process only.
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
