"""`glimpse search --voice` and `glimpse listen`, and what the microphone does."""

from __future__ import annotations

import io
import json
import sys
import types
import wave

import numpy as np
import pytest
import recordings
from click.testing import CliRunner

import glimpse
from models.profiles import get_profile
from models.recordings import RATE
from models.whisper import load_transcriber
from search_app.errors import MicrophoneError
from search_app.microphone import Manners, Sound, decibels, open_microphone, record
from search_app.voice import MAX_RECORDING

SENTENCE = "a red boat on the sea"


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A file in which the sentence is said."""
    path = tmp_path_factory.mktemp("clips") / "clip.wav"
    path.write_bytes(recordings.packed(recordings.spoken(SENTENCE)))
    return path


@pytest.fixture(scope="module")
def environment(node, gallery, tmp_path_factory):
    """What the commands read to find the gallery."""
    return {
        "ELASTICSEARCH_URL": node.url,
        "GLIMPSE_INDEX": gallery.alias,
        "GLIMPSE_TEXT_LANE": "local",
        "GLIMPSE_HOME": str(tmp_path_factory.mktemp("home")),
    }


@pytest.fixture
def run(environment):
    """Type a command and return what became of it."""

    def typed(*words):
        return CliRunner(env=environment).invoke(glimpse.main, [str(word) for word in words])

    return typed


def test_a_spoken_query_finds_what_the_typed_one_finds(run, clip):
    spoken, typed = run("search", "--voice", clip, "--k", 5), run("search", SENTENCE, "--k", 5)
    assert spoken.exit_code == 0, spoken.output
    assert spoken.stdout == typed.stdout
    assert spoken.stdout.splitlines()[0].split("\t")[2] == "named/boat.jpg"
    assert spoken.stderr == f"Heard (English): {SENTENCE}\n"
    answer = json.loads(run("search", "--voice", clip, "--json").stdout)
    assert answer["query"] == SENTENCE


def test_a_recording_without_a_voice_is_a_sentence_and_exit_code_2(run, tmp_path):
    path = tmp_path / "quiet.wav"
    path.write_bytes(recordings.packed(recordings.silence(2)))
    result = run("search", "--voice", path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Nothing was heard" in result.stderr


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"hello", "not a recording that can be read"),
        (b"", "empty"),
        (bytes(MAX_RECORDING + 1), "over the limit of 10 MB"),
        (None, "There is no recording"),
    ],
    ids=["text", "empty", "large", "absent"],
)
def test_a_file_that_is_no_recording_is_a_sentence_and_exit_code_2(run, tmp_path, data, sentence):
    path = tmp_path / "clip.wav"
    if data is not None:
        path.write_bytes(data)
    result = run("search", "--voice", path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert sentence in result.stderr


def test_a_voice_beside_words_is_one_question_too_many(run, clip):
    for words in (["boats"], ["--text", "boats"], ["--image", str(clip)]):
        result = run("search", "--voice", clip, *words)
        assert result.exit_code == 2
        assert "one thing at a time" in result.stderr


def test_the_voice_model_can_be_chosen_and_switched_off(run, clip, tmp_path):
    own = get_profile("pocket").voice_model
    assert SENTENCE in run("search", "--voice", clip, "--voice-model", own).stderr
    off = run("search", "--voice", clip, "--voice-model", "off")
    assert (off.exit_code, "needs a voice model" in off.stderr) == (2, True)
    unknown = run("search", "--voice", clip, "--voice-model", "huge")
    assert unknown.exit_code == 1
    assert "choose one of: tiny, base, small" in unknown.stderr
    assert run("serve", "--voice-model", "huge").exit_code == 1
    assert "not a voice model" in run("listen", "--voice-model", tmp_path).stderr


def blocks(samples: np.ndarray, seconds: float = 0.05, rate: int = RATE):
    """Cut samples as a microphone gives them."""
    size = int(seconds * rate)
    return (samples[begin : begin + size] for begin in range(0, len(samples), size))


def room(seconds: float, loud: float = 0.001) -> np.ndarray:
    """Return the noise of a quiet room, which no microphone is without."""
    rng = np.random.default_rng(3)
    return (loud * rng.standard_normal(int(seconds * RATE))).astype(np.float32)


def seconds_of(recording: bytes) -> float:
    with wave.open(io.BytesIO(recording)) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
        return file.getnframes() / file.getframerate()


@pytest.mark.parametrize("noise", [0.0005, 0.003, 0.01])
def test_a_recording_ends_when_the_speaker_falls_silent(noise):
    said = recordings.spoken(SENTENCE)
    sound = np.concatenate(
        [room(1, noise), said + room(len(said) / RATE, noise)[: len(said)], room(20, noise)]
    )
    recording = record(Sound(RATE, blocks(sound)))
    assert seconds_of(recording) == pytest.approx(1 + len(said) / RATE + 1.2, abs=0.6)
    transcriber = load_transcriber(get_profile("pocket").voice_model)
    assert transcriber.transcribe(recording).text == SENTENCE


def test_a_pause_between_words_does_not_end_it():
    said = recordings.spoken("two black cats")
    sound = np.concatenate([said, room(0.8), said, room(5)])
    assert seconds_of(record(Sound(RATE, blocks(sound)))) > 2 * len(said) / RATE + 0.8


def test_nobody_waits_for_ever():
    assert seconds_of(record(Sound(RATE, blocks(room(60))))) == pytest.approx(8, abs=0.1)
    endless = np.tile(recordings.spoken(SENTENCE), 30)
    assert seconds_of(record(Sound(RATE, blocks(endless)))) == pytest.approx(30, abs=0.1)


def test_enter_ends_it_and_the_level_is_shown():
    shown = []
    recording = record(
        Sound(RATE, blocks(recordings.spoken(SENTENCE))),
        stopped=lambda: len(shown) == 10,
        show=lambda seconds, level: shown.append((round(seconds, 2), level)),
    )
    assert seconds_of(recording) == pytest.approx(0.5)
    assert [seconds for seconds, _ in shown] == pytest.approx([0.05 * n for n in range(1, 11)])
    assert all(0 <= level <= 1 for _, level in shown)


def test_a_click_is_no_speech():
    sound = room(20)
    sound[RATE : RATE + 800] += 0.5
    assert seconds_of(record(Sound(RATE, blocks(sound)), manners=Manners(patience=4))) > 4


def test_a_microphone_that_gives_zeros_is_muted_or_forbidden():
    with pytest.raises(MicrophoneError, match="muted, or this terminal may not use it"):
        record(Sound(RATE, blocks(recordings.silence(10))))


def test_levels_are_decibels_below_full_scale():
    assert decibels(np.ones(100, np.float32)) == 0
    assert decibels(np.full(100, 0.1, np.float32)) == pytest.approx(-20)
    assert decibels(np.zeros(100, np.float32)) == -96


def test_listen_without_a_microphone_is_one_sentence(run):
    """This runs on machines with and without PortAudio; a test machine has no microphone."""
    result = run("listen", "--device", "no such microphone")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: The microphone cannot be used")
    assert result.stdout == ""


def test_a_missing_portaudio_names_the_package_and_the_other_way(monkeypatch):
    class Missing:
        """An import of sounddevice on a machine without its library."""

        def find_spec(self, name, *_):
            if name == "sounddevice":
                raise OSError("PortAudio library not found")

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    with (
        pytest.raises(MicrophoneError, match="apt install libportaudio2.*glimpse search --voice"),
        open_microphone(),
    ):
        pass


def test_listen_finds_what_was_said(run, monkeypatch):
    """The library that reads the device is replaced by one that plays a sentence; everything else is real."""
    said = np.concatenate([room(0.5), recordings.spoken(SENTENCE), room(4)])
    monkeypatch.setitem(sys.modules, "sounddevice", player(said))
    result = run("listen", "--k", 3)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0].split("\t")[2] == "named/boat.jpg"
    assert f"Heard (English): {SENTENCE}" in result.stderr


def player(samples: np.ndarray) -> types.ModuleType:
    """Return a stand-in for sounddevice on a machine with a microphone that hears `samples`."""
    parts = blocks(samples)

    class InputStream:
        def __init__(self, *, device, samplerate, channels, dtype, blocksize):
            assert (device, samplerate, channels, dtype) == (None, RATE, 1, "float32")
            assert blocksize == RATE // 20

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def read(self, _size):
            return next(parts)[:, None], False

    module = types.ModuleType("sounddevice")
    module.InputStream, module.PortAudioError = InputStream, RuntimeError
    module.query_devices = lambda _device, _kind: {"default_samplerate": float(RATE)}
    return module
