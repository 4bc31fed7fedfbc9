"""The table of profiles. Adding a model is adding a row."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from models.errors import ModelError

POCKET_WEIGHTS = Path(__file__).parent / "pocket" / "weights"


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from: a hub name with a pinned revision, or a local folder."""

    name: str
    revision: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether `name` is a folder on this machine."""
        return Path(self.name).is_dir()


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
    text_lanes: tuple[str, ...]
    """`infer`: the text model can be deployed in Elasticsearch; `local`: it runs in this process"""
    caption_text_model: ModelSource
    caption_dims: int
    languages: tuple[str, ...]


PROFILES: dict[str, Profile] = {
    row.name: row
    for row in (
        Profile(
            name="pocket",
            description="tiny towers that know the drawn world, in English, French, German and Spanish",
            image_model=ModelSource(str(POCKET_WEIGHTS / "image")),
            text_model=ModelSource(str(POCKET_WEIGHTS / "text")),
            dims=128,
            similarity="cosine",
            licence="Apache-2.0",
            size_mb=8,
            text_lanes=("infer", "local"),
            caption_text_model=ModelSource(str(POCKET_WEIGHTS / "text")),
            caption_dims=128,
            languages=("en", "fr", "de", "es"),
        ),
    )
}


def get_profile(name: str, *, model_dir: Path | None = None) -> Profile:
    """Return the row called `name`; with `model_dir`, its models come from `model_dir/image` and `/text`.

    Raises `ModelError` naming the known profiles when there is no such row.
    """
    if name not in PROFILES:
        raise ModelError(f"There is no profile '{name}'; choose one of: {', '.join(PROFILES)}.")
    profile = PROFILES[name]
    if model_dir is None:
        return profile
    return replace(
        profile,
        image_model=ModelSource(str(model_dir / "image")),
        text_model=ModelSource(str(model_dir / "text")),
    )
