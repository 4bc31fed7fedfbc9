"""What a profile is: models whose vectors belong together."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from models.folders import ModelSource, fingerprint, local_folder, towers_folder


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
        if _is_local(self.text_model):  # a path says nothing to other machines
            return f"glimpse__{self.name}-text"
        return es_model_id(self.text_model.name)

    def text_revision(self) -> str:
        """Return what tells other text weights from these: the hub's commit, or the folder's fingerprint.

        Raises `ModelError` when the folder does not exist.
        """
        return self.text_model.revision or fingerprint(local_folder(self.text_model))

    def image_revision(self) -> str:
        """Return the fingerprint of the image weights, as their encoder has it. Raises `ModelError`."""
        return fingerprint(towers_folder(local_folder(self.image_model)))

    def revisions(self, *, download: bool = True) -> dict[str, str]:
        """Return what tells other weights from these, by tower, as far as a new index notes it.

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
    return re.sub(r"[\s\\/]", "__", hub_name).lower()[-64:].removeprefix("__")
