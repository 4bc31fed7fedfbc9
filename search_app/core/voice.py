"""The voice model that a door asks for: the profile's own, another one, or none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.encoders import Lazy
from models.errors import ModelError
from models.profiles import get_profile
from models.voice import SIZES, RecordingError, load_transcriber, voice_folder
from search_app.errors import QueryError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from models.voice import Transcriber, Transcript
    from search_app.settings import SearchSettings

OFF = "off"
MAX_RECORDING = 10_000_000
"""bytes: 30 seconds of 48 kHz stereo sound, not compressed, in 24 bits, are 8.6 MB"""


def build_transcriber(settings: SearchSettings) -> Lazy[Transcriber] | None:
    """Return the `Transcriber` of the settings, loaded on first use, or None when voice is off.

    Raises `ModelError` for a folder that is no voice model and for an unknown size.
    """
    profile = get_profile(settings.profile, model_dir=settings.model_dir)
    voice_model = settings.voice_model or profile.voice_model
    if voice_model == OFF:
        return None
    if voice_model not in SIZES:
        voice_folder(voice_model)
    return Lazy(lambda: load_transcriber(voice_model))


def needed_transcriber(settings: SearchSettings) -> Lazy[Transcriber]:
    """Return the transcriber of the settings. Raises `QueryError` where voice is off, else as above."""
    transcriber = build_transcriber(settings)
    if transcriber is None:
        raise QueryError(f"A spoken query needs a voice model; choose one instead of --voice-model {OFF}.")
    return transcriber


def warm(transcriber: Lazy[Transcriber] | None, *, warn: Callable[[str], None]) -> None:
    """Load a transcriber and run it once. If that fails, the page works on and a recording tries again."""
    if transcriber is None:
        return
    try:
        transcriber.get().warm()
    except ModelError as error:
        warn(f"nobody can speak to the page yet: {error}")


def read_clip(path: Path) -> bytes:
    """Return a recording's bytes. Raises `QueryError` when there is no such file or it is over the limit."""
    if not path.is_file():
        raise QueryError(f"There is no recording '{path}'.")
    if path.stat().st_size > MAX_RECORDING:
        raise QueryError(
            f"'{path}' is over the limit of {MAX_RECORDING / 1_000_000:g} MB; cut out the sentence."
        )
    return path.read_bytes()


def heard(recording: bytes, transcriber: Transcriber) -> Transcript:
    """Return the transcript of a recording.

    Raises `QueryError` when that is nothing or the recording cannot be used, `ModelError` without a model.
    """
    try:
        transcript = transcriber.transcribe(recording)
    except RecordingError as error:
        raise QueryError(str(error)) from error
    if not transcript.text:
        raise QueryError(
            "Nothing was heard: nobody speaks in the recording, or too softly; speak close to the microphone."
        )
    return transcript
