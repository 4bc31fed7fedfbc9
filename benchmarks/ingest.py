"""Ingest beside the bare embedding of the same batches, and pictures a second with the pocket profile."""

from __future__ import annotations

import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from PIL import Image

from benchmarks.engine import fresh_index, node
from benchmarks.report import Figure, clock, show
from demo.world.draw import write_picture
from demo.world.scene import sample
from es_config.documents import IndexMeta, IndexOptions
from ingest.options import IngestOptions
from ingest.pipeline.run import ingest_paths
from ingest.wiring import Dependencies
from models.encoders import Lazy, load_image_encoder, load_text_encoder
from models.profiles import get_profile
from storage.store import open_storage

LARGE_MODEL_PICTURES = 500
POCKET_PICTURES = 2000
SIZE = 512
BATCH = 32
ROUNDS = 2
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))


def main() -> bool:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="glimpse-bench-") as folder, node() as (client, _):
        root = Path(folder)
        pictures = _draw(root / "pictures", POCKET_PICTURES)
        figures = _beside_bare(client, root, pictures[:LARGE_MODEL_PICTURES])
        figures += _pocket(client, root, pictures)
    return show("ingest", figures)


def _draw(folder: Path, count: int) -> list[Path]:
    folder.mkdir()
    jobs = [(scene, folder / f"{n:05d}.jpg") for n, scene in enumerate(sample("test", count))]
    with ProcessPoolExecutor() as pool:
        return list(pool.map(_write, jobs, chunksize=50))


def _write(job: tuple) -> Path:
    return write_picture(*job, SIZE)


def _beside_bare(client, root: Path, pictures: list[Path]) -> list[Figure]:
    """A model of ViT-B/32's size with random weights, both ways in turn, as the ratio of the better times."""
    from model_folders import save_sentence_clip, save_text_tower

    save_sentence_clip(root / "model" / "image")
    save_text_tower(root / "model" / "text", dims=512)
    profile = get_profile("clip", model_dir=root / "model")
    encoder, texts = load_image_encoder(profile), load_text_encoder(profile)
    pixels = [Image.open(path).convert("RGB") for path in pictures]
    bare, whole = [], []
    for turn in range(ROUNDS):
        with clock() as spent:
            for start in range(0, len(pixels), BATCH):
                encoder.embed_images(pixels[start : start + BATCH])
        bare.append(spent)
        store = root / f"store{turn}"
        whole.append(_ingest(client, store, pictures, profile=profile, encoder=encoder, texts=texts))
    ratio = min(each.wall for each in whole) / min(each.wall for each in bare)
    return [
        Figure("ViT-B/32 size, 500 pictures: bare embedding", min(each.wall for each in bare), "s"),
        Figure("the same, CPU", min(each.cpu for each in bare), "s"),
        Figure("ViT-B/32 size, 500 pictures: ingest", min(each.wall for each in whole), "s"),
        Figure("the same, CPU", min(each.cpu for each in whole), "s"),
        Figure("ingest ÷ bare embedding", ratio, "", "≤ 1.25"),
    ]


def _pocket(client, root: Path, pictures: list[Path]) -> list[Figure]:
    profile = get_profile("pocket")
    encoder, texts = load_image_encoder(profile), load_text_encoder(profile)
    runs = [
        _ingest(client, root / f"pocket{turn}", pictures, profile=profile, encoder=encoder, texts=texts)
        for turn in range(ROUNDS)
    ]
    best = min(runs, key=lambda each: each.wall)
    return [
        Figure("pocket, 2 000 pictures of 512 px", len(pictures) / best.wall, "pictures/s", "≥ 60"),
        Figure("the same, CPU of this process", best.cpu, "s"),
    ]


def _ingest(client, store: Path, pictures: list[Path], *, profile, encoder, texts):
    meta = IndexMeta(profile.name, {}, profile.dims, profile.caption_dims, profile.similarity)
    with fresh_index(client) as index, clock() as spent:
        index.create(meta, IndexOptions())
        dependencies = Dependencies(
            index,
            Lazy(lambda: encoder),
            Lazy(lambda: texts),
            open_storage(f"file:{store}"),
            Lazy(lambda: None),
        )
        summary = ingest_paths(pictures, dependencies=dependencies, options=IngestOptions(batch_size=BATCH))
        assert summary.indexed == len(pictures), summary.failures[:3]
    return spent
