"""Train the pocket's captioner: `python -m training.pocket.train_captions --help`.

It starts with weights of the image tower, so train the towers first.
"""

from __future__ import annotations

import argparse
import copy
import random
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import numpy as np
import torch

from demo.world.scene import Scene, sample, scene
from models.profiles import POCKET_WEIGHTS
from training.pocket.caption_model import CaptionerTrainee, make_tokenizer, new_model
from training.pocket.coding import patch_labels
from training.pocket.losses import total
from training.pocket.plan import cosine_decay
from training.pocket.pool import SIZE, render
from training.pocket.sentences.facts import FactScores, score_captions
from training.pocket.towers import MEAN, STD

if TYPE_CHECKING:
    from transformers import BertTokenizerFast, BlipForConditionalGeneration


OUT = POCKET_WEIGHTS / "caption"
CARD = POCKET_WEIGHTS / "MODEL_CARD_CAPTIONS.md"
SHARES = {"text": 1.0, "patches": 0.3, "attention": 0.2}
VISION_RATE = 0.4
"""share of the learning rate for the vision layers, which are trained already"""


@dataclass(frozen=True)
class Pictures:
    """Scenes, their pictures uint8 `[n, 96, 96, 3]` and patch labels uint8 `[n, 64, 4]`."""

    scenes: list[Scene]
    pixels: np.ndarray
    patches: np.ndarray


def _draw(index: int) -> tuple[Scene, np.ndarray, np.ndarray]:
    shown = scene("train", index)
    labels = patch_labels(shown)
    return shown, render(shown, Random(f"captions/{index}")), labels.reshape(len(labels), -1).T


def draw_pictures(count: int) -> Pictures:
    """Draw training scenes in two processes, at about 2 ms each."""
    pixels = np.empty((count, SIZE, SIZE, 3), np.uint8)
    patches = np.empty((count, (SIZE // 12) ** 2, 4), np.uint8)
    scenes = []
    with ProcessPoolExecutor(2) as workers:
        for i, (shown, picture, labels) in enumerate(workers.map(_draw, range(count), chunksize=64)):
            scenes.append(shown)
            pixels[i], patches[i] = picture, labels
    return Pictures(scenes, pixels, patches)


def train(trainee: CaptionerTrainee, pictures: Pictures, *, seconds: float, batch: int, rate: float) -> int:
    """Train for `seconds` of processor time with progress on stderr, and return the number of steps."""
    vision = list(trainee.model.vision_model.parameters())
    others = [*trainee.model.text_decoder.parameters(), *trainee.helper.parameters()]
    rates = (rate * VISION_RATE, rate)
    groups = [{"params": vision}, {"params": others}]
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), weight_decay=0.02)
    rng, begun, step = random.Random(7), time.process_time(), 0
    while (done := (time.process_time() - begun) / seconds) < 1:
        slope = min(1.0, (step + 1) / 150) * cosine_decay(done)
        for group, highest in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = highest * slope
        chosen = rng.sample(range(len(pictures.scenes)), batch)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            losses = trainee.losses(*batch_of(pictures, chosen))
        optimizer.zero_grad()
        total(SHARES[name] * loss for name, loss in losses.items()).backward()
        torch.nn.utils.clip_grad_norm_([*vision, *others], 1.0)
        optimizer.step()
        step += 1
        if step % 50 == 0:
            figures = "  ".join(f"{name} {float(loss):.3f}" for name, loss in losses.items())
            print(f"step {step}  {100 * done:.1f} %  {figures}", file=sys.stderr, flush=True)
        if step % 500 == 0:
            print(measure(trainee.model, trainee.tokenizer, sample("demo", 100)), file=sys.stderr, flush=True)
    return step


def batch_of(pictures: Pictures, chosen: list[int]) -> tuple[torch.Tensor, torch.Tensor, list[Scene]]:
    """Return the `chosen` pictures preprocessed, their patch labels and their scenes."""

    pixels = torch.from_numpy(pictures.pixels[chosen]).permute(0, 3, 1, 2).float() / 255
    patches = torch.from_numpy(pictures.patches[chosen]).long()
    return (pixels - MEAN) / STD, patches, [pictures.scenes[i] for i in chosen]


def save(model: BlipForConditionalGeneration, tokenizer: BertTokenizerFast, folder: Path) -> None:
    """Write fp16 weights and a processor like BLIP's."""
    from transformers import BlipImageProcessor, BlipProcessor

    copy.deepcopy(model).half().save_pretrained(folder)
    size = {"height": SIZE, "width": SIZE}
    images = BlipImageProcessor(size=size, image_mean=[MEAN] * 3, image_std=[STD] * 3)
    BlipProcessor(images, tokenizer).save_pretrained(folder)


def measure(
    model: BlipForConditionalGeneration, tokenizer: BertTokenizerFast, scenes: list[Scene]
) -> FactScores:
    """Return the shares of facts that the captions of `scenes` get right."""
    pixels = np.stack([render(one, Random(0)) for one in scenes])
    values = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - MEAN) / STD
    tokens = model.eval().generate(values, max_new_tokens=30, do_sample=False, num_beams=1)
    model.train()
    return score_captions(tokenizer.batch_decode(tokens, skip_special_tokens=True), scenes)


def main(arguments: list[str] | None = None) -> None:
    """Draw, train, save, and write the model's card."""
    from transformers import CLIPVisionModelWithProjection

    options = _options(arguments)
    torch.set_num_threads(options.threads)
    torch.manual_seed(7)
    pictures = draw_pictures(options.pictures)
    tokenizer = make_tokenizer(pictures.scenes, options.out)
    tower = CLIPVisionModelWithProjection.from_pretrained(POCKET_WEIGHTS / "image", dtype=torch.float32)
    pixels, _patches, _scenes = batch_of(pictures, list(range(128)))
    trainee = CaptionerTrainee(new_model(tokenizer, tower, pixels), tokenizer)
    steps = train(trainee, pictures, seconds=options.minutes * 60, batch=options.batch, rate=options.rate)
    save(trainee.model, tokenizer, options.out)
    scores = measure(trainee.model, tokenizer, sample("test", 500))
    print(scores, file=sys.stderr)
    if options.out == OUT:
        write_card(scores, pictures=options.pictures, steps=steps, minutes=options.minutes)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m training.pocket.train_captions", description=__doc__)
    add = parser.add_argument
    add("--pictures", type=int, default=20_000)
    add("--minutes", type=float, default=7, help="of processor time")
    add("--batch", type=int, default=48)
    add("--rate", type=float, default=1.2e-3, help="highest learning rate")
    add("--threads", type=int, default=1)
    add("--out", type=Path, default=OUT)
    return parser.parse_args(arguments)


def write_card(scores: FactScores, *, pictures: int, steps: int, minutes: float) -> None:
    """Write the model card: origin, training, measurements and limits of the weights."""
    CARD.write_text(
        f"""# The pocket's captioner

A `BlipForConditionalGeneration` of 2.6 million parameters (vision 4 × 192 on 96 pixels, decoder 3 × 128),
fp16, 5 MB. It writes one English sentence about a picture of the drawn world.

- **Made from** {pictures:,} pictures that Glimpse draws itself, and their plainest English captions. No
  photograph, no other model. Its vision layers began as the first four of the pocket's image tower.
- **Made by** `python -m training.pocket.train_captions`: {steps:,} steps, {minutes:g} minutes of one core.
  The drawing tells what is seen in each patch and which group a word is about; the head that learns it is
  thrown away.
- **Measured** on 500 unseen descriptions, by facts, at the end of the training: place
  {scores.place:.3f}, weather {scores.weather:.3f}, kinds {scores.kinds:.3f}, colours {scores.colours:.3f},
  counts {scores.counts:.3f}, relations {scores.relations:.3f}; every fact true: {scores.all:.3f}.
  `python -m benchmarks captions` measures the saved weights.
- **Cannot do:** photographs. It has only ever seen the drawn world, and describes everything in its words;
  for photographs choose a profile with a large captioner (`--profile clip`).
- **Licence:** Apache-2.0, as the rest of Glimpse.
""",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
