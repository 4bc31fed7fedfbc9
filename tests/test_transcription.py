"""Transcription: sentences by voices unknown to the pocket's model, and nothing without speech."""

import json
import os
import re
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import recordings
import voice_folders

from models.errors import ModelError
from models.profiles import VOICE_MODELS, get_profile
from models.voice import (
    RecordingError,
    Transcriber,
    is_believable,
    load_transcriber,
    voice_folder,
)
from training.pocket.voice.model import build_tokenizer, vocabulary
from training.pocket.voice.noise import KINDS, not_speech, with_noise
from training.pocket.voice.speech import RATE, TEST_VARIANTS, TRAIN_VARIANTS, line, word_errors

PAUSE = recordings.silence(1)


@pytest.fixture(scope="module")
def transcriber():
    return load_transcriber(get_profile("pocket").voice_model)


def wer(transcriber, samples_and_lines):
    """Return wrong words over all words."""
    counted = [
        word_errors(transcriber.transcribe(recordings.packed(samples)).text, spoken.transcript)
        for samples, spoken in samples_and_lines
    ]
    return sum(wrong for wrong, _ in counted) / sum(words for _, words in counted)


@pytest.fixture(scope="module")
def lines():
    return [line("test", number) for number in range(60)]


def test_word_errors_are_counted_by_the_shortest_edit():
    assert word_errors("two Black cats.", "two black cats") == (0, 3)
    assert word_errors("two cats at night", "two black cats") == (3, 3)
    assert word_errors("", "two black cats") == (3, 3)
    assert word_errors("d'un arc-en-ciel", "d'un arc-en-ciel bleu") == (1, 3)


def test_voices_of_the_tests_are_strangers_to_the_model():
    assert not set(TEST_VARIANTS) & set(TRAIN_VARIANTS)


@pytest.mark.parametrize(
    ("text", "language", "voice"),
    [
        ("two black cats in the desert at night", "en", "en-us+f3"),
        ("un bateau rouge sur la mer sous la pluie", "fr", "fr+m5"),
        ("drei gelbe Autos in der Stadt bei Sonnenuntergang", "de", "de+f3"),
        ("dos caballos blancos en el bosque", "es", "es+m5"),
    ],
)
def test_a_spoken_sentence_is_written_down_and_its_language_told(transcriber, text, language, voice):
    recording = recordings.packed(recordings.spoken(text, language=language, voice=voice))
    transcript = transcriber.transcribe(recording)
    assert transcript.text == text
    assert transcript.language == language
    assert transcript.language_probability > 0.5
    assert transcript.no_speech_probability < 0.5
    assert transcript.seconds > 1
    assert transcript.took_ms > 0


def test_few_words_are_wrong_in_sentences_and_voices_never_heard(transcriber, lines):
    assert wer(transcriber, [(recordings.utter(one), one) for one in lines]) <= 0.06


def test_noise_at_twenty_decibels_and_silence_around_cost_little(transcriber, lines):
    rng, quiet = np.random.default_rng(1), recordings.silence(0.5)
    heard = []
    for one in lines:
        samples = np.concatenate([quiet, recordings.utter(one), quiet])
        heard.append((with_noise(samples, not_speech("pink", 12, rng), 20), one))
    assert wer(transcriber, heard) <= 0.12


def test_nothing_is_heard_where_nobody_speaks(transcriber):
    rng = np.random.default_rng(5)
    for number in range(60):
        kind = KINDS[number % len(KINDS)]
        transcript = transcriber.transcribe(recordings.packed(not_speech(kind, rng.uniform(0.5, 8), rng)))
        assert (transcript.text, transcript.language) == ("", None), kind
        assert transcript.language_probability == 0


@pytest.mark.parametrize("container", sorted(recordings.CODECS))
def test_the_container_does_not_change_what_is_heard(transcriber, container):
    samples = recordings.spoken("two black cats in the desert at night")
    assert (
        transcriber.transcribe(recordings.packed(samples, container)).text
        == "two black cats in the desert at night"
    )


def test_sentences_with_a_long_pause_between_them_are_both_heard(transcriber, lines):
    english = [one for one in lines if one.language == "en"][:12]
    wrong = words = 0
    for first, second in zip(english[::2], english[1::2], strict=True):
        parts = [recordings.utter(first), recordings.silence(9), recordings.utter(second)]
        heard = transcriber.transcribe(recordings.packed(np.concatenate(parts))).text
        found = word_errors(heard, f"{first.transcript} {second.transcript}")
        wrong, words = wrong + found[0], words + found[1]
    assert wrong / words <= 0.1


def test_the_same_recording_gives_the_same_text_in_ten_threads(transcriber):
    recording = recordings.packed(recordings.spoken("a pink house in the mountains in the rain"), "webm")
    alone = transcriber.transcribe(recording).text
    with ThreadPoolExecutor(10) as pool:
        heard = [one.text for one in pool.map(transcriber.transcribe, [recording] * 10)]
    assert heard == [alone] * 10


def test_nothing_is_kept_on_disk(transcriber, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    transcriber.transcribe(recordings.packed(recordings.spoken("a red boat"), "webm"))
    with pytest.raises(RecordingError):
        transcriber.transcribe(b"no recording at all")
    assert list(tmp_path.rglob("*")) == []


def segment(log_probability, no_speech, compression=1.0):
    return SimpleNamespace(
        text=" words",
        avg_logprob=log_probability,
        no_speech_prob=no_speech,
        compression_ratio=compression,
    )


def test_a_text_that_whisper_itself_does_not_believe_is_dropped():
    assert is_believable(segment(-0.2, 0.1))
    assert is_believable(segment(-0.3, 0.9))
    assert not is_believable(segment(-0.5, 0.9))
    assert not is_believable(segment(-1.1, 0.0))
    assert not is_believable(segment(-0.2, 0.1, compression=3.0))


def heard(*segments, english_only=False):
    """Return the transcript of a recording in which a pipeline finds these segments."""
    spoken = SimpleNamespace(language="en", language_probability=1)
    pipeline = SimpleNamespace(transcribe=lambda *_, **__: (segments, spoken))
    transcriber = Transcriber(pipeline=pipeline, name="some", english_only=english_only)
    return transcriber.transcribe(recordings.packed(recordings.silence(1)))


def test_a_voice_that_is_not_understood_is_told_from_silence():
    assert not heard().voice_found
    assert not heard(segment(-1.2, 0.9)).voice_found
    for dropped in (segment(-1.2, 0.3), segment(-0.2, 0.1, compression=3.0)):
        assert (heard(dropped).text, heard(dropped).voice_found) == ("", True)
    understood = heard(segment(-0.2, 0.1), segment(-1.2, 0.9))
    assert (understood.text, understood.voice_found, understood.language) == ("words", True, "en")


def test_a_model_of_english_alone_claims_no_language():
    transcript = heard(segment(-0.2, 0.1), english_only=True)
    assert transcript.text == "words"
    assert (transcript.language, transcript.language_probability) == (None, None)


def test_speech_that_is_longer_than_the_models_window_is_heard_to_the_end(transcriber):
    english = [one for one in (line("test", number) for number in range(100)) if one.language == "en"][:16]
    wrong = words = 0
    for start in range(0, len(english), 4):
        four = english[start : start + 4]
        samples = np.concatenate([part for one in four for part in (recordings.utter(one), PAUSE)])
        assert len(samples) > 10 * RATE
        heard = transcriber.transcribe(recordings.packed(samples)).text
        found = word_errors(heard, " ".join(one.transcript for one in four))
        wrong, words = wrong + found[0], words + found[1]
    assert wrong / words <= 0.1


def test_the_tokenizer_spells_every_text_and_bans_no_word():
    tokenizer = build_tokenizer(["two", "cerfs-volants", "d'un", "forêt"])
    for text in (" two cerfs-volants", " d'un forêt", " Straße - 東京"):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert tokenizer.encode(" cerfs-volants d'un").tokens == ["Ġcerfs-volants", "Ġd'un"]
    assert [len(tokenizer.encode(text).ids) for text in (" -", " '")] == [1, 1]
    assert vocabulary(tokenizer)[tokenizer.token_to_id("<|endoftext|>") - 1] == ""


@pytest.mark.parametrize("window", [10, 30])
def test_models_of_any_window_are_loaded_and_run(tmp_path, window):
    transcriber = load_transcriber(str(voice_folders.save_whisper(tmp_path / "voice", window=window)))
    transcript = transcriber.transcribe(recordings.packed(recordings.spoken("two cats")))
    assert transcript.text == ""  # random weights believe nothing
    assert transcript.seconds > 0.5


def test_a_model_of_128_bands_needs_no_preprocessor_config(tmp_path):
    folder = voice_folders.save_whisper(tmp_path / "voice", bands=128)
    (folder / "preprocessor_config.json").unlink()
    transcriber = load_transcriber(str(folder))
    transcriber.warm()
    assert transcriber.transcribe(recordings.packed(recordings.spoken("two cats"))).seconds > 0.5


def test_a_preprocessor_config_of_other_bands_gives_way_to_the_model(tmp_path):
    folder = voice_folders.save_whisper(tmp_path / "voice", window=10, bands=128)
    assert json.loads((folder / "preprocessor_config.json").read_text())["feature_size"] == 80
    transcriber = load_transcriber(str(folder))
    transcriber.warm()
    assert transcriber.pipeline.model.feature_extractor.nb_max_frames == 1000


def test_the_sizes_are_pinned_to_a_revision():
    names = {"tiny", "base", "small", "medium", "large-v3", "turbo", "tiny.en", "base.en", "small.en"}
    assert names == VOICE_MODELS.keys()
    assert len({source.revision for source in VOICE_MODELS.values()}) == len(VOICE_MODELS)
    assert all(re.fullmatch("[0-9a-f]{40}", source.revision) for source in VOICE_MODELS.values())
    assert get_profile("clip").voice_model in VOICE_MODELS


def test_an_unknown_voice_model_names_the_known_ones(tmp_path):
    known = "tiny, base, small, medium, large-v3, turbo, tiny.en, base.en, small.en, or name a folder"
    with pytest.raises(ModelError, match=f"no voice model 'nope'; choose one of: {known}"):
        load_transcriber("nope")
    with pytest.raises(ModelError, match="not a voice model: it has no model.bin"):
        load_transcriber(str(tmp_path))


def test_a_damaged_voice_model_is_one_sentence(tmp_path):
    folder = voice_folders.save_whisper(tmp_path / "voice")
    (folder / "model.bin").write_bytes(b"damaged")
    with pytest.raises(ModelError, match="cannot be loaded .*; convert or download it again"):
        load_transcriber(str(folder))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.json", "[1]"),
        ("config.json", "{"),
        ("preprocessor_config.json", "[1]"),
        ("preprocessor_config.json", '{"feature_size": "x"}'),
        ("preprocessor_config.json", '{"chunk_length": 0}'),
        ("tokenizer.json", "{}"),
        ("vocabulary.json", None),
        ("tokenizer.json", None),
    ],
)
def test_odd_files_of_a_voice_model_are_one_sentence(tmp_path, name, text):
    folder = voice_folders.save_whisper(tmp_path / "voice")
    (folder / name).unlink() if text is None else (folder / name).write_text(text)
    with pytest.raises(ModelError, match="(?s)^(The voice model|.* is not a voice model: )[^\n]*\\.$"):
        load_transcriber(str(folder)).warm()


@pytest.mark.parametrize("size", ["small", "turbo", "base.en"])
def test_a_folder_in_the_current_one_changes_nothing_about_a_name(monkeypatch, tmp_path, size):
    cached = (
        tmp_path
        / f"models--{VOICE_MODELS[size].name.replace('/', '--')}"
        / "snapshots"
        / VOICE_MODELS[size].revision
    )
    voice_folders.save_whisper(cached)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    (tmp_path / "here" / size).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    assert voice_folder(size) == cached
    with pytest.raises(ModelError, match="not a voice model: it has no model.bin"):
        voice_folder(f"./{size}")


def test_a_size_that_cannot_be_downloaded_names_the_option(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="faster-whisper-tiny is not on this machine, and .*--voice-model"):
        load_transcriber("tiny")


def test_the_models_voice_is_small_enough_for_the_repository():
    files = Path(get_profile("pocket").voice_model).iterdir()
    assert sum(path.stat().st_size for path in files) < 2.5e6


if "GLIMPSE_SHARED" in os.environ:
    SPEECH = Path(os.environ["GLIMPSE_SHARED"]) / "data" / "speech"

    @pytest.mark.parametrize("name", ["001.wav", "jfk.flac", "stereo_diarization.wav"])
    def test_a_person_is_recognised_as_a_voice(transcriber, name):
        transcript = transcriber.transcribe((SPEECH / name).read_bytes())
        assert transcript.no_speech_probability < 1  # the voice detector let something through
        assert transcript.seconds > 0.5

    def test_a_recording_of_minutes_is_refused(transcriber):
        with pytest.raises(RecordingError, match="at most 30 seconds"):
            transcriber.transcribe((SPEECH / "multilingual.mp3").read_bytes())
