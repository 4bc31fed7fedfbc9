"""The microphone of this machine: sound until the speaker falls silent."""

from __future__ import annotations

import io
import math
import wave
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from search_app.errors import MicrophoneError

if TYPE_CHECKING:
    from types import ModuleType

    import numpy as np

BLOCK_SECONDS = 0.05
SILENT_DB = -96.0


@dataclass(frozen=True)
class Sound:
    """What a microphone gives: blocks of float32 mono samples, -1 to 1, at `rate` samples per second."""

    rate: int
    blocks: Iterable[np.ndarray]


@dataclass(frozen=True)
class Manners:
    """When a recording ends by itself, in seconds; levels in decibels below full scale."""

    longest: float = 30.0
    quiet: float = 1.2
    """silence after speech that ends it"""
    patience: float = 8.0
    """silence from the beginning on that ends it"""
    loud: float = -45.0
    above_noise: float = 10.0
    """how much louder than the quietest moment speech is"""
    spoken: float = 0.2
    """seconds that must be loud before it counts as speech: a click is none"""


def record(
    sound: Sound,
    *,
    manners: Manners | None = None,
    stopped: Callable[[], bool] = lambda: False,
    show: Callable[[float, float], None] = lambda _seconds, _level: None,
) -> bytes:
    """Return a WAV file of what is said, kept in memory only.

    It ends after a silence that follows speech, when `stopped`, or at the longest time. `show` gets the
    seconds so far and the level, 0 to 1, of every block. Raises `MicrophoneError` when there were only zeros.
    """
    listener = _Listener(manners or Manners())
    blocks, seconds = [], 0.0
    for block in sound.blocks:
        blocks.append(block)
        seconds += len(block) / sound.rate
        level = decibels(block)
        show(seconds, max(0.0, 1 + level / 60))
        if stopped() or listener.is_over(level, len(block) / sound.rate):
            break
    if not any(block.any() for block in blocks):
        raise MicrophoneError(
            "The microphone gives no sound at all: it is muted, or this terminal may not use it; look into"
            " the system's sound and privacy settings."
        )
    return wav(blocks, sound.rate)


class _Listener:
    """Follows the level and knows when the speaker has ended."""

    def __init__(self, manners: Manners) -> None:
        self._manners = manners
        self._noise = 0.0
        self._heard = self._quiet = self._total = 0.0

    def is_over(self, level: float, seconds: float) -> bool:
        """Take in the level of a block that lasts `seconds`; say whether it was the last."""
        wanted = self._manners
        self._noise = min(self._noise, max(level, -80.0)) + 0.5 * seconds  # a noise that grows is followed
        self._total += seconds
        if level > max(wanted.loud, self._noise + wanted.above_noise):
            self._heard, self._quiet = self._heard + seconds, 0.0
        else:
            self._quiet += seconds
        has_spoken = self._heard >= wanted.spoken
        patience = wanted.quiet if has_spoken else wanted.patience
        return self._quiet >= patience or self._total >= wanted.longest


def decibels(block: np.ndarray) -> float:
    """Return the level of a block: 0 is as loud as it gets, -96 is silence."""
    power = float((block.astype("float64") ** 2).mean()) if len(block) else 0.0
    return max(SILENT_DB, 10 * math.log10(power)) if power else SILENT_DB


def wav(blocks: Iterable[np.ndarray], rate: int) -> bytes:
    """Return mono float32 blocks as a WAV file of 16 bits."""
    data = io.BytesIO()
    with wave.open(data, "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(b"".join((block.clip(-1, 1) * 32767).astype("<i2").tobytes() for block in blocks))
    return data.getvalue()


@contextmanager
def open_microphone(device: str | None = None) -> Iterator[Sound]:
    """Open the microphone (`device`: number or part of a name; None: the system's own) and give its sound.

    Raises `MicrophoneError` without PortAudio, without a device, or when it cannot be opened.
    """
    try:
        import sounddevice
    except OSError as error:  # its library is looked for at import
        raise MicrophoneError(
            "The microphone cannot be used, for the PortAudio library is missing; on Debian and Ubuntu:"
            " apt install libportaudio2. Or record a file: glimpse search --voice clip.wav"
        ) from error
    chosen = int(device) if device and device.isdecimal() else device
    try:
        rate = _rate(sounddevice, chosen)
        size = int(rate * BLOCK_SECONDS)
        with sounddevice.InputStream(
            device=chosen, samplerate=rate, channels=1, dtype="float32", blocksize=size
        ) as stream:
            yield Sound(rate, (stream.read(size)[0][:, 0].copy() for _ in iter(int, 1)))
    except sounddevice.PortAudioError as error:
        raise _unusable(error) from error


def _rate(sounddevice: ModuleType, device: str | int | None) -> int:
    """Return the device's own samples per second: few devices can do every rate."""
    try:
        return int(sounddevice.query_devices(device, "input")["default_samplerate"])
    except sounddevice.PortAudioError as error:  # it tells in numbers that there is no such device
        which = "microphone" if device is None else f"microphone number {device}"
        raise MicrophoneError(
            f"There is no {which}; connect one, or record a file: glimpse search --voice clip.wav"
        ) from error
    except ValueError as error:  # no device has this name
        raise _unusable(error) from error


def _unusable(error: Exception) -> MicrophoneError:
    reason = str(error).splitlines()[0].rstrip(".")
    return MicrophoneError(
        f"The microphone cannot be used ({reason}); connect one, let this terminal use it, or choose another"
        " with --device."
    )
