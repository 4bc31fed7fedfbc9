"""Train the pocket towers from nothing, seeded, on the CPU: `python -m training.pocket.train`."""

from __future__ import annotations

import argparse
import copy
import os
import random
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from models.profiles import POCKET_WEIGHTS
from training.pocket import losses
from training.pocket.coding import holds, labels, scene_codes, statement_codes
from training.pocket.evaluation import evaluate, load_towers
from training.pocket.model_card import write_card
from training.pocket.plan import Plan, cosine_decay
from training.pocket.pool import Pool, corpus, make_pool, write_texts
from training.pocket.towers import MEAN, STD, ImageTower, TextTower, make_tokenizer


class Training:
    """A training run of both towers with helper heads, which saves the running average of the weights."""

    def __init__(self, plan: Plan, *, pool: Pool, folder: Path):
        torch.manual_seed(plan.seed)
        torch.set_num_threads(plan.threads)
        self.plan, self.pool, self.folder = plan, pool, folder
        self.tokenizer = make_tokenizer(corpus(), folder / "text")
        self.image, self.text = ImageTower(), TextTower(len(self.tokenizer))
        self.heads = losses.Heads()
        self.parts = torch.nn.ModuleList([self.image, self.text, self.heads])
        self.average = copy.deepcopy(self.parts).requires_grad_(False)
        decayed = [p for p in self.parts.parameters() if p.ndim > 1]
        others = [p for p in self.parts.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=plan.rate, betas=(0.9, 0.98))
        self.rng, self.noise = random.Random(plan.seed), np.random.default_rng(plan.seed)
        self.low_precision = has_bf16()

    def run(self, *, report_every: int = 20, save_every: int = 200) -> None:
        """Train for all steps, printing the losses to stderr and saving the weights now and then."""
        began = time.monotonic()
        for step in range(self.plan.steps):
            parts = self.step(step)
            if step % report_every == 0 or step == self.plan.steps - 1:
                words = " · ".join(f"{name} {_numbers(value)}" for name, value in parts.items())
                print(f"step {step} {time.monotonic() - began:.0f} s {words}", file=sys.stderr, flush=True)
            if (step + 1) % save_every == 0:
                self.save()

    def step(self, number: int) -> dict[str, torch.Tensor]:
        """Make one step and return the losses by name."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.rate * self._schedule(number)
        parts = self._losses(self._batch(number))
        self.optimizer.zero_grad(set_to_none=True)
        losses.total(loss.nanmean() for loss in parts.values()).backward()
        torch.nn.utils.clip_grad_norm_(self.parts.parameters(), 1.0)
        self.optimizer.step()
        keep = min(self.plan.averaging, (1 + number) / (10 + number))
        with torch.no_grad():
            for old, new in zip(self.average.parameters(), self.parts.parameters(), strict=True):
                old.lerp_(new, 1 - keep)
        return parts

    def _schedule(self, number: int) -> float:
        if number < self.plan.warm_up:
            return (number + 1) / self.plan.warm_up
        share = (number - self.plan.warm_up) / max(1, self.plan.steps - self.plan.warm_up)
        return cosine_decay(share)

    def _batch(self, number: int) -> np.ndarray:
        """Return the pairs of this step, from the whole pool in a new order each epoch."""
        per_epoch = len(self.pool.scenes) // self.plan.batch
        epoch, position = divmod(number, per_epoch)
        order = np.random.default_rng([self.plan.seed, epoch]).permutation(len(self.pool.scenes))
        return order[position * self.plan.batch : (position + 1) * self.plan.batch]

    def _losses(self, chosen: np.ndarray) -> dict[str, torch.Tensor]:
        scenes = [self.pool.scenes[i][side] for side in (0, 1) for i in chosen]
        texts, statements = write_texts(scenes, self.rng)
        tokens = self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.low_precision):
            seen, patches = self.image(self._pixels(chosen))
            said = self.text(tokens["input_ids"], tokens["attention_mask"])
            patch = losses.patch_loss(self.heads, patches, self._patches(chosen))
        seen, said = functional.normalize(seen.float(), dim=1), functional.normalize(said.float(), dim=1)
        seen_codes, said_codes = scene_codes(scenes), statement_codes(statements)
        also = torch.from_numpy(holds(said_codes, seen_codes))
        n, factor = len(scenes), self.heads.temperature()
        cosines = said @ seen.T
        seen_labels = torch.from_numpy(labels(seen_codes))
        said_labels = torch.from_numpy(labels(said_codes))
        return {
            "full": losses.contrastive_loss(cosines[:n], also[:n], factor),
            "partial": 0.5 * losses.contrastive_loss(cosines[n:], also[n:], factor),
            "sibling": losses.sibling_loss(cosines[:n], factor),
            "seen": 2 * losses.slot_loss(self.heads, seen, seen_labels),
            "said": 2 * losses.slot_loss(self.heads, said, said_labels),
            "patch": 2 * patch,
        }

    def _pixels(self, chosen: np.ndarray) -> torch.Tensor:
        """Return normalised pictures `[2 n, 3, 96, 96]`, slightly shifted, brightened and noisy."""
        pictures = np.concatenate([self.pool.pixels[chosen, 0], self.pool.pixels[chosen, 1]])
        size, reach = pictures.shape[1], 3
        padded = np.pad(pictures, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge")
        shifts = self.noise.integers(0, 2 * reach + 1, (len(pictures), 2))
        moved = [one[y : y + size, x : x + size] for one, (y, x) in zip(padded, shifts, strict=True)]
        pixels = torch.from_numpy(np.stack(moved)).permute(0, 3, 1, 2).float().div_(255)
        gain, lift = (
            torch.from_numpy(self.noise.normal(m, 0.05, (len(moved), 1, 1, 1))).float() for m in (1, 0)
        )
        pixels = pixels * gain + lift + torch.randn_like(pixels) * 0.01
        return (pixels.clamp_(0, 1) - MEAN) / STD

    def _patches(self, chosen: np.ndarray) -> torch.Tensor:
        where = np.concatenate([self.pool.patches[chosen, 0], self.pool.patches[chosen, 1]])
        return torch.from_numpy(where.reshape(len(where), 4, -1).transpose(0, 2, 1).astype(np.int64))

    def save(self) -> None:
        """Write the averaged weights of both towers into `folder/image` and `folder/text`."""
        image, text, _ = self.average
        image.save(self.folder / "image")
        text.save(self.folder / "text")


def _numbers(loss: torch.Tensor) -> str:
    return " ".join(f"{value:.2f}" for value in loss.detach().float().flatten().tolist())


def has_bf16() -> bool:
    """Return whether this CPU multiplies bfloat16 itself.

    On other CPUs it is slower than float32.
    """
    return bool(torch.cpu._is_avx512_bf16_supported())


def main(arguments: list[str] | None = None) -> None:
    """Make the pool, train, save, measure the saved weights, and write the model card."""
    parser = argparse.ArgumentParser(prog="python -m training.pocket.train", description=__doc__)
    for name in ("steps", "pairs", "batch", "rate", "seed", "threads"):
        usual = getattr(Plan, name)
        parser.add_argument(f"--{name}", type=type(usual), default=usual)
    parser.add_argument("--out", type=Path, default=POCKET_WEIGHTS, help="folder of the weights")
    options = vars(parser.parse_args(arguments))
    folder = options.pop("out")
    plan = Plan(**options)
    wall, cpu = time.monotonic(), time.process_time()
    pool = make_pool(plan.pairs)
    print(f"{plan.pairs} pairs rendered in {time.monotonic() - wall:.0f} s", file=sys.stderr, flush=True)
    training = Training(plan, pool=pool, folder=folder)
    training.run()
    training.save()
    spent = (time.monotonic() - wall, time.process_time() - cpu + _children_cpu())
    towers = load_towers(folder)
    write_card(folder, evaluate(towers.embed_images, towers.embed_texts), plan=plan, spent=spent)


def _children_cpu() -> float:
    """Return the CPU seconds of the processes that rendered the pool."""
    times = os.times()
    return times.children_user + times.children_system


if __name__ == "__main__":
    main()
