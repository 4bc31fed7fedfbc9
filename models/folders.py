"""Model folders: where they come from, and what their files say before any weight is loaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from models.errors import ModelError, first_line

DOWNLOADED = ["*.json", "*.txt", "*.model", "*.safetensors", "*_Dense/*"]
NOT_DOWNLOADED = ["onnx/*", "openvino/*", "open_clip*"]
OLD_WEIGHTS = "pytorch_model.bin"
"""what a repository without safetensors has; transformers reads numbers from it and nothing else"""


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


def read_config(folder: Path) -> dict:
    """Return `config.json` of a model folder. Raises `ModelError` when it is absent or not JSON."""
    path = folder / "config.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"{folder} is not a model folder: it has no config.json; it needs a model saved by"
            " sentence-transformers or transformers."
        ) from None
    except ValueError as error:
        raise ModelError(f"{path} is not valid JSON ({error}); copy the model again.") from error


def towers_folder(folder: Path) -> Path:
    """Return the folder that holds a pair's weights: sentence-transformers keeps CLIP in `0_CLIPModel`."""
    nested = folder / "0_CLIPModel"
    return nested if nested.is_dir() else folder


def image_dims(folder: Path) -> int:
    """Return the width of the vectors that an image tower gives, from its config alone."""
    config = read_config(towers_folder(_existing(folder)))
    width = config.get("projection_dim") or config.get("vision_config", {}).get("hidden_size")
    return _known(
        width, folder, config, "which cannot embed pictures; it needs a CLIP or SigLIP vision tower"
    )


def text_dims(folder: Path) -> int:
    """Return the width of the vectors that a text tower gives, from its configs alone."""
    if not (folder / "modules.json").is_file() or (folder / "0_CLIPModel").is_dir():
        return image_dims(folder)
    for dense in sorted(folder.glob("*_Dense"), reverse=True):
        return int(read_config(dense)["out_features"])
    config = read_config(folder)
    width = config.get("dim") or config.get("hidden_size")
    return _known(width, folder, config, "whose width its config.json does not say; copy the model again")


def _known(width: int | None, folder: Path, config: dict, what: str) -> int:
    if not width:
        raise ModelError(f"{folder} holds a '{config.get('model_type')}' model, {what}.")
    return int(width)


def unusable(what: str, folder: Path, error: Exception, *, get: str = "copy") -> ModelError:
    """Say that a library could not load `what` from a folder; `get` is how people got it."""
    return ModelError(
        f"{what} in {folder} cannot be loaded ({first_line(error)}); {get} or download it again."
    )
