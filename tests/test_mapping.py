"""The index as a contract."""

import json

import pytest

from es_config.documents import (
    TEMPLATE,
    IndexMeta,
    IndexOptions,
    differences,
    index_body,
    read_meta,
    with_options,
)
from es_config.errors import EngineError

META = IndexMeta("pocket", {"image": "a1"}, 8, 4, "dot_product", {"num_candidates": 50})


def test_the_file_itself_is_an_index_that_elasticsearch_accepts(client, index_name):
    client.indices.create(index=index_name, **json.loads(TEMPLATE.read_text()))
    found = client.indices.get_mapping(index=index_name).body[index_name]["mappings"]
    assert found["dynamic"] == "strict"
    assert set(found["properties"]) == {
        "image_id",
        "image_name",
        "relative_path",
        "image_embedding",
        "caption",
        "caption_source",
        "caption_embedding",
        "words",
        "words_by",
        "words_fault",
        "words_lines",
        "film",
        "cut_short",
        "exif",
        "width",
        "height",
        "size_bytes",
        "phash",
        "tags",
        "tags_source",
        "favourite",
        "people",
        "title",
        "places",
        "rating",
        "names",
        "indexed_at",
    }


def test_only_dims_similarity_options_and_meta_are_filled_in():
    body = index_body(META, IndexOptions(type="hnsw", m=8, ef_construction=50, shards=3, replicas=1))
    expected = json.loads(TEMPLATE.read_text())
    expected["settings"] = {"number_of_shards": 3, "number_of_replicas": 1}
    expected["mappings"]["_meta"] = {
        "profile": "pocket",
        "revisions": {"image": "a1"},
        "dims": 8,
        "caption_dims": 4,
        "similarity": "dot_product",
        "operating_points": {"num_candidates": 50},
        "relevance": {},
        "execution": {},
        "bulk_load": {},
    }
    for name, dims in (("image_embedding", 8), ("caption_embedding", 4)):
        expected["mappings"]["properties"][name] = {
            "type": "dense_vector",
            "dims": dims,
            "index": True,
            "similarity": "dot_product",
            "index_options": {"type": "hnsw", "m": 8, "ef_construction": 50},
        }
    assert body == expected


def test_meta_survives_the_way_through_a_mapping():
    assert read_meta("i", index_body(META, IndexOptions())["mappings"]) == META


def test_the_mapping_of_another_program_is_refused_with_the_way_out():
    with pytest.raises(EngineError, match=r"foreign was not created by Glimpse.*glimpse index create"):
        read_meta("foreign", {"properties": {}})


def test_a_similarity_that_was_asked_for_replaces_the_profiles():
    assert with_options(META, IndexOptions(similarity="l2_norm")).similarity == "l2_norm"
    assert with_options(META, IndexOptions()) == META


@pytest.mark.parametrize("options", [IndexOptions(similarity="hamming"), IndexOptions(type="flat")])
def test_an_unknown_choice_lists_the_known_ones(options):
    with pytest.raises(EngineError, match="choose one of: "):
        with_options(META, options)


def test_a_mapping_that_departs_from_the_contract_is_described():
    mappings = index_body(META, IndexOptions())["mappings"]
    assert differences(META, mappings) == []
    del mappings["properties"]["phash"]
    mappings["properties"]["more"] = {"type": "keyword"}
    mappings["properties"]["image_embedding"]["dims"] = 16
    mappings["dynamic"] = "true"
    assert differences(META, mappings) == [
        "phash is missing",
        "more is not part of the contract",
        "dynamic is true, not strict",
        "image_embedding.dims is 16, not 8",
    ]
