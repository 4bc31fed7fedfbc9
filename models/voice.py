"""Decode and transcribe recordings with faster-whisper."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import numpy as np

from models.errors import ModelError, running
from models.hub import local_folder
from models.profiles import VOICE_MODELS, loading

if TYPE_CHECKING:
    import av

RATE = 16_000
"""samples per second, as Whisper hears"""
LONGEST = 30.0
"""seconds that a recording may last"""
SHORTEST = 0.1
CONTAINERS = "wav,w64,mp3,ogg,flac,mov,mp4,m4a,3gp,matroska,webm,aac,aiff,caf,amr"
"""Only these are looked for: playlists and the like could name other files and addresses to read."""


class RecordingError(ModelError):
    """A recording cannot be used. The message says why, and the way out."""


def decode_recording(data: bytes, *, longest: float = LONGEST) -> np.ndarray:
    """Return float32 `[n]` mono samples at 16 kHz, -1 to 1, of the first sound track.

    No file is written. Raises `RecordingError` for bytes that are empty, not a recording, without sound,
    broken off, or longer than `longest` seconds: by its header, or else as soon as that much is decoded.
    """
    import av

    _check_bytes(data)
    try:
        with av.open(
            io.BytesIO(data), mode="r", metadata_errors="ignore", options={"format_whitelist": CONTAINERS}
        ) as container:
            return _decode(container, longest)
    except (av.error.FFmpegError, ValueError) as error:
        raise RecordingError(
            "This is not a recording that can be read; send WAV, MP3, Ogg, FLAC, MP4 or WebM."
        ) from error


def _decode(container: av.container.InputContainer, longest: float) -> np.ndarray:
    if not container.streams.audio:
        raise RecordingError("The file has no sound track; send a recording of a voice.")
    stream = container.streams.audio[0]
    declared = _declared(container, stream)
    if declared > 2 * longest:  # headers of some MP3 files only estimate: those near the limit are decoded
        raise _too_long(declared, longest)
    pieces, count = [], 0
    for piece in _pieces(container, stream, longest):
        pieces.append(piece)
        count += len(piece)
        if count > longest * RATE:
            raise _too_long(max(declared, count / RATE), longest)
    _check_complete(count / RATE, declared)
    return np.concatenate(pieces)


def _check_bytes(data: bytes) -> None:
    """Refuse an empty file, and a WAV file much shorter than it says: FFmpeg takes it for a short one."""
    if not data:
        raise RecordingError("The recording is empty (0 bytes); record it again.")
    size = int.from_bytes(data[4:8], "little")
    # Programs that write while they record leave 0 or the largest number there.
    if data[:4] == b"RIFF" and len(data) < 0.9 * size < 0x7000_0000:
        raise RecordingError(f"Only {len(data)} of the recording's {size} bytes have come; send it again.")


def _declared(container: av.container.InputContainer, stream: av.AudioStream) -> float:
    """Return the seconds that the header promises, or 0."""
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / 1_000_000


def _pieces(
    container: av.container.InputContainer, stream: av.AudioStream, longest: float
) -> Iterator[np.ndarray]:
    """Decode and resample, without the packets that are damaged."""
    import av

    resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE)
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            continue
        for frame in frames:
            if frame.samples > longest * frame.sample_rate:  # few samples a second would become very many
                raise _too_long(frame.samples / frame.sample_rate, longest)
            frame.pts = None  # the clock in the file may be wrong
            yield from (one.to_ndarray()[0] for one in resampler.resample(frame))
    yield from (one.to_ndarray()[0] for one in resampler.resample(None))


def _check_complete(seconds: float, declared: float) -> None:
    if seconds < SHORTEST:
        raise RecordingError("The recording holds no sound that can be decoded; record it again.")
    if seconds < 0.9 * declared - 0.5:
        raise RecordingError(
            f"Only {seconds:.1f} of the recording's {declared:.1f} seconds can be decoded; send it again."
        )


def _too_long(seconds: float, longest: float) -> RecordingError:
    lasts = f"{seconds / 60:.0f} minutes" if seconds > 120 else f"more than {longest:.0f} seconds"
    return RecordingError(f"The recording lasts {lasts}; speak for at most {longest:.0f} seconds.")


WORDS_PER_SECOND = 10
"""tokens allowed for a second of speech, faster than people speak, so that an invented text ends"""
MOST_TOKENS = 224
"""Whisper's own limit for a window"""
PAUSE_MS = 500
"""silence that ends a stretch of speech"""
NO_SPEECH = 0.6
"""probability above which Whisper is taken to hear no speech, unless it is sure of its text"""
SURE, LIKELY = -0.4, -1.0
"""mean log probability of a text that Whisper is sure of, and of one that it believes at all"""
REPETITIVE = 2.4
"""compression ratio above which a text repeats itself"""
WAY_OUT = "free some memory, choose another one with --voice-model, or convert or download it again"


@dataclass(frozen=True)
class Transcript:
    """The words of a recording. The REST API shows the descriptions of its fields."""

    text: Annotated[str, "empty when nobody spoke, and when nothing was understood"]
    voice_found: Annotated[bool, "whether somebody spoke, understood or not"]
    language: Annotated[
        str | None, "ISO 639-1, such as `fr`; null without a text or with an English-only model"
    ]
    language_probability: Annotated[float | None, "0 to 1; null with an English-only model"]
    no_speech_probability: Annotated[float, "0 to 1; 1 when no voice was found at all"]
    seconds: Annotated[float, "length of the recording"]
    took_ms: Annotated[int, "time spent on it"]


class Segment(Protocol):
    """A piece of text as faster-whisper returns it."""

    text: str
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float


class SpokenLanguage(Protocol):
    """faster-whisper's findings about the whole recording."""

    language: str
    language_probability: float


class Pipeline(Protocol):
    """faster-whisper's `BatchedInferencePipeline`: it finds speech and fills the model's windows with it."""

    model: Any
    """faster-whisper's `WhisperModel`"""

    def transcribe(self, audio: np.ndarray, **options: object) -> tuple[Iterable[Segment], SpokenLanguage]:
        """Return the segments, made one by one, and the findings about the whole."""


def is_believable(segment: Segment) -> bool:
    """Whether Whisper believes its own text, by its probabilities."""
    if segment.avg_logprob < LIKELY or segment.compression_ratio > REPETITIVE:
        return False
    return segment.no_speech_prob <= NO_SPEECH or segment.avg_logprob >= SURE


class Transcriber:
    """Whisper behind a voice detector, without the texts that it invents. Safe in any thread."""

    def __init__(self, *, pipeline: Pipeline, name: str, english_only: bool = False) -> None:
        self.pipeline = pipeline
        self.name = name
        self.english_only = english_only

    @property
    def limits(self) -> str:
        """Return a sentence about the languages that the model cannot understand, or nothing."""
        if not self.english_only:
            return ""
        return (
            f"The voice model {self.name} understands English only: other languages become invented English"
            " words. Choose one without `.en` with --voice-model."
        )

    def transcribe(self, recording: bytes) -> Transcript:
        """Transcribe a recording of at most 30 seconds. Nothing is kept.

        Raises `RecordingError` as `decode_recording` does, `ModelError` when the model fails on it.
        """
        begun = time.perf_counter()
        samples = decode_recording(recording, longest=LONGEST)
        segments, spoken = self._listen(samples)
        passed = [segment for segment in segments if is_believable(segment)]
        text = " ".join(segment.text.strip() for segment in passed).strip()
        told = text and not self.english_only  # a model of one language says that it is sure of that one
        probability = round(float(spoken.language_probability) if text else 0.0, 4)
        return Transcript(
            text=text,
            voice_found=bool(text) or any(each.no_speech_prob <= NO_SPEECH for each in segments),
            language=spoken.language if told else None,
            language_probability=None if self.english_only else probability,
            no_speech_probability=round(
                min((segment.no_speech_prob for segment in passed or segments), default=1.0), 4
            ),
            seconds=round(len(samples) / RATE, 3),
            took_ms=round((time.perf_counter() - begun) * 1000),
        )

    def warm(self) -> None:
        """Run every part once, so that the first sentence takes no longer than the next."""
        second = np.zeros(RATE, np.float32)
        self._listen(second)
        self._listen(second, vad_filter=False)

    def _listen(
        self, samples: np.ndarray, *, vad_filter: bool = True
    ) -> tuple[list[Segment], SpokenLanguage]:
        with running(f"The voice model {self.name}", way_out=WAY_OUT):
            found, spoken = self.pipeline.transcribe(
                samples,
                temperature=0.0,
                vad_filter=vad_filter,
                vad_parameters={"min_silence_duration_ms": PAUSE_MS},
                max_new_tokens=min(MOST_TOKENS, 16 + int(WORDS_PER_SECOND * len(samples) / RATE)),
            )
            segments = list(found)
            if not all(math.isfinite(each.avg_logprob + each.no_speech_prob) for each in segments):
                raise ValueError("it gives values that are not numbers")
        return segments, spoken


NEEDED = ("model.bin", "config.json", "tokenizer.json")
"""Without its tokenizer, faster-whisper would ask the hub for one. The rest shows when the model runs."""
FULL_WINDOW = 3000
"""frames of the 30 seconds that every model of OpenAI's hears"""
STEP = 100
"""frames: windows are cut to whole seconds"""


def load_transcriber(voice_model: str, *, threads: int = 0) -> Transcriber:
    """Load a voice model: a name in `VOICE_MODELS` (downloaded on first use), or a folder.

    The folder holds a Whisper converted for CTranslate2; `threads` 0 leaves the number to that. Without a
    graphics card it computes in int8. Raises `ModelError` when it cannot be had or loaded; whether it can be
    run shows with `Transcriber.warm`.
    """
    import ctranslate2

    folder = voice_folder(voice_model)
    on_gpu = ctranslate2.get_cuda_device_count() > 0
    with loading("The voice model", folder, get="convert"):
        pipeline = whisper_pipeline(
            str(folder),
            device="cuda" if on_gpu else "cpu",
            compute_type="float16" if on_gpu else "int8",
            cpu_threads=threads,
        )
        multilingual = bool(pipeline.model.model.is_multilingual)
    return Transcriber(pipeline=pipeline, name=Path(voice_model).name, english_only=not multilingual)


def check_voice_name(voice_model: str) -> None:
    """Raise `ModelError` when `voice_model` is neither a name in `VOICE_MODELS` nor a folder."""
    if voice_model not in VOICE_MODELS and not Path(voice_model).is_dir():
        raise ModelError(
            f"There is no voice model '{voice_model}'; choose one of: {', '.join(VOICE_MODELS)}, or name a"
            " folder."
        )


def voice_folder(voice_model: str) -> Path:
    """Return the folder of a voice model, downloading it on first use. Raises `ModelError`.

    A name in `VOICE_MODELS` means that model, even where the current folder holds a folder of that name.
    """
    check_voice_name(voice_model)
    if voice_model in VOICE_MODELS:
        return local_folder(VOICE_MODELS[voice_model], role="voice")
    folder = Path(voice_model)
    missing = next((name for name in NEEDED if not (folder / name).is_file()), None)
    if missing:
        raise ModelError(
            f"{folder} is not a voice model: it has no {missing}; it needs a Whisper converted with"
            " ct2-transformers-converter --copy_files tokenizer.json preprocessor_config.json."
        )
    return folder


def whisper_pipeline(folder: str, **options: object) -> Pipeline:
    """Load a Whisper of any window and any number of mel bands.

    faster-whisper pads to 30 seconds, and takes a model without `preprocessor_config.json` for one with 80
    bands: the model itself knows better.
    """
    from faster_whisper import BatchedInferencePipeline, WhisperModel
    from faster_whisper.feature_extractor import FeatureExtractor

    class WindowedWhisper(WhisperModel):
        """A Whisper that encodes as many whole seconds as hold something, when its window is short."""

        def encode(self, features: np.ndarray) -> object:
            """Encode `[bands, frames]` or a batch `[n, bands, frames]`."""
            window = self.feature_extractor.nb_max_frames
            if window < FULL_WINDOW:
                used = np.flatnonzero(np.any(features != 0, axis=tuple(range(features.ndim - 1))))
                last = int(used[-1]) + 1 if len(used) else STEP
                features = features[..., : min(window, -(-last // STEP) * STEP)]
            return super().encode(features)

    whisper = WindowedWhisper(folder, **options)
    bands = whisper.model.n_mels
    if len(whisper.feature_extractor.mel_filters) != bands:
        whisper.feature_extractor = FeatureExtractor(**{**whisper.feat_kwargs, "feature_size": bands})
    pipeline: Pipeline = BatchedInferencePipeline(whisper)
    return pipeline
