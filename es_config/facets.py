"""Counts of pictures by camera, keyword, folder, place, person, format, month and more, in one request.

Each count says how many pictures a click on the value would list: the facets of a filter that is set are
counted without that filter, and all the others with it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from es_config.documents import place_key, same_letters
from es_config.requests import UNDATED, Filters, filter_clauses, listing_query

MOST_VALUES = 500
"""values that one facet may be asked for"""
TERMS: Mapping[str, tuple[str, str | None]] = {
    "camera": ("exif.camera", None),
    "tag": ("names.keywords", "tags"),
    "person": ("people", None),
    "place": ("names.place_keys", "names.place"),
    "folder": ("names.within", None),
    "format": ("names.format", None),
}
"""facet, which is also the name of its filter -> the field that is counted, and the one that is shown"""
EXIST: Mapping[str, str] = {"has_text": "words", "film": "film.id"}
"""facets of yes or no -> the field that says yes"""
MONTH = "exif.local_date"
FACETS = ("taken", *TERMS, *EXIST)
SHOWN_TOO = 3
"""of a field that is shown beside the one that is counted, so many times more values are read"""
RESERVED = re.compile(r'([.?+*|(){}\[\]\\"#@&<>~^-])')
"""characters that mean something in Lucene's patterns"""


@dataclass(frozen=True)
class FacetValue:
    """A value of one facet."""

    value: Annotated[str, "as the filter takes it"]
    label: Annotated[str, "as people read it"]
    count: int
    selected: Annotated[bool, "whether the filter is set to it"] = False


@dataclass(frozen=True)
class Facet:
    """The values of one facet, the most frequent first, or of months the latest first."""

    name: Annotated[str, "also the name of the filter that takes the values", {"enum": FACETS}]
    values: tuple[FacetValue, ...]
    more: Annotated[bool, "whether there are values beyond these"] = False


@dataclass(frozen=True)
class FacetCounts:
    """The counts of one question. `total` pictures pass every filter."""

    total: int
    facets: tuple[Facet, ...]


def facets_body(
    filters: Filters,
    *,
    names: Sequence[str] = FACETS,
    size: int = 12,
    ids: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Return the request for the counts of `names`, with up to `size` values each.

    With `ids` only these pictures are counted, as the hits of a question.
    """
    own = [name for name in names if name != "folder" and getattr(filters, name) is not None]
    base = _without(filters, own)
    clauses = filter_clauses(base)
    inside = {name: _only(filters, name) for name in own}
    free = {name: _counting(name, size, filters) for name in names if name not in own}
    aggs: dict[str, Any] = dict(free)
    if own:
        aggs = {"rest": _within(free, [each for some in inside.values() for each in some])}
        for name in own:
            others = [each for other, some in inside.items() if other != name for each in some]
            aggs[f"own.{name}"] = _within({name: _counting(name, size, filters)}, others)
    return {
        "size": 0,
        "track_total_hits": True,
        "query": listing_query(clauses, ids=ids),
        "aggs": _flat(aggs),
    }


def _without(filters: Filters, names: Sequence[str]) -> Filters:
    cleared: dict[str, Any] = dict.fromkeys(names)
    return replace(filters, **cleared)


def _only(filters: Filters, name: str) -> list[dict[str, Any]]:
    alone: dict[str, Any] = {name: getattr(filters, name)}
    if name == "place":
        alone["other_places"] = filters.other_places
    return filter_clauses(Filters(**alone))


def _within(aggs: Mapping[str, Any], clauses: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"filter": {"bool": {"filter": list(clauses)}}, "aggs": _flat(aggs)}


def _flat(aggs: Mapping[str, Any]) -> dict[str, Any]:
    """Return aggregations with those of one facet, which are several, beside each other."""
    found: dict[str, Any] = {}
    for name, value in aggs.items():
        found |= value if name in FACETS else {name: value}
    return found


def _counting(name: str, size: int, filters: Filters) -> dict[str, Any]:
    """Return the aggregations of one facet, by names that begin with its own."""
    if name == "taken":
        months = {"field": MONTH, "calendar_interval": "month", "format": "yyyy-MM", "min_doc_count": 1}
        return {
            "taken": {"date_histogram": {**months, "order": {"_key": "desc"}}},
            "taken.unknown": {"filter": filter_clauses(Filters(taken=UNDATED))[0]},
        }
    if name in EXIST:
        return {name: {"filter": {"exists": {"field": EXIST[name]}}}}
    field, shown = TERMS[name]
    counted: dict[str, Any] = {"field": field, "size": size + 1}
    if name == "folder":
        parent = (filters.folder or "").strip("/")
        below = RESERVED.sub(r"\\\1", parent) + "/" if parent else ""
        counted["include"] = f"{below}[^/]+"
    found = {name: {"terms": counted}}
    if shown:
        found[f"{name}.shown"] = {"terms": {"field": shown, "size": SHOWN_TOO * (size + 1)}}
    return found


def read_facets(
    answer: Mapping[str, Any], filters: Filters, *, names: Sequence[str] = FACETS, size: int = 12
) -> FacetCounts:
    """Return the counts of an answer to `facets_body` with the same arguments."""
    found: dict[str, Any] = dict(answer["aggregations"])
    total = int(answer["hits"]["total"]["value"])
    if (rest := found.pop("rest", None)) is not None:
        total = int(rest["doc_count"])
        found |= rest
    for key in [key for key in found if key.startswith("own.")]:
        found |= found.pop(key)
    return FacetCounts(total, tuple(_read(name, found, filters, size) for name in names))


def _read(name: str, found: Mapping[str, Any], filters: Filters, size: int) -> Facet:
    chosen = getattr(filters, name)
    if name == "taken":
        return _months(found, chosen)
    if name in EXIST:
        count = int(found[name]["doc_count"])
        said = FacetValue("true", "true", count, chosen is True)
        return Facet(name, (said,) if count or chosen is not None else ())
    buckets = found[name]["buckets"]
    key = KEYS.get(name, same_letters)
    if f"{name}.shown" in found:
        labels = _labels(found[f"{name}.shown"]["buckets"], key)
        counts = [(labels[each["key"]], each["doc_count"]) for each in buckets if each["key"] in labels]
    else:
        counts = _merged(buckets, key)
    is_chosen = isinstance(chosen, str)
    values = tuple(
        FacetValue(value, _label(name, value), count, is_chosen and key(value) == key(str(chosen)))
        for value, count in counts[:size]
    )
    is_more = len(counts) > size or int(found[name].get("sum_other_doc_count", 0)) > 0
    return Facet(name, values, is_more)


KEYS: Mapping[str, Callable[[str], str]] = {"place": place_key, "folder": str}


def _label(name: str, value: str) -> str:
    return value.rsplit("/", 1)[-1] if name == "folder" else value


def _labels(buckets: Sequence[Mapping[str, Any]], key: Callable[[str], str]) -> dict[str, str]:
    """Return for each folded value the form in which most pictures have it."""
    labels: dict[str, str] = {}
    for bucket in buckets:
        labels.setdefault(key(bucket["key"]), bucket["key"])
    return labels


def _merged(buckets: Sequence[Mapping[str, Any]], key: Callable[[str], str]) -> list[tuple[str, int]]:
    """Return values with their counts, those together that a filter does not tell apart."""
    counts: Counter[str] = Counter()
    labels = _labels(buckets, key)
    for bucket in buckets:
        counts[labels[key(bucket["key"])]] += int(bucket["doc_count"])
    return counts.most_common()


def _months(found: Mapping[str, Any], chosen: str | None) -> Facet:
    values = [
        FacetValue(bucket["key_as_string"], bucket["key_as_string"], int(bucket["doc_count"]))
        for bucket in found["taken"]["buckets"]
    ]
    if undated := int(found["taken.unknown"]["doc_count"]):
        values.append(FacetValue(UNDATED, UNDATED, undated))
    marked = (
        replace(each, selected=bool(chosen) and each.value.startswith(str(chosen)[:7])) for each in values
    )
    return Facet("taken", tuple(marked))


def counts_body(many: Sequence[Filters]) -> dict[str, Any]:
    """Return the request that counts the pictures which pass each of several filters, by their numbers."""
    aggs = {
        str(number): {"filter": {"bool": {"filter": filter_clauses(filters)}}}
        for number, filters in enumerate(many)
    }
    return {"size": 0, "track_total_hits": False, "query": {"match_all": {}}, "aggs": aggs}


def vocabulary_body(size: int) -> dict[str, Any]:
    """Return the request for the words that a search may be completed to: the most frequent of each facet."""
    fields = {"camera": "exif.camera", "tag": "tags", "person": "people", "place": "names.place"}
    fields |= {"folder": "names.within", "format": "names.format"}
    aggs = {name: {"terms": {"field": field, "size": size}} for name, field in fields.items()}
    return {"size": 0, "track_total_hits": False, "query": {"match_all": {}}, "aggs": aggs}
