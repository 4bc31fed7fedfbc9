"""Captions: gender, plural, agreement, elision and dative in four languages, by hand-written sentences."""

from __future__ import annotations

from random import Random

import pytest

from demo.world.scene import COLOURS, KINDS, Group, Scene, sample
from training.pocket.sentences.grammar import caption, captions, join, noun_phrase, say
from training.pocket.sentences.lexicon import COLOUR_WORDS, LANGUAGES, NOUNS
from training.pocket.sentences.statements import MANY, Mention, Statement, full


def ways(mention: Mention, language: str, *, dative: bool = False) -> set[str]:
    """Return every way to say `mention` that 300 seeds find."""
    return {noun_phrase(mention, language, Random(seed), dative=dative) for seed in range(300)}


@pytest.mark.parametrize(
    ("language", "mention", "expected"),
    [
        ("en", Mention("umbrella", None, 1), {"an umbrella"}),
        ("en", Mention("cat", "orange", 1), {"an orange cat"}),
        ("en", Mention("fish", "red", 2), {"two red fish", "2 red fish"}),
        ("en", Mention("butterfly", "blue", MANY), {"blue butterflies"}),
        ("en", Mention("kite", "pink", None), {"pink kite"}),
        ("fr", Mention("house", "white", 1), {"une maison blanche"}),
        ("fr", Mention("horse", "black", 3), {"trois chevaux noirs", "3 chevaux noirs"}),
        ("fr", Mention("flower", "purple", MANY), {"fleurs violettes"}),
        ("fr", Mention("kite", "orange", 2), {"deux cerfs-volants orange", "2 cerfs-volants orange"}),
        ("de", Mention("tree", "green", 1), {"ein grüner Baum"}),
        ("de", Mention("cat", "white", 1), {"eine weiße Katze"}),
        ("de", Mention("house", "yellow", None), {"gelbes Haus"}),
        (
            "de",
            Mention("bird", "pink", 2),
            {f"{n} {c} Vögel" for n in ("zwei", "2") for c in ("rosa", "rosafarbene")},
        ),
        ("es", Mention("house", "red", 1), {"una casa roja"}),
        ("es", Mention("fish", "blue", 3), {"tres peces azules", "3 peces azules"}),
        ("es", Mention("umbrella", "black", MANY), {"paraguas negros"}),
        ("es", Mention("flower", "yellow", 2), {"dos flores amarillas", "2 flores amarillas"}),
    ],
)
def test_noun_phrases_agree(language, mention, expected):
    assert ways(mention, language) == expected


@pytest.mark.parametrize(
    ("mention", "expected"),
    [
        (Mention("tree", "green", 1), {"einem grünen Baum"}),
        (Mention("cat", "black", 1), {"einer schwarzen Katze"}),
        (Mention("house", "red", None), {"rotem Haus"}),
        (Mention("flower", "red", None), {"roter Blume"}),
        (Mention("bird", "blue", MANY), {"blauen Vögeln"}),
        (Mention("car", "white", 3), {"drei weißen Autos", "3 weißen Autos"}),
    ],
)
def test_german_has_a_dative(mention, expected):
    assert ways(mention, "de", dative=True) == expected


def test_french_elides_de_before_a_vowel_only():
    assert join("à gauche de", "un arbre", "fr") == "à gauche d'un arbre"
    assert join("une photo de", "oiseaux", "fr") == "une photo d'oiseaux"
    assert join("à droite de", "deux arbres", "fr") == "à droite de deux arbres"
    assert join("sous", "un arbre", "fr") == "sous un arbre"
    assert join("encima de", "un árbol", "es") == "encima de un árbol"


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        ("en", {"a car left of a tree", "a tree to the right of a car"}),
        ("fr", {"une voiture à gauche d'un arbre", "un arbre à droite d'une voiture"}),
        ("de", {"ein Auto links von einem Baum", "ein Baum rechts neben einem Auto"}),
        ("es", {"un coche a la izquierda de un árbol", "un árbol a la derecha de un coche"}),
    ],
)
def test_a_relation_can_be_said_from_both_sides(language, expected):
    said = Statement(mentions=(Mention("car", None, 1), Mention("tree", None, 1)), relation="left")
    assert expected <= {say(said, language, Random(seed)) for seed in range(300)}


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        ("en", {"two cats at night", "a photo of two cats at night", "there are two cats at night"}),
        ("fr", {"deux chats la nuit", "une photo de deux chats la nuit", "il y a deux chats la nuit"}),
        (
            "de",
            {"zwei Katzen bei Nacht", "ein Foto von zwei Katzen bei Nacht", "hier sind zwei Katzen nachts"},
        ),
        ("es", {"dos gatos de noche", "una foto de dos gatos de noche", "hay dos gatos de noche"}),
    ],
)
def test_short_queries_come_bare_and_with_openings(language, expected):
    said = Statement(weather="night", mentions=(Mention("cat", None, 2),))
    assert expected <= {say(said, language, Random(seed)) for seed in range(3000)}


def test_a_place_can_be_named_alone():
    assert {"sea", "at sea"} <= {say(Statement(place="sea"), "en", Random(seed)) for seed in range(100)}


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_kind_and_colour_has_words_with_all_their_forms(language):
    forms = {"en": 2, "fr": 3, "de": 4, "es": 3}[language]
    assert all(noun.count("|") == forms - 1 for kind in KINDS for noun in NOUNS[kind][language])
    bars = {"fr": 3, "de": 0, "es": 3}.get(language)  # English colours are called by their own names
    words = [word for colour in COLOURS for word in COLOUR_WORDS[colour].get(language, ())]
    assert bool(words) == (language != "en")
    assert all(word.count("|") == bars for word in words)


@pytest.mark.parametrize("language", LANGUAGES)
def test_captions_are_tidy_and_the_first_says_everything(language):
    for index, shown in enumerate(sample("test", 100)):
        found = captions(shown, language, Random(index), n=4)
        assert len(found) == 4
        assert (
            found[0] == caption(shown, language, Random(index)) == say(full(shown), language, Random(index))
        )
        assert all(text == " ".join(text.split()) and " ," not in text and text[-1] != "," for text in found)


def test_an_unknown_language_is_refused_by_name():
    with pytest.raises(ValueError, match="en, fr, de, es"):
        caption(Scene("sea", "rain", (Group("cat", "red", 1),), None), "it", Random(0))
