"""The pocket towers' hits through the index, and their reading of composition."""

from __future__ import annotations

from datetime import UTC, datetime
from random import Random

import numpy as np

from benchmarks.engine import fresh_index, node
from benchmarks.report import Figure, show
from demo.world.scene import sample
from es_config.documents import ImageDocument, IndexMeta, IndexOptions
from es_config.requests import knn_body
from models.encoders import load_image_encoder, load_text_encoder
from models.profiles import POCKET_WEIGHTS, get_profile
from training.pocket.evaluation import composition, pictures_of
from training.pocket.sentences.grammar import caption

SCENES = 500
LANGUAGES = ("en", "fr", "de", "es")
TARGETS = {"place": 0.99, "weather": 0.99, "count": 0.88, "colours": 0.85, "relation": 0.75}


def main() -> bool:
    """Measure and print."""
    profile = get_profile("pocket")
    images, texts = load_image_encoder(profile), load_text_encoder(profile)
    scenes = sample("test", SCENES)
    pictures = images.embed_images(pictures_of(scenes))
    with node() as (client, _):
        found = [
            row
            for language in LANGUAGES
            for row in _retrieval(
                client, profile=profile, scenes=scenes, pictures=pictures, texts=texts, language=language
            )
        ]
    read = [
        Figure(
            f"true caption against edited {fact}", _accuracy(scenes, pictures, texts, fact), "", f"≥ {target}"
        )
        for fact, target in TARGETS.items()
    ]
    size = sum(
        path.stat().st_size for part in ("image", "text") for path in (POCKET_WEIGHTS / part).rglob("*")
    )
    return show(
        f"pocket, {SCENES} scenes never trained on",
        [*found, *read, Figure("weights", size / 1e6, "MB", "≤ 8")],
    )


def _retrieval(client, *, profile, scenes, pictures, texts, language: str) -> list[Figure]:
    said = texts.embed_texts([caption(scene, language, Random(f"retrieval/{scene.key}")) for scene in scenes])
    with fresh_index(client) as index:
        meta = IndexMeta(
            profile.name, {}, profile.dims, profile.caption_dims, profile.similarity, operating_points={}
        )
        index.create(meta, IndexOptions())
        rows = zip(pictures, said, strict=True)
        result = index.add([_document(n, picture, text) for n, (picture, text) in enumerate(rows)])
        assert result.added == len(scenes), result.failed
        index.refresh()
        forth = _recall_at_1(index, said, "image_embedding")
        back = _recall_at_1(index, pictures, "caption_embedding")
    return [
        Figure(f"{language} text to image R@1", forth, "", "≥ 0.98"),
        Figure(f"{language} image to text R@1", back, "", "≥ 0.97"),
    ]


def _document(number: int, picture: np.ndarray, text: np.ndarray) -> ImageDocument:
    return ImageDocument(
        image_id=f"{number:064x}",
        image_name=f"{number}.png",
        relative_path=(f"{number}.png",),
        image_embedding=picture,
        caption_embedding=text,
        width=256,
        height=256,
        size_bytes=1,
        indexed_at=datetime.now(UTC),
    )


def _recall_at_1(index, queries: np.ndarray, field: str) -> float:
    first = [
        index.search(knn_body(field=field, query_vector=query, k=1, num_candidates=100)).hits[0].image_id
        for query in queries
    ]
    return float(np.mean([int(image_id, 16) == n for n, image_id in enumerate(first)]))


def _accuracy(scenes, pictures, texts, fact: str) -> float:
    """Return the mean over the languages."""
    return float(
        np.mean([composition(scenes, pictures, texts.embed_texts, fact, each).accuracy for each in LANGUAGES])
    )
