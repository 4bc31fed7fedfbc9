"""Bodies of search requests: pure functions, sent by `ImageIndex`.

The field has Elasticsearch's standard analyzer, which every engine has and which stems no language. So the
query is built word by word here: English plurals are tolerated, English function words are left out where
anything else is said, and a caption must hold a third of the words: fewer is chance, as when the "in" of a
German query meets an English caption.
"""

from __future__ import annotations

import base64
import json
import re
import shlex
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from es_config.documents import NAME_WORD, folded, format_of, place_key, same_letters
from es_config.errors import EngineError

if TYPE_CHECKING:
    import numpy as np

DEFAULT_K = 10
MAX_CANDIDATES = 10_000
"""Elasticsearch refuses a larger `num_candidates`"""
PARTITION = 8_000
"""documents in one section of an exact search; SHA-256 ids spread too evenly for 10 000 to be reached"""


@dataclass(frozen=True)
class Filters:
    """Conditions on a neighbour. Days are whole: `date_to` includes its day."""

    date_from: date | None = None
    date_to: date | None = None
    place: tuple[float, float, str] | str | None = None
    """(latitude, longitude, distance), as in `(48.86, 2.35, "10km")`, or the name of a place"""
    camera: str | None = None
    tag: str | None = None
    """a keyword or a person's name that people gave the picture; case and form of Unicode do not count"""
    path: str | None = None
    """the beginning of a relative path or of one of its folders, or a pattern for it with `*` and `?`"""
    taken: str | None = None
    """a year, month or day such as `2023`, `2023-07` or `2023-07-31`, or `UNDATED`"""
    person: str | None = None
    format: str | None = None
    """as `format_of` names it"""
    folder: str | None = None
    """the whole path of a folder that a relative path is in, at any depth"""
    has_text: bool | None = None
    """whether text was read in the picture"""
    film: bool | None = None
    """whether the picture is of a film"""
    other_places: tuple[str, ...] = ()
    """names under which the place called `place` is kept"""
    favourite: bool | None = None
    """whether somebody has marked the picture as a favourite; the field is left out where not"""
    without: tuple[str, ...] = ()
    """ids of pictures that are left out"""


UNDATED = "unknown"
"""filter for pictures without a date"""
ROUNDED = {4: "y", 7: "M", 10: "d"}
"""characters of a `taken` -> the unit of its length"""


def _last(field: str, order: str, kind: str = "date") -> dict[str, Any]:
    """Return a sort by a field that puts documents without it at the end, also where no document has it."""
    return {field: {"order": order, "missing": "_last", "unmapped_type": kind}}


def check_knn_limits(k: int, num_candidates: int) -> None:
    """Raise EngineError unless 1 ≤ k ≤ num_candidates ≤ 10 000."""
    if k < 1:
        raise EngineError(f"k is {k}: ask for at least 1 neighbour.")
    if num_candidates < k:
        raise EngineError(
            f"num_candidates is {num_candidates}, less than k, which is {k}: raise it to {k} or more."
        )
    if num_candidates > MAX_CANDIDATES:
        raise EngineError(
            f"num_candidates is {num_candidates}: Elasticsearch allows at most {MAX_CANDIDATES}."
        )


WILDCARDS = re.compile(r"\\.|[*?]+", re.DOTALL)


def is_pattern(path: str) -> bool:
    """Return whether a filter for paths is a pattern, not the beginning of a path."""
    return any(part[0] != "\\" for part in WILDCARDS.findall(path))


def simplified(pattern: str) -> str:
    """Return the same pattern with each run of wildcards written as short as possible: `*?**` is `?*`.

    Elasticsearch spends time on every `*`. A backslash takes the meaning from the character after it.
    """
    return WILDCARDS.sub(_shortest, pattern)


def _shortest(match: re.Match[str]) -> str:
    run = match[0]
    return run if run.startswith("\\") else "?" * run.count("?") + "*" * ("*" in run)


def count_stars(pattern: str) -> int:
    """Return the number of `*` of a pattern that stand for any characters, once it is `simplified`."""
    return sum(part.endswith("*") for part in WILDCARDS.findall(simplified(pattern)) if part[0] != "\\")


def filter_clauses(filters: Filters | None) -> list[dict[str, Any]]:
    """Return the filters as clauses of the query language."""
    if filters is None:
        return []
    clauses: list[dict[str, Any]] = []
    days = {"gte": filters.date_from, "lte": filters.date_to}
    if any(days.values()):
        # Elasticsearch rounds `lte` a day up to its last millisecond.
        clauses.append(_dated({key: f"{day.isoformat()}||/d" for key, day in days.items() if day}))
    if filters.taken:
        clauses.append(_taken_clause(filters.taken))
    if isinstance(filters.place, str):
        keys = sorted({place_key(name) for name in (filters.place, *filters.other_places)})
        clauses.append({"terms": {"names.place_keys": keys}})
    elif filters.place:
        latitude, longitude, distance = filters.place
        point = {"lat": latitude, "lon": longitude}
        clauses.append({"geo_distance": {"distance": distance, "exif.location": point}})
    if filters.camera:
        clauses.append({"term": {"exif.camera": {"value": filters.camera, "case_insensitive": True}}})
    if filters.tag:
        older = {"term": {"tags": {"value": filters.tag, "case_insensitive": True}}}
        clauses.append(_any({"term": {"names.keywords": same_letters(filters.tag)}}, older))
    if filters.path:
        clauses.append(_path_clause(filters.path.removeprefix("./")))
    return clauses + _more_clauses(filters)


def _more_clauses(filters: Filters) -> list[dict[str, Any]]:
    clauses: list[dict[str, Any]] = []
    if filters.person:
        clauses.append({"term": {"people": {"value": filters.person, "case_insensitive": True}}})
    if filters.format:
        clauses.append({"term": {"names.format": format_of(f".{filters.format}") or filters.format}})
    if filters.folder:
        clauses.append({"term": {"names.within": {"value": filters.folder.strip("/")}}})
    switches = (("words", filters.has_text), ("film.id", filters.film), ("favourite", filters.favourite))
    for field, wanted in switches:
        exists = {"exists": {"field": field}}
        if wanted is not None:
            clauses.append(exists if wanted else {"bool": {"must_not": [exists]}})
    if filters.without:
        clauses.append({"bool": {"must_not": [{"ids": {"values": list(filters.without)}}]}})
    return clauses


def _taken_clause(taken: str) -> dict[str, Any]:
    if taken == UNDATED:
        dated = [{"exists": {"field": field}} for field in ("exif.local_date", "exif.date")]
        return {"bool": {"must_not": dated}}
    rounded = f"{taken}||/{ROUNDED[len(taken)]}"
    return _dated({"gte": rounded, "lte": rounded})


def _dated(limits: dict[str, str]) -> dict[str, Any]:
    """Return a clause for the local date, or for the instant in documents of an earlier version."""
    without = {"must_not": [{"exists": {"field": "exif.local_date"}}]}
    older = {"bool": {**without, "filter": [{"range": {"exif.date": limits}}]}}
    return _any({"range": {"exif.local_date": limits}}, older)


def _path_clause(path: str) -> dict[str, Any]:
    if is_pattern(path):
        kind, value = "wildcard", simplified(path)
    else:
        kind, value = "prefix", re.sub(r"\\([*?\\])", r"\1", path)
    older = {kind: {"relative_path": {"value": value}}}
    return _any({kind: {"names.path": {"value": same_letters(value)}}}, older)


def _any(*clauses: dict[str, Any]) -> dict[str, Any]:
    """Return a clause for documents that one of these fits."""
    return {"bool": {"should": list(clauses), "minimum_should_match": 1}}


def knn_body(
    *,
    field: str = "image_embedding",
    query_vector: np.ndarray | None = None,
    like_id: str | None = None,
    index: str | None = None,
    k: int,
    num_candidates: int,
    filters: Filters | None = None,
    oversample: float | None = None,
    size: int | None = None,
    from_: int = 0,
) -> dict[str, Any]:
    """Return a search for the `k` neighbours of a float32 `[dims]` vector, or of the document `like_id`.

    With `like_id`, Elasticsearch looks the vector up in `index`, and that document is its own first
    neighbour. `size` and `from_` page through the k. Raises EngineError when `k` or `num_candidates` is out
    of range.
    """
    check_knn_limits(k, num_candidates)
    section = _query(field, query_vector, like_id, index) | {"k": k, "num_candidates": num_candidates}
    clauses = filter_clauses(filters)
    if clauses:
        section["filter"] = clauses
    if oversample is not None:
        section["rescore_vector"] = {"oversample": oversample}
    return _paged({"knn": section}, k, size, from_)


def exact_body(
    *,
    field: str = "image_embedding",
    query_vector: np.ndarray | None = None,
    like_id: str | None = None,
    index: str | None = None,
    k: int,
    documents: int,
    filters: Filters | None = None,
    size: int | None = None,
    from_: int = 0,
    partition: int = PARTITION,
) -> dict[str, Any]:
    """Return the body of a search that compares the query with every one of the index's `documents`.

    It needs no scripts. A filter that leaves no more documents than `num_candidates` makes Lucene skip its
    graph and score them all; rescoring all of those candidates replaces quantised scores by exact ones. So
    the ids are cut into ranges of about `partition` documents, one `knn` section for each, and Elasticsearch
    merges the sections' hits.
    """
    check_knn_limits(k, MAX_CANDIDATES)
    query = _query(field, query_vector, like_id, index)
    ranges = _id_ranges(-(-documents // partition))
    return _paged({"knn": _exact_sections(query, k, ranges, filter_clauses(filters))}, k, size, from_)


def _exact_sections(
    query: Mapping[str, Any], k: int, ranges: Iterable[dict[str, Any]], clauses: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return a section of `knn` for each range of documents, which scores every one of them exactly."""
    wide = {"k": k, "num_candidates": MAX_CANDIDATES, "rescore_vector": {"oversample": MAX_CANDIDATES / k}}
    return [{**query, **wide, "filter": [limits, *clauses]} for limits in ranges]


def _id_ranges(parts: int) -> list[dict[str, Any]]:
    """Cut the hexadecimal ids into `parts` ranges of equal width that cover every id, hexadecimal or not."""
    if parts <= 1:
        return [{"match_all": {}}]
    bounds = [f"{part * 16**6 // parts:06x}" for part in range(1, parts)]
    ranges = [{"lt": bounds[0]}]
    ranges += [{"gte": low, "lt": high} for low, high in pairwise(bounds)]
    return [{"range": {"image_id": limits}} for limits in [*ranges, {"gte": bounds[-1]}]]


def _query(
    field: str, query_vector: np.ndarray | None, like_id: str | None, index: str | None
) -> dict[str, Any]:
    if (query_vector is None) == (like_id is None):
        raise ValueError("give either query_vector or like_id")
    if query_vector is not None:
        from elasticsearch.helpers import pack_dense_vector

        return {"field": field, "query_vector": pack_dense_vector(query_vector)}
    if index is None:
        raise ValueError("like_id needs the index that holds it")
    lookup = {"index": index, "id": like_id, "path": field}
    return {"field": field, "query_vector_builder": {"lookup": lookup}}


def _by_day(order: str) -> tuple[dict[str, Any], ...]:
    """Return a sort by the clocks of the place, as filters go. Documents of an earlier version are last."""
    return _last("exif.local_date", order), _last("exif.date", order)


_BY_ID = {"image_id": {"order": "asc"}}
LISTING_ORDERS: Mapping[str, tuple[dict[str, Any], ...]] = {
    "newest": (*_by_day("desc"), _last("indexed_at", "desc"), _BY_ID),
    "oldest": (*_by_day("asc"), _last("indexed_at", "asc"), _BY_ID),
    "name": (_last("image_name", "asc", "keyword"), _last("relative_path", "asc", "keyword"), _BY_ID),
    "added": (_last("indexed_at", "desc"), _BY_ID),
}
"""orders of pictures that need no question; the id comes last, so that pages never share a picture"""


def listing_query(clauses: Sequence[dict[str, Any]], *, ids: Sequence[str] | None = None) -> dict[str, Any]:
    """Return the query for pictures that pass `clauses`: films count once, with their first picture.

    With `ids`, those pictures alone, whichever they are.
    """
    if ids is not None:
        return {"bool": {"filter": [*clauses, {"ids": {"values": list(ids)}}]}}
    moment = {"must_not": [{"term": {"film.is_moment": True}}]}
    return {"bool": {"filter": list(clauses), **moment} if clauses else moment}


def listing_body(
    *,
    sort: str,
    size: int,
    from_: int = 0,
    filters: Filters | None = None,
    ids: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Return a search for the pictures that pass the filters, in one of the `LISTING_ORDERS`.

    With `ids` only those pictures are listed. A picture without the date or the name that is sorted by comes
    last. All that pass are counted, however few are shown. Raises EngineError past the 10 000th.
    """
    if from_ + size > MAX_CANDIDATES:
        raise EngineError(f"A list is shown up to picture {MAX_CANDIDATES}: narrow it by filters.")
    clauses = filter_clauses(filters)
    body = {
        "query": listing_query(clauses, ids=ids),
        "sort": list(LISTING_ORDERS[sort]),
        "track_total_hits": True,
    }
    return _paged(body, size, size, from_)


def _paged(body: dict[str, Any], k: int, size: int | None, from_: int) -> dict[str, Any]:
    return {**body, "size": k if size is None else size, **({"from": from_} if from_ else {})}


def as_curl(
    body: Mapping[str, Any], *, url: str, index: str, api_key: bool = False, ca_certs: str | None = None
) -> str:
    """Return a shell command that sends `body`, with vectors as numbers and a key as its variable."""
    options = [f"--cacert {shlex.quote(ca_certs)}"] if ca_certs else []
    options += ['-H "Authorization: ApiKey $ELASTICSEARCH_API_KEY"'] if api_key else []
    options += ["-H 'Content-Type: application/json'", "--data-binary @-"]
    address = shlex.quote(f"{url}/{index}/_search?pretty")
    return f"curl -sS {address} {' '.join(options)} <<'JSON'\n{json.dumps(_legible(body))}\nJSON"


def _legible(part: Any, key: str = "") -> Any:
    """Write packed query vectors as the shortest decimal numbers that are the same float32."""
    import numpy as np

    if isinstance(part, list):
        return [_legible(each) for each in part]
    if isinstance(part, Mapping):
        return {name: _legible(value, name) for name, value in part.items()}
    if key == "query_vector" and isinstance(part, str):
        values = np.frombuffer(base64.b64decode(part), dtype=">f4").astype("float32")
        return [float(str(value)) for value in values]
    return part


def exact_by_sequence(
    *,
    field: str,
    query_vector: np.ndarray,
    k: int,
    last_sequence: int,
    filters: Sequence[dict[str, Any]] = (),
    partition: int = PARTITION,
) -> dict[str, Any]:
    """Return an exact search that needs no field except the vectors.

    It is `exact_body` with its sections cut by the sequence number that Elasticsearch gives every document;
    `last_sequence` is the highest of any shard.
    """
    starts = range(0, last_sequence + 1, partition)
    ranges = [{"range": {"_seq_no": {"gte": start, "lt": start + partition}}} for start in starts]
    query = _query(field, query_vector, None, None)
    sections = _exact_sections(query, k, ranges or [{"match_all": {}}], filters)
    return {"knn": sections, "size": k, "_source": False}


ONE_IN = 3
"""how many of a query's words ask that a caption hold one more of them; it must always hold one"""
OTHER_NUMBER_BOOST = 0.4
"""weight of "boat" for "boats": measured best of 0, 0.2, … 1 on drawn and on real captions"""
WORD = re.compile(r"\w+(?:['’.]\w+)*")
"""as the standard analyzer cuts, which keeps "grandmother's" whole"""
MOST_WORDS, LONGEST_WORD = 64, 100
"""words of a text, and letters of each, that are looked for: Elasticsearch reads some letters as eighteen,
and a long word that may be misspelt takes much of its memory"""
FUNCTION_WORDS = """a an and are as at be but by for from in into is it its of on or that the their there
these this to was were will with"""
STOP_WORDS = frozenset(FUNCTION_WORDS.split())
PLURALS = {"man": "men", "woman": "women", "child": "children", "person": "people", "foot": "feet"}
PLURALS |= {"tooth": "teeth", "mouse": "mice", "goose": "geese", "leaf": "leaves", "wolf": "wolves"}
IRREGULAR = {**PLURALS, **{plural: singular for singular, plural in PLURALS.items()}}
SPELLINGS = (
    (r"([^aeiou])ies$", (r"\1y",)),
    (r"(s|x|z|ch|sh)es$", (r"\1", r"\1e")),
    (r"([^su])s$", (r"\1",)),
    (r"([^aeiou])y$", (r"\1ies",)),
    (r"(s|x|z|ch|sh)$", (r"\1es",)),
    (r"$", ("s",)),
)
"""how a word ends, and how it ends in the other number; the first that fits"""


def words_body(
    *texts: str, size: int, filters: Filters | None = None, without: Sequence[str] = ()
) -> dict[str, Any]:
    """Return a search for captions with words of `texts`. A hit's `matched` names its words.

    A caption that holds every word of one of the texts `without` is left out. Texts without any word find
    nothing.
    """
    clauses = [_clause(word) for word in typed_words(" ".join(texts))]
    query: dict[str, Any] = {"match_none": {}}
    if clauses:
        # A percentage would round down to none, and then a filter alone would be enough.
        query = {"bool": {"should": clauses, "minimum_should_match": max(1, len(clauses) // ONE_IN)}}
        if only := filter_clauses(filters):
            query["bool"]["filter"] = only
        unwanted = [[_clause(word) for word in typed_words(text)] for text in without]
        if any(unwanted):
            query["bool"]["must_not"] = [{"bool": {"must": every}} for every in unwanted if every]
    return {"query": query, "size": size}


SPELT_BOOST, BEGUN_BOOST = 0.5, 0.4
"""weights of a word that is written a little differently, as a reader errs, and of one that only begins so"""
SHORTEST_BEGUN = 3
"""letters of a word that may be the beginning of a longer one"""
NAMES = {
    "file": ("file name", 8.0),
    "people": ("person", 8.0),
    "title": ("title", 6.0),
    "tags": ("keyword", 6.0),
    "places": ("place", 6.0),
    "folders": ("folder", 4.0),
    "camera": ("camera", 3.0),
}
"""field of `names` -> how a reason calls it, and its weight, of the size of a rare word's BM25"""
OLDER_NAMES = {"image_name.text": "file", "tags": "tags"}
"""fields that documents of an earlier version have instead"""
COUNTED = frozenset(("title", "tags", "folders"))
"""fields in which the other number of a word counts too"""
IN_PICTURE = "written in the picture"
IN_MANY_NAMES = (
    """img image images photo photos picture pictures pic pics camera dcim dsc file jpg jpeg png"""
)
MEANINGLESS = frozenset(IN_MANY_NAMES.split())
"""words that are in many names and say nothing"""
CAMERAS_AND_THINGS = """apple blackberry galaxy honor nothing olympus palm pearl pixel sharp"""
THINGS = frozenset(CAMERAS_AND_THINGS.split())
"""names of cameras that, alone, mean something else"""
NO_PLACES: Mapping[str, Sequence[str]] = {}
MOST_NAMED = 12
"""words of a query that may name something; a longer one tells a story"""
BEGUN_IN_NAMES = 5
"""letters, without a digit, of the beginning of a name: "car" is no beginning of "Carl" """
EVERY, OF_MANY = 2, "70%"
"""up to so many words all must be written in the picture, of more this share"""
WHOLE_BOOST = 50.0
"""what a picture with every one of many words gets besides: more than rare words can bring"""
PHRASE = "phrase"
"""name of the clause for the words in their order, which is no word"""


def written_body(
    *texts: str,
    size: int,
    from_: int = 0,
    filters: Filters | None = None,
    alone: bool = False,
    without: Sequence[str] = (),
    places: Mapping[str, Sequence[str]] = NO_PLACES,
    ordinary: Collection[str] = (),
) -> dict[str, Any]:
    """Return a search for pictures in which words of each of `texts` are written, or which are named by them.

    A hit's `matched` names its words, and for each place `label: word`. Function words need not be there. A
    picture that holds one of the texts `without` is left out. Texts without any word find nothing. A search
    for these words `alone` takes shorter beginnings of names too, and the names of cameras that are also
    things.

    `places` are the names under which a place is kept that a word in lower case stands for. An `ordinary`
    word means a place only beside another name of it, unless the search is for words `alone`.
    """
    known = _KnownPlaces(places, frozenset() if alone else frozenset(ordinary))
    wanted = [each for each in (_written_words(text, known, alone=alone) for text in texts) if each]
    query: dict[str, Any] = {"match_none": {}}
    if wanted:
        more: list[dict[str, Any]] = [
            {"match_phrase": {"words": {"query": text, "slop": 2, "_name": PHRASE}}} for text in texts
        ]
        for each in wanted:
            if alone and len(each["should"]) > EVERY:
                whole = {"bool": {"must": each["should"]}}
                more.append({"constant_score": {"filter": whole, "boost": WHOLE_BOOST}})
        query = {"bool": {"must": [{"bool": each} for each in wanted], "should": more}}
        if only := filter_clauses(filters):
            query["bool"]["filter"] = only
        unwanted = [each for each in (_written_words(text, known, alone=alone) for text in without) if each]
        if unwanted:
            query["bool"]["must_not"] = [{"bool": each} for each in unwanted]
    return {"query": query, "size": size, **({"from": from_} if from_ else {})}


@dataclass(frozen=True)
class _KnownPlaces:
    """The words of a question that stand for places, and those that seldom do."""

    names: Mapping[str, Sequence[str]]
    ordinary: frozenset[str]

    def queries(
        self, word: str, named: list[dict[str, Any]], *, others: Iterable[str]
    ) -> list[dict[str, Any]]:
        """Return the queries for a word as a place, from those for a name that is written so.

        `others` are the other words of its text. There are none where the word means no place.
        """
        if word in self.ordinary:
            company = [self._any_name(other) for other in others if other not in self.ordinary]
            whole = {"must": [{"dis_max": {"queries": named}}], "filter": [_any(*company)]}
            named = [{"bool": whole}] if company else []
        if word not in self.names:
            return named
        return [
            *named,
            {"constant_score": {"filter": self._kept_as(word), "boost": NAMES["places"][1]}},
        ]

    def _kept_as(self, word: str) -> dict[str, Any]:
        return {"terms": {"names.place_keys": sorted({place_key(name) for name in self.names[word]})}}

    def _any_name(self, word: str) -> dict[str, Any]:
        own = {"match": {"names.places": {"query": _folded_words(word), "operator": "and"}}}
        return _any(own, self._kept_as(word)) if word in self.names else own


def _folded_words(word: str) -> str:
    return " ".join(folded(part) for part in NAME_WORD.findall(word))


def _written_words(text: str, places: _KnownPlaces, *, alone: bool) -> dict[str, Any] | None:
    """Return the clauses for the words of one text, or None where it has no word."""
    words = typed_words(text)
    words = tuple(word for word in words if word.casefold() not in MEANINGLESS) or words
    named = len(words) <= MOST_NAMED and not MEANINGLESS.issuperset(map(str.casefold, words))
    only_things = THINGS if len(words) == 1 and not alone else ()
    if not words:
        return None
    clauses = [
        _written_clause(
            word,
            named=named,
            alone=alone,
            only_things=only_things,
            places=places,
            others=[other.casefold() for other in words if other != word],
        )
        for word in words
    ]
    return {"should": clauses, "minimum_should_match": f"{EVERY}<{OF_MANY}"}


def _written_clause(
    typed: str,
    *,
    named: bool,
    alone: bool,
    only_things: Collection[str],
    places: _KnownPlaces,
    others: Sequence[str],
) -> dict[str, Any]:
    word = typed.casefold()
    queries: list[dict[str, Any]] = []
    for each in _small_letters(typed):
        queries.append({"match": {"words": {"query": each, "operator": "and"}}})
        if each.isalpha():  # another number is another thing
            fuzzy = {"query": each, "operator": "and", "fuzziness": "AUTO:5,9", "prefix_length": 1}
            queries.append({"match": {"words": {**fuzzy, "boost": SPELT_BOOST}}})
        if len(each) >= SHORTEST_BEGUN and each.isalnum():
            queries.append({"prefix": {"words.prefix": {"value": each, "boost": BEGUN_BOOST}}})
    found = [{"dis_max": {"queries": queries, "_name": f"{IN_PICTURE}: {word}"}}]
    if named:
        fields = NAMES.keys() - ({"camera"} if word in only_things else ())
        for field in (each for each in NAMES if each in fields):
            label, boost = NAMES[field]
            queries = _name_queries(word, field, boost, alone=alone)
            if field == "places":
                queries = places.queries(word, queries, others=others)
            if queries:
                found.append({"dis_max": {"queries": queries, "_name": f"{label}: {word}"}})
    return {"dis_max": {"queries": found, "_name": word}}


def _name_queries(word: str, field: str, boost: float, *, alone: bool) -> list[dict[str, Any]]:
    """Return the queries for one word in one field of `names`."""
    name = f"names.{field}"
    said = _folded_words(word)
    queries: list[dict[str, Any]] = [{"match": {name: {"query": said, "operator": "and", "boost": boost}}}]
    if field in COUNTED:
        queries += [
            {"match": {name: {"query": folded(other), "boost": boost * OTHER_NUMBER_BOOST}}}
            for other in other_numbers(word)
        ]
    shortest = SHORTEST_BEGUN if alone or any(map(str.isdigit, said)) else BEGUN_IN_NAMES
    if " " not in said and len(said) >= shortest:
        queries.append({"prefix": {name: {"value": said, "boost": boost * BEGUN_BOOST}}})
    elif " " in said:
        first, last = said.rsplit(" ", 1)
        begun = [{"match": {name: {"query": first, "operator": "and"}}}, {"prefix": {name: {"value": last}}}]
        queries.append(
            {"constant_score": {"filter": {"bool": {"must": begun}}, "boost": boost * BEGUN_BOOST}}
        )
    for older, replaced in OLDER_NAMES.items():
        if replaced == field:
            exact = {"value": word, "boost": boost, "case_insensitive": True}
            match = {"query": word, "operator": "and", "boost": boost}
            queries.append({"term": {older: exact}} if older == "tags" else {"match": {older: match}})
    return queries


def query_words(text: str) -> tuple[str, ...]:
    """Return the words to look for, each once: without function words, unless there are only such."""
    return tuple(word.casefold() for word in typed_words(text))


def typed_words(text: str) -> tuple[str, ...]:
    """Return the same in upper and lower case, as they were typed."""
    found = [word[:LONGEST_WORD] for word in WORD.findall(unicodedata.normalize("NFC", text))]
    words = tuple({word.casefold(): word for word in reversed(found)}.values())[::-1]
    return (tuple(word for word in words if word.casefold() not in STOP_WORDS) or words)[:MOST_WORDS]


def other_numbers(word: str) -> tuple[str, ...]:
    """Return the singular of an English plural, else the plural, or two if spelling allows both."""
    if word in IRREGULAR:
        return (IRREGULAR[word],)
    if len(word) < 3 or not (word.isascii() and word.isalpha()):
        return ()
    pattern, endings = next(rule for rule in SPELLINGS if re.search(rule[0], word))
    return tuple(re.sub(pattern, ending, word, count=1) for ending in endings)


def _small_letters(typed: str) -> tuple[str, ...]:
    """Return a word in one case: `Straße` as `strasse` and, as Elasticsearch keeps it, as `straße`."""
    return tuple(dict.fromkeys((typed.casefold(), typed.lower())))


def _clause(typed: str) -> dict[str, Any]:
    word = typed.casefold()
    queries: list[dict[str, Any]] = [
        {"match": {"caption": {"query": each, "operator": "and"}}} for each in _small_letters(typed)
    ]
    queries += [
        {"match": {"caption": {"query": other, "boost": OTHER_NUMBER_BOOST}}} for other in other_numbers(word)
    ]
    return {"dis_max": {"queries": queries, "_name": word}}
