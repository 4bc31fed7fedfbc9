"""Where queries come from: labelled ones, the log of real ones, captions, or image vectors with noise."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from es_config.scan import PointInTime, random_body, sample_view
from tuning.errors import TuneError
from tuning.truth import unit

if TYPE_CHECKING:
    import numpy as np

    from es_config.vector_field import VectorField

FEWEST = 50
"""texts that a log or captions must give to be used"""
NOISE = 0.5
"""length of the noise, relative to the vector's; the cosine to the picture is then about 0.9"""
SOURCES = {
    "labelled": "labelled queries",
    "log": "the log of real queries",
    "captions": "captions of the index",
    "noise": "image vectors of the index with noise",
}

Embed = Callable[[Sequence[str]], "np.ndarray"]


@dataclass(frozen=True)
class Queries:
    """Queries to measure with, in an order drawn by chance."""

    vectors: np.ndarray
    """float32 `[n, dims]`"""
    source: str
    """a key of `SOURCES`"""


@dataclass(frozen=True)
class Corpus:
    """The sources of queries."""

    view: PointInTime
    field: VectorField
    documents: int


def draw_queries(
    corpus: Corpus,
    *,
    size: int,
    seed: int,
    labelled: Sequence[str | Sequence[float]] = (),
    logged: Callable[[], Iterable[str]] = lambda: (),
    embed: Embed | None = None,
) -> Queries:
    """Return up to `size` queries from the best source that there is.

    `labelled` are texts or vectors. `embed` turns texts into float32 `[n, dims]`; without it there are only
    vectors. Raises TuneError for labelled queries that cannot be used.
    """
    if labelled:
        return Queries(_labelled(corpus.field, labelled, size, seed, embed), "labelled")
    if embed is not None:
        for source, texts in (("log", logged), ("captions", lambda: _captions(corpus, size, seed))):
            found = _drawn(dict.fromkeys(text.strip() for text in texts() if text.strip()), size, seed)
            if len(found) >= FEWEST:
                return Queries(embed(found), source)
    return Queries(noisy(corpus, size=size, seed=seed), "noise")


def _drawn(items: Iterable[Any], size: int, seed: int) -> list[Any]:
    pool = list(items)
    return Random(seed).sample(pool, min(size, len(pool)))


def _labelled(
    field: VectorField,
    rows: Sequence[str | Sequence[float]],
    size: int,
    seed: int,
    embed: Embed | None,
) -> np.ndarray:
    import numpy as np

    texts = [row for row in rows if isinstance(row, str)]
    vectors = [row for row in rows if not isinstance(row, str)]
    if vectors and texts:
        raise TuneError("Some queries are words and some are vectors: give one kind in one file.")
    if vectors:
        wrong = next((row for row in vectors if len(row) != field.dims), None)
        if wrong:
            raise TuneError(
                f"A query vector has {len(wrong)} dims, and {field.name} of {field.index} has {field.dims}."
            )
        return np.array(_drawn(vectors, size, seed), np.float32)
    if embed is None:
        raise TuneError(
            f"The queries are words, and {field.index} was not made by Glimpse, so no text model is known "
            'for it: write {"vector": […]} instead.'
        )
    return embed(_drawn(dict.fromkeys(texts), size, seed))


def _captions(corpus: Corpus, size: int, seed: int) -> list[str]:
    has_caption = {"exists": {"field": "caption"}}
    body = {
        "query": random_body({"bool": {"filter": [has_caption]}}, seed=seed),
        "size": min(10_000, 2 * size),
        "_source": ["caption"],
    }
    return [hit["_source"]["caption"] for hit in corpus.view.search(body)["hits"]["hits"]]


def noisy(corpus: Corpus, *, size: int, seed: int) -> np.ndarray:
    """Return vectors of the index, moved half their length in a random direction: float32 `[size, dims]`.

    A small index gives each vector several times. Raises TuneError when there are none.
    """
    import numpy as np

    field = corpus.field
    _, vectors = sample_view(
        corpus.view, field=field.name, size=size, documents=corpus.documents, seed=seed, dims=field.dims
    )
    if not len(vectors):
        raise TuneError(
            f"No document of {field.index} has a vector in '{field.name}': there is nothing to measure."
        )
    random = np.random.default_rng(seed)
    chosen = np.resize(vectors, (size, field.dims))
    noise = unit(random.normal(size=chosen.shape)) * np.linalg.norm(chosen, axis=1, keepdims=True)
    moved = chosen + NOISE * noise
    return (unit(moved) if field.similarity in ("cosine", "dot_product") else moved).astype(np.float32)
