"""Queries by file name, keyword, person and text: the share that finds the right picture first."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from random import Random

from benchmarks.engine import fresh_index, node
from benchmarks.report import Figure, show
from demo.world.scene import sample
from es_config.documents import ImageDocument, IndexMeta, IndexOptions, folded, words_fields
from models.encoders import Lazy, load_image_encoder, load_text_encoder
from models.profiles import get_profile
from models.words import TextLine
from search_app.core.query import Query
from search_app.core.searcher import Searcher
from training.pocket.evaluation import pictures_of
from training.pocket.sentences.grammar import say
from training.pocket.sentences.statements import full

PICTURES = 600
QUERIES = 50
"""of each kind"""
KINDS = ("file name", "keyword", "person", "text")
PLACES = """Zürich Genève München Kraków Málaga Århus Besançon Galway Ostrava Lübeck Perpignan Cádiz Trieste
Nazaré Bregenz Dinant Sintra Visby Piran Ghent"""
WORDS = """marmalade invoice harbour bakery receipt ticket platform library entrance museum chemist birthday
strawberry delivery payment customer market garden railway concert festival parking emergency breakfast
coffee season theatre butter honey village school ladder lantern compass violin saddle anchor pepper
saffron walnut"""
KEYWORDS = """wedding graduation regatta picnic carnival hiking sledging vintage panorama macro portrait
snorkelling camping orchard harvest rehearsal surgery renovation kindergarten volleyball pottery
beekeeping origami falconry"""
SYLLABLES = """ba re mi ton da lu sol vi ka ne ro fi ja mel os tar win que"""
CORNERS = ((0.1, 0.1), (0.9, 0.1), (0.9, 0.2), (0.1, 0.2))


@dataclass(frozen=True)
class Asked:
    """A query and the pictures that it names."""

    kind: str
    text: str
    right: frozenset[str]


def main() -> bool:
    """Measure, print, and return whether the target is met."""
    profile = get_profile("pocket")
    images, texts = load_image_encoder(profile), load_text_encoder(profile)
    scenes = sample("test", PICTURES)
    rng = Random("names")
    captions = [say(full(scene), "en", rng) for scene in scenes]
    rows = zip(captions, images.embed_images(pictures_of(scenes)), texts.embed_texts(captions), strict=True)
    documents = [
        replace(
            _named(number),
            image_embedding=seen,
            caption=said,
            caption_source="model",
            caption_embedding=meant,
        )
        for number, (said, seen, meant) in enumerate(rows)
    ]
    hits: dict[tuple[str, str], list[bool]] = defaultdict(list)
    with node() as (client, _), fresh_index(client) as index:
        meta = IndexMeta(profile.name, {}, profile.dims, profile.caption_dims, profile.similarity)
        index.create(meta, IndexOptions())
        assert not index.add(documents).failed
        index.refresh()
        searcher = Searcher(
            index=index, profile=profile, text_encoder=Lazy(lambda: texts), image_encoder=Lazy(lambda: images)
        )
        for asked in queries(documents):
            for mode in ("hybrid", "words"):
                found = searcher.search(Query(text=asked.text, mode=mode, k=1)).hits
                is_right = bool(found) and found[0].image_id in asked.right
                hits[mode, asked.kind].append(is_right)
                if not is_right:
                    print(f"  {mode} found another picture by {asked.kind}: {asked.text}")
    figures = []
    for mode in ("hybrid", "words"):
        all_of = [hit for kind in KINDS for hit in hits[mode, kind]]
        figures.append(Figure(f"mode {mode}, all {len(all_of)}", sum(all_of) / len(all_of), "", "≥ 0.95"))
        figures += [Figure(f"  by {kind}", sum(hits[mode, kind]) / QUERIES) for kind in KINDS]
    return show(f"the right picture first, among {PICTURES}", figures)


def _named(number: int) -> ImageDocument:
    """Return a document with names, keywords, people and a text, as folders of people have them."""
    rng = Random(f"names/{number}")
    year, place = rng.randrange(2004, 2025), rng.choice(PLACES.split())
    folder = rng.choice((f"{year}/{place}", f"holiday {year}", f"Photos/{place} {year}", "DCIM/100CANON"))
    stem = rng.choice(
        (f"IMG_{number:04}", f"DSC{number:05}", f"{place}_{number}", f"Scan {year}-{number}", f"P{number:07}")
    )
    tags = rng.sample(KEYWORDS.split(), 2) if rng.random() < 0.5 else []
    people = [_person(rng) for _ in range(rng.randrange(3))]
    lines = _lines(rng) if rng.random() < 0.5 else []
    return ImageDocument(
        image_id=f"{number:064x}",
        image_name=f"{stem}.jpg",
        relative_path=(f"{folder}/{stem}.jpg",),
        image_embedding=None,  # type: ignore[arg-type]  # given by the caller
        width=256,
        height=256,
        size_bytes=1,
        indexed_at=datetime.now(UTC),
        tags=tuple(tags),
        people=tuple(people),
        exif_camera=rng.choice(("Canon EOS 5D", "Pixel 7", "NIKON D90", None)),
        words=words_fields(lines, by="drawn"),
    )


def _person(rng: Random) -> str:
    """Return a name that nobody bears, of one hundred first and one hundred last names."""
    first, last = Random(f"first/{rng.randrange(100)}"), Random(f"last/{rng.randrange(100)}")
    return " ".join("".join(each.sample(SYLLABLES.split(), 3)).capitalize() for each in (first, last))


def _lines(rng: Random) -> list[TextLine]:
    chosen = rng.sample(WORDS.split(), 5)
    texts = (" ".join(chosen[:3]), f"{chosen[3]} {rng.randrange(1900, 2030)}", chosen[4])
    return [TextLine(text, 0.9, CORNERS) for text in texts]


def queries(documents: Sequence[ImageDocument]) -> list[Asked]:
    """Return queries of every kind, written as people type: in small letters, without accents, cut short."""
    rng = Random("queries")
    asked = []
    for kind in KINDS:
        made: dict[str, Asked] = {}
        order = rng.sample(documents, len(documents))
        for document in (each for each in order for _ in range(2)):
            if len(made) == QUERIES:
                break
            text = _typed(kind, document, rng)
            if text and text not in made:
                made[text] = Asked(kind, _as_typed(text, rng), _right(kind, text, documents))
        asked += made.values()
    return asked


def _typed(kind: str, document: ImageDocument, rng: Random) -> str:
    lines = (document.words or {}).get("words") or []
    if kind == "file name":
        stem = document.image_name.rsplit(".", 1)[0]
        return rng.choice((stem, document.image_name, stem))
    if kind == "keyword" and document.tags:
        return rng.choice((document.tags[0], " ".join(document.tags)))
    if kind == "person" and document.people:
        return rng.choice((document.people[0], document.people[0].split()[1]))
    if kind == "text" and lines:
        return " ".join(rng.sample(" ".join(lines).split(), 3))
    return ""


def _right(kind: str, text: str, documents: Sequence[ImageDocument]) -> frozenset[str]:
    wanted = set(folded(text.removesuffix(".jpg")).split())
    return frozenset(each.image_id for each in documents if wanted <= _words_of(kind, each))


def _words_of(kind: str, document: ImageDocument) -> set[str]:
    said = {
        "file name": [document.image_name.rsplit(".", 1)[0]],
        "keyword": document.tags,
        "person": document.people,
        "text": (document.words or {}).get("words") or [],
    }
    return {word for each in said[kind] for word in folded(each).split()}


def _as_typed(text: str, rng: Random) -> str:
    """Return a text as it is, in small letters, without accents, or in the form of Unicode of a Mac."""
    return rng.choice((text, text.lower(), folded(text), unicodedata.normalize("NFD", text)))
