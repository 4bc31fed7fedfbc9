"""Recordings: the bytes of a WAV, MP3, Ogg, FLAC, MP4 or WebM file become samples, or one clear sentence."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

from models.errors import ModelError

if TYPE_CHECKING:
    import av
    import numpy as np

RATE = 16_000
"""samples per second, as Whisper hears"""
LONGEST = 30.0
"""seconds that a recording may last"""
SHORTEST = 0.1
CONTAINERS = "wav,w64,mp3,ogg,flac,mov,mp4,m4a,3gp,matroska,webm,aac,aiff,caf,amr"
"""Only these are looked for: playlists and the like could name other files and addresses to read."""


class RecordingError(ModelError):
    """A recording cannot be used; the message says why and what to do."""


def decode_recording(data: bytes, *, longest: float = LONGEST) -> np.ndarray:
    """Return float32 `[n]` mono samples at 16 kHz, -1 to 1, of the first sound track; no file is written.

    Raises `RecordingError` for what is empty, no recording, without sound, broken off, or longer than
    `longest` seconds. A long one is refused from its header, or else as soon as `longest` is decoded.
    """
    import av

    _check_bytes(data)
    try:
        with av.open(
            io.BytesIO(data), metadata_errors="ignore", options={"format_whitelist": CONTAINERS}
        ) as container:
            return _decode(container, longest)
    except (av.error.FFmpegError, ValueError) as error:
        raise RecordingError(
            "This is not a recording that can be read; send WAV, MP3, Ogg, FLAC, MP4 or WebM."
        ) from error


def _decode(container: av.container.InputContainer, longest: float) -> np.ndarray:
    import numpy as np

    if not container.streams.audio:
        raise RecordingError("The file has no sound track; send a recording of a voice.")
    stream = container.streams.audio[0]
    declared = _declared(container, stream)
    if declared > 2 * longest:  # headers of some MP3 files only estimate: those near the limit are decoded
        raise _too_long(declared, longest)
    pieces, count = [], 0
    for piece in _pieces(container, stream, longest):
        pieces.append(piece)
        count += len(piece)
        if count > longest * RATE:
            raise _too_long(max(declared, count / RATE), longest)
    _check_complete(count / RATE, declared)
    return np.concatenate(pieces)


def _check_bytes(data: bytes) -> None:
    """Refuse an empty file, and a WAV file much shorter than it says: FFmpeg takes it for a short one."""
    if not data:
        raise RecordingError("The recording is empty (0 bytes); record it again.")
    size = int.from_bytes(data[4:8], "little")
    # Programs that write while they record leave 0 or the largest number there.
    if data[:4] == b"RIFF" and len(data) < 0.9 * size < 0x7000_0000:
        raise RecordingError(f"Only {len(data)} of the recording's {size} bytes have come; send it again.")


def _declared(container: av.container.InputContainer, stream: av.AudioStream) -> float:
    """Return the seconds that the header promises; 0 when it does not say."""
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / 1_000_000


def _pieces(
    container: av.container.InputContainer, stream: av.AudioStream, longest: float
) -> Iterator[np.ndarray]:
    """Decode and resample; a damaged packet is left out, the rest goes on."""
    import av

    resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE)
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            continue
        for frame in frames:
            if frame.samples > longest * frame.sample_rate:  # few samples a second would become very many
                raise _too_long(frame.samples / frame.sample_rate, longest)
            frame.pts = None  # what matters is the sound, whatever the clock in the file says
            yield from (one.to_ndarray()[0] for one in resampler.resample(frame))
    yield from (one.to_ndarray()[0] for one in resampler.resample(None))


def _check_complete(seconds: float, declared: float) -> None:
    if seconds < SHORTEST:
        raise RecordingError("The recording holds no sound that can be decoded; record it again.")
    if seconds < 0.9 * declared - 0.5:
        raise RecordingError(
            f"Only {seconds:.1f} of the recording's {declared:.1f} seconds can be decoded; send it again."
        )


def _too_long(seconds: float, longest: float) -> RecordingError:
    lasts = f"{seconds / 60:.0f} minutes" if seconds > 120 else f"more than {longest:.0f} seconds"
    return RecordingError(f"The recording lasts {lasts}; speak for at most {longest:.0f} seconds.")
