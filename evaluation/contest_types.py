"""What a contest of profiles is made of: pictures, questions, contestants and their results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    from evaluation.metrics import Difference, Estimate

ALPHA = 0.05


@dataclass(frozen=True)
class Picture:
    """One picture of the sample, decoded only when a model looks at it."""

    image_id: str
    open: Callable[[], Image]
    captions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Question:
    """One query with the ids of the sample that answer it."""

    text: str
    relevant: tuple[str, ...]


@dataclass(frozen=True)
class Contestant:
    """A profile whose models are loaded."""

    name: str
    dims: int
    similarity: str
    embed_images: Callable[[Sequence[Image]], np.ndarray]
    """gives float32 `[n, dims]`, unit length"""
    embed_texts: Callable[[Sequence[str]], np.ndarray]


@dataclass(frozen=True)
class Result:
    """What one profile reached."""

    name: str
    dims: int
    metrics: dict[str, Estimate]
    images_per_second: float
    """preprocessing and embedding; reading and decoding the files apart"""
    query_ms: float
    """median: embedding the text, and the kNN search"""
    index_bytes: int
    per_query: dict[str, np.ndarray]
    """float64 `[queries]` by metric"""


@dataclass(frozen=True)
class Contest:
    """All results, best nDCG first; how far the others are from the first; and advice."""

    results: tuple[Result, ...]
    against_best: dict[str, Difference]
    """by name: that profile minus the best, in nDCG"""
    pictures: int
    queries: int
    asked: str
    """where the queries came from"""
    k: int

    @property
    def recommendation(self) -> str:
        """Which profile to take, and why, in one sentence."""
        best = self.results[0]
        alike = [each for each in self.results[1:] if self.against_best[each.name].p_value >= ALPHA]
        if len(self.results) == 1:
            return f"{best.name} was measured alone: name two profiles or more for a choice."
        fastest = max([best, *alike], key=lambda each: each.images_per_second)
        if fastest is not best:
            times = fastest.images_per_second / best.images_per_second
            p_value = self.against_best[fastest.name].p_value
            return (
                f"Take {fastest.name}: chance alone could explain why {best.name} finds more"
                f" (p = {p_value:.4f}), and it embeds {times:.1f} times as many pictures a second."
            )
        if alike:
            names = ", ".join(each.name for each in alike)
            return f"Take {best.name}: it finds at least as much as {names}, and none of these is faster."
        quality = best.metrics[f"ndcg@{self.k}"].mean
        worst = max(self.against_best[each.name].p_value for each in self.results[1:])
        return (
            f"Take {best.name}: its nDCG@{self.k} of {quality:.3f} is the best, beyond chance"
            f" (p ≤ {worst:.4f})."
        )

    def to_json(self) -> dict[str, Any]:
        """Return what `glimpse evaluate --profiles … --json` prints."""
        rows = [
            {name: value for name, value in vars(each).items() if name != "per_query"}
            | {"metrics": {name: asdict(value) for name, value in each.metrics.items()}}
            for each in self.results
        ]
        return {
            "profiles": rows,
            "against_best": {name: asdict(value) for name, value in self.against_best.items()},
            "pictures": self.pictures,
            "queries": self.queries,
            "asked": self.asked,
            "recommendation": self.recommendation,
        }
