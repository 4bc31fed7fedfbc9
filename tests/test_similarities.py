"""Every similarity gives numpy's order, and the vectors can be read back."""

import hashlib
from datetime import UTC, datetime

import numpy as np
import pytest

from es_config.documents import SIMILARITIES, ImageDocument, IndexMeta, IndexOptions, from_score
from es_config.index import ImageIndex
from es_config.requests import exact_body, knn_body

DIMS = 32
COUNT = 300


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return float32 rows of length one."""
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def document(number: int, vector: np.ndarray) -> ImageDocument:
    """A picture whose id is a hash, as real ones are."""
    image_id = hashlib.sha256(str(number).encode()).hexdigest()
    return ImageDocument(image_id, f"{number}.png", (f"{number}.png",), vector, 1, 1, 1, datetime.now(UTC))


def raw(similarity: str, vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Return numpy's similarity of each row, in double precision."""
    vectors, query = vectors.astype(np.float64), query.astype(np.float64)
    if similarity == "l2_norm":
        return np.linalg.norm(vectors - query, axis=1)
    if similarity == "cosine":
        return vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
    return vectors @ query


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_order_similarity_and_vectors_are_numpys(similarity, client, index_name):
    random = np.random.default_rng(11)
    vectors, queries = (
        random.normal(size=(COUNT, DIMS)).astype(np.float32),
        unit(random.normal(size=(3, DIMS))),
    )
    if similarity in ("cosine", "dot_product"):  # encoders give unit vectors; the other two take any length
        vectors = unit(vectors)
    index = ImageIndex(client, alias=index_name)
    meta = IndexMeta("pocket", {}, DIMS, DIMS, "cosine")
    index.create(meta, IndexOptions(type="hnsw", similarity=similarity))
    documents = [document(number, vector) for number, vector in enumerate(vectors)]
    assert index.add(documents).failed == {}
    index.refresh()
    assert index.meta().similarity == similarity
    for query in queries:
        expected = raw(similarity, vectors, query)
        order = np.argsort(expected if similarity == "l2_norm" else -expected)[:20]
        for body in (
            knn_body(query_vector=query, k=20, num_candidates=COUNT),
            exact_body(query_vector=query, k=20, documents=COUNT),
        ):
            hits = index.search(body).hits
            assert [hit.image_id for hit in hits] == [documents[number].image_id for number in order]
            assert [hit.similarity for hit in hits] == pytest.approx(expected[order], abs=2e-6)
    for number in (0, COUNT // 2, COUNT - 1):
        np.testing.assert_allclose(
            index.vector(documents[number].image_id), vectors[number], rtol=0, atol=1e-6
        )


@pytest.mark.parametrize(
    ("similarity", "score", "expected"),
    [
        ("cosine", 1.0, 1.0),
        ("cosine", 0.25, -0.5),
        ("dot_product", 0.75, 0.5),
        ("l2_norm", 0.2, 2.0),  # 1 / (1 + 2²)
        ("l2_norm", 1.0, 0.0),
        ("max_inner_product", 4.0, 3.0),  # 3 + 1
        ("max_inner_product", 0.25, -3.0),  # 1 / (1 + 3)
        ("max_inner_product", 1.0, 0.0),
    ],
)
def test_a_score_leads_back_to_its_similarity(similarity, score, expected):
    assert from_score(similarity, score) == pytest.approx(expected)


def test_an_unknown_similarity_is_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="known: cosine"):
        from_score("hamming", 1.0)


@pytest.mark.parametrize("index_type", ["int8_hnsw", "bbq_hnsw"])
def test_an_exact_search_agrees_with_numpy_where_the_graph_does_not(index_type, client, index_name):
    dims, count = 64, 6000
    random = np.random.default_rng(3)
    centres = random.normal(size=(30, dims))
    vectors = unit(centres[random.integers(0, 30, count)] + 0.05 * random.normal(size=(count, dims)))
    queries = unit(vectors[:10] + 0.02 * random.normal(size=(10, dims)))
    index = ImageIndex(client, alias=index_name)
    name = index.create(IndexMeta("pocket", {}, dims, dims, "cosine"), IndexOptions(type=index_type))
    assert index.add([document(number, vector) for number, vector in enumerate(vectors)]).added == count
    index.refresh()
    client.indices.forcemerge(index=name, max_num_segments=1)
    index.refresh()
    approximate = []
    for query in queries:
        expected = np.sort(vectors.astype(np.float64) @ query.astype(np.float64))[::-1][:10]
        for partition in (8000, 1000):
            body = exact_body(query_vector=query, k=10, documents=count, partition=partition)
            found = [hit.similarity for hit in index.search(body).hits]
            assert found == pytest.approx(expected, abs=1e-6)
        hits = index.search(knn_body(query_vector=query, k=10, num_candidates=10)).hits
        approximate.append(max(abs(expected - [hit.similarity for hit in hits])))
    assert max(approximate) > 1e-4


def test_an_exact_search_scores_every_document_that_passes_the_filters(client, index_name):
    index = ImageIndex(client, alias=index_name)
    index.create(IndexMeta("pocket", {}, DIMS, DIMS, "cosine"), IndexOptions())
    vectors = unit(np.random.default_rng(7).normal(size=(2000, DIMS)))
    index.add([document(number, vector) for number, vector in enumerate(vectors)])
    index.refresh()
    body = exact_body(query_vector=vectors[0], k=10, documents=2000)
    answer = client.search(index=index_name, body={**body, "profile": True})
    sections = [part for shard in answer["profile"]["shards"] for part in shard["dfs"]["knn"]]
    # Each document twice: its quantised vector first, then its own.
    assert sum(section["vector_operations_count"] for section in sections) == 2 * 2000
