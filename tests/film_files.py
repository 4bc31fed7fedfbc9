"""Small films that tests make for themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import av
import numpy as np
from PIL import Image

RATE = 5
"""pictures a second"""


def save_film(
    path: Path,
    scenes: Sequence[tuple[Image.Image, float]],
    *,
    codec: str = "libx264",
    container: str | None = None,
    tags: Mapping[str, str] | None = None,
    turn: int = 0,
    sound: bool = False,
    keys: int = RATE,
    options: Mapping[str, str] | None = None,
    codec_options: Mapping[str, str] | None = None,
    pictures: bool = True,
) -> Path:
    """Write a film that shows each picture for some seconds, with a key picture every `keys` pictures.

    `turn` is by how many degrees a player turns it against the clock. Without `pictures` there is only sound.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format=container, options=dict(options or {})) as box:
        box.metadata.update(tags or {})
        width, height = scenes[0][0].size
        coding = {"crf": "20", "g": str(keys), **(codec_options or {})}
        stream = box.add_stream(codec, rate=RATE, options=coding) if pictures else None
        if stream:
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        if stream and turn:
            stream.set_display_rotation(turn)
        speaker = box.add_stream("aac", rate=8000) if sound else None
        for picture, seconds in scenes if stream else ():
            for _ in range(round(seconds * RATE)):
                box.mux(stream.encode(av.VideoFrame.from_image(picture.convert("RGB"))))
        if stream:
            box.mux(stream.encode(None))
        if speaker:
            silence = av.AudioFrame.from_ndarray(
                np.zeros((1, 8000), np.float32), format="fltp", layout="mono"
            )
            silence.sample_rate = 8000
            box.mux(speaker.encode(silence))
            box.mux(speaker.encode(None))
    return path
