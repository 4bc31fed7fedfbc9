"""Loading a profile's image encoder for many pictures: in the way that suits machine, pictures and index."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.fast.choose import SMALL, Chooser, Chosen
from models.fast.execution import EXACT, Execution, Processor, Wish, probe
from models.profiles import CALIBRATION_PICTURES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from PIL.Image import Image

    from models.encoders import ImageEncoder
    from models.profiles import Profile


def load_fast_image_encoder(
    profile: Profile,
    *,
    wish: Wish,
    noted: Mapping[str, dict],
    cache: Path,
    sample: Callable[[], Sequence[Image]],
    processor: Processor | None = None,
) -> Chosen:
    """Load the profile's vision tower for the wish, the index's notes and this machine.

    `cache` is a folder for exported models; for the rest see `Chooser`. Raises `ModelError`.
    """
    from models.embedding import load_image_encoder

    exact = load_image_encoder(profile)
    parameters = sum(one.numel() for one in exact.tower.model.parameters())
    return Chooser(
        exact,
        build=lambda way: run_in(way, exact, cache=cache),
        sample=sample,
        processor=processor or probe(),
        noted=noted,
        is_small=parameters < SMALL,
    ).choose(wish)


def run_in(way: Execution, exact: ImageEncoder, *, cache: Path) -> ImageEncoder:
    """Return the encoder running in another way, from the one in torch and float32. Raises `ModelError`."""
    from models.fast.onnx import onnx_tower
    from models.torch_tower import bf16_tower

    if way == EXACT:
        return exact
    if way.backend == "torch":
        return exact.running(bf16_tower(exact.tower.model), way)
    tower = onnx_tower(
        exact.tower.model,
        precision=way.precision,
        revision=exact.revision,
        cache=cache,
        calibration=lambda: _calibration(exact),
    )
    return exact.running(tower, way)


def _calibration(encoder: ImageEncoder) -> np.ndarray:
    """Return the calibration pictures, preprocessed: float32 `[n, 3, height, width]`.

    They never change, so the same weights give the same eight-bit model everywhere.
    """
    import numpy as np
    from PIL import Image

    with Image.open(CALIBRATION_PICTURES) as strip:
        side = strip.height
        pictures = [strip.crop((left, 0, left + side, side)) for left in range(0, strip.width, side)]
    return np.stack([encoder.preprocess(picture) for picture in pictures])
