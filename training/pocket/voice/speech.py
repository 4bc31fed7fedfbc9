"""Speak sentences of the drawn world with espeak-ng, with the time of each word and sound."""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np

from demo.world.scene import scene
from models.errors import ModelError
from training.pocket.sentences.grammar import caption, say
from training.pocket.sentences.lexicon import LANGUAGES, NUMBERS
from training.pocket.sentences.statements import partial

RATE = 16_000
"""samples per second, as Whisper expects"""

ACCENTS: dict[str, tuple[str, ...]] = {
    "en": ("en-us", "en", "en-gb-x-rp", "en-gb-scotland", "en-us-nyc", "en-GB-x-gbclan", "en-029"),
    "fr": ("fr", "fr-be", "fr-ch"),
    "de": ("de",),
    "es": ("es", "es-419"),
}
TRAIN_VARIANTS = (
    *("f1", "f2", "f4", "f5", "m1", "m2", "m3", "m4", "m6", "m7", "m8", "klatt", "klatt2", "klatt4"),
    *("Alex", "Alicia", "Andrea", "Andy", "Annie", "Denis", "Gene", "Henrique", "Hugo", "Lee", "Marco"),
    *("Mario", "Mike", "Nguyen", "Storm", "adam", "anika", "antonio", "belinda", "benjamin", "boris"),
    *("caleb", "david", "ed", "edward", "gustave", "iven", "john", "kaukovalta", "marcelo", "max", "michel"),
    *("miguel", "norbert", "pablo", "paul", "quincy", "rob", "robert", "sandro", "shelby", "steph", "travis"),
    *("victor", "zac", "grandma", "grandpa"),
)
TEST_VARIANTS = ("f3", "m5", "klatt3", "linda", "pedro", "Diogo", "aunty", "Michael")
"""voices that training never uses, so that measurements are of new voices"""

SYNCHRONOUS, UTF8, PHONEME_EVENTS = 2, 1, 1
SPEED, PITCH = 1, 3
WORD, PHONEME = 1, 7


class _Id(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    )


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


@dataclass(frozen=True)
class Phoneme:
    """A spoken phoneme: its start in seconds, its name, and the number of its word (None in a pause)."""

    start: float
    name: str
    word: int | None


@dataclass(frozen=True)
class Utterance:
    """A spoken sentence: float32 samples at 16 kHz in -1 to 1, and its sounds in order."""

    samples: np.ndarray
    text: str
    language: str
    sounds: tuple[Phoneme, ...]


class Synthesiser:
    """espeak-ng in this process, for one thread only, because the library keeps its state in globals."""

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL("libespeak-ng.so.1")
        except OSError as error:
            raise ModelError(
                f"Synthetic speech needs espeak-ng ({error}); on Debian and Ubuntu: apt install espeak-ng"
            ) from error
        self._rate = self._library.espeak_Initialize(SYNCHRONOUS, 0, None, PHONEME_EVENTS)
        self._callback = _Callback(self._receive)
        self._pieces: list[np.ndarray] = []
        self._events: list[tuple[int, int, str]] = []

    def say(self, text: str, *, language: str, voice: str, speed: int = 170, pitch: int = 50) -> Utterance:
        """Speak `text` with a voice such as `en-us+f3`, at `speed` words a minute, `pitch` from 0 to 99."""
        self._pieces, self._events = [], []
        # Each time: another synthesiser may have set its own since, and may be gone by now.
        self._library.espeak_SetSynthCallback(self._callback)
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise ModelError(f"espeak-ng has no voice '{voice}'; `espeak-ng --voices` lists its voices.")
        self._library.espeak_SetParameter(SPEED, speed, 0)
        self._library.espeak_SetParameter(PITCH, pitch, 0)
        data = text.encode() + b"\0"
        self._library.espeak_Synth(data, len(data), 0, 1, 0, UTF8, None, None)
        samples = resampled(np.concatenate(self._pieces), self._rate)
        return Utterance(samples, text, language, tuple(self._sounds(text)))

    def _receive(self, samples: Any, count: int, events: Any) -> int:

        if count > 0:
            self._pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        position = 0
        while events[position].type != 0:
            event = events[position]
            if event.type == PHONEME:
                name = bytes(event.id.string).decode("utf-8", "replace")
                self._events.append((event.sample, event.text_position, name))
            position += 1
        return 0

    def _sounds(self, text: str) -> list[Phoneme]:
        starts = word_starts(text)
        found = []
        for sample, position, name in self._events:
            word = sum(start < position for start in starts) - 1
            found.append(Phoneme(sample / self._rate, name, None if name.startswith("_") else max(word, 0)))
        return found


def word_starts(text: str) -> list[int]:
    """Return the positions at which the words of `text` begin."""
    return [i for i, letter in enumerate(text) if letter != " " and (i == 0 or text[i - 1] == " ")]


def resampled(samples: np.ndarray, rate: int) -> np.ndarray:
    """Return int16 mono samples as float32 at 16 kHz."""
    import av

    frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
    frame.sample_rate = rate
    resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE)
    frames = [*resampler.resample(frame), *resampler.resample(None)]
    return np.concatenate([one.to_ndarray()[0] for one in frames])


@dataclass(frozen=True)
class Line:
    """A sentence and how it is spoken: espeak-ng's voice, words a minute, pitch from 0 to 99."""

    text: str
    language: str
    voice: str
    speed: int
    pitch: int

    @property
    def transcript(self) -> str:
        """The text as a listener writes it: without punctuation, numbers as words."""
        return plain(self.text, self.language)

    def spoken(self, synthesiser: Synthesiser) -> Utterance:
        """Return the line spoken by espeak-ng."""
        return synthesiser.say(
            self.text.replace(" ,", ","),
            language=self.language,
            voice=self.voice,
            speed=self.speed,
            pitch=self.pitch,
        )


def plain(text: str, language: str) -> str:
    """Return `text` without punctuation, its digits as words."""
    for number, word in zip("23", NUMBERS[language], strict=True):
        text = re.sub(rf"\b{number}\b", word, text)
    return " ".join(text.replace(",", " ").replace(".", " ").split())


def line(split: str, index: int) -> Line:
    """Return sentence number `index` of `split`, always the same.

    The voices of `train` are not used in other splits.
    """
    rng = Random(f"speech/{split}/{index}")
    language = LANGUAGES[index % len(LANGUAGES)]
    shown = scene(split, rng.randrange(5_000_000))
    text = caption(shown, language, rng) if rng.random() < 0.4 else say(partial(shown, rng), language, rng)
    variants = TRAIN_VARIANTS if split == "train" else TEST_VARIANTS
    voice = f"{rng.choice(ACCENTS[language])}+{rng.choice(variants)}"
    return Line(text, language, voice, rng.randrange(125, 206), rng.randrange(20, 81))


def word_errors(heard: str, said: str) -> tuple[int, int]:
    """Return the number of word errors and the number of words said.

    Errors are changed, missing and invented words, by the shortest edit. Case and punctuation do not count.
    """
    got, want = (re.findall(r"[\w'-]+", text.lower()) for text in (heard, said))
    row = list(range(len(got) + 1))
    for i, word in enumerate(want, start=1):
        before, row[0] = row[0], i
        for j, other in enumerate(got, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (word != other))
    return row[-1], len(want)
