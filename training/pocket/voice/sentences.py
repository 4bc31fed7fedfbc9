"""Who says what: voices for training and voices kept for testing, and sentences of the drawn world."""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from demo.world.scene import scene
from training.pocket.sentences.grammar import caption, say
from training.pocket.sentences.lexicon import LANGUAGES, NUMBERS
from training.pocket.sentences.statements import partial

if TYPE_CHECKING:
    from training.pocket.voice.speech import Synthesiser, Utterance

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
"""Never heard in training: what is measured is how the model hears new voices."""


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
        """What a listener writes down: no punctuation, numbers as words."""
        return plain(self.text, self.language)

    def spoken(self, synthesiser: Synthesiser) -> Utterance:
        """Let espeak-ng speak it."""
        return synthesiser.say(
            self.text.replace(" ,", ","),
            language=self.language,
            voice=self.voice,
            speed=self.speed,
            pitch=self.pitch,
        )


def plain(text: str, language: str) -> str:
    """Return `text` without punctuation and digits, as it is heard."""
    for number, word in zip("23", NUMBERS[language], strict=True):
        text = re.sub(rf"\b{number}\b", word, text)
    return " ".join(text.replace(",", " ").replace(".", " ").split())


def line(split: str, index: int) -> Line:
    """Return the sentence number `index` of `split`, the same for ever; `train` has voices of its own."""
    rng = Random(f"speech/{split}/{index}")
    language = LANGUAGES[index % len(LANGUAGES)]
    shown = scene(split, rng.randrange(5_000_000))
    text = caption(shown, language, rng) if rng.random() < 0.4 else say(partial(shown, rng), language, rng)
    variants = TRAIN_VARIANTS if split == "train" else TEST_VARIANTS
    voice = f"{rng.choice(ACCENTS[language])}+{rng.choice(variants)}"
    return Line(text, language, voice, rng.randrange(125, 206), rng.randrange(20, 81))
