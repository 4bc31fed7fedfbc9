"""Every stored vector comes back, and the ways to exact neighbours agree with each other."""

from __future__ import annotations

import numpy as np
import pytest
from vector_index import clustered, plain_index

from es_config.documents import SIMILARITIES
from es_config.errors import EngineError
from es_config.requests import exact_by_sequence
from es_config.scan import point_in_time, scan_view, vectors_of
from es_config.vector_field import read_extent, read_vector_field

EVEN = {"term": {"even": True}}


def scanned(client, index: str, **options):
    """Yield the blocks of the field `v` from a view of an index."""
    with point_in_time(client, index) as view:
        yield from scan_view(view, field="v", **options)


def collect(blocks) -> dict[str, np.ndarray]:
    """Return the blocks of a scan as one dictionary."""
    found = {}
    for ids, vectors in blocks:
        found.update(zip(ids, vectors, strict=True))
    return found


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_a_scan_gives_every_vector_as_it_was_sent(client, index_name, similarity):
    vectors = clustered(230, 16)
    if similarity != "dot_product":  # which takes unit vectors only
        vectors *= np.linspace(0.5, 3, len(vectors), dtype=np.float32)[:, None]
    plain_index(client, index_name, vectors, similarity=similarity)
    found = collect(scanned(client, index_name, size=100))
    assert found.keys() == {str(n) for n in range(230)}
    for n, vector in enumerate(vectors):
        np.testing.assert_allclose(found[str(n)], vector, rtol=2e-7 if similarity == "cosine" else 0)


def test_blocks_are_no_larger_than_asked_and_of_float32(client, index_name):
    plain_index(client, index_name, clustered(120, 16))
    blocks = list(scanned(client, index_name, size=50))
    assert [len(ids) for ids, _ in blocks] == [50, 50, 20]
    assert all(vectors.dtype == np.float32 and vectors.shape[1] == 16 for _, vectors in blocks)


def test_filters_and_missing_vectors_leave_documents_out(client, index_name):
    plain_index(client, index_name, clustered(60, 16))
    client.index(index=index_name, id="without", document={"even": True}, refresh=True)
    found = collect(scanned(client, index_name, filters=[EVEN]))
    assert found.keys() == {str(n) for n in range(0, 60, 2)}


def test_a_scan_of_an_empty_index_gives_nothing(client, index_name):
    plain_index(client, index_name, clustered(0, 16), dims=16)
    assert list(scanned(client, index_name)) == []


def test_a_view_does_not_see_what_is_written_later(client, index_name):
    vectors = clustered(20, 16)
    plain_index(client, index_name, vectors)
    with point_in_time(client, index_name) as view:
        client.delete(index=index_name, id="3", refresh=True)
        found = vectors_of(view, ["3", "4", "no such id"], field="v")
    assert found.keys() == {"3", "4"}
    np.testing.assert_array_equal(found["3"], vectors[3])


def test_a_scan_of_no_index_is_one_sentence(client):
    with pytest.raises(EngineError, match="There is no such index"):
        next(scanned(client, "test-that-is-not-there"))


@pytest.mark.parametrize("filters", [(), (EVEN,)], ids=["all", "filtered"])
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_the_exact_search_without_scripts_gives_what_numpy_gives(client, index_name, similarity, filters):
    vectors = clustered(400, 16, seed=3)
    plain_index(client, index_name, vectors, similarity=similarity, index_type="int8_hnsw")
    client.index(index=index_name, id="7", document={"v": vectors[7].tolist(), "even": False}, refresh=True)
    last = read_extent(client, index_name).last_sequence
    assert last >= 400  # the rewritten document moved beyond the others
    query = clustered(1, 16, seed=9)[0]
    body = exact_by_sequence(
        field="v", query_vector=query, k=10, last_sequence=last, filters=filters, partition=90
    )
    hits = client.search(index=index_name, body=body)["hits"]["hits"]
    allowed = np.arange(0, 400, 2) if filters else np.arange(400)
    closeness = (
        -np.linalg.norm(vectors[allowed] - query, axis=1)
        if similarity == "l2_norm"
        else vectors[allowed] @ query
    )
    wanted = allowed[np.argsort(-closeness)[:10]]
    assert [hit["_id"] for hit in hits] == [str(n) for n in wanted]


def test_a_field_is_read_with_what_a_search_must_know(client, index_name):
    plain_index(client, index_name, clustered(3, 64), index_type="bbq_hnsw", m=8)
    field = read_vector_field(client, index_name, "v")
    assert (field.index, field.dims, field.index_type, field.m) == (index_name, 64, "bbq_hnsw", 8)
    assert (field.similarity, field.oversample, field.shards) == ("cosine", 3.0, 1)
    assert field.is_quantised
    assert field.has_graph
    assert not field.is_ours


def test_a_field_that_cannot_be_searched_is_refused_with_the_ones_that_can(client, index_name):
    plain_index(client, index_name, clustered(3, 16))
    with pytest.raises(EngineError, match=r"'even' .* is of type boolean, not dense_vector; .*--field: v"):
        read_vector_field(client, index_name, "even")
    with pytest.raises(EngineError, match=r"has no field 'w'; name one with --field: v"):
        read_vector_field(client, index_name, "w")
    with pytest.raises(EngineError, match="There is no index"):
        read_vector_field(client, "test-that-is-not-there", "v")
