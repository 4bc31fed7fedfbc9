"""Write `MODEL_CARD.md` from measurements, so that no number is typed by hand."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING

from demo.world.scene import COLOURS, KINDS, PLACES, WEATHERS
from training.pocket.evaluation import FACTS, TowerScores
from training.pocket.sentences.lexicon import LANGUAGES
from training.pocket.towers import DIMS

if TYPE_CHECKING:
    from training.pocket.plan import Plan

TARGETS = {"place": 0.99, "weather": 0.99, "count": 0.88, "colours": 0.85, "relation": 0.75}

CARD = """\
# Pocket: image and text towers for the drawn world

Two small towers that put pictures and texts into one space of {dims} dims. They know the drawn world of
`demo/world/scene.py` and nothing else: **they do not understand photographs**. They exist so that every
part of Glimpse can be tried and tested without a network, with the same classes that the large models use.

- Image: `CLIPVisionModelWithProjection`, 96 × 96 px. The processor resizes to exactly that without cropping,
  so nothing at the borders is lost; a picture that is not square is squeezed.
- Text: `DistilBertModel`, mean pooling, a linear map without bias; English, French, German, Spanish;
  64 tokens; WordPiece without case and accents, with every Latin letter as a piece of its own.
- Size: {megabytes:.1f} MB of files, fp16 weights. Licence: Apache-2.0. Training data: drawn by this project.

## Figures

Measured by the training script on {scenes} scenes of the `{split}` split, whose descriptions were never
trained on, with the saved weights loaded through the plain classes.

| language | text→image R@1 (≥ 0.98) | text→image R@5 | image→text R@1 (≥ 0.97) | short queries |
| --- | --- | --- | --- | --- |
{retrieval}

The queries of R@1 say every fact; short queries say a few ("two cats at night"), and count when they are true
of the first hit.

True caption against the same caption with one fact edited (chance 0.5):

| fact (target) | {languages} | mean | pictures |
| --- | {rules} | --- | --- |
{composition}

## Training

`python -m training.pocket.train`, seed {plan.seed}: {plan.steps} steps of {plan.batch} scenes, each with a
sibling that differs in one fact, from a pool of {plan.pairs} pairs. It took {wall:.0f} minutes of wall
time and {cpu:.0f} CPU minutes with {plan.threads} threads, drawing included, on a machine that did other work
at the same time.
Machine: {machine}.

Losses: contrastive with full and with partial captions (captions that are also true of another picture in
the batch are masked); a scene against its sibling; kind, colour, count and slot per patch; and facts by slot
read from both embeddings by the same linear classifiers. The helper heads are not saved.

## What it knows

- Kinds: {kinds}.
- Colours: {colours}. Counts: one to three. Relations: left of, right of, above, below.
- Places: {places}. Weather: {weathers}.

## What it does not know

Who has which colour is less certain in short queries than in full captions: "a blue bird" may first find an
orange bird beside a blue house.

Photographs; other things, colours or numbers; negation; sizes; more than two groups; anything about people.
A query outside this world still gets its nearest pictures, and their similarity means little.
"""


def _rows(report: TowerScores) -> tuple[str, str]:
    found = "\n".join(
        f"| {row.language} | {row.text_to_image_r1:.3f} | {row.text_to_image_r5:.3f} "
        f"| {row.image_to_text_r1:.3f} | {report.short[row.language]:.3f} |"
        for row in report.retrieval
    )
    composed = []
    for fact in FACTS:
        rows = [row for row in report.composition if row.fact == fact]
        cells = " | ".join(f"{row.accuracy:.3f}" for row in rows)
        title = {"colours": "exchanged colours"}.get(fact, fact)
        composed.append(
            f"| {title} (≥ {TARGETS[fact]}) | {cells} | {report.accuracy(fact):.3f} | {rows[0].pictures} |"
        )
    return found, "\n".join(composed)


def _machine() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {len(names)} cores"


def write_card(weights: Path, report: TowerScores, *, plan: Plan, spent: tuple[float, float]) -> Path:
    """Write `MODEL_CARD.md` into the folder `weights` and return its path.

    `spent` is wall and CPU seconds.
    """
    found, composed = _rows(report)
    size = sum(path.stat().st_size for part in ("image", "text") for path in (weights / part).rglob("*"))
    text = CARD.format(
        dims=DIMS,
        megabytes=size / 1e6,
        scenes=report.scenes,
        split=report.split,
        retrieval=found,
        languages=" | ".join(LANGUAGES),
        rules=" | ".join("---" for _ in LANGUAGES),
        composition=composed,
        plan=plan,
        wall=spent[0] / 60,
        cpu=spent[1] / 60,
        machine=_machine(),
        kinds=", ".join(KINDS),
        colours=", ".join(COLOURS),
        places=", ".join(PLACES),
        weathers=", ".join(WEATHERS),
    )
    path = weights / "MODEL_CARD.md"
    path.write_text(text, encoding="utf-8")
    return path
