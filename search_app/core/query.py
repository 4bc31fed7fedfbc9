"""What a person may ask: one frozen `Query`, valid from the moment it exists."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from es_config.requests import Filters
from search_app.errors import QueryError

MODES = ("image", "caption", "hybrid")
MAX_CANDIDATES = 10_000
"""Elasticsearch's own limit for `k` and `num_candidates`"""
MAX_TEXT = 1_000


@dataclass(frozen=True)
class Query:
    """One question: exactly one of `text`, `image`, `like` and `vector`. Raises `QueryError` when not valid.

    A page of a kNN search is the end of a longer answer: page p with `k` hits a page asks
    for the `p * k` nearest neighbours and shows the last `k` of them, so `p * k` is at most 10 000.
    """

    text: str | None = None
    image: bytes | Path | None = None
    """a picture file's content, or where it lies on this machine"""
    like: str | None = None
    """the id of a picture of the index; it is its own first hit"""
    vector: tuple[float, ...] | None = None
    k: int = 10
    """hits a page"""
    page: int = 1
    num_candidates: int | None = None
    """None: the index's tuned operating point, else `default_candidates`"""
    filters: Filters = field(default_factory=Filters)
    exact: bool = False
    mode: str = "image"
    """what is searched: the pictures (`image`), their captions (`caption`), or both and fused (`hybrid`)"""

    min_relevance: str | None = None
    """`strong` or `weak`: hits that are marked lower are left out; for queries in words"""

    def __post_init__(self) -> None:
        """Refuse what no search can answer."""
        object.__setattr__(self, "text", None if self.text is None else self.text.strip())
        self._check_subject()
        self._check_numbers()
        if self.mode not in MODES:
            raise QueryError(f"There is no mode '{self.mode}'; choose one of: {', '.join(MODES)}.")
        if self.mode == "hybrid" and self.vector is not None:
            raise QueryError(
                "A raw vector belongs to one space, so mode hybrid takes none: choose mode image or caption."
            )
        self._check_relevance()

    @property
    def depth(self) -> int:
        """How many neighbours Elasticsearch must find to fill this page."""
        return self.k * self.page

    @property
    def label(self) -> str:
        """What was asked, in a few words: the text, the id, the file's name or the number of dims."""
        if self.vector is not None:
            return f"vector of {len(self.vector)} dims"
        if self.image is not None:
            return self.image.name if isinstance(self.image, Path) else "a picture"
        return self.text or self.like or ""

    def _check_subject(self) -> None:
        subjects = (self.text, self.image, self.like, self.vector)
        given = sum(subject is not None for subject in subjects)
        if given > 1:
            raise QueryError("Ask for one thing at a time: a text, a picture, an image id or a vector.")
        if given == 0 or not any(subjects):
            raise QueryError("The query is empty: give some words, a picture, an image id or a vector.")
        if self.text is not None:
            check_text(self.text)
        if self.vector is not None:
            check_vector(self.vector)

    def _check_relevance(self) -> None:
        if self.min_relevance is None:
            return
        if self.min_relevance not in ("strong", "weak"):
            raise QueryError(f"min_relevance is strong or weak, not '{self.min_relevance[:20]}'.")
        if self.text is None:
            raise QueryError("Only hits of queries in words are marked: leave min_relevance out.")

    def _check_numbers(self) -> None:
        if not 1 <= self.k <= MAX_CANDIDATES:
            raise QueryError(f"k must be between 1 and {MAX_CANDIDATES}, and it is {self.k}.")
        if self.page < 1 or self.depth > MAX_CANDIDATES:
            last = MAX_CANDIDATES // self.k
            raise QueryError(f"With k = {self.k}, page must be between 1 and {last}, and it is {self.page}.")
        if self.num_candidates is not None and not self.k <= self.num_candidates <= MAX_CANDIDATES:
            raise QueryError(
                f"num_candidates must be between k ({self.k}) and {MAX_CANDIDATES},"
                f" and it is {self.num_candidates}."
            )


def check_text(text: str) -> None:
    """Raise `QueryError` for a text that is too long or that is not valid Unicode."""
    if len(text) > MAX_TEXT:
        raise QueryError(f"The query has {len(text)} characters; at most {MAX_TEXT} are allowed.")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise QueryError("The query is not valid Unicode text.")


def check_vector(vector: tuple[float, ...]) -> None:
    """Raise `QueryError` for numbers that have no direction or no size."""
    if not all(math.isfinite(value) for value in vector):
        raise QueryError("The vector holds a number that is not finite.")
    if not any(vector):
        raise QueryError("The vector holds only zeros, and so points nowhere.")


def default_candidates(depth: int) -> int:
    """Return the smallest of 100, 200, 400, … that is at least `2 * depth`, at most 10 000.

    Twice the neighbours wanted is where `int8_hnsw` is within one percent of its best recall. The coarse
    steps matter for paging: pages that share a step come from one and the same candidate list.
    """
    return min(doubled(100, 2 * depth), MAX_CANDIDATES)


def doubled(first: int, least: int) -> int:
    """Return the smallest of `first`, twice that, four times that, … that is at least `least`."""
    while first < least:
        first *= 2
    return first
