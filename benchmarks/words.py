"""Text in pictures: words found, pictures found by them, the cost of reading and of finding nothing."""

from __future__ import annotations

import os
import resource
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from random import Random

import numpy as np
import psutil
from PIL import Image, ImageDraw, ImageFont

from benchmarks.engine import fresh_index, node
from benchmarks.report import Figure, clock, show
from es_config.documents import ImageDocument, IndexMeta, IndexOptions, words_fields
from es_config.requests import WORD
from models.encoders import Lazy, load_image_encoder, load_text_encoder
from models.profiles import get_profile
from models.words import TextLine, WordReader, load_word_reader
from search_app.core.query import Query
from search_app.core.searcher import Searcher

REAL = "GLIMPSE_SHARED"
"""names a folder with `data/flickr8k/images`; without it nothing is measured"""
PICTURES = 300
EDGES = (800, 1200, 1600)
"""pixels of the longer edge"""
HEIGHTS = (14, 18, 24, 32, 48)
"""pixels from the top of an `l` to the bottom of a `g`, before turning"""
MAX_TURN = 15
"""degrees, to either side"""
FONTS = (
    "DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSerif.ttf", "DejaVuSerif-Italic.ttf",
    "DejaVuSansMono.ttf", "STIXGeneral.ttf", "STIXGeneralBol.ttf",
)  # fmt: skip
"""of matplotlib, which the product needs anyway"""
VOCABULARY = {
    "en": """marmalade invoice harbour bakery receipt closed tuesday ticket platform library warning danger
    entrance museum chemist birthday strawberry apple juice delivery number total payment customer street
    market garden railway evening concert summer festival private parking caution emergency exit breakfast
    hotel coffee season railway theatre please ring bell fresh fish bread butter honey village school""",
    "de": """Rechnung Bäckerei Straße Öffnungszeiten geschlossen Frühstück Eingang Ausgang Museum Apotheke
    Geburtstag Erdbeeren Äpfel Marmelade Lieferung Nummer Summe Zahlung Kunde Markt Garten Bahnhof Abend
    Konzert Sommer Fest privat Parkplatz Vorsicht Notausgang Hotel Kaffee Gemüse Theater bitte klingeln
    frischer Fisch Brötchen Butter Honig Dorf Schule Grüße Gebühr Schlüssel Büro Käse Größe München""",
    "fr": """facture boulangerie marché fermé entrée sortie musée pharmacie anniversaire fraises pommes
    confiture livraison numéro total paiement client jardin gare soirée concert été fête privé stationnement
    attention secours hôtel café légumes théâtre sonnez poisson pain beurre miel village école fenêtre
    château crème brûlée déjeuner forêt bibliothèque quai billet réservé élève garçon""",
    "es": """factura panadería mercado cerrado entrada salida museo farmacia cumpleaños fresas manzanas
    mermelada entrega número total pago cliente jardín estación noche concierto verano fiesta privado
    aparcamiento cuidado emergencia hotel café verduras teatro llame pescado pan mantequilla miel pueblo
    escuela ventana castillo niño mañana señal playa biblioteca andén billete reservado camión""",
}


@dataclass(frozen=True)
class Written:
    """A picture with text on it."""

    image: Image.Image
    lines: tuple[str, ...]
    height: int
    """pixels of the text, see `HEIGHTS`"""
    language: str
    turn: float
    """degrees"""

    @property
    def words(self) -> tuple[str, ...]:
        """The words, as they are written."""
        return tuple(word for line in self.lines for word in line.split())


@cache
def font_of(name: str, height: int) -> ImageFont.FreeTypeFont:
    """Return a font whose letters from `l` to `g` are `height` pixels high."""
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name
    size = height
    while True:
        font = ImageFont.truetype(path, size)
        _, top, _, bottom = font.getbbox("lg")
        if bottom - top >= height:
            return font
        size += 1


def draw_text(photograph: Image.Image, number: int) -> Written:
    """Write two or three lines on a photograph, always the same for the same number."""
    rng = Random(f"words/{number}")
    language = list(VOCABULARY)[number % len(VOCABULARY)]
    vocabulary = sorted(set(VOCABULARY[language].split()))
    height = HEIGHTS[number // len(VOCABULARY) % len(HEIGHTS)]
    font = font_of(rng.choice(FONTS), height)
    edge = rng.choice(EDGES)
    scale = edge / max(photograph.size)
    size = (round(photograph.width * scale), round(photograph.height * scale * rng.choice((0.75, 1))))
    picture = photograph.resize(size, Image.Resampling.LANCZOS)
    chosen = rng.sample(vocabulary, 6)
    lines = (" ".join(chosen[:3]), " ".join(chosen[3:5]), f"{chosen[5]} {rng.randrange(1900, 2030)}")
    pen = ImageDraw.Draw(picture)
    boxes = [pen.textbbox((0, 0), line, font=font) for line in lines]
    pad, step = height, round(1.5 * height)
    width = min(size[0] - 2, max(box[2] for box in boxes) + 2 * pad)
    board = Image.new("RGBA", (width, step * len(lines) + pad), (0, 0, 0, 0))
    pen = ImageDraw.Draw(board)
    dark = rng.random() < 0.5
    ink, paper = ((20, 20, 30), (245, 240, 225, 255)) if dark else ((250, 250, 245), (30, 50, 80, 255))
    if rng.random() < 0.5:  # on a board, else on the photograph itself with an outline
        pen.rectangle((0, 0, *board.size), fill=paper)
        outline = {}
    else:
        outline = {"stroke_width": max(1, height // 12), "stroke_fill": paper}
    for n, line in enumerate(lines):
        pen.text((pad, pad // 2 + n * step), line, font=font, fill=ink, **outline)
    turn = rng.uniform(-MAX_TURN, MAX_TURN) if rng.random() < 0.67 else 0
    board = board.rotate(turn, expand=True, resample=Image.Resampling.BICUBIC)
    left, top = (max(0, size[axis] - board.size[axis]) for axis in (0, 1))
    picture.paste(board, (rng.randint(0, left), rng.randint(0, top)), board)
    return Written(picture, lines, height, language, turn)


def photographs(count: int) -> list[Image.Image]:
    """Return photographs of the shared data, in the order of their names."""
    folder = Path(os.environ[REAL]) / "data" / "flickr8k" / "images"
    return [Image.open(path).convert("RGB") for path in sorted(folder.glob("*.jpg"))[:count]]


CLEAN, CLEAN_SIZE = 60, (1200, 900)
QUERIES_OF = 3
"""words of a query"""


def main() -> bool:
    """Measure, print, and return whether all targets are met."""
    if REAL not in os.environ:
        print(f"\nText in pictures: left out; {REAL} names no folder.")
        return True
    before = psutil.Process().memory_info().rss
    reader = load_word_reader(threads=1)
    loaded = psutil.Process().memory_info().rss
    pictures = [draw_text(photo, number) for number, photo in enumerate(photographs(PICTURES))]
    lines, spent, usual = [], [], []
    for number, picture in enumerate(pictures):
        with clock() as took:
            lines.append(reader.read(picture.image))
        spent.append(took.cpu)
        if number % 10 == 0:
            with clock() as took:
                _usual(reader, picture.image)
            usual.append(took.cpu)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    right = _found(pictures, lines)
    met = show(f"text on {PICTURES} photographs, from {HEIGHTS[0]} pixels", right)
    met &= show("pictures first by their words", _first(pictures, lines, reader.revision))
    return show("cost", [*_cost(reader, spent, usual), *_memory(before, loaded, most)]) and met


def _found(pictures: Sequence[Written], lines: Sequence[Sequence[TextLine]]) -> list[Figure]:
    """Return the share of words that were read, each letter right, in all and by group."""
    groups: dict[str, list[bool]] = defaultdict(list)
    for picture, read in zip(pictures, lines, strict=True):
        words = set(WORD.findall(" ".join(line.text for line in read).casefold()))
        for word in picture.words:
            for group in (
                f"{picture.height} pixels",
                picture.language,
                "tilted" if picture.turn else "level",
            ):
                groups[group].append(word.casefold() in words)
            groups["all words"].append(word.casefold() in words)
    whole = Figure("all words", float(np.mean(groups.pop("all words"))), "", "≥ 0.95")
    return [whole, *(Figure(name, float(np.mean(groups[name]))) for name in sorted(groups))]


def _first(pictures: Sequence[Written], lines: Sequence[Sequence[TextLine]], revision: str) -> list[Figure]:
    """Ask for some words of each picture, in an index of all of them, by words alone and hybrid."""
    profile = get_profile("pocket")
    images, texts = load_image_encoder(profile), load_text_encoder(profile)
    vectors = images.embed_images([picture.image for picture in pictures])
    hits: dict[str, list[bool]] = defaultdict(list)
    with node() as (client, _), fresh_index(client) as index:
        meta = IndexMeta(profile.name, {}, profile.dims, profile.caption_dims, profile.similarity)
        index.create(meta, IndexOptions())
        rows = enumerate(zip(pictures, lines, vectors, strict=True))
        documents = [_document(number, *row, revision) for number, row in rows]
        assert not index.add(documents).failed
        index.refresh()
        searcher = Searcher(
            index=index, profile=profile, text_encoder=Lazy(lambda: texts), image_encoder=Lazy(lambda: images)
        )
        for number, text in enumerate(_queries(pictures)):
            for mode in ("words", "hybrid"):
                found = searcher.search(Query(text=text, mode=mode, k=1)).hits
                hits[mode].append(bool(found) and found[0].image_id == f"{number:064x}")
    return [Figure(f"mode {mode}", float(np.mean(hits[mode])), "", "≥ 0.97") for mode in hits]


def _queries(pictures: Sequence[Written]) -> list[str]:
    """Return words of each picture that no other picture has all of."""
    held = [{word.casefold() for word in picture.words} for picture in pictures]
    queries = []
    for number, picture in enumerate(pictures):
        rng = Random(f"query/{number}")
        for size in (QUERIES_OF, QUERIES_OF + 1, len(picture.words)):
            chosen = rng.sample(picture.words, size)
            if sum({word.casefold() for word in chosen} <= words for words in held) == 1:
                break
        queries.append(" ".join(chosen))
    return queries


def _document(
    number: int, picture: Written, lines: Sequence[TextLine], vector: np.ndarray, revision: str
) -> ImageDocument:
    return ImageDocument(
        image_id=f"{number:064x}",
        image_name=f"{number}.png",
        relative_path=(f"{number}.png",),
        image_embedding=vector,
        width=picture.image.width,
        height=picture.image.height,
        size_bytes=1,
        indexed_at=datetime.now(UTC),
        words=words_fields(lines, by=revision),
    )


def _usual(reader: WordReader, image: Image.Image) -> None:
    """Read a picture as the package itself would: the detector sees all of it in full size."""
    engine = reader._engine
    engine.text_det.limit_side_len, before = max(image.size), engine.text_det.limit_side_len
    engine(np.asarray(image)[:, :, ::-1], use_det=True, use_cls=True, use_rec=True)
    engine.text_det.limit_side_len = before


def _cost(reader: WordReader, spent: Sequence[float], usual: Sequence[float]) -> list[Figure]:
    clean = [photo.resize(CLEAN_SIZE, Image.Resampling.LANCZOS) for photo in photographs(1000)[-CLEAN:]]
    looks, whole, silent = [], [], []
    for picture in clean:
        with clock() as look:
            seen = reader.has_text(picture)
        with clock() as took:
            reader.read(picture)
        looks.append(look.cpu)
        whole.append(took.cpu)
        silent += [] if seen else [took.cpu]
    return [
        Figure("a picture with text", float(np.mean(spent)), "s of CPU"),
        Figure("as the package reads it by itself", float(np.mean(usual)), "s of CPU"),
        Figure("a picture in which nothing is seen", float(np.mean(silent)), "s of CPU"),
        Figure("  ÷ the package's pass", float(np.mean(silent) / np.mean(usual)), "", "≤ 0.15"),
        Figure("  ÷ our own pass with text", float(np.mean(silent) / np.mean(spent))),
        Figure("photographs in which nothing is seen", len(silent) / len(clean)),
        Figure("a photograph as it comes", float(np.mean(whole)), "s of CPU"),
    ]


def _memory(before: int, loaded: int, most: int) -> list[Figure]:
    return [
        Figure("memory of the models", (loaded - before) / 2**20, "MiB"),
        Figure("most memory while reading, pictures included", most / 2**20, "MiB"),
    ]
