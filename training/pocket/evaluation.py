"""Measure a pair of towers on unseen scenes: retrieval, and captions with one edited fact."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import numpy as np
import torch

from demo.world.draw import draw
from demo.world.scene import Scene, sample
from training.pocket.pool import edits
from training.pocket.sentences.grammar import caption, say
from training.pocket.sentences.lexicon import LANGUAGES
from training.pocket.sentences.statements import partial

if TYPE_CHECKING:
    from PIL import Image
    from sentence_transformers import SentenceTransformer
    from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

    EmbedImages = Callable[[Sequence[Image.Image]], np.ndarray]
    EmbedTexts = Callable[[Sequence[str]], np.ndarray]

FACTS = ("place", "weather", "count", "colours", "relation")


@dataclass(frozen=True)
class Retrieval:
    """Shares of queries, 0 to 1, whose own partner comes first (or among the first five)."""

    language: str
    text_to_image_r1: float
    text_to_image_r5: float
    image_to_text_r1: float


@dataclass(frozen=True)
class Composition:
    """The share of pictures, 0 to 1, that are nearer to their caption than to the one with `fact` edited."""

    fact: str
    language: str
    accuracy: float
    pictures: int


def recall_at(similarities: np.ndarray, k: int) -> float:
    """Return the share of rows `[n, n]` whose own column is among the `k` highest, ties excluded."""
    own = similarities.diagonal()[:, None]
    return float(((similarities >= own).sum(axis=1) <= k).mean())


def pictures_of(scenes: Sequence[Scene], size: int = 256) -> list[Image.Image]:
    """Draw all scenes, `size` pixels square."""
    return [draw(scene, size) for scene in scenes]


def retrieval(
    scenes: Sequence[Scene], images: np.ndarray, embed_texts: EmbedTexts, language: str
) -> Retrieval:
    """Rank full captions in `language` and picture vectors float32 `[n, dims]`, unit length, both ways."""
    texts = [caption(scene, language, Random(f"retrieval/{scene.key}")) for scene in scenes]
    similarities = embed_texts(texts) @ images.T
    return Retrieval(
        language, recall_at(similarities, 1), recall_at(similarities, 5), recall_at(similarities.T, 1)
    )


def composition(
    scenes: Sequence[Scene], images: np.ndarray, embed_texts: EmbedTexts, fact: str, language: str
) -> Composition:
    """Choose between the true caption and one with `fact` edited, for each scene that allows the edit."""
    chosen = [(at, edits(scene, fact)) for at, scene in enumerate(scenes)]
    chosen = [(at, found) for at, found in chosen if found]
    true, wrong = [], []
    for at, found in chosen:
        edited = Random(f"edit/{scenes[at].key}").choice(found)
        # The same seed gives both captions the same template, so that only the fact differs.
        true.append(caption(scenes[at], language, Random(f"composition/{at}")))
        wrong.append(caption(edited, language, Random(f"composition/{at}")))
    seen = images[[at for at, _ in chosen]]
    better = (embed_texts(true) * seen).sum(axis=1) > (embed_texts(wrong) * seen).sum(axis=1)
    return Composition(fact, language, float(better.mean()), len(chosen))


def short_queries(
    scenes: Sequence[Scene], images: np.ndarray, embed_texts: EmbedTexts, language: str, *, n: int = 400
) -> float:
    """Return the share, 0 to 1, of `n` short queries in `language` that are true of their first hit."""
    rng = Random(f"short/{language}")
    claims = [partial(scenes[at % len(scenes)], rng) for at in range(n)]
    best = (embed_texts([say(claim, language, rng) for claim in claims]) @ images.T).argmax(axis=1)
    return float(np.mean([claim.holds(scenes[at]) for claim, at in zip(claims, best, strict=True)]))


@dataclass(frozen=True)
class TowerScores:
    """Every measurement on one sample.

    `short` is the share of short queries whose first hit is true, by language.
    """

    scenes: int
    split: str
    short: dict[str, float]
    retrieval: tuple[Retrieval, ...]
    composition: tuple[Composition, ...]

    def accuracy(self, fact: str) -> float:
        """Return the composition accuracy of `fact`, the mean over the languages."""
        return float(np.mean([row.accuracy for row in self.composition if row.fact == fact]))


def evaluate(
    embed_images: EmbedImages, embed_texts: EmbedTexts, *, n: int = 500, split: str = "test", size: int = 256
) -> TowerScores:
    """Return every measurement on `n` scenes of `split`, drawn at `size` pixels.

    `embed_images` and `embed_texts` return float32 `[n, dims]`, unit length.
    """
    scenes = sample(split, n)
    images = embed_images(pictures_of(scenes, size))
    found = tuple(retrieval(scenes, images, embed_texts, language) for language in LANGUAGES)
    composed = tuple(
        composition(scenes, images, embed_texts, fact, language) for fact in FACTS for language in LANGUAGES
    )
    short = {language: short_queries(scenes, images, embed_texts, language) for language in LANGUAGES}
    return TowerScores(n, split, short, found, composed)


@dataclass(frozen=True)
class Towers:
    """A saved pair, loaded through the plain classes that any other program would use."""

    image_model: CLIPVisionModelWithProjection
    processor: CLIPImageProcessor
    text_model: SentenceTransformer

    def embed_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Return float32 `[n, dims]`, unit length."""
        vectors = []
        with torch.inference_mode():
            for start in range(0, len(images), 64):
                pixels = self.processor(list(images[start : start + 64]), return_tensors="pt")
                vectors.append(self.image_model(**pixels).image_embeds.numpy())
        joined = np.concatenate(vectors)
        unit: np.ndarray = joined / np.linalg.norm(joined, axis=1, keepdims=True)
        return unit

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Return float32 `[n, dims]`, unit length."""
        return self.text_model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)


def load_towers(folder: Path) -> Towers:
    """Load `folder/image` and `folder/text` on the CPU in float32."""
    from sentence_transformers import SentenceTransformer
    from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

    image_model = CLIPVisionModelWithProjection.from_pretrained(folder / "image").eval()
    processor = CLIPImageProcessor.from_pretrained(folder / "image")
    return Towers(image_model, processor, SentenceTransformer(str(folder / "text"), device="cpu"))
