"""The training data of the small voice model and the captioner, and a short run of both trainings."""

import gc

import numpy as np
import pytest

from demo.world.scene import sample
from models.errors import ModelError
from models.profiles import POCKET_WEIGHTS
from training.pocket import train_captions, train_voice
from training.pocket.caption_model import caption_groups
from training.pocket.plan import cosine_decay
from training.pocket.sentences.facts import usual_caption
from training.pocket.voice.dataset import FRAMES, Batches, collect, frame_labels, log_mel
from training.pocket.voice.model import build_tokenizer
from training.pocket.voice.noise import KINDS, not_speech, with_noise
from training.pocket.voice.speech import RATE, TEST_VARIANTS, TRAIN_VARIANTS, Synthesiser, line, plain


@pytest.fixture(scope="module")
def lines():
    return [line("train", number) for number in range(24)]


@pytest.fixture(scope="module")
def tokenizer(lines):
    return build_tokenizer(word for one in lines for word in one.transcript.split())


def test_sentences_are_the_same_for_ever_and_each_split_has_its_voices(lines):
    assert lines == [line("train", number) for number in range(24)]
    assert {one.voice.split("+")[1] for one in lines} <= set(TRAIN_VARIANTS)
    assert {line("test", number).voice.split("+")[1] for number in range(40)} <= set(TEST_VARIANTS)


def test_a_transcript_has_no_punctuation_and_no_digits():
    assert plain("2 chats, 3 chiens la nuit.", "fr") == "deux chats trois chiens la nuit"


def test_every_word_has_frames_of_its_own_in_order(lines, tokenizer):
    synthesiser = Synthesiser()
    for one in lines[:8]:
        utterance = one.spoken(synthesiser)
        tokens = tokenizer.encode(f" {one.transcript}").ids
        frames = len(log_mel(utterance.samples)) // 2
        words, sounds = frame_labels(utterance, tokens, frames)
        assert frames == pytest.approx(len(utterance.samples) / RATE * FRAMES / 2, abs=2)
        changes = [int(words[0]), *words[1:][words[1:] != words[:-1]].tolist()]
        heard = [word for word in changes if word]
        assert set(heard) == set(tokens)
        assert (words[sounds == 0] == 0).all()


def test_an_unknown_voice_is_one_sentence():
    with pytest.raises(ModelError, match="espeak-ng has no voice 'xx\\+nobody'"):
        Synthesiser().say("hello", language="en", voice="xx+nobody")


def test_noise_is_added_at_the_level_asked_for():
    rng = np.random.default_rng(0)
    tone = np.sin(np.arange(RATE) / 5).astype(np.float32)
    for kind in KINDS[1:]:
        added = with_noise(tone, not_speech(kind, 1, rng), 20) - tone
        assert 10 * np.log10((tone**2).mean() / (added**2).mean()) == pytest.approx(20, abs=0.1), kind
    assert not not_speech("silence", 1, rng).any()


def test_batches_label_every_token_and_contain_silence(lines, tokenizer):
    data = collect(lines, tokenizer)
    batches = iter(Batches(data, size=8, rng=np.random.default_rng(1)))
    empty = 0
    for _ in range(12):
        batch = next(batches)
        assert batch.features.shape[:2] == (8, 80)
        assert batch.owners.shape == (8, batch.features.shape[2] // 2)
        for tokens, owner in zip(batch.tokens, batch.owners, strict=True):
            assert owner.max() <= len(tokens)
            empty += not tokens
    assert empty > 0


@pytest.mark.usefixtures("torch_threads")
def test_the_voice_training_speaks_trains_and_converts(tmp_path):
    options = ["--data", str(tmp_path / "data"), "--out", str(tmp_path / "voice"), "--utterances", "12"]
    train_voice.main([*options, "--minutes", "0.02", "--batch", "4"])
    assert {"model.bin", "tokenizer.json", "preprocessor_config.json"} <= {
        path.name for path in (tmp_path / "voice").iterdir()
    }
    train_voice.main([*options, "--minutes", "0.01", "--batch", "4", "--resume"])


def test_words_of_a_caption_know_which_group_they_are_about():
    scene = next(one for one in sample("test", 200) if one.relation == "left" and one.groups[0].count == 1)
    words = usual_caption(scene).split()
    marks = caption_groups(scene)
    assert [word for word, mark in zip(words, marks, strict=False) if mark == 0] == [
        "to",
        "the",
        "left",
        "of",
    ]
    assert words[marks.index(2) - 1] == "of"


@pytest.mark.usefixtures("torch_threads")
def test_the_caption_training_begins_with_the_towers_vision_layers_and_saves_a_captioner(tmp_path):
    import torch
    from transformers import CLIPVisionModelWithProjection

    from training.pocket.caption_model import make_tokenizer, new_model

    pictures = train_captions.draw_pictures(64)
    pixels, _patches, scenes = train_captions.batch_of(pictures, list(range(64)))
    folder = POCKET_WEIGHTS / "image"
    tower = CLIPVisionModelWithProjection.from_pretrained(folder, dtype=torch.float32).eval()
    model = new_model(make_tokenizer(scenes, tmp_path / "caption"), tower, pixels).eval()
    with torch.inference_mode():
        seen = tower(pixel_values=pixels, output_hidden_states=True).hidden_states[4]
        lent = model.vision_model(pixel_values=pixels, output_hidden_states=True).hidden_states[-1]
    assert np.corrcoef(seen.flatten(), lent.flatten())[0, 1] > 0.9
    train_captions.main(
        ["--pictures", "130", "--minutes", "0.02", "--batch", "4", "--out", str(tmp_path / "out")]
    )
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_a_synthesiser_outlives_another_one():
    first = Synthesiser()
    alone = first.say("two black cats", language="en", voice="en-us+f3").samples
    Synthesiser().say("a red boat", language="en", voice="en-us+f3")
    gc.collect()
    again = first.say("two black cats", language="en", voice="en-us+f3").samples
    assert len(again) == pytest.approx(len(alone), rel=0.05)


def test_the_learning_rate_decays_along_half_a_cosine():
    assert [round(cosine_decay(done), 6) for done in (0, 0.5, 1)] == [1.0, 0.51, 0.02]
