"""Voice: a recording becomes the sentence that was spoken, or nothing where nobody spoke."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.recordings import LONGEST, RATE, decode_recording

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from models.whisper import WhisperInWindows

WORDS_PER_SECOND = 10
"""Tokens allowed for a second of speech: nobody speaks faster, and an invented text would go on for ever."""


@dataclass(frozen=True)
class Transcript:
    """What was heard. `text` is empty and `language` None when nobody spoke.

    Probabilities are 0 to 1; `no_speech_probability` is 1 where no voice was found at all. `seconds` is the
    length of the recording, `took_ms` the time spent on it.
    """

    text: str
    language: str | None
    language_probability: float
    no_speech_probability: float
    seconds: float
    took_ms: int


@dataclass(frozen=True)
class Gates:
    """When a text is taken for invented and dropped.

    `voice` is the probability above which the voice detector hears a voice. A text is dropped when its mean
    log probability is below `log_probability`, or below `sure_log_probability` while Whisper believes with
    more than `no_speech` that nobody spoke, or when it repeats itself so that it packs `compression` times.
    """

    voice: float = 0.5
    no_speech: float = 0.6
    log_probability: float = -1.0
    sure_log_probability: float = -0.4
    compression: float = 2.4

    def passes(self, segment: object) -> bool:
        """Whether a faster-whisper `segment` may be shown."""
        if segment.avg_logprob < self.log_probability or segment.compression_ratio > self.compression:
            return False
        return segment.no_speech_prob <= self.no_speech or segment.avg_logprob >= self.sure_log_probability


class Transcriber:
    """Whisper with a voice detector before it and gates behind it. Safe in any thread."""

    def __init__(self, *, model: WhisperInWindows, name: str, gates: Gates | None = None) -> None:
        self.model = model
        self._gates = gates or Gates()
        self.name = name

    def transcribe(self, recording: bytes) -> Transcript:
        """Decode a recording of at most 30 seconds and write down what is said; nothing is kept.

        Raises `RecordingError` as `decode_recording` does.
        """
        begun = time.perf_counter()
        return self._heard(decode_recording(recording, longest=LONGEST), begun)

    def transcribe_samples(self, samples: np.ndarray) -> Transcript:
        """Do the same with float32 mono samples at 16 kHz."""
        return self._heard(samples, time.perf_counter())

    def warm(self) -> None:
        """Run every part once, so that the first sentence takes no longer than the next."""
        import numpy as np

        second = np.zeros(RATE, np.float32)
        self._windows(second)
        self._listen(second, [(0.0, 1.0)])

    def _heard(self, samples: np.ndarray, begun: float) -> Transcript:
        windows = self._windows(samples)
        segments, language, probability = self._listen(samples, windows) if windows else ([], None, 0.0)
        passed = [segment for segment in segments if self._gates.passes(segment)]
        text = " ".join(segment.text.strip() for segment in passed)
        return Transcript(
            text=text,
            language=language if text else None,
            language_probability=round(probability if text else 0.0, 4),
            no_speech_probability=round(
                min((segment.no_speech_prob for segment in passed or segments), default=1.0), 4
            ),
            seconds=round(len(samples) / RATE, 3),
            took_ms=round((time.perf_counter() - begun) * 1000),
        )

    def _windows(self, samples: np.ndarray) -> list[tuple[float, float]]:
        """Return where somebody speaks, in seconds, in pieces that the model can hear at once."""
        from faster_whisper.vad import VadOptions, get_speech_timestamps

        options = VadOptions(
            threshold=self._gates.voice,
            min_silence_duration_ms=500,
            max_speech_duration_s=self.model.window_seconds,
        )
        spoken = get_speech_timestamps(samples, options, sampling_rate=RATE)
        return windows_of(
            [(one["start"] / RATE, one["end"] / RATE) for one in spoken], longest=self.model.window_seconds
        )

    def _listen(
        self, samples: np.ndarray, windows: list[tuple[float, float]]
    ) -> tuple[list[object], str, float]:
        seconds = sum(end - begin for begin, end in windows)
        segments, info = self.model.transcribe(
            samples,
            temperature=0.0,
            condition_on_previous_text=False,
            without_timestamps=True,
            clip_timestamps=[moment for window in windows for moment in window],
            max_new_tokens=min(224, 16 + int(WORDS_PER_SECOND * seconds)),
            # The gates judge instead, so that what was dropped is still known.
            no_speech_threshold=None,
            log_prob_threshold=None,
            compression_ratio_threshold=None,
        )
        return list(segments), info.language, float(info.language_probability)


def windows_of(spoken: Sequence[tuple[float, float]], *, longest: float) -> list[tuple[float, float]]:
    """Join stretches of speech (begin, end, in seconds) that fit into `longest` seconds together."""
    joined: list[tuple[float, float]] = []
    for begin, end in spoken:
        if joined and end - joined[-1][0] <= longest:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((begin, end))
    return joined
