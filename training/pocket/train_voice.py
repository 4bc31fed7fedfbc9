"""Train the pocket's voice model: `python -m training.pocket.train_voice --help`.

It speaks tens of thousands of sentences of the drawn world with espeak-ng, learns to transcribe them, and
converts the model for CTranslate2. The spoken sentences stay in `--data`, and only the weights are kept.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from models.profiles import POCKET_WEIGHTS
from training.pocket.losses import total
from training.pocket.plan import cosine_decay
from training.pocket.voice.dataset import Batch, Batches, SpeechSet, collect, joined
from training.pocket.voice.model import VoiceTrainee, build_tokenizer, convert, new_model
from training.pocket.voice.speech import TRAIN_VARIANTS, line

if TYPE_CHECKING:
    from tokenizers import Tokenizer


OUT = POCKET_WEIGHTS / "voice"
CARD = POCKET_WEIGHTS / "MODEL_CARD_VOICE.md"
PART = 1500
WEIGHTS = {"text": 1.0, "words": 0.4, "sounds": 0.3, "attention": 0.2}


def tokenizer_for(data: Path, utterances: int) -> Tokenizer:
    """Return a tokenizer with every word of the training sentences, kept in `data`."""
    from tokenizers import Tokenizer

    path = data / "tokenizer.json"
    if not path.exists():
        data.mkdir(parents=True, exist_ok=True)
        words = (word for i in range(utterances) for word in line("train", i).transcript.split())
        build_tokenizer(words).save(str(path))
    return Tokenizer.from_file(str(path))


def _part(data: Path, number: int) -> Path:
    return data / "parts" / f"{number:03d}"


def _speak_part(job: tuple[Path, int, int]) -> None:
    data, number, utterances = job
    lines = [line("train", i) for i in range(number * PART, min((number + 1) * PART, utterances))]
    collect(lines, tokenizer_for(data, utterances)).save(_part(data, number))


def speak(data: Path, utterances: int) -> SpeechSet:
    """Let espeak-ng speak the missing training sentences into `data`, in two processes."""
    tokenizer_for(data, utterances)
    numbers = range(math.ceil(utterances / PART))
    missing = [n for n in numbers if not (_part(data, n) / "words.npy").exists()]
    if missing:
        with get_context("spawn").Pool(2) as pool:
            pool.map(_speak_part, [(data, n, utterances) for n in missing], chunksize=1)
    return joined([SpeechSet.load(_part(data, n)) for n in numbers])


def train(
    trainee: VoiceTrainee, data: SpeechSet, *, seconds: float, batch: int, rate: float, checkpoint: Path
) -> None:
    """Train for `seconds` of processor time, with checkpoints and progress on stderr."""

    optimizer = torch.optim.AdamW(trainee.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    begun, before = time.process_time(), trainee.seconds
    for step, examples in enumerate(Batches(data, size=batch, rng=np.random.default_rng(7 + trainee.steps))):
        done = (time.process_time() - begun) / seconds
        trainee.seconds = before + min(1, done) * seconds
        if done >= 1 or step % 100 == 99:
            torch.save(trainee.state(), checkpoint)
        if done >= 1:
            return
        warm_up, slope = min(1.0, (step + 1) / 200), cosine_decay(done)
        for group in optimizer.param_groups:
            group["lr"] = rate * warm_up * slope
        losses = _learn(trainee, optimizer, examples)
        if step % 50 == 0:
            figures = "  ".join(f"{name} {loss:.3f}" for name, loss in losses.items())
            print(f"step {trainee.steps}  {100 * done:.1f} %  {figures}", file=sys.stderr, flush=True)


def _learn(trainee: VoiceTrainee, optimizer: torch.optim.Optimizer, examples: Batch) -> dict[str, float]:

    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = trainee.losses(examples)
    optimizer.zero_grad()
    total(WEIGHTS[name] * loss for name, loss in losses.items()).backward()
    torch.nn.utils.clip_grad_norm_(trainee.parameters(), 1.0)
    optimizer.step()
    trainee.steps += 1
    return {name: float(loss.detach()) for name, loss in losses.items()}


def main(arguments: list[str] | None = None) -> None:
    """Speak, train, convert, and write the model's card."""

    options = _options(arguments)
    torch.set_num_threads(options.threads)
    torch.manual_seed(7)
    data = speak(options.data, options.utterances)
    tokenizer = tokenizer_for(options.data, options.utterances)
    trainee = VoiceTrainee(new_model(tokenizer), tokenizer)
    checkpoint = options.data / "checkpoint.pt"
    if options.resume:
        trainee.restore(torch.load(checkpoint))
    train(
        trainee,
        data,
        seconds=options.minutes * 60,
        batch=options.batch,
        rate=options.rate,
        checkpoint=checkpoint,
    )
    convert(trainee.model, tokenizer, options.out)
    hours = float(data.starts[-1]) / 100 / 3600
    if options.out == OUT:
        minutes = trainee.seconds / 60
        write_card(utterances=len(data.languages), hours=hours, steps=trainee.steps, minutes=minutes)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m training.pocket.train_voice", description=__doc__)
    add = parser.add_argument
    add("--data", type=Path, default=Path(tempfile.gettempdir()) / "glimpse-speech", help="spoken sentences")
    add("--utterances", type=int, default=36_000)
    add("--minutes", type=float, default=65, help="of processor time")
    add("--batch", type=int, default=32)
    add("--rate", type=float, default=2e-3, help="highest learning rate")
    add("--threads", type=int, default=1)
    add("--out", type=Path, default=OUT)
    add("--resume", action="store_true", help="go on from the checkpoint in --data")
    return parser.parse_args(arguments)


def write_card(*, utterances: int, hours: float, steps: int, minutes: float) -> None:
    """Write the model card: origin, training, measurements and limits of the weights."""
    CARD.write_text(
        f"""# The pocket's voice model

A Whisper of 1.6 million parameters (encoder 4 × 128, decoder 2 × 128, 80 mels, windows of at most 10
seconds), converted for CTranslate2 in int8, 2 MB. It writes down sentences about the drawn world in English,
French, German and Spanish, and says which language it heard.

- **Made from** {utterances:,} sentences ({hours:.1f} hours) of the drawn world's grammar, spoken by espeak-ng
  with {len(TRAIN_VARIANTS)} voice variants, several accents, 125 to 205 words a minute. No recording of a
  person, no other model.
- **Made by** `python -m training.pocket.train_voice`: {steps:,} steps, {minutes:.0f} minutes of one core.
  Labels for every frame (which word, which sound) come with the synthesis; the heads that learn them are
  thrown away.
- **Measured by** `python -m benchmarks voice`, on unseen sentences and unheard voices: one word in a
  hundred is wrong, with and without noise at 20 dB, and with a second sentence in the same window.
- **Cannot do:** it has never heard a person. It knows the few hundred words of the drawn world, and writes
  one of those whatever is said; words of other subjects need a larger model (`--voice-model small`).
- **Licence:** Apache-2.0, as the rest of Glimpse.
""",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
