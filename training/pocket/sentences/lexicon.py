"""The words and phrases of the drawn world in four languages.

Forms are separated by `|`, and alternatives are listed in order.
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

PLACE_PHRASES: dict[str, dict[str, tuple[str, ...]]] = {
    "en": {
        "sea": ("at sea", "on the sea", "by the sea"),
        "meadow": ("in a meadow", "in the meadow", "on a green meadow"),
        "desert": ("in the desert", "in a desert"),
        "city": ("in the city", "in a city"),
        "forest": ("in the forest", "in a forest"),
        "mountains": ("in the mountains", "in the snowy mountains"),
    },
    "fr": {
        "sea": ("en mer", "sur la mer", "au bord de la mer"),
        "meadow": ("dans un pré", "dans une prairie", "dans la prairie"),
        "desert": ("dans le désert", "dans un désert"),
        "city": ("en ville", "dans la ville"),
        "forest": ("dans la forêt", "dans une forêt", "en forêt"),
        "mountains": ("à la montagne", "dans les montagnes enneigées", "dans les montagnes"),
    },
    "de": {
        "sea": ("auf dem Meer", "am Meer"),
        "meadow": ("auf einer Wiese", "auf der Wiese"),
        "desert": ("in der Wüste", "in einer Wüste"),
        "city": ("in der Stadt", "in einer Stadt"),
        "forest": ("im Wald", "in einem Wald"),
        "mountains": ("in den Bergen", "in den verschneiten Bergen"),
    },
    "es": {
        "sea": ("en el mar", "en alta mar", "junto al mar"),
        "meadow": ("en un prado", "en el prado", "en una pradera"),
        "desert": ("en el desierto", "en un desierto"),
        "city": ("en la ciudad", "en una ciudad"),
        "forest": ("en el bosque", "en un bosque"),
        "mountains": ("en las montañas", "en las montañas nevadas", "en la montaña"),
    },
}

WEATHER_PHRASES: dict[str, dict[str, tuple[str, ...]]] = {
    "en": {
        "sunny": ("in the sunshine", "on a sunny day", "in sunny weather"),
        "cloudy": ("under a cloudy sky", "on a cloudy day", "in cloudy weather"),
        "rain": ("in the rain", "on a rainy day"),
        "sunset": ("at sunset", "at dusk"),
        "night": ("at night", "under the stars", "under the moon"),
        "rainbow": ("under a rainbow", "with a rainbow"),
    },
    "fr": {
        "sunny": ("sous le soleil", "par beau temps", "au soleil"),
        "cloudy": ("sous un ciel nuageux", "par temps nuageux", "sous les nuages"),
        "rain": ("sous la pluie", "par temps de pluie"),
        "sunset": ("au coucher du soleil", "au crépuscule"),
        "night": ("la nuit", "de nuit", "sous les étoiles"),
        "rainbow": ("sous un arc-en-ciel", "avec un arc-en-ciel"),
    },
    "de": {
        "sunny": ("bei Sonnenschein", "an einem sonnigen Tag", "in der Sonne"),
        "cloudy": ("unter bewölktem Himmel", "an einem wolkigen Tag", "unter Wolken"),
        "rain": ("im Regen", "bei Regen", "an einem regnerischen Tag"),
        "sunset": ("bei Sonnenuntergang", "in der Abenddämmerung"),
        "night": ("bei Nacht", "in der Nacht", "nachts", "unter den Sternen"),
        "rainbow": ("unter einem Regenbogen", "mit einem Regenbogen"),
    },
    "es": {
        "sunny": ("bajo el sol", "en un día soleado", "al sol"),
        "cloudy": ("bajo un cielo nublado", "en un día nublado", "bajo las nubes"),
        "rain": ("bajo la lluvia", "en un día de lluvia", "en un día lluvioso"),
        "sunset": ("al atardecer", "en la puesta de sol"),
        "night": ("de noche", "por la noche", "bajo las estrellas"),
        "rainbow": ("bajo un arcoíris", "con un arcoíris"),
    },
}

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
"""By relation: words that name the first group first, and words that name the second one first"""

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
"""Single words that people type for a place or a weather"""
