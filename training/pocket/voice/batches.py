"""Batches for the voice model: utterances in new rooms, at other distances, two after one another, or none.

Everything is done to log-mel frames, where adding noise is adding powers: it costs a fraction of doing it to
samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

from training.pocket.voice.features import FRAMES, LOWEST, MELS, SPAN, WINDOW, SpeechSet, log_mel
from training.pocket.voice.noise import KINDS, not_speech

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import torch

LONGEST = WINDOW * FRAMES
PAIRS, SILENT, NOISY, PHONE, WARPED = 0.2, 0.07, 0.6, 0.08, 0.5
"""shares of the examples"""
NO_LANGUAGE = -1


@dataclass(frozen=True)
class Example:
    """What is said in one window: utterances and the frames where they start; without any, no speech."""

    parts: tuple[tuple[int, int], ...]
    frames: int


@dataclass(frozen=True)
class Batch:
    """`features` float32 `[n, 80, frames]`; `words` and `sounds` int64 `[n, frames / 2]`, -100 past the end.

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
    """Endless batches from `data`. `rng` decides everything."""

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
        """Group examples of like length, so that little is padded."""
        while True:
            pool = sorted((self._example() for _ in range(self._size * 12)), key=lambda one: one.frames)
            groups = [pool[i : i + self._size] for i in range(0, len(pool), self._size)]
            self._rng.shuffle(groups)
            yield from (self._batch(group) for group in groups)

    def _length(self, number: int) -> int:
        return int(self._data.starts[number + 1] - self._data.starts[number])

    def _pause(self) -> int:
        """A number of silent frames, even."""
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
        import numpy as np
        import torch

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
        """Lay the utterances into the window; return their tokens."""
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
        import numpy as np

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
    """Return the number of the token that each frame belongs to, from `before` + 1; 0 in silence.

    A word may fall silent and go on; a short one may have no frame of its own.
    """
    import numpy as np

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
    """The power that each byte of a packed feature stands for."""
    import numpy as np

    return _power(LOWEST + SPAN * np.arange(256) / 255)


def _features(power: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """Do to powers `[n, frames, 80]` what faster-whisper does; what is past the content becomes 0."""
    import torch

    logs = torch.log10(power.clamp(min=1e-10))
    inside = torch.arange(power.shape[1])[None, :] < frames[:, None]
    loudest = logs.masked_fill(~inside[..., None], -10).amax((1, 2), keepdim=True)
    values = (torch.maximum(logs, loudest - 8) + 4) / 4
    return (values * inside[..., None]).transpose(1, 2).contiguous()
