"""Captions: facts that are true of unseen pictures; and how fast a BLIP of the base size is."""

from __future__ import annotations

import time

from benchmarks.report import Figure, show
from models.captioning import bf16_gains, load_captioner
from models.pocket.caption_facts import score_captions
from models.pocket.draw import draw
from models.pocket.world import sample
from models.profiles import get_profile

SCENES = 500
TARGETS = {
    "place": "≥ 0.99",
    "weather": "≥ 0.99",
    "kinds": "≥ 0.95",
    "colours": "≥ 0.95",
    "counts": "≥ 0.85",
    "relations": "",
    "all": "≥ 0.75",
}
PICTURES, TOKENS = 8, 12


def main() -> bool:
    """Print all figures; return whether the targets are met."""
    met = show(f"Captions: facts right on {SCENES} unseen scenes", _facts())
    return show("Captions: a BLIP of the base size, random weights", _speed()) and met


def _facts() -> list[Figure]:
    captioner = load_captioner(get_profile("pocket").caption_model)
    scenes = sample("test", SCENES)
    images = [draw(scene, 256) for scene in scenes]
    begun = time.perf_counter()
    written = captioner.caption_images(images)
    took = time.perf_counter() - begun
    scores = score_captions([one.text or "" for one in written], scenes)
    figures = [Figure(name, getattr(scores, name), "", target) for name, target in TARGETS.items()]
    return [*figures, Figure("time for a picture", 1000 * took / SCENES, "ms")]


def _speed() -> list[Figure]:
    """Caption the same pixels with the same number of tokens: alone in fp32, and as the product does it."""
    import torch
    from transformers import BlipConfig, BlipForConditionalGeneration

    model = BlipForConditionalGeneration(BlipConfig()).eval()
    pixels = torch.randn(
        PICTURES, 3, model.config.vision_config.image_size, model.config.vision_config.image_size
    )
    alone = _seconds(model, [pixels[i : i + 1] for i in range(PICTURES)])
    in_bf16 = bf16_gains()
    if in_bf16:
        model, pixels = model.bfloat16(), pixels.bfloat16()
    together = _seconds(model, [pixels])
    return [
        Figure("one by one, fp32", 1000 * alone / PICTURES, "ms"),
        Figure(f"{PICTURES} at once, {'bf16' if in_bf16 else 'fp32'}", 1000 * together / PICTURES, "ms"),
        Figure("times as fast", alone / together, "", "≥ 2" if in_bf16 else ""),
    ]


def _seconds(model: object, batches: list) -> float:
    import torch

    best = float("inf")
    for _ in range(2):
        begun = time.perf_counter()
        with torch.inference_mode():
            for batch in batches:
                model.generate(batch, min_new_tokens=TOKENS, max_new_tokens=TOKENS, do_sample=False)
        best = min(best, time.perf_counter() - begun)
    return best
