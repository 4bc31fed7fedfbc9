"""Loading encoders: a profile's row becomes an object that embeds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.encoders import ImageEncoder, PairedTextEncoder, SentenceEncoder, TextEncoder
from models.errors import ModelError
from models.folders import fingerprint, local_folder, read_config, towers_folder, unusable

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from PIL.Image import Image

    from models.profiles import Profile


def load_image_encoder(profile: Profile) -> ImageEncoder:
    """Load the profile's vision tower. Raises `ModelError` when it is absent or of another width."""
    folder = towers_folder(local_folder(profile.image_model))
    from transformers import AutoImageProcessor

    from models.torch_tower import TorchTower

    encoder = ImageEncoder(
        tower=TorchTower(_load_tower(folder)),
        processor=AutoImageProcessor.from_pretrained(folder, use_fast=False),
        dims=profile.dims,
        revision=fingerprint(folder),
    )
    return _checked(encoder, encoder.embed_images([_grey()]).shape[1], folder)


def load_text_encoder(profile: Profile) -> TextEncoder:
    """Load the profile's text tower in this process. Raises `ModelError` as `load_image_encoder` does."""
    return _load_texts(local_folder(profile.text_model), profile.dims)


def load_caption_text_encoder(profile: Profile) -> TextEncoder:
    """Load the model that embeds captions. Raises `ModelError` as `load_image_encoder` does."""
    return _load_texts(local_folder(profile.caption_text_model), profile.caption_dims)


def _load_texts(folder: Path, dims: int) -> TextEncoder:
    paired = not (folder / "modules.json").is_file() or (folder / "0_CLIPModel").is_dir()
    encoder = (_load_paired if paired else _load_sentences)(folder, dims)
    return _checked(encoder, encoder.embed_texts(["a picture"]).shape[1], folder)


def _load_sentences(folder: Path, dims: int) -> SentenceEncoder:
    from sentence_transformers import SentenceTransformer

    try:
        model = SentenceTransformer(str(folder), local_files_only=True)
    except Exception as error:  # transformers, safetensors and torch each raise their own
        raise unusable("The model", folder, error) from error
    return SentenceEncoder(model=model, dims=dims, revision=fingerprint(folder))


def _load_paired(folder: Path, dims: int) -> PairedTextEncoder:
    from transformers import AutoTokenizer

    folder = towers_folder(folder)
    model = _load_tower(folder, whole=True)
    # SigLIP was trained on padded texts; CLIP gives the same vector with and without padding.
    padding = "max_length" if model.config.model_type.startswith("siglip") else "longest"
    return PairedTextEncoder(
        model=model,
        tokenizer=AutoTokenizer.from_pretrained(folder),
        padding=padding,
        max_length=model.config.text_config.max_position_embeddings,
        dims=dims,
        revision=fingerprint(folder),
    )


def _load_tower(folder: Path, *, whole: bool = False) -> torch.nn.Module:
    import torch
    from transformers import AutoModel, CLIPVisionModelWithProjection

    is_clip = read_config(folder).get("model_type") in ("clip", "clip_vision_model")
    model_class = CLIPVisionModelWithProjection if is_clip and not whole else AutoModel
    try:
        model = model_class.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    except Exception as error:  # transformers, safetensors and torch each raise their own
        raise unusable("The model", folder, error) from error
    return model.eval().to("cuda" if torch.cuda.is_available() else "cpu")


def _grey() -> Image:
    from PIL import Image

    return Image.new("RGB", (64, 64), "grey")


def _checked(encoder, width: int, folder: Path):
    if width != encoder.dims:
        raise ModelError(
            f"The model in {folder} gives vectors of {width} dims, but its profile says {encoder.dims};"
            " choose the profile that it belongs to."
        )
    return encoder
