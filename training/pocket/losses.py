"""The training losses of the towers, and their helper heads, which are not saved."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn import functional

from demo.world.scene import COLOURS, COUNTS, KINDS
from training.pocket.coding import CLASSES, UNSAID
from training.pocket.towers import DIMS

PATCH_CLASSES = (1 + len(KINDS), 1 + len(COLOURS), 1 + len(COUNTS), 3)


class Heads(nn.Module):
    """Temperature, classifiers of the shared space and classifiers of patches.

    The classifiers by slot read pictures and texts alike, so both towers must put "what is on the left" into
    the same directions; without them the colours of two groups are easily exchanged.
    """

    def __init__(self, hidden: int = 192):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.7))
        self.slots = nn.Linear(DIMS, sum(CLASSES))
        self.patches = nn.Linear(hidden, sum(PATCH_CLASSES))

    def temperature(self) -> torch.Tensor:
        """Return the factor of cosines, 1 to 60."""
        return self.scale.exp().clamp(1, 60)


def _by_column(logits: torch.Tensor, classes: tuple[int, ...], targets: torch.Tensor) -> torch.Tensor:
    parts = zip(logits.split(classes, dim=-1), targets.unbind(-1), strict=True)
    losses = [
        functional.cross_entropy(part.flatten(0, -2), goal.flatten(), ignore_index=UNSAID)
        for part, goal in parts
    ]
    return torch.stack(losses)


def slot_loss(heads: Heads, unit: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Classify unit embeddings `[n, dims]` against `coding.labels` `[n, 9]`: one loss a column."""
    return _by_column(heads.slots(unit * DIMS**0.5), CLASSES, targets)


def patch_loss(heads: Heads, patches: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Classify patches `[n, 64, hidden]` against `[n, 64, 4]`: kind, colour, count and slot there."""
    return _by_column(heads.patches(patches), PATCH_CLASSES, targets)


def contrastive_loss(cosines: torch.Tensor, also_true: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Match text i with picture i in `[texts, pictures]`, leaving out other pictures that the text fits."""
    own = torch.eye(len(cosines), dtype=torch.bool)
    logits = (cosines * factor).masked_fill(also_true & ~own, -1e4)
    goal = torch.arange(len(logits))
    return (functional.cross_entropy(logits, goal) + functional.cross_entropy(logits.T, goal)) / 2


def sibling_loss(cosines: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Tell a scene from its sibling: `[2 n, 2 n]` cosines whose rows and columns n apart are siblings."""
    half = len(cosines) // 2
    own = cosines.diagonal()
    other = torch.cat([cosines[:half, half:].diagonal(), cosines[half:, :half].diagonal()])
    wrong_picture = functional.softplus((other - own) * factor)
    turned = torch.cat([cosines[half:, :half].diagonal(), cosines[:half, half:].diagonal()])
    wrong_text = functional.softplus((turned - own) * factor)
    return (wrong_picture.mean() + wrong_text.mean()) / 2


def total(losses: Iterable[torch.Tensor]) -> torch.Tensor:
    """Return the sum of scalar losses."""
    return torch.stack(list(losses)).sum()


def attention_loss(attention: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Penalise `attention` `[n, heads, steps, places]` outside of `right` `[n, steps, places]`.

    Steps without a right place do not count.
    """
    mass = (attention * right[:, None]).sum(-1)
    counted = right.any(-1)[:, None].expand_as(mass)
    return -(mass[counted] + 1e-4).log().mean()
