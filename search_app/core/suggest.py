"""Complete a typed text to the keywords, people, places and files of an index, and mend its spelling.

The words are the most frequent of the index, read in one request and kept for a minute: a letter that is
typed costs a look into memory, and for names of files one small request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from es_config.documents import NAME_WORD, folded, paths_of
from es_config.facets import vocabulary_body
from es_config.requests import Filters, filter_clauses
from search_app.core.browse import Kept
from search_app.core.searcher import Searcher
from search_app.errors import QueryError

KINDS = ("tag", "person", "place", "camera", "folder", "format")
"""each is also the name of the filter that takes the value"""
FREE_KINDS = ("tag", "person", "place", "camera", "folder")
"""those that are offered while somebody types into the box"""
FILE = "file"
WORDS_S = 60.0
"""seconds for which the words of an index are believed"""
VOCABULARY = 2_000
"""values of each kind that are known, the most frequent"""
MOST, FILES = 20, 4
LONGEST = 100
"""characters that are looked at, from the end"""
SHORTEST_FILE, SHORTEST_MENDED = 3, 4
"""letters of the beginning of a file's name, and of a word whose spelling is mended"""
TWO_ERRORS = 8
"""letters from which on a word may be written with two errors"""


@dataclass(frozen=True)
class Suggestion:
    """One thing that a search may be about."""

    kind: Annotated[
        str, "also the filter that takes the text; a file has its picture's id", {"enum": [*KINDS, FILE]}
    ]
    text: str
    count: Annotated[int, "pictures that have it"]
    rest: Annotated[str, "the words before it, which stay the question"] = ""
    image_id: str | None = None
    mended: Annotated[bool, "whether it is written differently from what was typed"] = False


@dataclass(frozen=True)
class Suggestions:
    """The completions of a text, the best first."""

    suggestions: tuple[Suggestion, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the object as the REST API sends it."""
        return {"suggestions": [vars(each) for each in self.suggestions]}


@dataclass(frozen=True)
class _Known:
    """A value of the index, folded."""

    kind: str
    text: str
    count: int
    key: str
    """its words with spaces between them"""
    words: tuple[str, ...] = field(default=())

    def begins(self, typed: str) -> int:
        """Return 2 if the value begins so, 1 if one of its words does, else 0."""
        if self.key.startswith(typed):
            return 2
        return int(f" {typed}" in self.key)


class Suggester:
    """Completes texts from the index that a searcher asks. Thread-safe."""

    def __init__(self, searcher: Callable[[], Searcher]) -> None:
        """Take a function that returns the searcher which answers now."""
        self._searcher = searcher
        self._kept = Kept(seconds=WORDS_S, size=4)

    def suggest(self, text: str, *, kind: str | None = None, limit: int = 8) -> Suggestions:
        """Return up to `limit` completions of a text, of one kind, or of all for the box.

        The whole text may be the beginning of a value, or its last words; a kind without any text gives its
        most frequent values. Raises `QueryError` for an unknown kind, `EngineError` without Elasticsearch.
        """
        if kind is not None and kind not in KINDS:
            raise QueryError(f"There is no kind '{kind[:40]}'; choose of: {', '.join(KINDS)}.")
        if not 1 <= limit <= MOST:
            raise QueryError(f"limit must be between 1 and {MOST}, and it is {limit}.")
        kinds = (kind,) if kind else FREE_KINDS
        words = _typed(text)
        if not words:
            known = (each for each in self._words() if each.kind == kind)
            return Suggestions(tuple(Suggestion(each.kind, each.text, each.count) for each in known)[:limit])
        found = self._completed(words, kinds, ends_only=kind is None)[:limit]
        if kind is None:
            found = [*found, *self._files(words)][: max(limit, len(found))]
        return Suggestions(tuple((found or self._mended(words, kinds))[:limit]))

    def mend(self, text: str) -> str | None:
        """Return a text with its unknown words as the index writes the nearest ones, None without such."""
        known = {word: each for each in reversed(self._words()) for word in each.words}
        parts, changed = [], False
        for word in text.split():
            key = _key(word)
            near = None if key in known else _nearest(key, known)
            parts.append(_as_written(known[near].text, near) if near else word)
            changed |= near is not None
        return " ".join(parts) if changed else None

    def _completed(
        self, words: Sequence[tuple[str, str]], kinds: Sequence[str], *, ends_only: bool
    ) -> list[Suggestion]:
        """Return values that the last words begin, those that more words begin first."""
        found: dict[tuple[str, str], Suggestion] = {}
        known = [each for each in self._words() if each.kind in kinds]
        for start in range(len(words) if ends_only else 1):
            typed = " ".join(key for key, _ in words[start:])
            rest = " ".join(word for _, word in words[:start])
            ranked = [(each.begins(typed), each) for each in known]
            for _, each in sorted(
                (pair for pair in ranked if pair[0]), key=lambda pair: (-pair[0], -pair[1].count)
            ):
                found.setdefault((each.kind, each.text), Suggestion(each.kind, each.text, each.count, rest))
        return list(found.values())

    def _mended(self, words: Sequence[tuple[str, str]], kinds: Sequence[str]) -> list[Suggestion]:
        last, rest = words[-1][0], " ".join(word for _, word in words[:-1])
        by_word: dict[str, list[_Known]] = {}
        for each in self._words():
            if each.kind in kinds:
                for word in each.words:
                    by_word.setdefault(word, []).append(each)
        return [
            Suggestion(each.kind, each.text, each.count, rest, mended=True)
            for word in _near(last, by_word)
            for each in by_word[word]
        ]

    def _files(self, words: Sequence[tuple[str, str]]) -> list[Suggestion]:
        """Return pictures whose file's name has words that begin so."""
        keys = [key for key, _ in words]
        if len(keys[-1]) < SHORTEST_FILE or len(keys) > 3:
            return []
        clauses = [{"prefix": {"names.file": {"value": key}}} for key in " ".join(keys).split()]
        query = {"bool": {"filter": [*clauses, *filter_clauses(Filters())]}}
        body = {"query": query, "size": FILES, "_source": ["relative_path"], "track_total_hits": False}
        hits = self._searcher().index.search(body).hits
        names = ((hit.image_id, (paths_of(hit.source) or ("",))[0].rsplit("/", 1)[-1]) for hit in hits)
        return [Suggestion(FILE, name, 1, image_id=image_id) for image_id, name in names if name]

    def _words(self) -> list[_Known]:
        searcher = self._searcher()

        def read() -> list[_Known]:
            answer = searcher.index.aggregate(vocabulary_body(VOCABULARY))
            return sorted(_values(answer["aggregations"]), key=lambda each: -each.count)

        found: list[_Known] = self._kept.get(searcher.index.name(), read)
        return found


def _values(aggregations: Any) -> Iterator[_Known]:
    for kind in KINDS:
        seen = set()
        for bucket in aggregations[kind]["buckets"]:
            text = bucket["key"]
            key = _key(text.rsplit("/", 1)[-1] if kind == "folder" else text)
            is_new = kind == "folder" or key not in seen
            seen.add(key)
            if key and is_new:
                yield _Known(kind, text, int(bucket["doc_count"]), key, tuple(key.split()))


def _key(text: str) -> str:
    return " ".join(folded(word) for word in NAME_WORD.findall(text))


def _typed(text: str) -> list[tuple[str, str]]:
    """Return the words that somebody typed, each folded and as it was typed."""
    return [(key, word) for word in text[-LONGEST:].split() if (key := _key(word))]


def _as_written(text: str, key: str) -> str:
    """Return the word of a value whose folded form is `key`, as the value writes it."""
    return next((word for word in text.split() if _key(word) == key), key)


def _nearest(word: str, known: Any) -> str | None:
    return next(iter(_near(word, known)), None)


def _near(word: str, known: Any) -> list[str]:
    """Return known words that a few errors may have made of `word`, the nearest first."""
    most = 2 if len(word) >= TWO_ERRORS else 1
    if len(word) < SHORTEST_MENDED:
        return []
    alike = [each for each in known if each[:1] == word[:1] and abs(len(each) - len(word)) <= most]
    distances = {each: errors_between(word, each, most=most) for each in alike}
    return sorted((each for each in alike if 0 < distances[each] <= most), key=lambda each: distances[each])


def errors_between(one: str, other: str, *, most: int) -> int:
    """Return how many letters are missing, too many, wrong or swapped, or more than `most` if it is more."""
    before: list[int] = []
    last = list(range(len(other) + 1))
    for row, letter in enumerate(one, 1):
        line = [row]
        for column, wanted in enumerate(other, 1):
            cost = min(last[column] + 1, line[-1] + 1, last[column - 1] + (letter != wanted))
            if row > 1 and column > 1 and letter == other[column - 2] and one[row - 2] == wanted:
                cost = min(cost, before[column - 2] + 1)
            line.append(cost)
        if min(line) > most:
            return most + 1
        before, last = last, line
    return min(last[-1], most + 1)
