"""Searches for words in captions: bodies against literals, and hits on a real node."""

import uuid
from datetime import UTC, datetime

import numpy as np
import pytest

from es_config.documents import ImageDocument, IndexMeta, IndexOptions
from es_config.errors import EngineError, RefusedQueryError
from es_config.index import ImageIndex
from es_config.requests import (
    MOST_WORDS,
    Filters,
    filter_clauses,
    knn_body,
    other_numbers,
    query_words,
    words_body,
)

CAPTIONS = {
    "a": "a red boat at sea",
    "b": "two boats at sea",
    "c": "children in a meadow",
    "d": "ein Kind in der Stadt",
    "e": "東京の夜",
}


@pytest.fixture(scope="module")
def index(client):
    opened = ImageIndex(client, alias=f"test-{uuid.uuid4()}")
    opened.create(IndexMeta("pocket", {}, 4, 4, "cosine"), IndexOptions())
    vectors = np.eye(5, 4, dtype=np.float32) + 0.1
    rows = zip(CAPTIONS.items(), vectors / np.linalg.norm(vectors, axis=1, keepdims=True), strict=True)
    documents = [
        ImageDocument(name, name, (f"{name}/x.jpg",), vector, 9, 9, 9, datetime.now(UTC), caption=caption)
        for (name, caption), vector in rows
    ]
    assert not opened.add(documents).failed
    opened.refresh()
    yield opened
    opened.delete()


def found(index, text, **filters):
    """Return the ids that a search for words finds, best first."""
    body = words_body(text, size=10, filters=Filters(**filters))
    return [hit.image_id for hit in index.search(body).hits]


def test_the_body_asks_word_by_word_and_filters_as_knn_does():
    assert words_body("A red boat", size=7, filters=Filters(path="x/")) == {
        "query": {
            "bool": {
                "should": [
                    {
                        "dis_max": {
                            "queries": [
                                {"match": {"caption": {"query": word, "operator": "and"}}},
                                {"match": {"caption": {"query": other, "boost": 0.4}}},
                            ],
                            "_name": word,
                        }
                    }
                    for word, other in (("red", "reds"), ("boat", "boats"))
                ],
                "minimum_should_match": 1,
                "filter": filter_clauses(Filters(path="x/")),
            }
        },
        "size": 7,
    }


@pytest.mark.parametrize(
    ("word", "others"),
    [
        ("boats", ("boat",)), ("boat", ("boats",)), ("cities", ("city",)), ("city", ("cities",)),
        ("buses", ("bus", "buse")), ("bus", ("buses",)), ("houses", ("hous", "house")), ("key", ("keys",)),
        ("children", ("child",)), ("woman", ("women",)), ("3", ()), ("été", ()), ("ox", ()),
    ],
)  # fmt: skip
def test_english_plurals_and_singulars_know_each_other(word, others):
    assert other_numbers(word) == others


def test_function_words_are_left_out_unless_there_is_nothing_else():
    assert query_words("The boat, the BOAT in the rain!") == ("boat", "rain")
    assert query_words("in the") == ("in", "the")
    assert query_words("?!") == ()
    assert query_words("Grandma's cat. A 3.5 m boat") == ("grandma's", "cat", "3.5", "m", "boat")
    assert len(query_words(" ".join(f"w{n}" for n in range(500)))) == MOST_WORDS


def test_the_exact_number_comes_first_and_the_other_is_found(index):
    assert found(index, "boats") == ["b", "a"]
    assert found(index, "boat") == ["a", "b"]
    assert found(index, "a child") == ["c"]


def test_one_chance_word_of_many_finds_nothing(index):
    assert found(index, "sea") == ["b", "a"]
    assert found(index, "three green cats by the sea under a rainbow") == []
    assert found(index, "Kind Stadt Regen") == ["d"]


def test_any_language_is_found_by_its_own_words(index):
    assert found(index, "夜") == ["e"]
    assert found(index, "東京") == ["e"]


@pytest.mark.parametrize("text", ["?!", "🎈", "the", '"' * 400, "boat* OR (", "w" * 1000])
def test_no_text_is_an_error_and_none_finds_everything(index, text):
    assert len(found(index, text)) < len(CAPTIONS)
    assert found(index, text, path="nowhere/") == []


def test_a_filter_alone_is_not_enough(index):
    assert found(index, "zebra", path="a/") == []
    assert found(index, "boat", path="a/") == ["a"]


def test_a_hit_names_the_words_that_it_matched(index):
    hit = index.search(words_body("red boats far away", size=1)).hits[0]
    assert sorted(hit.matched) == ["boats", "red"]


def test_many_searches_are_one_request_and_keep_their_order(index):
    vector = np.array([0, 0, 1, 0], np.float32)
    knn, words = index.search_many(
        [knn_body(query_vector=vector, k=2, num_candidates=5), words_body("boats", size=5)]
    )
    assert knn.hits[0].image_id == "c"
    assert knn.hits[0].score == pytest.approx((1 + knn.hits[0].similarity) / 2)
    assert [hit.image_id for hit in words.hits] == ["b", "a"]


def test_one_bad_search_of_many_is_one_sentence(index):
    good = words_body("boats", size=5)
    with pytest.raises(RefusedQueryError, match=r"does not accept the query \(.*vector length\)"):
        index.search_many([good, knn_body(query_vector=np.ones(3, np.float32), k=1, num_candidates=5)])
    with pytest.raises(EngineError, match="no such index"):
        ImageIndex(index._client, alias="test-absent").search_many([good, good])
