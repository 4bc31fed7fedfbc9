"""The index of pictures on a real node."""

import hashlib
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime
from functools import partial

import numpy as np
import pytest
from elasticsearch import NotFoundError

from es_config.bulk import add_documents
from es_config.documents import NAMES_EDITION, AddResult, ImageDocument, IndexMeta, IndexOptions
from es_config.errors import EngineError
from es_config.index import ImageIndex
from es_config.meta import change_meta
from es_config.requests import Filters, knn_body

META = IndexMeta("pocket", {"image": "r1"}, 8, 4, "cosine")
VECTORS = np.eye(8, dtype=np.float32)


def picture(number: int, **changes: object) -> ImageDocument:
    """A small document whose vector is the unit vector of axis `number`."""
    document = ImageDocument(
        image_id=hashlib.sha256(str(number).encode()).hexdigest(),
        image_name=f"{number}.png",
        relative_path=(f"trip/{number}.png",),
        image_embedding=VECTORS[number],
        width=640,
        height=480,
        size_bytes=1000,
        indexed_at=datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC),
    )
    return replace(document, **changes)


@pytest.fixture
def index(client, index_name):
    """An empty index of the tests' profile."""
    opened = ImageIndex(client, alias=index_name)
    opened.create(META, IndexOptions())
    return opened


def at_once(*tasks: Callable[[], object]) -> list[object]:
    """Run tasks in threads that begin together, and return each one's result or exception."""
    barrier = threading.Barrier(len(tasks))

    def run(task: Callable[[], object]) -> object:
        barrier.wait()
        try:
            return task()
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(tasks)) as pool:
        return list(pool.map(run, tasks))


def search_axis(index: ImageIndex, axis: int, **filters: object):
    """Return the ids nearest to one axis, under filters."""
    body = knn_body(query_vector=VECTORS[axis], k=8, num_candidates=8, filters=Filters(**filters))
    return [hit.image_id for hit in index.search(body).hits]


def test_an_index_is_created_behind_its_alias_and_deleted_with_it(client, index_name):
    index = ImageIndex(client, alias=index_name)
    assert not index.exists()
    name = index.create(META, IndexOptions())
    assert name == f"{index_name}-pocket-1" == index.name()
    assert index.exists()
    assert index.meta() == META
    assert index.count() == 0
    index.delete()
    assert not index.exists()
    assert not client.indices.exists(index=name)


def test_of_several_who_create_an_index_at_once_one_succeeds(client, index_name):
    def create(profile: str) -> str:
        return ImageIndex(client, alias=index_name).create(replace(META, profile=profile), IndexOptions())

    for _ in range(5):
        told = at_once(*(partial(create, profile) for profile in ("pocket", "clip", "clip", "siglip")))
        (created,) = (each for each in told if isinstance(each, str))
        refused = [str(each) for each in told if isinstance(each, EngineError)]
        assert len(refused) == 3
        assert all("exists already: use it" in sentence for sentence in refused)
        assert list(client.indices.get_alias(name=index_name).body) == [created]
        ImageIndex(client, alias=index_name).delete()


def test_a_second_index_behind_the_same_alias_is_refused(index):
    with pytest.raises(EngineError, match="exists already: use it, or run `glimpse index delete`"):
        index.create(META, IndexOptions())


def test_a_name_that_an_old_index_has_is_not_taken_again(client, index, index_name):
    client.indices.delete_alias(index=index.name(), name=index_name)
    assert index.create(META, IndexOptions()) == f"{index_name}-pocket-2"


@pytest.mark.parametrize("index_type", ["hnsw", "int8_hnsw", "int4_hnsw", "bbq_hnsw"])
def test_every_index_type_is_written_out_in_the_mapping(client, index_name, index_type):
    index = ImageIndex(client, alias=index_name)
    options = IndexOptions(type=index_type, m=24, ef_construction=120, shards=2)
    name = index.create(replace(META, dims=64, caption_dims=64), options)
    field = index.mappings()[name]["mappings"]["properties"]["image_embedding"]
    assert {key: field["index_options"][key] for key in ("type", "m", "ef_construction")} == {
        "type": index_type,
        "m": 24,
        "ef_construction": 120,
    }
    settings = client.indices.get_settings(index=name).body[name]["settings"]["index"]
    assert (settings["number_of_shards"], settings["number_of_replicas"]) == ("2", "0")


def test_an_index_that_elasticsearch_cannot_make_says_why(client, index_name):
    with pytest.raises(EngineError, match="int4_hnsw only supports even dimensions; provided=7"):
        ImageIndex(client, alias=index_name).create(replace(META, dims=7), IndexOptions(type="int4_hnsw"))


def test_a_document_comes_back_as_it_was_sent(index):
    sent = picture(
        0,
        caption="a red boat",
        caption_embedding=np.array([0.6, 0, 0.8, 0], dtype=np.float32),
        exif_date=datetime(2023, 7, 8, 9, 10),
        exif_location=(48.5, 2.25),
        exif_camera="Canon",
        phash="ff00",
        tags=("sea",),
    )
    assert index.add([sent]) == AddResult(added=1, failed={})
    assert index.get(sent.image_id) == {
        "image_id": sent.image_id,
        "image_name": "0.png",
        "relative_path": ["trip/0.png"],
        "caption": "a red boat",
        "exif": {"date": "2023-07-08T09:10:00", "location": {"lat": 48.5, "lon": 2.25}, "camera": "Canon"},
        "width": 640,
        "height": 480,
        "size_bytes": 1000,
        "phash": "ff00",
        "tags": ["sea"],
        "names": {
            "file": ["0"],
            "folders": ["trip"],
            "tags": ["sea"],
            "camera": ["canon"],
            "keywords": ["sea"],
            "path": ["trip/0.png", "0.png"],
            "within": ["trip"],
            "format": ["png"],
            "edition": NAMES_EDITION,
        },
        "indexed_at": "2024-01-02T03:04:05+00:00",
    }
    np.testing.assert_array_equal(index.vector(sent.image_id), VECTORS[0])
    np.testing.assert_allclose(
        index.vector(sent.image_id, "caption_embedding"), sent.caption_embedding, atol=1e-6
    )


def test_what_is_not_there_is_none(index):
    index.add([picture(0)])
    assert index.get("unknown") is None
    assert index.vector("unknown") is None
    assert index.vector(picture(0).image_id, "caption_embedding") is None


def test_a_bad_document_is_reported_and_the_others_keep_their_own_vectors(index):
    good = [picture(number) for number in range(4)]
    wrong = picture(5, image_embedding=np.ones(4, dtype=np.float32))  # half: base64 of 16-bit numbers
    zero = picture(6, image_embedding=np.zeros(8, dtype=np.float32))
    result = index.add([*good[:2], wrong, zero, *good[2:]])
    assert result.added == 4
    assert set(result.failed) == {wrong.image_id, zero.image_id}
    assert (
        result.failed[wrong.image_id] == "a vector is float32 of shape (4,), the index takes float32 of (8,)"
    )
    assert "zero magnitude" in result.failed[zero.image_id]
    for number, document in enumerate(good):
        np.testing.assert_array_equal(index.vector(document.image_id), VECTORS[number])


def test_the_same_picture_twice_is_one_document(index):
    index.add([picture(0), picture(1)])
    index.add([picture(0)])
    index.refresh()
    assert index.count() == 2


def test_no_documents_are_no_request(index):
    assert index.add([]) == AddResult(added=0, failed={})
    assert index.known([]) == {}


def test_many_documents_go_in_several_requests(index, caplog):
    with caplog.at_level(logging.INFO, logger="elastic_transport.transport"):
        caption = " " * 3_000_000
        assert index.add([picture(number, caption=caption) for number in range(8)]).added == 8
    assert sum("/_bulk" in record.getMessage() for record in caplog.records) == 4
    assert len(index.known([picture(number).image_id for number in range(8)])) == 8


def test_known_pictures_are_found_with_their_paths_before_any_refresh(index):
    index.add([picture(0), picture(1, relative_path=("a.png", "b.png"))])
    ids = [picture(number).image_id for number in range(3)]
    assert index.known(ids) == {ids[0]: ("trip/0.png",), ids[1]: ("a.png", "b.png")}
    assert index.known([*ids, *map(str, range(2500))]).keys() == set(ids[:2])


def test_a_single_path_may_be_a_plain_string(client, index):
    document = picture(0)
    index.add([document])
    client.update(index=index.name(), id=document.image_id, doc={"relative_path": "sea/boat.png"})
    assert index.known([document.image_id]) == {document.image_id: ("sea/boat.png",)}
    index.add_paths({document.image_id: ["copy.png"]})
    assert index.known([document.image_id]) == {document.image_id: ("sea/boat.png", "copy.png")}


def test_another_path_is_added_once_and_the_vector_stays(index):
    index.add([picture(0)])
    image_id = picture(0).image_id
    for _ in range(2):
        index.add_paths({image_id: ["copy.png"]})
    assert index.known([image_id]) == {image_id: ("trip/0.png", "copy.png")}
    np.testing.assert_array_equal(index.vector(image_id), VECTORS[0])
    index.refresh()
    assert search_axis(index, 0, path="copy") == [image_id]


def test_vectors_that_are_no_numbers_never_reach_the_index(index):
    image_id = picture(0).image_id
    for vector in (np.full(8, np.nan, dtype=np.float32), np.ones(8), np.ones((2, 4), dtype=np.float32)):
        assert index.add([picture(0, image_embedding=vector)]).failed.keys() == {image_id}
    assert index.add([picture(0, caption_embedding=np.ones(2, dtype=np.float32))]).added == 0
    assert index.get(image_id) is None


def test_hits_carry_score_similarity_and_source_without_vectors(index):
    index.add([picture(0), picture(1)])
    index.refresh()
    result = index.search(knn_body(query_vector=VECTORS[0], k=2, num_candidates=10))
    assert result.total == 2
    assert result.took_ms >= 0
    assert [hit.similarity for hit in result.hits] == pytest.approx([1, 0], abs=1e-3)
    assert [hit.score for hit in result.hits] == pytest.approx([1, 0.5], abs=1e-3)
    assert result.hits[0].source["image_name"] == "0.png"
    assert "image_embedding" not in result.hits[0].source


def test_a_picture_is_its_own_first_neighbour(index, index_name):
    index.add([picture(0), picture(1)])
    index.refresh()
    image_id = picture(1).image_id
    hits = index.search(knn_body(like_id=image_id, index=index_name, k=2, num_candidates=10)).hits
    assert hits[0].image_id == image_id


def test_filters_keep_what_they_should(index):
    index.add(
        [
            picture(0, exif_date=datetime(2024, 5, 31, 23, 59), exif_camera="Canon EOS"),
            picture(1, exif_date=datetime(2024, 6, 1), exif_location=(48.86, 2.35)),
            picture(2, relative_path=("other/x.png", "trip/sea/x.png")),
        ]
    )
    index.refresh()
    ids = [picture(number).image_id for number in range(3)]
    assert search_axis(index, 1, date_from=date(2024, 5, 1), date_to=date(2024, 5, 31)) == [ids[0]]
    assert search_axis(index, 0, date_from=date(2024, 6, 1)) == [ids[1]]
    assert search_axis(index, 0, camera="canon eos") == [ids[0]]
    assert search_axis(index, 0, place=(48.85, 2.35, "5km")) == [ids[1]]
    assert search_axis(index, 0, place=(50, 2.35, "5km")) == []
    assert search_axis(index, 0, path="*/sea/*") == [ids[2]]
    assert set(search_axis(index, 0, path="trip/")) == set(ids)


def test_words_are_found_in_captions_and_the_score_is_kept(index):
    index.add([picture(0, caption="a red boat on the sea"), picture(1, caption="a house")])
    index.refresh()
    (hit,) = index.search({"query": {"match": {"caption": "boats boat"}}}).hits
    assert hit.image_id == picture(0).image_id
    assert hit.similarity == hit.score > 0


def test_another_profile_or_other_dims_are_refused_with_the_way_out(index):
    index.check_profile("pocket", 8)
    way_out = "leave --profile out, or .*`glimpse reindex --profile clip`"
    with pytest.raises(EngineError, match=f"profile 'pocket', not 'clip': {way_out}"):
        index.check_profile("clip", 512)
    with pytest.raises(
        EngineError, match=r"8 dims, and profile 'pocket' makes 128 now.*glimpse index delete"
    ):
        index.check_profile("pocket", 128)


def test_other_weights_are_refused_once_those_of_the_vectors_are_noted(index):
    index.check_profile("pocket", 8, text_revision="sha256:b")
    index.note("revisions", {"text": "sha256:a"})
    assert index.meta().revisions == {"image": "r1", "text": "sha256:a"}
    index.check_profile("pocket", 8, text_revision="sha256:a")
    with pytest.raises(EngineError, match="made with other weights .*text sha256:a, here sha256:b"):
        index.check_profile("pocket", 8, text_revision="sha256:b")


def test_a_query_of_other_dims_is_one_sentence(index):
    index.add([picture(0)])
    index.refresh()
    with pytest.raises(EngineError, match=r"decoded bytes length \[8\] is not compatible"):
        index.search(knn_body(query_vector=np.ones(2, dtype=np.float32), k=1, num_candidates=1))


def test_without_an_index_every_call_says_how_to_make_one(client, index_name):
    index = ImageIndex(client, alias=index_name)
    calls = [
        index.name,
        index.meta,
        index.count,
        index.delete,
        index.refresh,
        lambda: index.add([picture(0)]),
        lambda: index.get("a"),
        lambda: index.vector("a"),
        lambda: index.known(["a"]),
        lambda: index.add_paths({"a": ["b"]}),
        lambda: index.search(knn_body(query_vector=VECTORS[0], k=1, num_candidates=1)),
    ]
    for call in calls:
        with pytest.raises(EngineError, match="glimpse index create"):
            call()


def test_a_full_disk_is_explained_and_writing_goes_on_when_the_block_lifts(client, index):
    index.add([picture(0)])
    client.indices.put_settings(index=index.name(), settings={"index.blocks.read_only_allow_delete": True})
    for write in (lambda: index.add([picture(1)]), lambda: index.add_paths({picture(0).image_id: ["b"]})):
        with pytest.raises(EngineError, match=r"nearly full.*free space.*the block lifts"):
            write()
    client.indices.put_settings(index=index.name(), settings={"index.blocks.read_only_allow_delete": None})
    assert index.add([picture(1)]).added == 1


def test_a_blocked_index_is_explained(client, index):
    client.indices.put_settings(index=index.name(), settings={"index.blocks.write": True})
    with pytest.raises(EngineError, match=r"takes no writes .*lift the block"):
        index.add([picture(0)])


@pytest.mark.usefixtures("index")
def test_an_alias_on_two_indices_is_refused(client, index_name):
    client.indices.create(index=f"{index_name}-second", aliases={index_name: {}})
    with pytest.raises(EngineError, match="leave it on one"):
        ImageIndex(client, alias=index_name).name()


def test_documents_are_never_written_into_an_index_that_nobody_created(client, index_name):
    with pytest.raises(EngineError, match="There is no index"):
        add_documents(client, index_name, [picture(0)], meta=META)
    assert not client.indices.exists(index=index_name)


def test_notes_that_two_write_at_once_are_all_kept(client, index):
    def write(section: str) -> None:
        mine = ImageIndex(client, alias=index.alias)
        for number in range(30):
            mine.note(section, {str(number): {"mean": number}})

    assert at_once(lambda: write("operating_points"), lambda: write("relevance")) == [None, None]
    meta = ImageIndex(client, alias=index.alias).meta()
    assert set(meta.operating_points) == set(meta.relevance) == {str(number) for number in range(30)}
    assert client.indices.get_alias(index=index.name())[index.name()]["aliases"].keys() == {index.alias}


def test_notes_into_any_index_are_kept_beside_those_of_others(client, index):
    index.note("relevance", {"image": {"mean": 1}})
    ImageIndex(client, alias=index.name()).note("operating_points", {"10": {"num_candidates": 50}})
    meta = ImageIndex(client, alias=index.alias).meta()
    assert meta.relevance == {"image": {"mean": 1}}
    assert meta.operating_points == {"10": {"num_candidates": 50}}


def test_of_two_who_claim_an_index_for_different_weights_both_are_told_the_same(client, index):
    for tower in (f"tower {number}" for number in range(20)):
        claims = [
            partial(ImageIndex(client, alias=index.alias).claim_revision, tower, weights)
            for weights in ("sha256:a", "sha256:b")
        ]
        told = at_once(*claims)
        assert told[0] == told[1]
        assert told[0] in ("sha256:a", "sha256:b")


def test_a_note_that_goes_by_what_was_read_is_not_written_over_something_else(index):
    assert index.note("execution", {"fp32": {}}, seen={})
    assert not index.note("execution", {"int8": {}}, seen={})
    assert index.meta().execution == {"fp32": {}}
    assert index.note("execution", {"bf16": {}}, seen={"fp32": {}})


def test_the_alias_of_a_writer_that_died_is_taken_away_and_its_late_request_finds_no_index(
    client, index, monkeypatch
):
    monkeypatch.setattr("es_config.meta.LEASE_S", 0.5)
    name, dead = index.name(), f"{index.name()}-noting-dead"
    client.indices.update_aliases(actions=[{"add": {"index": name, "alias": dead, "is_hidden": True}}])
    index.note("relevance", {"image": {"mean": 1}})
    assert dead not in client.indices.get(index=name, features="aliases")[name]["aliases"]
    with pytest.raises(NotFoundError):
        client.indices.put_mapping(index=dead, meta={})


def test_a_writer_that_was_taken_for_dead_begins_again(client, index):
    """It wakes between reading and writing, when another has taken its alias away and has written."""
    name, changes = index.name(), []

    def change(meta: dict) -> dict:
        changes.append(meta["relevance"])
        if len(changes) == 1:
            others = client.indices.get(index=name, features="aliases")[name]["aliases"].keys() - {
                index.alias
            }
            client.indices.delete_alias(index=name, name=list(others))
            ImageIndex(client, alias=index.alias).note("relevance", {"caption": {"mean": 2}})
        return {**meta, "relevance": {**meta["relevance"], "image": {"mean": 1}}}

    change_meta(client, name, change)
    assert changes == [{}, {"caption": {"mean": 2}}]
    noted = ImageIndex(client, alias=index.alias).meta().relevance
    assert noted == {"caption": {"mean": 2}, "image": {"mean": 1}}


def test_what_a_change_raises_leaves_nothing_behind(client, index):
    def change(_meta: dict) -> dict:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        change_meta(client, index.name(), change)
    assert client.indices.get_alias(index=index.name())[index.name()]["aliases"].keys() == {index.alias}
