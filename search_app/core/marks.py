"""Mark hits as strong, weak or none, beside the same query's scores on a sample of the index."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from es_config.documents import MODE_FIELDS
from es_config.index import ImageIndex
from es_config.relevance import MARKS, WEAK, comparable, oriented, read_calibration, scores_of
from search_app.core.query import Query, SearchHit
from search_app.errors import QueryError

SAMPLE_SECONDS = 300.0
"""after this time an index is sampled again, since pictures are added and removed"""


@dataclass(frozen=True)
class Evidence:
    """Facts about the hits of a search beside their similarity."""

    captions: Mapping[str, float] = field(default_factory=dict)
    """similarity of the caption by image id, in mode hybrid"""
    full_matches: Collection[str] = ()
    """ids of pictures whose caption holds every word of the query, in mode hybrid"""


class Marks:
    """Judges the hits of queries in words. Thread-safe. An index without calibration gets no marks."""

    def __init__(self, *, index: ImageIndex, read_vectors: Callable[[str, int], np.ndarray]) -> None:
        """Take the index, and a function that samples n vectors of a field, float32 `[n, dims]`."""
        self._index = index
        self._read_vectors = read_vectors
        self._samples: dict[tuple[str, str], tuple[float, np.ndarray]] = {}
        self._lock = threading.Lock()

    def marked(
        self,
        query: Query,
        hits: Sequence[SearchHit],
        *,
        vector_of: Callable[[str], np.ndarray],
        evidence: Evidence,
    ) -> tuple[SearchHit, ...]:
        """Return the hits with their marks. `vector_of` gives the query's vector, float32 `[dims]`, by mode.

        A hit of a hybrid search gets the higher of the marks of picture and caption, and is never `none`
        when its caption holds all words. Raises `EngineError` when the sample cannot be read.
        """
        similarities = {hit.image_id: hit.similarity for hit in hits if hit.similarity is not None}
        known = {query.mode: similarities}
        if query.mode == "hybrid":
            captions = evidence.captions
            shown = {hit.image_id: captions[hit.image_id] for hit in hits if hit.image_id in captions}
            known = {"image": similarities, "caption": shown}
        judged = [self._judge(mode, values, vector_of) for mode, values in known.items()]
        if all(found is None for found in judged):
            return tuple(hits)
        return tuple(
            replace(hit, relevance=_highest(hit.image_id, judged, hit.image_id in evidence.full_matches))
            for hit in hits
        )

    def _judge(
        self, mode: str, similarities: Mapping[str, float], vector_of: Callable[[str], np.ndarray]
    ) -> dict[str, str] | None:
        """Return marks by image id, or None when the mode is not calibrated."""
        meta = self._index.meta()
        bars = read_calibration(meta.relevance, mode) if mode in meta.relevance else None
        if bars is None:
            return None
        sample = self._sample(MODE_FIELDS[mode], bars.sample, meta.similarity)
        own = scores_of(vector_of(mode)[None, :], sample, meta.similarity)[0]
        scores = [oriented(meta.similarity, value) for value in similarities.values()]
        marks = bars.marks(scores, float(own.mean()), float(own.std()))
        return dict(zip(similarities, marks, strict=True))

    def _sample(self, field_name: str, size: int, similarity: str) -> np.ndarray:
        key = (self._index.name(), field_name)
        with self._lock:
            read_at, vectors = self._samples.get(key, (0.0, None))
            if vectors is None or time.monotonic() - read_at > SAMPLE_SECONDS:
                vectors = comparable(self._read_vectors(field_name, size), similarity)
                # Samples of indices that were replaced go.
                same = {each: kept for each, kept in self._samples.items() if each[0] == key[0]}
                self._samples = {**same, key: (time.monotonic(), vectors)}
            return vectors


def _highest(image_id: str, judged: Sequence[dict[str, str] | None], is_full_match: bool) -> str:
    marks = [found[image_id] for found in judged if found and image_id in found]
    return max([*marks, WEAK if is_full_match else MARKS[0]], key=MARKS.index)


def at_least(hits: Sequence[SearchHit], least: str) -> tuple[SearchHit, ...]:
    """Return the hits that are marked `least` or higher. Raises `QueryError` when they have no marks."""
    if any(hit.relevance is None for hit in hits):
        raise QueryError(
            "This index is not calibrated for these searches, so min_relevance cannot be answered:"
            " run `glimpse calibrate`."
        )
    return tuple(hit for hit in hits if MARKS.index(hit.relevance) >= MARKS.index(least))
