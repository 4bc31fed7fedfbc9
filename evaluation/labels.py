"""Labelled queries: read from JSONL or TREC's files, and resolved to pictures of the index."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from es_config.documents import paths_of
from es_config.index import ImageIndex
from evaluation.errors import EvaluationError, LabelError
from storage.keys import IMAGE_ID

KNOWN = {"query", "vector", "relevant", "language", "id"}
SHAPE = '{"query": "a red boat", "relevant": ["image id or path"], "language": "en"}'
MAX_QUERY = 1000
NAMES_AT_ONCE = 500
MOST_PICTURES = 10_000
"""pictures that one look-up of names may give: Elasticsearch's own limit"""
EXAMPLES = 3

Find = Callable[[Sequence[str]], Mapping[str, Sequence[str]]]
"""maps labels to ids; those that lead nowhere are left out"""


@dataclass(frozen=True)
class LabelledQuery:
    """One query with its answers. At least one of `text` and `vector` is given."""

    key: str
    """unique within a file, and the same for the same question in another run"""
    text: str | None
    relevant: tuple[str, ...]
    """ids or paths of pictures, as they were written"""
    vector: tuple[float, ...] | None = None
    language: str | None = None

    @property
    def label(self) -> str:
        """The query, in a few words."""
        return self.text or f"vector of {len(self.vector or ())} dims"


@dataclass(frozen=True)
class Labels:
    """The queries of a file, and warnings about them."""

    queries: tuple[LabelledQuery, ...]
    warnings: tuple[str, ...] = ()


def read_labels(path: Path, *, qrels: Path | None = None) -> Labels:
    """Read labelled queries: JSONL, or with `qrels` a TREC topics file and its relevance judgements.

    Raises `LabelError` with the line and the reason for what cannot be read, and for files without queries.
    """
    found = list(_trec(path, qrels) if qrels else _jsonl(path))
    if not found:
        raise LabelError(f"{path} holds no queries: write one JSON object a line, such as {SHAPE}")
    queries = _unique(found)
    return Labels(queries, tuple(_oddities(queries)))


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Give number and content of the lines that are not blank. Raises `LabelError`."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise LabelError(f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8.") from error
    except OSError as error:
        raise LabelError(f"{path} cannot be read ({error.strerror}): check the path.") from error
    # Not splitlines(): it also cuts at characters that may stand inside a JSON string.
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), 1):
        if line.strip():
            yield number, line


def _jsonl(path: Path) -> Iterator[LabelledQuery]:
    for number, line in read_lines(path):
        where = f"Line {number} of {path}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = getattr(error, "msg", "it cannot be read")
            raise LabelError(
                f"{where} is not JSON ({reason}): write one object a line, such as {SHAPE}"
            ) from error
        yield _query(row, where)


def _query(row: Any, where: str) -> LabelledQuery:
    if not isinstance(row, dict):
        raise LabelError(f"{where} is not a JSON object: write it like {SHAPE}")
    unknown = sorted(set(row) - KNOWN)
    if unknown:
        raise LabelError(
            f"{where} has the unknown entry '{unknown[0][:40]}'; known are {', '.join(sorted(KNOWN))}."
        )
    text, vector = _text(row, where), _vector(row, where)
    if text is None and vector is None:
        raise LabelError(f"{where} asks nothing: it needs a query or a vector.")
    language = row.get("language")
    if language is not None and not isinstance(language, str):
        raise LabelError(f'{where}: language must be a text such as "en".')
    named = row.get("id")
    if named is not None and not isinstance(named, str | int):
        raise LabelError(f"{where}: id must be a text or a number.")
    digest = hashlib.sha256(json.dumps(vector).encode()).hexdigest()[:16]
    key = str(named) if named is not None else (text or f"vector {digest}")
    return LabelledQuery(key, text, _relevant(row, where), vector, language)


def _text(row: dict[str, Any], where: str) -> str | None:
    text = row.get("query")
    if text is not None and (not isinstance(text, str) or not text.strip()):
        raise LabelError(f"{where}: query must be some words.")
    if text and len(text) > MAX_QUERY:
        raise LabelError(f"{where}: the query has {len(text)} characters; at most {MAX_QUERY} are allowed.")
    return text.strip() if text else None


def _vector(row: dict[str, Any], where: str) -> tuple[float, ...] | None:
    vector = row.get("vector")
    if vector is None:
        return None
    numbers = isinstance(vector, list) and all(type(value) in (int, float) for value in vector)
    if not numbers or not vector or not all(map(math.isfinite, vector)) or not any(vector):
        raise LabelError(f"{where}: vector must be an array of finite numbers, not all zero.")
    return tuple(float(value) for value in vector)


def _relevant(row: dict[str, Any], where: str) -> tuple[str, ...]:
    relevant = row.get("relevant", [])
    if not isinstance(relevant, list) or not all(isinstance(each, str) and each for each in relevant):
        raise LabelError(f"{where}: relevant must be an array of image ids or paths.")
    return tuple(dict.fromkeys(relevant))


def _trec(topics: Path, qrels: Path) -> Iterator[LabelledQuery]:
    """Read topics, `id<tab>words` lines or JSONL with ids, and the judgements of them."""
    answers = _judgements(qrels)
    first = next((line.strip() for _, line in read_lines(topics)), "")
    for query in _jsonl(topics) if first.startswith("{") else _topics(topics):
        yield replace(query, relevant=tuple(dict.fromkeys(answers.get(query.key, ()))))


def _judgements(qrels: Path) -> dict[str, list[str]]:
    """Read `id 0 picture grade` lines. Grades over 0 count as relevant."""
    answers: dict[str, list[str]] = {}
    for number, line in read_lines(qrels):
        parts = line.split()
        try:
            grade = int(parts[-1])
        except ValueError:
            grade = None
        if len(parts) < 4 or grade is None:
            raise LabelError(
                f"Line {number} of {qrels} is not a judgement: write `query-id 0 picture grade`, "
                "where grade is a whole number."
            )
        if grade > 0:
            answers.setdefault(parts[0], []).append(" ".join(parts[2:-1]))
    return answers


def _topics(topics: Path) -> Iterator[LabelledQuery]:
    for number, line in read_lines(topics):
        named, _, words = line.strip().partition("\t" if "\t" in line.strip() else " ")
        if not words.strip():
            raise LabelError(f"Line {number} of {topics} is not a topic: write `query-id<tab>words`.")
        text = _text({"query": words}, f"Line {number} of {topics}")
        yield LabelledQuery(named, text, ())


def _unique(queries: list[LabelledQuery]) -> tuple[LabelledQuery, ...]:
    """Give a query whose key was used before a number: `a boat`, `a boat #2`, …"""
    seen: Counter[str] = Counter()
    unique = []
    for query in queries:
        seen[query.key] += 1
        count = seen[query.key]
        unique.append(query if count == 1 else replace(query, key=f"{query.key} #{count}"))
    return tuple(unique)


def _oddities(queries: tuple[LabelledQuery, ...]) -> Iterator[str]:
    asked = Counter((query.text, query.vector, query.language) for query in queries)
    again = [(text or "a vector", count) for (text, _, _), count in asked.items() if count > 1]
    if again:
        text, count = again[0]
        example = f"such as '{text[:60]}' ({count} times)"
        yield f"{len(again)} queries occur more than once and count each time, {example}."
    empty = [query.label for query in queries if not query.relevant]
    if empty:
        yield f"{len(empty)} queries name no relevant picture and are left out, such as '{empty[0][:60]}'."


@dataclass(frozen=True)
class Answers:
    """The queries that can be judged, with the ids that answer each."""

    queries: tuple[LabelledQuery, ...]
    relevant: dict[str, tuple[str, ...]]
    """ids by the query's key"""
    unknown: tuple[str, ...]
    """ids and paths of the labels that the index does not hold"""

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warnings about those that lead nowhere."""
        if not self.unknown:
            return ()
        some = ", ".join(f"'{name[:80]}'" for name in self.unknown[:EXAMPLES])
        return (f"{len(self.unknown)} labels name no picture of the index and are left out, such as {some}.",)


def find_answers(queries: Sequence[LabelledQuery], *, find: Find) -> Answers:
    """Look every label up.

    A query whose pictures are all unknown is left out. Raises `EvaluationError` when none can be judged.
    """
    named = list(dict.fromkeys(name for query in queries for name in query.relevant))
    found = find(named)
    relevant = {
        query.key: tuple(dict.fromkeys(each for name in query.relevant for each in found.get(name, ())))
        for query in queries
    }
    judged = tuple(query for query in queries if relevant[query.key])
    unknown = tuple(name for name in named if name not in found)
    if not judged:
        raise EvaluationError(
            "No query has a relevant picture that the index holds"
            + (f": '{unknown[0][:80]}' is not in it" if unknown else "")
            + "; label with ids or with relative paths as `glimpse search` prints them."
        )
    return Answers(judged, {query.key: relevant[query.key] for query in judged}, unknown)


def picture_finder(
    *,
    known: Callable[[Sequence[str]], Iterable[str]],
    by_name: Callable[[Sequence[str]], Iterable[tuple[str, Sequence[str]]]],
) -> Find:
    """Return the `find` of `find_answers` for an index of pictures.

    `known` gives those ids that exist; `by_name` gives id and relative paths of pictures with given file
    names. A label is an id, a relative path, or a path that ends in one or that one ends in.
    """

    def find(names: Sequence[str]) -> dict[str, list[str]]:
        ids = [name for name in names if IMAGE_ID.fullmatch(name)]
        found = {image_id: [image_id] for image_id in known(ids)}
        paths = {name: _parts(name) for name in names if name not in found}
        wanted = list(dict.fromkeys(parts[-1] for parts in paths.values() if parts))
        pictures: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
        for image_id, places in by_name(wanted):
            for place in places:
                parts = _parts(place)
                pictures.setdefault(parts[-1], []).append((image_id, parts))
        for name, parts in paths.items():
            matches = [
                image_id
                for image_id, place in pictures.get(parts[-1] if parts else "", ())
                if all(one == other for one, other in zip(parts[::-1], place[::-1], strict=False))
            ]
            if matches:
                found[name] = list(dict.fromkeys(matches))
        return found

    return find


def _parts(path: str) -> tuple[str, ...]:
    return tuple(part for part in path.replace("\\", "/").split("/") if part not in ("", "."))


def index_finder(index: ImageIndex) -> Find:
    """Return the `find` of `find_answers` that asks an index. It raises `EngineError`."""
    return picture_finder(known=index.known, by_name=lambda names: pictures_named(index, names))


def pictures_named(index: ImageIndex, names: Sequence[str]) -> Iterator[tuple[str, Sequence[str]]]:
    """Give id and relative paths of the pictures whose file has one of these names. Raises `EngineError`."""
    for start in range(0, len(names), NAMES_AT_ONCE):
        wanted = {"terms": {"image_name": list(names[start : start + NAMES_AT_ONCE])}}
        body = {"query": wanted, "size": MOST_PICTURES, "_source": ["relative_path"]}
        for hit in index.search(body).hits:
            yield hit.image_id, paths_of(hit.source)
