"""Spoken sentences as training data: log-mel frames, labels for every frame, and endless augmented batches.

Augmentation works on log-mel frames, where adding noise is adding powers: it costs a fraction of the work on
samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np
import torch

from training.pocket.sentences.lexicon import LANGUAGES
from training.pocket.voice.noise import KINDS, not_speech
from training.pocket.voice.speech import RATE, Line, Synthesiser, Utterance

if TYPE_CHECKING:
    from collections.abc import Iterator

    from faster_whisper.feature_extractor import FeatureExtractor
    from tokenizers import Tokenizer

WINDOW = 10
"""seconds that the pocket's Whisper hears at once"""
MELS = 80
FRAMES = 100
"""feature frames in a second; the encoder gives half as many"""
LOWEST, SPAN = -1.5, 3.5
"""range of the features, which are kept as bytes; a step is half a decibel"""
LONGEST = WINDOW * FRAMES
PAIRS, SILENT, NOISY, PHONE, WARPED = 0.2, 0.07, 0.6, 0.08, 0.5
"""shares of the examples"""
NO_LANGUAGE = -1


@dataclass(frozen=True)
class SpeechSet:
    """Utterances in flat arrays, one after the other.

    `starts[i]` to `starts[i + 1]` are the frames of utterance i. `mel` uint8 `[frames, 80]`; `words` uint16
    and `sounds` uint8 `[frames / 2]`, 0 in silence; `tokens` and `token_starts` the transcripts; `languages`
    int64 `[n]`; `power` float32 `[n]`, the samples' mean square.
    """

    mel: np.ndarray
    words: np.ndarray
    sounds: np.ndarray
    starts: np.ndarray
    tokens: np.ndarray
    token_starts: np.ndarray
    languages: np.ndarray
    power: np.ndarray

    def save(self, folder: Path) -> None:
        """Write one `.npy` file for each array."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, array in vars(self).items():
            np.save(folder / f"{name}.npy", array)

    @classmethod
    def load(cls, folder: Path) -> SpeechSet:
        """Open the arrays without reading them into memory."""
        return cls(**{path.stem: np.load(path, mmap_mode="r") for path in sorted(folder.glob("*.npy"))})


@cache
def _extractor() -> FeatureExtractor:
    from faster_whisper.feature_extractor import FeatureExtractor

    return FeatureExtractor(chunk_length=WINDOW)


def log_mel(samples: np.ndarray) -> np.ndarray:
    """Return faster-whisper's features: float32 `[frames, 80]`, an even number of frames."""
    features: np.ndarray = _extractor()(samples).T
    return features[: len(features) // 2 * 2]


def packed(features: np.ndarray) -> np.ndarray:
    """Return features as bytes."""
    return np.clip(np.round((features - LOWEST) / SPAN * 255), 0, 255).astype(np.uint8)


def frame_labels(utterance: Utterance, tokens: list[int], frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the word token and the sound number of each of `frames` encoder frames (20 ms).

    Sounds are numbered 1 to 255 by a checksum of espeak-ng's name for them; that two may share a number does
    no harm to a helper. It speaks short words as one ("in the"): their frames are shared out evenly.
    """
    words, sounds = np.zeros(frames, np.uint16), np.zeros(frames, np.uint8)
    owner = np.full(frames, -1)
    ends = [round(sound.start * FRAMES / 2) for sound in utterance.sounds[1:]] + [frames]
    for sound, end in zip(utterance.sounds, ends, strict=True):
        begin = round(sound.start * FRAMES / 2)
        if sound.word is not None:
            sounds[begin:end] = 1 + crc32(sound.name.encode()) % 255
            owner[begin:end] = sound.word
    spoken = [*sorted(set(owner[owner >= 0].tolist())), len(tokens)]
    for word, following in pairwise(spoken):
        for part, token in zip(
            np.array_split(np.flatnonzero(owner == word), following - word), tokens[word:], strict=False
        ):
            words[part] = token
    return words, sounds


def collect(lines: list[Line], tokenizer: Tokenizer) -> SpeechSet:
    """Let espeak-ng speak all `lines`, except those longer than the window."""
    synthesiser = Synthesiser()
    rows = []
    for line in lines:
        utterance = line.spoken(synthesiser)
        if len(utterance.samples) > (WINDOW - 0.5) * RATE:
            continue
        mel = packed(log_mel(utterance.samples))
        tokens = tokenizer.encode(f" {line.transcript}").ids
        labels = frame_labels(utterance, tokens, len(mel) // 2)
        rows.append((mel, *labels, tokens, LANGUAGES.index(line.language), np.mean(utterance.samples**2)))
    mels, words, sounds, tokens, languages, power = zip(*rows, strict=True)
    return SpeechSet(
        np.concatenate(mels),
        np.concatenate(words),
        np.concatenate(sounds),
        np.cumsum([0, *(len(mel) for mel in mels)]),
        np.concatenate(tokens).astype(np.uint16),
        np.cumsum([0, *(len(one) for one in tokens)]),
        np.array(languages),
        np.array(power, dtype=np.float32),
    )


def joined(parts: list[SpeechSet]) -> SpeechSet:
    """Return the utterances of all `parts` as one set, in memory."""

    def borders(name: str) -> np.ndarray:
        lengths = [np.diff(getattr(part, name)) for part in parts]
        return np.concatenate([[0], np.cumsum(np.concatenate(lengths))])

    flat = ("mel", "words", "sounds", "tokens", "languages", "power")
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in flat}
    return SpeechSet(**arrays, starts=borders("starts"), token_starts=borders("token_starts"))


@dataclass(frozen=True)
class Example:
    """The utterances of one window with their start frames, or none for a window without speech."""

    parts: tuple[tuple[int, int], ...]
    frames: int


@dataclass(frozen=True)
class Batch:
    """A batch of windows, padded to equal length.

    `features` float32 `[n, 80, frames]`; `words` and `sounds` int64 `[n, frames / 2]`, -100 past the end.
    `tokens` holds the transcripts, `languages` their languages or `NO_LANGUAGE`; `owners` int64
    `[n, frames / 2]` numbers the token of each frame from 1, 0 where nothing is said.
    """

    features: torch.Tensor
    words: torch.Tensor
    sounds: torch.Tensor
    owners: torch.Tensor
    tokens: list[list[int]]
    languages: list[int]


class Batches:
    """Endless batches from `data`, all random decisions made by `rng`."""

    def __init__(self, data: SpeechSet, *, size: int, rng: np.random.Generator) -> None:
        self._data, self._size, self._rng = data, size, rng
        self._by_language = {
            int(one): [i for i, other in enumerate(data.languages) if other == one]
            for one in set(data.languages)
        }
        self._noises = [
            (_power(log_mel(samples)), float((samples**2).mean()))
            for kind in KINDS[1:]
            for _ in range(14)
            for samples in [not_speech(kind, WINDOW, rng)]
        ]

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches of examples of similar length, so that padding is short."""
        while True:
            pool = sorted((self._example() for _ in range(self._size * 12)), key=lambda one: one.frames)
            groups = [pool[i : i + self._size] for i in range(0, len(pool), self._size)]
            self._rng.shuffle(groups)
            yield from (self._batch(group) for group in groups)

    def _length(self, number: int) -> int:
        return int(self._data.starts[number + 1] - self._data.starts[number])

    def _pause(self) -> int:
        """Return an even number of silent frames."""
        return 2 * int(self._rng.integers(0, 6) if self._rng.random() < 0.5 else self._rng.integers(0, 31))

    def _example(self) -> Example:
        first = int(self._rng.integers(len(self._data.languages)))
        if self._rng.random() < SILENT:
            return Example((), 2 * int(self._rng.integers(15, LONGEST // 3)))
        parts, end = [(first, self._pause())], 0
        end = parts[0][1] + self._length(first)
        if self._rng.random() < PAIRS:
            second = int(self._rng.choice(self._by_language[int(self._data.languages[first])]))
            begin = end + 2 * int(self._rng.integers(2, 100))
            if begin + self._length(second) <= LONGEST:
                parts.append((second, begin))
                end = begin + self._length(second)
        return Example(tuple(parts), min(LONGEST, end + self._pause()))

    def _batch(self, group: list[Example]) -> Batch:

        width = min(LONGEST, -(-max(one.frames for one in group) // 100) * 100)
        power = np.zeros((len(group), width, MELS), np.float32)
        labels = np.zeros((3, len(group), width // 2), np.int64)
        tokens = []
        for row, example in enumerate(group):
            tokens.append(self._fill(example, power[row], labels[:, row]))
            self._disturb(example, power[row])
            labels[:2, row, example.frames // 2 :] = -100
        features = _features(torch.from_numpy(power), torch.tensor([one.frames for one in group]))
        words, sounds, owners = torch.from_numpy(labels)
        languages = [
            int(self._data.languages[one.parts[0][0]]) if one.parts else NO_LANGUAGE for one in group
        ]
        return Batch(features, words, sounds, owners, tokens, languages)

    def _fill(self, example: Example, power: np.ndarray, labels: np.ndarray) -> list[int]:
        """Write the utterances into the window and return their tokens."""
        tokens: list[int] = []
        for number, begin in example.parts:
            start, stop = int(self._data.starts[number]), int(self._data.starts[number + 1])
            end = begin + stop - start
            power[begin:end] = _table()[self._data.mel[start:stop]]
            words = self._data.words[start // 2 : stop // 2].astype(int)
            labels[0, begin // 2 : end // 2] = words
            labels[1, begin // 2 : end // 2] = self._data.sounds[start // 2 : stop // 2]
            said = self._data.tokens[
                self._data.token_starts[number] : self._data.token_starts[number + 1]
            ].tolist()
            labels[2, begin // 2 : end // 2] = _owners(words, said, len(tokens))
            tokens += said
        return tokens

    def _disturb(self, example: Example, power: np.ndarray) -> None:
        """Change voice, distance and room of one window in place."""
        rng, content = self._rng, power[: example.frames]
        if rng.random() < WARPED:
            bands = np.clip(np.round(np.arange(MELS) * rng.uniform(0.9, 1.11)), 0, MELS - 1).astype(int)
            content[:] = content[:, bands]
        if rng.random() < NOISY or not example.parts:
            self._add_noise(example, content)
        tilt = rng.uniform(-8, 8) * np.linspace(-0.5, 0.5, MELS) + rng.uniform(-4, 4) * np.cos(
            np.linspace(0, rng.uniform(2, 9), MELS) + rng.uniform(0, 6)
        )
        content *= (10 ** ((tilt + rng.uniform(-28, 8)) / 10)).astype(np.float32)
        if rng.random() < PHONE:
            content[:, :4] *= 1e-3
            content[:, int(rng.integers(56, 62)) :] *= 1e-6

    def _add_noise(self, example: Example, content: np.ndarray) -> None:
        noise, noise_power = self._noises[int(self._rng.integers(len(self._noises)))]
        begin = int(self._rng.integers(0, len(noise) - len(content) + 1))
        ratio = 1.0
        if example.parts:
            speech = float(self._data.power[example.parts[0][0]])
            ratio = speech / noise_power / 10 ** (self._rng.uniform(8, 40) / 10)
        content += noise[begin : begin + len(content)] * ratio


def _owners(words: np.ndarray, tokens: list[int], before: int) -> np.ndarray:
    """Return the token number of each frame, counted from `before` + 1, or 0 in silence.

    A word may fall silent and go on; a short one may have no frame of its own.
    """
    owners, at = np.zeros(len(words), np.int64), -1
    borders = np.flatnonzero(np.diff(words, prepend=-1, append=-1))
    for begin, end in pairwise(borders):
        word = int(words[begin])
        if word == 0:
            continue
        at = at if at >= 0 and tokens[at] == word else tokens.index(word, at + 1)
        owners[begin:end] = before + at + 1
    return owners


def _power(features: np.ndarray) -> np.ndarray:
    return (10 ** (4 * features - 4)).astype("float32")


@cache
def _table() -> np.ndarray:
    """Return the power of each byte of a packed feature."""
    return _power(LOWEST + SPAN * np.arange(256) / 255)


def _features(power: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """Turn powers `[n, frames, 80]` into faster-whisper's features, with 0 past the content."""
    logs = torch.log10(power.clamp(min=1e-10))
    inside = torch.arange(power.shape[1])[None, :] < frames[:, None]
    loudest = logs.masked_fill(~inside[..., None], -10).amax((1, 2), keepdim=True)
    values = (torch.maximum(logs, loudest - 8) + 4) / 4
    return (values * inside[..., None]).transpose(1, 2).contiguous()
