"""Bodies of searches for words in captions (BM25): a pure function, sent by `ImageIndex.search_many`.

The field has Elasticsearch's standard analyzer, which every engine has and which stems no language. So the
query is built word by word here: English plurals are tolerated, English function words are left out where
anything else is said, and a caption must hold a third of the words: fewer is chance, as when the "in" of a
German query meets an English caption.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from es_config.requests import filter_clauses

if TYPE_CHECKING:
    from es_config.requests import Filters

ONE_IN = 3
"""how many of a query's words ask that a caption hold one more of them; it must always hold one"""
OTHER_NUMBER_BOOST = 0.4
"""what "boat" counts for "boats": measured best of 0, 0.2, … 1 on drawn and on real captions"""
WORD = re.compile(r"\w+(?:['’.]\w+)*")
"""as the standard analyzer cuts, which keeps "grandmother's" whole"""
MOST_WORDS = 64
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


def words_body(text: str, *, size: int, filters: Filters | None = None) -> dict[str, Any]:
    """Return a search for captions that hold the words of `text`; each hit's `matched` names those it has.

    A text without any word finds nothing.
    """
    clauses = [_clause(word) for word in query_words(text)]
    query: dict[str, Any] = {"match_none": {}}
    if clauses:
        # A percentage would round down to none, and then a filter alone would be enough.
        query = {"bool": {"should": clauses, "minimum_should_match": max(1, len(clauses) // ONE_IN)}}
        if only := filter_clauses(filters):
            query["bool"]["filter"] = only
    return {"query": query, "size": size}


def query_words(text: str) -> tuple[str, ...]:
    """Return the words to look for, each once: without function words, unless there are only such."""
    words = tuple(dict.fromkeys(WORD.findall(text.casefold())))
    return (tuple(word for word in words if word not in STOP_WORDS) or words)[:MOST_WORDS]


def other_numbers(word: str) -> tuple[str, ...]:
    """Return the singular of an English plural, and else the plural; two where spelling allows both."""
    if word in IRREGULAR:
        return (IRREGULAR[word],)
    if len(word) < 3 or not (word.isascii() and word.isalpha()):
        return ()
    pattern, endings = next(rule for rule in SPELLINGS if re.search(rule[0], word))
    return tuple(re.sub(pattern, ending, word, count=1) for ending in endings)


def _clause(word: str) -> dict[str, Any]:
    queries = [{"match": {"caption": {"query": word, "operator": "and"}}}]
    queries += [
        {"match": {"caption": {"query": other, "boost": OTHER_NUMBER_BOOST}}} for other in other_numbers(word)
    ]
    return {"dis_max": {"queries": queries, "_name": word}}
