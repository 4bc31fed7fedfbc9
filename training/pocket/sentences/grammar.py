"""Say statements in four languages, with gender, plural, agreement, elision and dative."""

from __future__ import annotations

import unicodedata
from random import Random

from demo.world.scene import Scene
from training.pocket.sentences.lexicon import (
    AND,
    COLOUR_WORDS,
    LANGUAGES,
    NOUNS,
    NUMBERS,
    OPENINGS,
    PLACE_PHRASES,
    RELATION_PHRASES,
    THERE_IS,
    WEATHER_PHRASES,
    WORDS,
)
from training.pocket.sentences.statements import MANY, Mention, Statement, full, partial

ARTICLES = {
    "fr": {"m": "un", "f": "une"},
    "es": {"m": "un", "f": "una"},
    "de": {"m": "ein", "f": "eine", "n": "ein"},
    "de dative": {"m": "einem", "f": "einer", "n": "einem"},
}
ENDINGS = {"m": "er", "f": "e", "n": "es"}
DATIVE_ENDINGS = {"m": "em", "f": "er", "n": "em"}


def _pick(options: tuple[str, ...], rng: Random) -> str:
    """Return the first option, which is the usual word, or now and then another."""
    return options[0] if rng.random() < 0.6 else rng.choice(options)


def starts_with_vowel(text: str) -> bool:
    """Return whether French elides before `text`, accents aside."""
    return unicodedata.normalize("NFD", text)[:1].lower() in "aeiou"


def _number(mention: Mention, language: str, rng: Random) -> str:
    if mention.count in (None, MANY, 1):
        return ""
    return str(mention.count) if rng.random() < 0.06 else NUMBERS[language][mention.count - 2]


def _english(mention: Mention, noun: str, rng: Random) -> str:
    words = [mention.colour or "", noun.split("|")[mention.count in (MANY, 2, 3)]]
    text = " ".join(word for word in words if word)
    if mention.count == 1:
        return ("an " if text[0] in "aeiou" else "a ") + text
    return f"{_number(mention, 'en', rng)} {text}".strip()


def _romance(mention: Mention, noun: str, language: str, rng: Random) -> str:
    gender, *forms = noun.split("|")
    plural = mention.count in (MANY, 2, 3)
    words = [
        ARTICLES[language][gender] if mention.count == 1 else _number(mention, language, rng),
        forms[plural],
    ]
    if mention.colour:
        colours = _pick(COLOUR_WORDS[mention.colour][language], rng).split("|")
        words.append(colours[2 * (gender == "f") + plural])
    return " ".join(word for word in words if word)


def _german_ending(gender: str, count: int | None, *, dative: bool) -> str:
    if count in (MANY, 2, 3):
        return "en" if dative else "e"
    if not dative:
        return ENDINGS[gender]
    return "en" if count == 1 else DATIVE_ENDINGS[gender]


def _german(mention: Mention, noun: str, rng: Random, *, dative: bool) -> str:
    gender, singular, plural, dative_plural = noun.split("|")
    many = mention.count in (MANY, 2, 3)
    article = ARTICLES["de dative" if dative else "de"][gender]
    words = [article if mention.count == 1 else _number(mention, "de", rng)]
    if mention.colour:
        stem = _pick(COLOUR_WORDS[mention.colour]["de"], rng)
        ending = _german_ending(gender, mention.count, dative=dative)
        words.append(stem[1:] if stem.startswith("=") else stem + ending)
    words.append((dative_plural if dative else plural) if many else singular)
    return " ".join(word for word in words if word)


def noun_phrase(mention: Mention, language: str, rng: Random, *, dative: bool = False) -> str:
    """Return the mention in `language`, such as "deux chats noirs".

    `dative` matters for German only.
    """
    noun = _pick(NOUNS[mention.kind][language], rng)
    if language == "en":
        return _english(mention, noun, rng)
    if language == "de":
        return _german(mention, noun, rng, dative=dative)
    return _romance(mention, noun, language, rng)


def join(words: str, phrase: str, language: str) -> str:
    """Put `phrase` after `words`, eliding a French "de"."""
    if language == "fr" and words.endswith(" de") and starts_with_vowel(phrase):
        return f"{words[:-1]}'{phrase}"
    return f"{words} {phrase}"


def _subjects(statement: Statement, language: str, rng: Random, *, dative: bool) -> str:
    if len(statement.mentions) == 1:
        return noun_phrase(statement.mentions[0], language, rng, dative=dative)
    mentions, words = statement.mentions, AND[language]
    if statement.relation:
        turned = rng.random() < 0.5
        words = rng.choice(RELATION_PHRASES[language][statement.relation][turned])
        mentions = mentions[::-1] if turned else mentions
    first = noun_phrase(mentions[0], language, rng, dative=dative)
    second = noun_phrase(mentions[1], language, rng, dative=dative or statement.relation is not None)
    return f"{first} {join(words, second, language)}"


def _open(statement: Statement, language: str, rng: Random) -> str:
    """Return the subjects, now and then after "a picture of" or "there is"."""
    style = rng.random()
    if style < 0.15:
        subjects = _subjects(statement, language, rng, dative=True)
        return join(rng.choice(OPENINGS[language]), subjects, language)
    subjects = _subjects(statement, language, rng, dative=False)
    if style > 0.92 and all(mention.count for mention in statement.mentions):
        first_word = subjects.split()[0]
        plural = first_word not in ("a", "an", "un", "une", "una", "ein", "eine")
        return f"{rng.choice(THERE_IS[language])[plural]} {subjects}"
    return subjects


def _setting(statement: Statement, language: str, rng: Random) -> tuple[str, str]:
    place = _pick(PLACE_PHRASES[language][statement.place], rng) if statement.place else ""
    weather = _pick(WEATHER_PHRASES[language][statement.weather], rng) if statement.weather else ""
    return place, weather


def say(statement: Statement, language: str, rng: Random) -> str:
    """Return one way to say `statement` in `language` (`en`, `fr`, `de` or `es`)."""
    if language not in LANGUAGES:
        raise ValueError(f"There is no language '{language}'; choose one of: {', '.join(LANGUAGES)}.")
    place, weather = _setting(statement, language, rng)
    if not statement.mentions:
        if rng.random() < 0.6:
            words = (
                rng.choice(WORDS[language][fact]) for fact in (statement.place, statement.weather) if fact
            )
            return " ".join(words)
        return f"{place} {weather}".strip()
    subjects = _open(statement, language, rng)
    orders = (
        "{s} {p} {w}",
        "{s} {p} {w}",
        "{s} {p} {w}",
        "{s} {p}, {w}",
        "{s} {w}, {p}",
        "{w}, {s} {p}",
        "{p} {w}, {s}",
    )
    order = rng.choice(orders)
    return " ".join(order.format(s=subjects, p=place, w=weather).replace(" ,", ",").split()).strip(" ,")


def caption(scene: Scene, language: str, rng: Random) -> str:
    """Return a sentence that says every fact of `scene`."""
    return say(full(scene), language, rng)


def captions(scene: Scene, language: str, rng: Random, n: int = 4) -> list[str]:
    """Return `n` captions: a full one, then partial ones like short queries."""
    return [caption(scene, language, rng), *(say(partial(scene, rng), language, rng) for _ in range(n - 1))]
