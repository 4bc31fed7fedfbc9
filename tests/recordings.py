"""Recordings for tests: espeak-ng's speech in the containers that browsers and phones send."""

from __future__ import annotations

import io
import subprocess
from functools import cache

import av
import numpy as np
import pytest

from training.pocket.voice.speech import RATE, Line, resampled

ESPEAK_RATE = 22_050
CODECS = {
    "wav": "pcm_s16le",
    "mp3": "libmp3lame",
    "ogg": "libopus",
    "webm": "libopus",
    "mp4": "aac",
    "flac": "flac",
}
RATES = {"ogg": 48_000, "webm": 48_000, "mp3": 44_100, "mp4": 44_100}


def spoken(
    text: str, *, language: str = "en", voice: str = "en-us+f3", speed: int = 160, pitch: int = 50
) -> np.ndarray:
    """Return float32 samples at 16 kHz of `text` spoken by espeak-ng."""
    return utter(Line(text, language, voice, speed, pitch))


@cache
def utter(line: Line) -> np.ndarray:
    """Let espeak-ng speak a line in a process of its own: earlier lines change how it speaks."""
    command = ["espeak-ng", "--stdout", "-v", line.voice, "-s", str(line.speed), "-p", str(line.pitch)]
    try:
        done = subprocess.run([*command, line.text.replace(" ,", ",")], capture_output=True, check=True)
    except FileNotFoundError:
        pytest.fail("The tests speak with espeak-ng; on Debian and Ubuntu: apt install espeak-ng")
    # The header of a stream cannot tell its length: the samples begin after its 44 bytes.
    return resampled(np.frombuffer(done.stdout[44:], "<i2"), ESPEAK_RATE)


def silence(seconds: float) -> np.ndarray:
    """Return samples of nothing."""
    return np.zeros(int(seconds * RATE), np.float32)


def packed(
    samples: np.ndarray,
    container: str = "wav",
    *,
    rate: int | None = None,
    layout: str = "mono",
    video: bool = False,
) -> bytes:
    """Return the file that a recorder would send: `container` is one of `CODECS`."""
    stream_rate = rate or RATES.get(container, RATE)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as file:
        pictures = file.add_stream("mpeg4", rate=10) if video else None
        sound = file.add_stream(CODECS[container], rate=stream_rate, layout=layout)
        if pictures is not None:
            pictures.width, pictures.height, pictures.pix_fmt = 64, 64, "yuv420p"
            for _ in range(10):
                picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
                file.mux(pictures.encode(picture))
            file.mux(pictures.encode(None))
        for frame in _frames(samples, sound, stream_rate, layout):
            file.mux(sound.encode(frame))
        file.mux(sound.encode(None))
    return buffer.getvalue()


def _frames(samples: np.ndarray, sound: av.AudioStream, rate: int, layout: str) -> list[av.AudioFrame]:
    whole = av.AudioFrame.from_ndarray(
        (np.clip(samples, -1, 1) * 32767).astype(np.int16)[None], format="s16", layout="mono"
    )
    whole.sample_rate = RATE
    resampler = av.AudioResampler(format=sound.codec_context.format.name, layout=layout, rate=rate)
    queue = av.AudioFifo()
    for frame in [*resampler.resample(whole), *resampler.resample(None)]:
        frame.pts = None
        queue.write(frame)
    size = sound.codec_context.frame_size or 1024
    return [*queue.read_many(size), *([queue.read(partial=True)] if queue.samples else [])]


def silent_film() -> bytes:
    """Return a video without a sound track."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as file:
        stream = file.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for _ in range(10):
            file.mux(
                stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24"))
            )
        file.mux(stream.encode(None))
    return buffer.getvalue()
