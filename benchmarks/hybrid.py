"""Hybrid search against its parts: nDCG@10 on drawn pictures and on photographs, and its cost."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from benchmarks.engine import fresh_index, node
from benchmarks.report import Figure, percentile, show
from demo.world.scene import sample
from es_config.documents import ImageDocument, IndexMeta, IndexOptions, words_fields
from es_config.requests import words_body
from models.captioning import load_captioner
from models.encoders import Lazy, load_image_encoder, load_text_encoder
from models.profiles import get_profile
from models.words import load_word_reader
from search_app.core.query import Query
from search_app.core.searcher import Searcher
from training.pocket.evaluation import pictures_of
from training.pocket.sentences.grammar import say
from training.pocket.sentences.lexicon import LANGUAGES
from training.pocket.sentences.statements import full, partial

if TYPE_CHECKING:
    from collections.abc import Sequence

    from es_config.index import ImageIndex

SCENES = 600
EACH = 150
"""queries of each kind in each language"""
DEPTH = 10
SAMPLES, WARM_UP = 300, 50
MODES = ("image", "caption", "hybrid")
REAL = "GLIMPSE_SHARED"
"""names a folder with `data/flickr8k/vectors.npz`; without it the photographs are left out"""


@dataclass(frozen=True)
class Labelled:
    """A query, the ids that answer it, and the groups that it is counted in."""

    text: str
    relevant: frozenset[str]
    groups: tuple[str, ...] = ()


def main() -> bool:
    """Measure, print, and return whether hybrid is nowhere below the better of its parts."""
    met = True
    with node() as (client, _):
        with fresh_index(client) as index:
            searcher, queries = _drawn(index)
            met &= _compare(f"drawn world, {SCENES} unseen scenes", searcher, queries)
            show("latency, one after the other", _latency(searcher, queries))
        folder = os.environ.get(REAL)
        if not folder:
            print(f"\nPhotographs: left out; {REAL} names no folder.")
            return met
        with fresh_index(client) as index:
            searcher, queries = _photographs(index, Path(folder) / "data" / "flickr8k")
            met &= _compare("photographs, human captions", searcher, queries)
    return met


def _compare(title: str, searcher: Searcher, queries: Sequence[Labelled]) -> bool:
    """Print the mean nDCG@10 of every mode by group, with the target at the total."""
    scores: dict[tuple[str, str], list[float]] = defaultdict(list)
    for query in queries:
        for name, ranked in _rankings(searcher, query.text).items():
            for group in ("all", *query.groups):
                scores[group, name].append(ndcg(ranked, query.relevant))
    mean = {key: float(np.mean(values)) for key, values in scores.items()}
    groups = dict.fromkeys(group for group, _ in mean)
    names = ("image", "caption", "words", "hybrid")
    figures = [Figure(f"{group}: {name}", mean[group, name], "") for group in groups for name in names]
    best = max(mean["all", name] for name in names[:-1])
    total = Figure("hybrid − the best of its parts", mean["all", "hybrid"] - best, "", "≥ 0")
    return show(f"nDCG@10, {title}, {len(queries)} queries", [*figures, total])


def _rankings(searcher: Searcher, text: str) -> dict[str, list[str]]:
    found = {mode: searcher.search(Query(text=text, mode=mode, k=DEPTH)).hits for mode in MODES}
    found["words"] = searcher.index.search(words_body(text, size=DEPTH)).hits
    return {name: [hit.image_id for hit in hits] for name, hits in found.items()}


def ndcg(ranked: Sequence[str], relevant: frozenset[str], depth: int = DEPTH) -> float:
    """Return nDCG@depth for binary relevance, 0 to 1."""
    discounts = 1 / np.log2(np.arange(2, depth + 2))
    gains = [each in relevant for each in ranked[:depth]]
    return float(discounts[: len(gains)] @ gains / discounts[: len(relevant)].sum())


def _drawn(index: ImageIndex) -> tuple[Searcher, list[Labelled]]:
    """Index drawn pictures with the captioner's captions, and ask full and short statements about them."""
    profile = get_profile("pocket")
    images, texts = load_image_encoder(profile), load_text_encoder(profile)
    scenes = sample("test", SCENES)
    pictures = pictures_of(scenes)
    written = [one.text or "" for one in load_captioner(profile.caption_model).caption_images(pictures)]
    said = texts.embed_texts(written)
    _fill(index, images.embed_images(pictures), written, said, profile=profile, words=_read(pictures))
    queries = []
    for language in LANGUAGES:
        rng = Random(f"hybrid/{language}")
        for scene in scenes[:EACH]:
            for kind, claim in (("full", full(scene)), ("short", partial(scene, rng))):
                true = frozenset(_id(n) for n, each in enumerate(scenes) if claim.holds(each))
                queries.append(Labelled(say(claim, language, rng), true, (kind, f"{kind} {language}")))
    searcher = Searcher(
        index=index, profile=profile, text_encoder=Lazy(lambda: texts), image_encoder=Lazy(lambda: images)
    )
    return searcher, queries


def _photographs(index: ImageIndex, folder: Path) -> tuple[Searcher, list[Labelled]]:
    """Give each photograph its first human caption, and ask the four others.

    Constants were chosen on the even photographs; only the odd ones are asked for here, among all.
    """
    with np.load(folder / "vectors.npz") as data:
        names = data["image_names"].tolist()
        rows = data["query_image_rows"]
        vectors = data["image_vectors"].astype(np.float32)
        said, texts = data["query_vectors"].astype(np.float32), data["query_texts"].tolist()
    number = {row: n for n, row in enumerate(dict.fromkeys(rows.tolist()))}
    first = [int(np.argmax(rows == row)) for row in number]
    encoder = _Known(texts, _unit(said))
    clip = get_profile("clip")
    profile = replace(
        clip, dims=said.shape[1], caption_dims=said.shape[1], caption_text_model=clip.text_model
    )
    captions = [texts[at] for at in first]
    photographs = [Image.open(folder / "images" / names[row]).convert("RGB") for row in number]
    said = encoder.embed_texts(captions)
    _fill(index, _unit(vectors[list(number)]), captions, said, profile=profile, words=_read(photographs))
    queries = [
        Labelled(texts[at], frozenset([_id(number[row])]))
        for at, row in enumerate(rows.tolist())
        if at not in set(first) and number[row] % 2
    ]
    searcher = Searcher(index=index, profile=profile, text_encoder=Lazy(lambda: encoder), image_encoder=None)
    return searcher, queries


class _Known:
    """A text encoder that knows the vectors of some texts."""

    revision = "known"

    def __init__(self, texts: Sequence[str], vectors: np.ndarray) -> None:
        self._vectors = dict(zip(map(str.strip, texts), vectors, strict=True))

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Return float32 `[n, dims]`."""
        return np.stack([self._vectors[text.strip()] for text in texts])


def _read(pictures: Sequence[Image.Image]) -> list[dict]:
    """Return the fields for the text in each picture."""
    reader = load_word_reader()
    return [words_fields(reader.read(picture), by=reader.revision) for picture in pictures]


def _fill(
    index: ImageIndex,
    pictures: np.ndarray,
    captions: list[str],
    said: np.ndarray,
    *,
    profile,
    words: list[dict],
) -> None:
    meta = IndexMeta(profile.name, {}, profile.dims, profile.caption_dims, profile.similarity)
    index.create(meta, IndexOptions())
    rows = enumerate(zip(pictures, captions, said, words, strict=True))
    result = index.add([_document(n, *row) for n, row in rows])
    assert not result.failed, result.failed
    index.refresh()


def _document(number: int, picture: np.ndarray, caption: str, said: np.ndarray, words: dict) -> ImageDocument:
    return ImageDocument(
        image_id=_id(number),
        image_name=f"{number}.png",
        relative_path=(f"{number}.png",),
        image_embedding=picture,
        caption=caption,
        caption_source="model",
        caption_embedding=said,
        words=words,
        width=256,
        height=256,
        size_bytes=1,
        indexed_at=datetime.now(UTC),
    )


def _id(number: int) -> str:
    return f"{number:064x}"


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _latency(searcher: Searcher, queries: Sequence[Labelled]) -> list[Figure]:
    """Time both modes in turn, for texts whose vectors are known already."""
    took: dict[str, list[float]] = defaultdict(list)
    for n in range(WARM_UP + SAMPLES):
        text = queries[n % len(queries)].text
        searcher.texts.embed(text)
        for mode in ("image", "hybrid"):
            begun = time.perf_counter()
            searcher.search(Query(text=text, mode=mode, k=DEPTH))
            if n >= WARM_UP:
                took[mode].append(1000 * (time.perf_counter() - begun))
    p50 = {mode: percentile(samples, 50) for mode, samples in took.items()}
    return [
        Figure("image, p50", p50["image"], "ms"),
        Figure("image, p95", percentile(took["image"], 95), "ms"),
        Figure("hybrid, p50", p50["hybrid"], "ms"),
        Figure("hybrid, p95", percentile(took["hybrid"], 95), "ms"),
        Figure("hybrid ÷ image, p50", p50["hybrid"] / p50["image"]),
    ]
