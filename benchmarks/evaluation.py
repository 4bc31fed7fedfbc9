"""The recall of exact search on real queries, and whether "nothing good found" is said when it should be."""

from __future__ import annotations

import os
import re
from pathlib import Path
from random import Random
from statistics import mean

import numpy as np

from benchmarks.report import Figure, show
from demo.world.scene import KINDS, Scene, sample
from es_config.relevance import Calibration, comparable, scores_of
from evaluation.calibrate import (
    EmbeddedPictures,
    QueryScores,
    about,
    area,
    calibrate,
    fit,
    heights_of,
    read_vocabulary,
    score_phrases,
    shares,
)
from evaluation.evaluate import query_metrics
from models.encoders import load_image_encoder, load_text_encoder
from models.profiles import get_profile
from training.pocket.evaluation import pictures_of
from training.pocket.sentences.facts import usual_caption
from training.pocket.sentences.grammar import caption, say
from training.pocket.sentences.lexicon import LANGUAGES
from training.pocket.sentences.statements import full, partial

SCENES = 600
QUERIES = 300
RATE = 0.01
BACKGROUND = 512
ABSENT = 4
WORLDS = 5
FLICKR = {1: 19.2, 5: 47.0, 10: 60.6}


def main() -> bool:
    """Measure and print."""
    met = _drawn_world()
    shared = os.environ.get("GLIMPSE_SHARED")
    if shared:
        data = np.load(Path(shared) / "data" / "flickr8k" / "vectors.npz")
        met += [_exact(data), _flickr_relevance(data)]
    else:
        print("\nFlickr8k is measured where GLIMPSE_SHARED names the folder that holds data/flickr8k.")
    return all(met)


def _drawn_world() -> list[bool]:
    """Learn from captions alone, then ask sentences whose truth is known, a third of them about nothing.

    Each world lacks other kinds of things: some are easier to take for what is there than others.
    """
    profile = get_profile("pocket")
    texts, images = load_text_encoder(profile), load_image_encoder(profile)
    marked: dict[str, list[dict[str, dict[str, float]]]] = {}
    for world in range(WORLDS):
        absent = set(Random(f"absent {world}").sample(sorted(KINDS), ABSENT))
        found = sample("demo", 2 * SCENES * (world + 1))[2 * SCENES * world :]
        scenes = [each for each in found if not _kinds(each) & absent][:SCENES]
        vectors = images.embed_images(pictures_of(scenes))
        asked = _statements(scenes, absent, Random(f"nothing good found {world}"), world)
        scored = {kind: _scored(texts.embed_texts(each), vectors) for kind, each in asked.items()}
        for name, said in _captions(scenes).items():
            bars = _learnt(said, vectors, texts)
            marked.setdefault(name, []).append({kind: shares(bars, each) for kind, each in scored.items()})
    return [_drawn_marks(name, each) for name, each in marked.items()]


def _captions(scenes: list[Scene]) -> dict[str, list[str]]:
    return {
        "plain captions, as pocket writes them": [usual_caption(scene) for scene in scenes],
        "captions full of synonyms": [caption(scene, "en", Random(scene.key)) for scene in scenes],
    }


def _learnt(said: list[str], vectors: np.ndarray, texts) -> Calibration:
    return calibrate(
        said,
        EmbeddedPictures(vectors, texts.embed_texts, "cosine"),
        EmbeddedPictures(texts.embed_texts(said), texts.embed_texts, "cosine"),
        rate=RATE,
        sample=BACKGROUND,
    )


def _drawn_marks(name: str, worlds: list[dict[str, dict[str, float]]]) -> bool:
    """Print the means over the worlds, and how far these lie apart."""

    def shown(kind: str, mark: str) -> list[float]:
        return [each[kind][mark] for each in worlds]

    none = {kind: [1 - each for each in shown(kind, "weak")] for kind in ("absent", "present", "untrue")}
    ranges = {kind: f"{min(each):.3f} to {max(each):.3f}" for kind, each in none.items()}
    return show(
        f"nothing good found, learnt from {name}: {len(worlds)} worlds of up to {SCENES} drawn pictures that"
        f" lack {ABSENT} kinds of things; {QUERIES} queries each, half short and half full, four languages",
        [
            Figure(f"unanswered queries marked none ({ranges['absent']})", mean(none["absent"]), "", "≥ 0.9"),
            Figure(
                f"answered queries marked none ({ranges['present']})", mean(none["present"]), "", "≤ 0.05"
            ),
            Figure(f"unanswered with a strong hit (chosen: {RATE})", mean(shown("absent", "strong"))),
            Figure("answered queries with a strong hit", mean(shown("present", "strong"))),
            Figure("absent combinations of things that are there, none", mean(none["untrue"])),
        ],
    )


def _kinds(scene: Scene) -> set[str]:
    return {group.kind for group in scene.groups}


def _statements(scenes: list[Scene], absent: set[str], rng: Random, world: int) -> dict[str, list[str]]:
    """Return sentences about absent kinds, sentences true of a picture, and sentences true of none."""
    asked: dict[str, list[str]] = {"absent": [], "present": [], "untrue": []}
    size = 16 * QUERIES
    unseen = iter(sample("test", size * (world + 1))[size * world :])
    while len(asked["absent"]) < QUERIES or len(asked["untrue"]) < QUERIES:
        scene = next(unseen)
        claim = full(scene) if rng.random() < 0.5 else partial(scene, rng)
        named = {mention.kind for mention in claim.mentions}
        if any(claim.holds(each) for each in scenes):
            continue
        kind = "absent" if named & absent else "untrue"
        if named and named <= set(KINDS) and len(asked[kind]) < QUERIES:
            asked[kind].append(say(claim, rng.choice(LANGUAGES), rng))
    for scene in rng.sample(scenes, QUERIES):
        claim = full(scene) if rng.random() < 0.5 else partial(scene, rng)
        asked["present"].append(say(claim, rng.choice(LANGUAGES), rng))
    return asked


def _scored(queries: np.ndarray, vectors: np.ndarray) -> QueryScores:
    scores = scores_of(queries, comparable(vectors, "cosine"), "cosine").astype(np.float64)
    own = scores[:, :BACKGROUND]
    return QueryScores(scores.max(axis=1), own.mean(axis=1), own.std(axis=1))


def _marks(bars: Calibration, absent: QueryScores, present: QueryScores) -> list[Figure]:
    """Return the shares of marks, and the bar's gain over one cut-off for all queries."""
    wrong, right = shares(bars, absent), shares(bars, present)
    own = area(heights_of(bars, present), heights_of(bars, absent))
    return [
        Figure("unanswered queries marked none", 1 - wrong["weak"]),
        Figure("answered queries marked none", 1 - right["weak"]),
        Figure(f"unanswered queries with a strong hit (chosen: {RATE})", wrong["strong"]),
        Figure("answered queries with a strong hit", right["strong"]),
        Figure("area under ROC, each query its own bar", own),
        Figure("area under ROC, one cut-off for all", area(present.best, absent.best)),
    ]


def _exact(data) -> bool:
    """Find the picture of every caption by exact search, and measure with the product's own metrics."""
    images, queries, owners = _flickr(data)
    order = np.argsort(-(queries @ images.T), axis=1, kind="stable")[:, :10]
    ranked = {str(row): [str(found) for found in places] for row, places in enumerate(order.tolist())}
    relevant = {str(row): (str(owner),) for row, owner in enumerate(owners.tolist())}
    values = query_metrics(relevant, ranked, k=10)
    figures = [
        Figure(f"recall@{k}", round(100 * float(values[f"recall@{k}"].mean()), 1), "%", f"≥ {target}")
        for k, target in FLICKR.items()
    ]
    return show(f"Flickr8k, exact search, {len(queries)} captions over {len(images)} photographs", figures)


def _flickr(data) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    tested = np.unique(data["query_image_rows"])
    images = data["image_vectors"][tested].astype(np.float32)
    owners = np.searchsorted(tested, data["query_image_rows"])
    return images, data["query_vectors"].astype(np.float32), owners


def _flickr_relevance(data) -> bool:
    """Fit bars on captions that name some words, and judge captions that name others."""
    images, queries, owners = _flickr(data)
    captions = [" ".join(data["query_texts"][owners == row].tolist()) for row in range(len(images))]
    meanings = np.stack([queries[owners == row].mean(axis=0) for row in range(len(images))])
    vectors_of = dict(zip(data["query_texts"].tolist(), queries, strict=True))

    def embed(texts) -> np.ndarray:
        return np.stack([vectors_of[text] for text in texts])

    vocabulary = read_vocabulary(captions)
    named = [about(text, int(row), vocabulary) for text, row in zip(data["query_texts"], owners, strict=True)]
    halves: list[list] = [[], []]
    for phrase in filter(None, named):
        if re.fullmatch(r"[a-z]+", phrase.stem):
            halves[ord(phrase.stem[-1]) % 2].append(phrase)
    sides = [EmbeddedPictures(each, embed, "cosine") for each in (images, meanings)]
    learnt, judged = (score_phrases(half[:1500], vocabulary, *sides, sample=BACKGROUND) for half in halves)
    bars = fit(*learnt, rate=RATE, sample=BACKGROUND)
    answered, unanswered = judged
    return show(
        f"nothing good found, Flickr8k vectors (recall@1 19 %), {len(answered)} captions, other words than"
        " those that were learnt from",
        _marks(bars, unanswered, answered),
    )
