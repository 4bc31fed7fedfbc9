"""From spoken sentences to what the voice model is trained on: log-mel frames, and labels for every frame."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

if TYPE_CHECKING:
    import numpy as np
    from faster_whisper.feature_extractor import FeatureExtractor
    from tokenizers import Tokenizer

    from training.pocket.voice.sentences import Line
    from training.pocket.voice.speech import Utterance

WINDOW = 10
"""seconds that the pocket's Whisper hears at once"""
MELS = 80
FRAMES = 100
"""feature frames in a second; the encoder gives half as many"""
LOWEST, SPAN = -1.5, 3.5
"""Features are kept as bytes over this range: a step is half a decibel."""


@dataclass(frozen=True)
class SpeechSet:
    """Utterances one after the other in flat arrays; `starts[i]` to `starts[i + 1]` are frames of the i-th.

    `mel` uint8 `[frames, 80]`; `words` uint16 and `sounds` uint8 `[frames / 2]`, 0 in silence; `tokens` and
    `token_starts` the transcripts; `languages` int64 `[n]`; `power` float32 `[n]`, the samples' mean square.
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
        import numpy as np

        folder.mkdir(parents=True, exist_ok=True)
        for name, array in vars(self).items():
            np.save(folder / f"{name}.npy", array)

    @classmethod
    def load(cls, folder: Path) -> SpeechSet:
        """Open the arrays without reading them into memory."""
        import numpy as np

        return cls(**{path.stem: np.load(path, mmap_mode="r") for path in sorted(folder.glob("*.npy"))})


@cache
def _extractor() -> FeatureExtractor:
    from faster_whisper.feature_extractor import FeatureExtractor

    return FeatureExtractor(chunk_length=WINDOW)


def log_mel(samples: np.ndarray) -> np.ndarray:
    """Return float32 `[frames, 80]` exactly as faster-whisper computes them; the number of frames is even."""
    features = _extractor()(samples).T
    return features[: len(features) // 2 * 2]


def packed(features: np.ndarray) -> np.ndarray:
    """Return features as bytes."""
    import numpy as np

    return np.clip(np.round((features - LOWEST) / SPAN * 255), 0, 255).astype(np.uint8)


def frame_labels(utterance: Utterance, tokens: list[int], frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Return for each of `frames` encoder frames (20 ms) the token of its word and the number of its sound.

    Sounds are numbered 1 to 255 by a checksum of espeak-ng's name for them; that two may share a number does
    no harm to a helper. It speaks short words as one ("in the"): their frames are shared out evenly.
    """
    import numpy as np

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
    """Let espeak-ng speak all `lines`; those longer than the window are left out."""
    import numpy as np

    from training.pocket.sentences.lexicon import LANGUAGES
    from training.pocket.voice.speech import RATE, Synthesiser

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
    import numpy as np

    def borders(name: str) -> np.ndarray:
        lengths = [np.diff(getattr(part, name)) for part in parts]
        return np.concatenate([[0], np.cumsum(np.concatenate(lengths))])

    flat = ("mel", "words", "sounds", "tokens", "languages", "power")
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in flat}
    return SpeechSet(**arrays, starts=borders("starts"), token_starts=borders("token_starts"))
