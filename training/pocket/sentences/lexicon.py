"""The words of the drawn world in four languages; forms are separated by `|`, alternatives listed in order.

Nouns: English `singular|plural`; French and Spanish `gender|singular|plural`; German
`gender|singular|plural|dative plural`. Colours: French and Spanish `m|m plural|f|f plural`; German the stem,
or `=word` when it never changes; the English words are the colours' own names.
"""

from __future__ import annotations

LANGUAGES = ("en", "fr", "de", "es")

NOUNS: dict[str, dict[str, tuple[str, ...]]] = {
    "boat": {
        "en": ("boat|boats", "sailing boat|sailing boats", "ship|ships"),
        "fr": ("m|bateau|bateaux", "m|voilier|voiliers"),
        "de": ("n|Boot|Boote|Booten", "n|Segelboot|Segelboote|Segelbooten", "n|Schiff|Schiffe|Schiffen"),
        "es": ("m|barco|barcos", "m|velero|veleros"),
    },
    "house": {
        "en": ("house|houses",),
        "fr": ("f|maison|maisons",),
        "de": ("n|Haus|Häuser|Häusern",),
        "es": ("f|casa|casas",),
    },
    "tree": {
        "en": ("tree|trees",),
        "fr": ("m|arbre|arbres",),
        "de": ("m|Baum|Bäume|Bäumen",),
        "es": ("m|árbol|árboles",),
    },
    "car": {
        "en": ("car|cars",),
        "fr": ("f|voiture|voitures",),
        "de": ("n|Auto|Autos|Autos",),
        "es": ("m|coche|coches", "m|carro|carros"),
    },
    "cat": {
        "en": ("cat|cats",),
        "fr": ("m|chat|chats",),
        "de": ("f|Katze|Katzen|Katzen",),
        "es": ("m|gato|gatos",),
    },
    "horse": {
        "en": ("horse|horses",),
        "fr": ("m|cheval|chevaux",),
        "de": ("n|Pferd|Pferde|Pferden",),
        "es": ("m|caballo|caballos",),
    },
    "flower": {
        "en": ("flower|flowers",),
        "fr": ("f|fleur|fleurs",),
        "de": ("f|Blume|Blumen|Blumen",),
        "es": ("f|flor|flores",),
    },
    "umbrella": {
        "en": ("umbrella|umbrellas",),
        "fr": ("m|parapluie|parapluies",),
        "de": ("m|Regenschirm|Regenschirme|Regenschirmen", "m|Schirm|Schirme|Schirmen"),
        "es": ("m|paraguas|paraguas",),
    },
    "mushroom": {
        "en": ("mushroom|mushrooms",),
        "fr": ("m|champignon|champignons",),
        "de": ("m|Pilz|Pilze|Pilzen",),
        "es": ("f|seta|setas", "m|hongo|hongos"),
    },
    "fish": {
        "en": ("fish|fish",),
        "fr": ("m|poisson|poissons",),
        "de": ("m|Fisch|Fische|Fischen",),
        "es": ("m|pez|peces",),
    },
    "balloon": {
        "en": ("balloon|balloons", "hot-air balloon|hot-air balloons"),
        "fr": ("f|montgolfière|montgolfières", "m|ballon|ballons"),
        "de": ("m|Heißluftballon|Heißluftballons|Heißluftballons", "m|Ballon|Ballons|Ballons"),
        "es": ("m|globo|globos", "m|globo aerostático|globos aerostáticos"),
    },
    "bird": {
        "en": ("bird|birds",),
        "fr": ("m|oiseau|oiseaux",),
        "de": ("m|Vogel|Vögel|Vögeln",),
        "es": ("m|pájaro|pájaros",),
    },
    "butterfly": {
        "en": ("butterfly|butterflies",),
        "fr": ("m|papillon|papillons",),
        "de": ("m|Schmetterling|Schmetterlinge|Schmetterlingen",),
        "es": ("f|mariposa|mariposas",),
    },
    "kite": {
        "en": ("kite|kites",),
        "fr": ("m|cerf-volant|cerfs-volants",),
        "de": ("m|Drachen|Drachen|Drachen",),
        "es": ("f|cometa|cometas",),
    },
}

COLOUR_WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    "red": {
        "fr": ("rouge|rouges|rouge|rouges",),
        "de": ("rot",),
        "es": ("rojo|rojos|roja|rojas",),
    },
    "blue": {
        "fr": ("bleu|bleus|bleue|bleues",),
        "de": ("blau",),
        "es": ("azul|azules|azul|azules",),
    },
    "green": {
        "fr": ("vert|verts|verte|vertes",),
        "de": ("grün",),
        "es": ("verde|verdes|verde|verdes",),
    },
    "yellow": {
        "fr": ("jaune|jaunes|jaune|jaunes",),
        "de": ("gelb",),
        "es": ("amarillo|amarillos|amarilla|amarillas",),
    },
    "orange": {
        "fr": ("orange|orange|orange|orange",),
        "de": ("orangefarben", "=orange"),
        "es": ("naranja|naranjas|naranja|naranjas", "naranja|naranja|naranja|naranja"),
    },
    "purple": {
        "fr": ("violet|violets|violette|violettes",),
        "de": ("violett", "=lila"),
        "es": ("morado|morados|morada|moradas", "violeta|violetas|violeta|violetas"),
    },
    "pink": {
        "fr": ("rose|roses|rose|roses",),
        "de": ("=rosa", "rosafarben"),
        "es": ("rosa|rosas|rosa|rosas", "rosado|rosados|rosada|rosadas"),
    },
    "black": {
        "fr": ("noir|noirs|noire|noires",),
        "de": ("schwarz",),
        "es": ("negro|negros|negra|negras",),
    },
    "white": {
        "fr": ("blanc|blancs|blanche|blanches",),
        "de": ("weiß",),
        "es": ("blanco|blancos|blanca|blancas",),
    },
}

NUMBERS = {"en": ("two", "three"), "fr": ("deux", "trois"), "de": ("zwei", "drei"), "es": ("dos", "tres")}
