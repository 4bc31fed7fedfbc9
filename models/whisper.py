"""Whisper models: where they come from, and how they are loaded by faster-whisper."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from models.errors import ModelError
from models.folders import ModelSource, local_folder, unusable

if TYPE_CHECKING:
    from models.voice import Transcriber

NEEDED = ("model.bin", "config.json", "tokenizer.json")
DOWNLOADED = (*NEEDED, "preprocessor_config.json", "vocabulary.*")
FULL_WINDOW = 3000
"""frames of the 30 seconds that every model of OpenAI's hears"""
STEP = 100
"""frames: windows are cut to whole seconds"""

SIZES: dict[str, ModelSource] = {
    name: ModelSource(f"Systran/faster-whisper-{name}", revision)
    for name, revision in (
        ("tiny", "d90ca5fe260221311c53c58e660288d3deb8d356"),
        ("base", "ebe41f70d5b6dfa9166e2c581c45c9c0cfc57b66"),
        ("small", "536b0662742c02347bc0e980a01041f333bce120"),
    )
}


def load_transcriber(voice_model: str, *, threads: int = 0) -> Transcriber:
    """Load a voice model: `tiny`, `base` or `small` (downloaded on first use), or a folder.

    The folder holds a Whisper converted for CTranslate2; `threads` 0 leaves the number to that. Without a
    graphics card it computes in int8. Raises `ModelError` when it cannot be had or loaded.
    """
    import ctranslate2

    from models.voice import Transcriber

    folder = voice_folder(voice_model)
    model_class, on_gpu = whisper_class(), ctranslate2.get_cuda_device_count() > 0
    try:
        model = model_class(
            str(folder),
            device="cuda" if on_gpu else "cpu",
            compute_type="float16" if on_gpu else "int8",
            cpu_threads=threads,
        )
    except Exception as error:  # CTranslate2, tokenizers and json each raise their own
        raise unusable("The voice model", folder, error, get="convert") from error
    return Transcriber(model=model, name=Path(voice_model).name)


def voice_folder(voice_model: str) -> Path:
    """Return the folder of a voice model, downloading it on first use. Raises `ModelError`."""
    folder = Path(voice_model)
    if voice_model in SIZES and not folder.is_dir():
        return local_folder(SIZES[voice_model], files=DOWNLOADED, option="--voice-model")
    if not folder.is_dir():
        raise ModelError(
            f"There is no voice model '{voice_model}'; choose one of: {', '.join(SIZES)}, or name a folder."
        )
    missing = next((name for name in NEEDED if not (folder / name).is_file()), None)
    if missing:
        raise ModelError(
            f"{folder} is not a voice model: it has no {missing}; it needs a Whisper converted with"
            " ct2-transformers-converter --copy_files tokenizer.json preprocessor_config.json."
        )
    return folder


def whisper_class() -> type:
    """Return `WhisperInWindows`; a function, because faster-whisper is imported late."""
    import numpy as np
    from faster_whisper import WhisperModel

    class WhisperInWindows(WhisperModel):
        """faster-whisper pads everything to 30 seconds; a model with a shorter window hears what there is."""

        @property
        def window_seconds(self) -> float:
            """Seconds that the model hears at once."""
            return self.feature_extractor.nb_max_frames * self.feature_extractor.time_per_frame

        def encode(self, features: np.ndarray) -> object:
            """Encode `[80, frames]`; for a short window only as many whole seconds as hold something."""
            window = self.feature_extractor.nb_max_frames
            if window < FULL_WINDOW:
                used = np.flatnonzero(np.any(features != 0, axis=-2))
                last = int(used[-1]) + 1 if len(used) else STEP
                features = features[..., : min(window, -(-last // STEP) * STEP)]
            return super().encode(features)

    return WhisperInWindows
