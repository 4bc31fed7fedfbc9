"""Which text model is meant for Elasticsearch: a profile's, or another one by its hub name or folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from models.errors import ModelError
from models.folders import ModelSource, fingerprint, local_folder
from models.profile import Profile, es_model_id
from models.profiles import PROFILES, get_profile


@dataclass(frozen=True)
class UploadSource:
    """A text model on this machine, and what Elasticsearch is to call it."""

    folder: Path
    name: str
    revision: str
    es_model_id: str
    dims: int | None
    """the width that its vectors must have; None: any"""


def upload_source(profile_name: str, *, model_dir: Path | None, hub_model_id: str | None) -> UploadSource:
    """Return the text model to upload, downloaded where it comes from the hub.

    The hub name of a profile's text model means that profile, with its pinned revision. Raises `ModelError`.
    """
    named = [row for row in PROFILES.values() if hub_model_id == row.text_model.name]
    if hub_model_id and not named:
        return _of_name(hub_model_id)
    profile = named[0] if named else get_profile(profile_name, model_dir=model_dir)
    if "infer" not in profile.text_lanes:
        raise ModelError(
            f"The text model of profile {profile.name} runs in Glimpse's own process only: there is nothing"
            " to upload; search with it as it is."
        )
    return _of_profile(profile)


def _of_profile(profile: Profile) -> UploadSource:
    is_folder = Path(profile.text_model.name).is_absolute()
    return UploadSource(
        folder=local_folder(profile.text_model),
        name=f"the text model of profile {profile.name}" if is_folder else profile.text_model.name,
        revision=profile.text_revision(),
        es_model_id=profile.es_model_id,
        dims=profile.dims,
    )


def _of_name(name: str) -> UploadSource:
    is_folder = Path(name).is_dir()
    folder = local_folder(ModelSource(str(Path(name).resolve()) if is_folder else name))
    return UploadSource(folder, name, fingerprint(folder), es_model_id(name), dims=None)
