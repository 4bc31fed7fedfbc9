"""Make sounds that are not speech, for training and to test that nothing is transcribed from them."""

from __future__ import annotations

import numpy as np

from training.pocket.voice.speech import RATE

KINDS = ("silence", "hiss", "white", "pink", "brown", "hum", "fan", "clicks", "music")


def not_speech(kind: str, seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Return random samples of one of `KINDS`: float32 `[16 000 · seconds]`, -1 to 1."""
    if kind not in KINDS:
        raise ValueError(f"There is no noise '{kind}'; choose one of: {', '.join(KINDS)}.")
    count = int(seconds * RATE)
    makers = {"hum": _hum, "clicks": _clicks, "music": _music}
    if kind == "silence":
        samples = np.zeros(count)
    elif kind == "fan":
        samples = _coloured(count, -2.0, rng) + 0.5 * _hum(count, rng)
    elif kind in makers:
        samples = makers[kind](count, rng)
    else:
        samples = _coloured(count, {"pink": -1.0, "brown": -2.0}.get(kind, 0.0), rng)
    loudest = max(float(np.abs(samples).max(initial=0)), 1e-9)
    level = rng.uniform(0.0005, 0.004) if kind == "hiss" else rng.uniform(0.02, 0.6)
    return (samples / loudest * level).astype(np.float32)


def with_noise(samples: np.ndarray, noise: np.ndarray, decibels: float) -> np.ndarray:
    """Return `samples` with `noise` (at least as long) added `decibels` below their mean power."""
    noise = noise[: len(samples)]
    wanted = np.mean(samples**2) / 10 ** (decibels / 10)
    gain = np.sqrt(wanted / max(float(np.mean(noise**2)), 1e-12)).astype(np.float32)
    noisy: np.ndarray = samples + noise * gain
    return noisy


def _coloured(count: int, slope: float, rng: np.random.Generator) -> np.ndarray:
    """Return noise whose power falls with frequency by the exponent `slope`."""
    spectrum = np.fft.rfft(rng.standard_normal(count))
    frequency = np.maximum(np.fft.rfftfreq(count, 1 / RATE), 20.0)
    return np.fft.irfft(spectrum * frequency ** (slope / 2), count)


def _hum(count: int, rng: np.random.Generator) -> np.ndarray:
    """Return mains hum with harmonics."""
    moments, base = np.arange(count) / RATE, rng.choice([50.0, 60.0, 100.0, 120.0])
    parts = [
        rng.uniform(0.1, 1.0) / n * np.sin(2 * np.pi * base * n * moments + rng.uniform(0, 6))
        for n in range(1, 9)
    ]
    hum: np.ndarray = np.sum(parts, axis=0) + 0.01 * rng.standard_normal(count)
    return hum


def _clicks(count: int, rng: np.random.Generator) -> np.ndarray:
    """Return knocks on a microphone and keys of a keyboard."""
    samples = 0.01 * rng.standard_normal(count)
    for _ in range(int(rng.integers(2, 12))):
        length = int(rng.integers(80, 1600))
        start = int(rng.integers(0, max(1, count - length)))
        burst = rng.standard_normal(min(length, count - start)) * np.exp(
            -np.linspace(0, 6, min(length, count - start))
        )
        samples[start : start + len(burst)] += burst * rng.uniform(0.2, 1.0)
    return samples


def _music(count: int, rng: np.random.Generator) -> np.ndarray:
    """Return fading notes with overtones, several at once."""
    samples, at = 0.003 * rng.standard_normal(count), 0
    while at < count:
        length = int(rng.integers(RATE // 5, RATE))
        moments = np.arange(min(length, count - at)) / RATE
        for _ in range(int(rng.integers(1, 4))):
            pitch = 110.0 * 2 ** (rng.integers(0, 36) / 12)
            tone = sum(np.sin(2 * np.pi * pitch * n * moments) / n**1.5 for n in range(1, 6))
            samples[at : at + len(moments)] += tone * np.exp(-moments * rng.uniform(1, 6))
        at += length // 2
    return samples
