"""The small words between the nouns: relations, openings, and single words for short queries."""

from __future__ import annotations

RELATION_PHRASES: dict[str, dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "en": {
        "left": (
            ("to the left of", "left of", "on the left of"),
            ("to the right of", "right of", "on the right of"),
        ),
        "above": (("above", "over"), ("below", "under", "beneath")),
    },
    "fr": {
        "left": (("à gauche de", "sur la gauche de"), ("à droite de", "sur la droite de")),
        "above": (("au-dessus de",), ("au-dessous de", "en dessous de", "sous")),
    },
    "de": {
        "left": (("links von", "links neben"), ("rechts von", "rechts neben")),
        "above": (("über", "oberhalb von"), ("unter", "unterhalb von")),
    },
    "es": {
        "left": (("a la izquierda de",), ("a la derecha de",)),
        "above": (("encima de", "por encima de", "sobre"), ("debajo de", "por debajo de", "bajo")),
    },
}
"""For each relation: words when the first group is named first, words when the second one is"""

AND = {"en": "and", "fr": "et", "de": "und", "es": "y"}
OPENINGS: dict[str, tuple[str, ...]] = {
    "en": ("a picture of", "a photo of", "photo of", "an image of", "a drawing of"),
    "fr": ("une photo de", "une image de", "photo de", "un dessin de"),
    "de": ("ein Bild von", "ein Foto von", "Foto von", "eine Zeichnung von"),
    "es": ("una foto de", "una imagen de", "foto de", "un dibujo de"),
}
THERE_IS: dict[str, tuple[tuple[str, str], ...]] = {
    "en": (("there is", "there are"),),
    "fr": (("il y a", "il y a"), ("voici", "voici")),
    "de": (("hier ist", "hier sind"), ("da ist", "da sind")),
    "es": (("hay", "hay"), ("aquí hay", "aquí hay")),
}
"""Singular and plural"""

WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    "en": {
        "sea": ("sea", "the sea", "ocean"),
        "meadow": ("meadow",),
        "desert": ("desert",),
        "city": ("city", "town"),
        "forest": ("forest", "woods"),
        "mountains": ("mountains", "snow"),
        "sunny": ("sunny", "sunshine"),
        "cloudy": ("cloudy", "clouds"),
        "rain": ("rain", "rainy"),
        "sunset": ("sunset",),
        "night": ("night",),
        "rainbow": ("rainbow",),
    },
    "fr": {
        "sea": ("mer", "la mer"),
        "meadow": ("prairie", "pré"),
        "desert": ("désert",),
        "city": ("ville",),
        "forest": ("forêt",),
        "mountains": ("montagne", "montagnes", "neige"),
        "sunny": ("soleil", "ensoleillé"),
        "cloudy": ("nuageux", "nuages"),
        "rain": ("pluie",),
        "sunset": ("coucher du soleil", "coucher de soleil"),
        "night": ("nuit",),
        "rainbow": ("arc-en-ciel",),
    },
    "de": {
        "sea": ("Meer", "das Meer"),
        "meadow": ("Wiese",),
        "desert": ("Wüste",),
        "city": ("Stadt",),
        "forest": ("Wald",),
        "mountains": ("Berge", "Schnee"),
        "sunny": ("sonnig", "Sonnenschein"),
        "cloudy": ("bewölkt", "Wolken"),
        "rain": ("Regen", "regnerisch"),
        "sunset": ("Sonnenuntergang",),
        "night": ("Nacht",),
        "rainbow": ("Regenbogen",),
    },
    "es": {
        "sea": ("mar", "el mar"),
        "meadow": ("prado", "pradera"),
        "desert": ("desierto",),
        "city": ("ciudad",),
        "forest": ("bosque",),
        "mountains": ("montañas", "nieve"),
        "sunny": ("soleado", "sol"),
        "cloudy": ("nublado", "nubes"),
        "rain": ("lluvia", "lluvioso"),
        "sunset": ("puesta de sol", "atardecer"),
        "night": ("noche",),
        "rainbow": ("arcoíris",),
    },
}
"""What people type alone for a place or a weather"""
