"""WAV files of samples, for benchmarks that speak."""

from __future__ import annotations

import io
import wave
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def as_wav(samples: np.ndarray, rate: int) -> bytes:
    """Return float mono samples, -1 to 1, as a WAV file of 16 bits."""
    data = io.BytesIO()
    with wave.open(data, "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes((samples.clip(-1, 1) * 32767).astype("<i2").tobytes())
    return data.getvalue()
