"""Bodies of kNN searches, compared with bodies written by hand."""

import json
import subprocess
from datetime import date

import numpy as np
import pytest
from waiting import PATIENCE_S

from es_config.documents import IndexMeta, IndexOptions
from es_config.errors import EngineError
from es_config.index import ImageIndex
from es_config.requests import (
    Filters,
    as_curl,
    check_knn_limits,
    exact_body,
    filter_clauses,
    knn_body,
    listing_body,
)

VECTOR = np.array([1.0, 0.0], dtype=np.float32)
PACKED = "P4AAAAAAAAA="  # the big-endian bytes 3f800000 00000000


def either(*clauses):
    """Return a clause for documents of this version and of earlier ones."""
    return {"bool": {"should": list(clauses), "minimum_should_match": 1}}


def begins(path):
    """Return the clause for the beginning of a path."""
    return either(*({"prefix": {field: {"value": path}}} for field in ("names.path", "relative_path")))


def on_days(limits):
    """Return the clause for days where the picture was taken, of earlier versions for days of UTC."""
    without = {"must_not": [{"exists": {"field": "exif.local_date"}}]}
    older = {"bool": {**without, "filter": [{"range": {"exif.date": limits}}]}}
    return either({"range": {"exif.local_date": limits}}, older)


def test_a_vector_search_names_its_field_its_k_and_its_candidates():
    assert knn_body(query_vector=VECTOR, k=10, num_candidates=50) == {
        "knn": {"field": "image_embedding", "query_vector": PACKED, "k": 10, "num_candidates": 50},
        "size": 10,
    }


def test_a_stored_pictures_vector_is_looked_up_by_elasticsearch():
    body = knn_body(like_id="abc", index="images", field="caption_embedding", k=3, num_candidates=30)
    assert body["knn"] == {
        "field": "caption_embedding",
        "query_vector_builder": {"lookup": {"index": "images", "id": "abc", "path": "caption_embedding"}},
        "k": 3,
        "num_candidates": 30,
    }


def test_filters_go_inside_the_knn_section_and_rescoring_too():
    body = knn_body(
        query_vector=VECTOR,
        k=20,
        num_candidates=40,
        filters=Filters(path="trip/"),
        oversample=1.5,
        size=5,
        from_=10,
    )
    assert body == {
        "knn": {
            "field": "image_embedding",
            "query_vector": PACKED,
            "k": 20,
            "num_candidates": 40,
            "filter": [begins("trip/")],
            "rescore_vector": {"oversample": 1.5},
        },
        "size": 5,
        "from": 10,
    }


def test_every_filter_becomes_one_clause():
    filters = Filters(
        date_from=date(2024, 5, 1),
        date_to=date(2024, 5, 31),
        place=(48.86, 2.35, "10km"),
        camera="Canon EOS",
        tag="Boat",
        path="*/Sea/*.jpg",
    )
    assert filter_clauses(filters) == [
        on_days({"gte": "2024-05-01||/d", "lte": "2024-05-31||/d"}),
        {"geo_distance": {"distance": "10km", "exif.location": {"lat": 48.86, "lon": 2.35}}},
        {"term": {"exif.camera": {"value": "Canon EOS", "case_insensitive": True}}},
        either(
            {"term": {"names.keywords": "boat"}},
            {"term": {"tags": {"value": "Boat", "case_insensitive": True}}},
        ),
        either(
            {"wildcard": {"names.path": {"value": "*/sea/*.jpg"}}},
            {"wildcard": {"relative_path": {"value": "*/Sea/*.jpg"}}},
        ),
    ]
    assert filter_clauses(Filters()) == filter_clauses(None) == []
    assert filter_clauses(Filters(date_to=date(2024, 5, 31))) == [on_days({"lte": "2024-05-31||/d"})]


def test_an_escaped_star_of_a_path_stands_for_itself():
    assert filter_clauses(Filters(path=r"./a/star\*")) == [begins("a/star*")]
    assert filter_clauses(Filters(path=r"star\*/*")) == [
        either(*({"wildcard": {field: {"value": r"star\*/*"}}} for field in ("names.path", "relative_path")))
    ]


@pytest.mark.parametrize(
    ("k", "num_candidates", "words"),
    [(0, 10, "k is 0"), (-1, 10, "k is -1"), (11, 10, "less than k"), (10, 10_001, "at most 10000")],
)
def test_numbers_out_of_range_are_refused(k, num_candidates, words):
    with pytest.raises(EngineError, match=words):
        check_knn_limits(k, num_candidates)
    with pytest.raises(EngineError, match=words):
        knn_body(query_vector=VECTOR, k=k, num_candidates=num_candidates)


def test_the_limits_themselves_are_allowed():
    check_knn_limits(1, 1)
    check_knn_limits(10_000, 10_000)


def test_a_list_is_sorted_by_fields_that_may_be_missing_and_counts_everything():
    assert listing_body(sort="newest", size=24, from_=48) == {
        "query": {"bool": {"must_not": [{"term": {"film.is_moment": True}}]}},
        "sort": [
            {"exif.local_date": {"order": "desc", "missing": "_last", "unmapped_type": "date"}},
            {"exif.date": {"order": "desc", "missing": "_last", "unmapped_type": "date"}},
            {"indexed_at": {"order": "desc", "missing": "_last", "unmapped_type": "date"}},
            {"image_id": {"order": "asc"}},
        ],
        "track_total_hits": True,
        "size": 24,
        "from": 48,
    }
    narrowed = listing_body(sort="name", size=2, filters=Filters(camera="x"), ids=["b", "a"])
    camera = {"term": {"exif.camera": {"value": "x", "case_insensitive": True}}}
    assert narrowed["query"] == {"bool": {"filter": [camera, {"ids": {"values": ["b", "a"]}}]}}
    with pytest.raises(EngineError, match="up to picture 10000"):
        listing_body(sort="added", size=1, from_=10_000)


def test_a_search_is_for_one_thing():
    for query in ({}, {"query_vector": VECTOR, "like_id": "a"}, {"like_id": "a"}):
        with pytest.raises(ValueError, match="give either|needs the index"):
            knn_body(**query, k=1, num_candidates=1)


def test_an_exact_search_of_a_small_index_is_one_section_that_scores_everything():
    assert exact_body(query_vector=VECTOR, k=10, documents=8000, filters=Filters(path="a")) == {
        "knn": [
            {
                "field": "image_embedding",
                "query_vector": PACKED,
                "k": 10,
                "num_candidates": 10_000,
                "rescore_vector": {"oversample": 1000.0},
                "filter": [{"match_all": {}}, begins("a")],
            }
        ],
        "size": 10,
    }


def test_an_exact_search_of_a_large_index_cuts_the_ids_into_ranges_without_a_gap():
    body = exact_body(query_vector=VECTOR, k=10, documents=8001 * 4)
    assert [section["filter"][0]["range"]["image_id"] for section in body["knn"]] == [
        {"lt": "333333"},
        {"gte": "333333", "lt": "666666"},
        {"gte": "666666", "lt": "999999"},
        {"gte": "999999", "lt": "cccccc"},
        {"gte": "cccccc"},
    ]


def test_curl_shows_vectors_as_numbers_and_a_key_as_its_variable():
    body = {"knn": [{"query_vector": PACKED, "k": 1}], "size": 1}
    assert as_curl(body, url="https://x:9200", index="images", api_key=True, ca_certs="/my ca.pem") == (
        "curl -sS 'https://x:9200/images/_search?pretty' --cacert '/my ca.pem' "
        '-H "Authorization: ApiKey $ELASTICSEARCH_API_KEY" '
        "-H 'Content-Type: application/json' --data-binary @- <<'JSON'\n"
        '{"knn": [{"query_vector": [1.0, 0.0], "k": 1}], "size": 1}\n'
        "JSON"
    )


def test_the_printed_command_gives_the_same_answer(client, node, index_name):
    index = ImageIndex(client, alias=index_name)
    index.create(IndexMeta("pocket", {}, 16, 16, "cosine"), IndexOptions())
    vectors = np.random.default_rng(5).normal(size=(20, 16)).astype(np.float32)
    for number, vector in enumerate(vectors):
        source = {"image_embedding": vector.tolist(), "relative_path": f"it's/{number % 2}/$x `y` {number}"}
        client.index(index=index_name, id=str(number), document=source)
    index.refresh()
    body = knn_body(query_vector=vectors[3], k=5, num_candidates=20, filters=Filters(path="it's/1/$x `y`"))
    expected = client.search(index=index_name, body=body)["hits"]["hits"]
    assert len(expected) == 5
    command = as_curl(body, url=node.url, index=index_name)
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=True, timeout=PATIENCE_S
    )
    assert json.loads(done.stdout)["hits"]["hits"] == expected
