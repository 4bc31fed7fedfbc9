"""The image encoder of a run: as fast as the machine allows, and in step with what the index holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ingest.errors import IngestError
from models.fast.execution import Wish

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from PIL.Image import Image

    from es_config.index import ImageIndex
    from models.encoders import ImageEncoder
    from models.profiles import Profile


@dataclass(frozen=True)
class TowerChoice:
    """What decides how the vision tower runs."""

    wish: Wish = field(default_factory=Wish)
    sample: Callable[[], Sequence[Image]] = tuple
    """some of the pictures to come, on which vectors are compared"""
    say: Callable[[str], None] = lambda _: None
    """told in one sentence what was chosen, where there is something to say"""


def check_weights(index: ImageIndex, tower: str, revision: str) -> None:
    """Raise `IngestError` when the index notes other weights of a tower.

    Most indices note them since they were created. One that does not notes those that come first.
    """
    if not index.exists():
        return
    noted = index.claim_revision(tower, revision)
    if noted != revision:
        raise IngestError(
            f"The index '{index.alias}' was made with other weights ({tower} {noted}, here {revision}):"
            " use the models that it was made with, or run `glimpse index delete` and ingest again."
        )


def load_tower(profile: Profile, index: ImageIndex, choice: TowerChoice, *, cache: Path) -> ImageEncoder:
    """Load the image encoder and note in the index which weights made its vectors, and in which precision.

    Raises `ModelError` when the wished precision does not fit, `IngestError` when the weights do not.
    """
    from models.fast_embedding import load_fast_image_encoder

    while True:
        written = index.meta().execution if index.exists() else {}
        noted = written or _before_notes(index)
        chosen = load_fast_image_encoder(
            profile, wish=choice.wish, noted=noted, cache=cache, sample=choice.sample
        )
        check_weights(index, "image", chosen.encoder.revision)
        is_news = chosen.compared or chosen.encoder.execution.precision not in noted
        # Another run may have chosen meanwhile: this one then chooses again, by what that one noted.
        if (
            not index.exists()
            or (written and not is_news)
            or index.note("execution", {**noted, **chosen.note()}, seen=written)
        ):
            break
    if chosen.sentence:
        choice.say(chosen.sentence)
    return chosen.encoder


def _before_notes(index: ImageIndex) -> dict[str, dict]:
    """Return what an index without notes of its vectors holds: before there were such notes, fp32 alone."""
    holds_pictures = index.exists() and "image" in index.meta().revisions and index.count() > 0
    return {"fp32": {}} if holds_pictures else {}
