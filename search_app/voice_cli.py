"""What commands share that are spoken to: the voice model's option, and saying what was heard."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from es_config.shared_cli import setting

if TYPE_CHECKING:
    from pathlib import Path

    from models.transcription import Transcriber, Transcript
    from search_app.settings import SearchSettings

VOICE_OPTION = setting(
    "--voice-model",
    "GLIMPSE_VOICE_MODEL",
    metavar="SIZE|PATH|off",
    help="What hears: tiny, base or small (downloaded), a folder, or off.  [default: the profile's]",
)


def sentence_of(recording: bytes, transcriber: Transcriber) -> str:
    """Return the sentence that is said in a recording, and show it on stderr. Raises as `heard` does."""
    from search_app.voice import heard

    transcript = heard(recording, transcriber)
    click.echo(heard_line(transcript), err=True)
    return transcript.text


def sentence_of_file(path: Path, settings: SearchSettings) -> str:
    """Do the same with a file. Raises `QueryError` when there is none or it is too large."""
    from search_app.voice import needed_transcriber, read_clip

    return sentence_of(read_clip(path), needed_transcriber(settings))


def heard_line(transcript: Transcript) -> str:
    """Return what a person is told about a transcript, without what could steer a terminal."""
    from search_app.examples import LANGUAGES
    from search_app.printing import printable

    language = LANGUAGES.get(transcript.language, transcript.language)
    return f"Heard ({language}): {printable(transcript.text)}"
