"""The voice model that reads spoken queries: the profile's own, another one, or none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from models.encoders import Lazy
from models.profiles import Profile
from models.voice import RecordingError, Transcriber, Transcript, check_voice_name, load_transcriber
from search_app.errors import QueryError

OFF = "off"
MAX_RECORDING = 10_000_000
"""bytes: 30 seconds of 48 kHz stereo sound, not compressed, in 24 bits, are 8.6 MB"""
NOTHING = "Nothing was heard: nobody speaks in the recording, or too softly; speak close to the microphone."
UNCLEAR = "A voice was heard but not understood; say it again, closer to the microphone."
LANGUAGES = {"en": "English", "fr": "Français", "de": "Deutsch", "es": "Español"}


def build_transcriber(profile: Profile, voice_model: str | None) -> Lazy[Transcriber] | None:
    """Return a `Transcriber`, by default the profile's, loaded on first use, or None when voice is off.

    Raises `ModelError` for a name that is neither a size nor a folder; what a folder holds shows when it is
    loaded.
    """
    voice_model = voice_model or profile.voice_model
    if voice_model == OFF:
        return None
    check_voice_name(voice_model)
    return Lazy(lambda: load_transcriber(voice_model))


def transcribe_file(
    path: Path, profile: Profile, voice_model: str | None, *, warn: Callable[[str], None]
) -> Transcript:
    """Transcribe a spoken query with a voice model, by default the profile's. `warn` gets its limits.

    Raises `QueryError` when voice is off, when the recording cannot be used or is over the limit, and when it
    holds no words; `ModelError` without a model.
    """
    if not path.is_file():
        raise QueryError(f"There is no recording '{path}'.")
    if path.stat().st_size > MAX_RECORDING:
        raise QueryError(
            f"'{path}' is over the limit of {MAX_RECORDING / 1_000_000:g} MB; cut out the sentence."
        )
    transcriber = build_transcriber(profile, voice_model)
    if transcriber is None:
        raise QueryError(f"A spoken query needs a voice model; choose one instead of --voice-model {OFF}.")
    model = transcriber.get()
    if model.limits:
        warn(model.limits)
    try:
        transcript = model.transcribe(path.read_bytes())
    except RecordingError as error:
        raise QueryError(str(error)) from error
    if not transcript.text:
        raise QueryError(UNCLEAR if transcript.voice_found else NOTHING)
    return transcript
