"""Pictures a second of a tower of ViT-B/32's size in each way to run it, in turn, with random weights."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.report import Figure, Spent, clock, show
from demo.world.draw import draw
from demo.world.scene import sample
from models.encoders import EXACT, Execution, load_image_encoder
from models.fast.choose import FASTEST_FIRST, agreement, probe, run_in
from models.profiles import get_profile

PICTURES = int(os.environ.get("GLIMPSE_BENCH_PICTURES", "64"))
ROUNDS = 3
BATCH = 32
REAL = "GLIMPSE_SHARED"
"""names a folder with `data/flickr8k/images`; without it the drawn world serves"""
INT8, ONNX = Execution("onnx", "int8"), Execution("onnx", "fp32")
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))


def main() -> bool:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="glimpse-bench-") as folder:
        figures = _ways(vit_b_32(Path(folder)), pictures(PICTURES), Path(folder) / "cache")
    return show("backends", figures + _trained(pictures(PICTURES, drawn=True)))


def vit_b_32(folder: Path):
    """Save a pair with a vision tower of ViT-B/32's size and random weights, and return its profile."""
    from model_folders import save_sentence_clip, save_text_tower

    save_sentence_clip(folder / "model" / "image")
    save_text_tower(folder / "model" / "text", dims=512)
    return get_profile("clip", model_dir=folder / "model")


def photographs(count: int) -> list[Path]:
    """Return photographs of the data that GLIMPSE_SHARED names, or none without it."""
    folder = Path(os.environ.get(REAL, "/nowhere")) / "data" / "flickr8k" / "images"
    return sorted(folder.glob("*.jpg"))[:count]


def pictures(count: int, *, drawn: bool = False) -> list[Image.Image]:
    """Return photographs where there are some, else drawn pictures."""
    real = [] if drawn else photographs(count)
    if real:
        return [Image.open(path).convert("RGB") for path in real]
    return [draw(scene, 256) for scene in sample("test", count)]


def _ways(profile, images: list[Image.Image], cache: Path) -> list[Figure]:
    exact = load_image_encoder(profile)
    pixels = np.stack([exact.preprocess(image) for image in images])
    encoders = {way: run_in(way, exact, cache=cache) for way in reversed(FASTEST_FIRST)}
    best: dict[Execution, Spent] = {}
    truth = _embed(exact, pixels)
    for turn in range(ROUNDS + 1):
        for way, encoder in encoders.items():
            with clock() as spent:
                vectors = _embed(encoder, pixels)
            if turn == 0:  # the first one warms up, and is compared
                best[way] = spent
                print(f"  {way}: {agreement(truth, vectors)}", file=sys.stderr)
            else:
                best[way] = min(best[way], spent, key=lambda each: each.cpu)
    figures = []
    for way, spent in best.items():
        figures.append(Figure(f"ViT-B/32 size, {way}", len(images) / spent.wall, "pictures/s"))
        figures.append(Figure("the same, CPU a picture", 1000 * spent.cpu / len(images), "ms"))
    figures.append(_ratio(best, ONNX, "≥ 2.0"))
    if probe().int8:
        figures.append(_ratio(best, INT8, "≥ 4.0"))
    return figures


def _ratio(best: dict[Execution, Spent], way: Execution, target: str) -> Figure:
    return Figure(f"CPU of {EXACT} ÷ CPU of {way}", best[EXACT].cpu / best[way].cpu, "", target)


def _trained(images: list[Image.Image]) -> list[Figure]:
    """Trained towers, because random weights flatter eight bits."""
    exact, figures = load_image_encoder(get_profile("pocket")), []
    truth = exact.embed_images(images)
    with tempfile.TemporaryDirectory(prefix="glimpse-bench-") as cache:
        for way in FASTEST_FIRST[:-1]:
            found = agreement(truth, run_in(way, exact, cache=Path(cache)).embed_images(images))
            figures.append(Figure(f"pocket, {way}: smallest cosine", found.cosine, "", "≥ 0.999"))
            figures.append(Figure(f"pocket, {way}: top-10 overlap", found.overlap, "", "≥ 0.98"))
    return figures


def _embed(encoder, pixels: np.ndarray) -> np.ndarray:
    starts = range(0, len(pixels), BATCH)
    return np.concatenate([encoder.embed_pixels(pixels[start : start + BATCH]) for start in starts])
