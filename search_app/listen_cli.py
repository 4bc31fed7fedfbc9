"""`glimpse listen`: speak, and see the pictures."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

import click

from search_app.cli import SEARCH_OPTIONS, VOICE_OPTION, _answer, _query, _searcher, sentence_of
from search_app.settings import SearchSettings

BAR = 24
"""characters of the level meter"""


@click.command()
@click.option("--device", help="Microphone by its number or a part of its name.  [default: the system's]")
@VOICE_OPTION
@SEARCH_OPTIONS
def listen(*, device, voice_model, as_json, profile, model_dir, text_lane, alias, **rest) -> None:
    """Speak a query into this machine's microphone.

    It listens until you fall silent, for at most 30 seconds; Enter ends it at once. Nothing is kept.

    \b
    Example:
      glimpse listen
      glimpse listen --k 3 --json
    """
    from search_app.voice import needed_transcriber

    settings = SearchSettings(profile, model_dir, alias, text_lane, voice_model)
    searcher, transcriber = _searcher(settings), needed_transcriber(settings)
    transcriber.warm()  # before anybody speaks, who should not wait afterwards
    text = sentence_of(recorded(device), transcriber)
    _answer(searcher, _query({"q": text, **rest}), as_json)


def recorded(device: str | None) -> bytes:
    """Return a WAV file of what is said into the microphone; the level is shown on a terminal.

    Raises `MicrophoneError`.
    """
    from search_app.microphone import open_microphone, record

    try:
        with open_microphone(device) as sound:
            click.echo("Speak now; silence or Enter ends it.", err=True)
            return record(sound, stopped=enter_pressed(), show=show_level)
    finally:
        _clear_level()


def enter_pressed() -> Callable[[], bool]:
    """Return a function that says whether Enter has been pressed; never where nobody sits at a keyboard."""
    pressed = threading.Event()

    def wait() -> None:
        sys.stdin.readline()
        pressed.set()

    if sys.stdin.isatty():
        threading.Thread(target=wait, daemon=True).start()
    return pressed.is_set


def show_level(seconds: float, level: float) -> None:
    """Draw the meter over itself."""
    if sys.stderr.isatty():
        filled = round(BAR * min(1.0, level))
        click.echo(f"\r  {'█' * filled}{'·' * (BAR - filled)} {seconds:4.1f} s", err=True, nl=False)


def _clear_level() -> None:
    if sys.stderr.isatty():
        click.echo("\r" + " " * (BAR + 12) + "\r", err=True, nl=False)
