"""Where queries come from: labelled ones, the log of real ones, captions, or image vectors with noise."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from es_config.documents import MODE_FIELDS, unit_rows
from es_config.index import ImageIndex
from es_config.scan import PointInTime, point_in_time, random_body, sample_view
from es_config.vector_field import VectorField, read_extent, read_vector_field
from models.encoders import load_caption_text_encoder, load_text_encoder, plain_text
from models.profiles import DEFAULT_PROFILE, get_profile
from tuning.errors import TuneError

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

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

Embed = Callable[[Sequence[str]], np.ndarray]
Item = TypeVar("Item")


@dataclass(frozen=True)
class Queries:
    """Queries to measure with, in an order drawn by chance."""

    vectors: np.ndarray
    """float32 `[n, dims]`"""
    source: str
    """a key of `SOURCES`"""


@dataclass(frozen=True)
class QuerySources:
    """Where queries may come from beside the index itself."""

    labelled: Sequence[str | Sequence[float]] = ()
    """texts or vectors"""
    logged: Callable[[], Iterable[str]] = tuple
    """gives the texts of real queries"""
    embed: Embed | None = None
    """turns texts into float32 `[n, dims]`; without it there are only vectors"""


@dataclass(frozen=True)
class Corpus:
    """One field of a frozen view of an index."""

    view: PointInTime
    field: VectorField
    documents: int


@contextmanager
def open_corpus(client: Elasticsearch, alias: str, field: str) -> Iterator[Corpus]:
    """Give a frozen view of one field. Raises EngineError, TuneError for an index without documents."""
    found = read_vector_field(client, alias, field)
    documents = read_extent(client, found.index).documents
    if documents == 0:
        raise TuneError(f"The index {found.index} is empty: run `glimpse ingest FOLDER` first.")
    with point_in_time(client, found.index) as view:
        yield Corpus(view, found, documents)


def text_embedder(
    client: Elasticsearch, field: VectorField, *, alias: str, profile: str | None, model_dir: Path | None
) -> Embed | None:
    """Return a function that embeds texts for a field of an index that Glimpse made, or None.

    It loads the models when it is called, and raises ModelError, and EngineError for another profile.
    """
    if not field.is_ours or field.name not in MODE_FIELDS.values():
        return None

    def embed(texts: Sequence[str]) -> np.ndarray:
        index = ImageIndex(client, alias=alias)
        row = get_profile(index.choose_profile(profile, default=DEFAULT_PROFILE), model_dir=model_dir)
        index.check_profile(row.name, row.dims)
        load = load_caption_text_encoder if field.name == MODE_FIELDS["caption"] else load_text_encoder
        return load(row).embed_texts([plain_text(text) for text in texts])

    return embed


def draw_queries(corpus: Corpus, sources: QuerySources, *, size: int, seed: int) -> Queries:
    """Return up to `size` queries from the best source that there is.

    Raises TuneError for labelled queries that cannot be used.
    """
    if sources.labelled:
        return Queries(_labelled(corpus.field, sources, size, seed), "labelled")
    if sources.embed is not None:
        for source, texts in (("log", sources.logged), ("captions", lambda: _captions(corpus, size, seed))):
            found = _drawn(dict.fromkeys(text.strip() for text in texts() if text.strip()), size, seed)
            if len(found) >= FEWEST:
                return Queries(sources.embed(found), source)
    return Queries(noisy(corpus, size=size, seed=seed), "noise")


def _drawn(items: Iterable[Item], size: int, seed: int) -> list[Item]:
    pool = list(items)
    return Random(seed).sample(pool, min(size, len(pool)))


def _labelled(field: VectorField, sources: QuerySources, size: int, seed: int) -> np.ndarray:
    texts = [row for row in sources.labelled if isinstance(row, str)]
    vectors = [row for row in sources.labelled if not isinstance(row, str)]
    if vectors and texts:
        raise TuneError("Some queries are words and some are vectors: give one kind in one file.")
    if vectors:
        wrong = next((row for row in vectors if len(row) != field.dims), None)
        if wrong:
            raise TuneError(
                f"A query vector has {len(wrong)} dims, and {field.name} of {field.index} has {field.dims}."
            )
        return np.array(_drawn(vectors, size, seed), np.float32)
    if sources.embed is None:
        raise TuneError(
            f"The queries are words, and {field.index} was not made by Glimpse, so no text model is known "
            'for it: write {"vector": […]} instead.'
        )
    return sources.embed(_drawn(dict.fromkeys(texts), size, seed))


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
    noise = unit_rows(np.asarray(random.normal(size=chosen.shape))) * np.linalg.norm(
        chosen, axis=1, keepdims=True
    )
    moved = chosen + NOISE * noise
    return (unit_rows(moved) if field.similarity in ("cosine", "dot_product") else moved).astype(np.float32)
