"""`query_vector_builder.text_embedding` on the local node: a `knn` search that embeds its text by itself."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from elasticsearch import ApiError
from tiny_torchscript import (
    VOCABULARY,
    Gate,
    config,
    fresh_model,
    parts,
    put_parts,
    torchscript,
    upload,
)
from waiting import PATIENCE_S, wait_until

TEXTS = {"1": "a red boat", "2": "sea", "3": "boats !", "4": "a sea !", "5": "red"}
MAPPING = {
    "properties": {
        "vector": {
            "type": "dense_vector",
            "dims": 4,
            "similarity": "cosine",
            "index_options": {"type": "flat"},
        },
        "number": {"type": "integer"},
    }
}


@pytest.fixture(scope="module")
def definition(tmp_path_factory) -> bytes:
    """A TorchScript that embeds the tiny vocabulary in four dims."""
    return torchscript(tmp_path_factory.mktemp("tiny") / "model.pt")


@pytest.fixture
def model_id(client, definition):
    """The id of a started model."""
    with fresh_model(client) as fresh:
        upload(client, fresh, definition)
        client.ml.start_trained_model_deployment(model_id=fresh)
        yield fresh


@pytest.fixture
def index(client, index_name, model_id) -> str:
    """An index with the vectors of the texts."""
    client.indices.create(index=index_name, mappings=MAPPING)
    for number, text in TEXTS.items():
        document = {"vector": vector(client, model_id, text), "number": int(number)}
        client.index(index=index_name, id=number, document=document)
    client.indices.refresh(index=index_name)
    return index_name


def vector(client, model_id: str, text: str) -> list[float]:
    """Return the vector that `_infer` gives for a text."""
    answer = client.ml.infer_trained_model(model_id=model_id, docs=[{"text_field": text}])
    return answer["inference_results"][0]["predicted_value"]


def by_text(model_id: str | None, text: str, **more: object) -> dict:
    """Return a `knn` section that leaves the embedding to the node."""
    builder = {"model_text": text, **({} if model_id is None else {"model_id": model_id})}
    return {**by_vector([], **more), "query_vector_builder": {"text_embedding": builder}}


def by_vector(query_vector: list[float], **more: object) -> dict:
    """Return a `knn` section, with a vector if there is one."""
    given = {"query_vector": query_vector} if query_vector else {}
    return {"field": "vector", "k": 3, "num_candidates": 10, **given, **more}


def hits(answer) -> list[tuple[str, float]]:
    """Return ids and scores, best first."""
    return [(hit["_id"], hit["_score"]) for hit in answer["hits"]["hits"]]


def refused(client, index: str, **search: object) -> tuple[int, str, str]:
    """Return status, type and reason of a search that is refused. The reason is the innermost."""
    with pytest.raises(ApiError) as error:
        client.options(max_retries=0).search(index=index, **search)
    cause = error.value.body["error"]
    kind = cause["type"]
    while "caused_by" in cause:
        cause = cause["caused_by"]
    return error.value.status_code, kind, cause["reason"]


def same(found: list[tuple[str, float]], expected: list[tuple[str, float]]) -> bool:
    """Return True for the same documents in the same order, whose scores may differ in the last digits."""
    return [name for name, _ in found] == [name for name, _ in expected] and [
        score for _, score in found
    ] == pytest.approx([score for _, score in expected], abs=1e-5)


PLACES = {
    "knn section": lambda knn: {"knn": knn},
    "knn query": lambda knn: {"query": {"knn": knn}, "size": knn["k"]},
    "knn retriever": lambda knn: {"retriever": {"knn": knn}, "size": knn["k"]},
    "knn query in a bool": lambda knn: {"query": {"bool": {"must": [{"knn": knn}]}}, "size": knn["k"]},
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("filters", [{}, {"filter": {"range": {"number": {"gte": 3}}}}])
def test_a_text_finds_what_its_vector_finds(client, index, model_id, place, filters):
    for text in ("a red boat", "the sea", ""):
        expected = by_vector(vector(client, model_id, text), **filters)
        asked = by_text(model_id, text, **filters)
        found, wanted = (hits(client.search(index=index, **PLACES[place](knn))) for knn in (asked, expected))
        assert len(found) == 3
        assert same(found, wanted), text


def test_sections_of_one_search_and_searches_of_one_request_each_have_their_text(client, index, model_id):
    both = [by_text(model_id, text, k=1) for text in ("a red boat", "sea")]
    assert {name for name, _ in hits(client.search(index=index, knn=both))} == {"1", "2"}
    searches = [part for knn in both for part in ({}, {"knn": knn})]
    answers = client.msearch(index=index, searches=searches)["responses"]
    assert [hits(answer)[0][0] for answer in answers] == ["1", "2"]


def test_a_text_comes_with_other_parts_of_a_search(client, index, model_id):
    answer = client.search(
        index=index,
        knn=by_text(model_id, "sea", similarity=0.99),
        aggs={"numbers": {"max": {"field": "number"}}},
        fields=["vector"],
        explain=True,
    )
    assert hits(answer) == [("2", pytest.approx(1.0))]
    assert answer["aggregations"]["numbers"]["value"] == 2.0
    assert answer["hits"]["hits"][0]["fields"]["vector"] == pytest.approx(vector(client, model_id, "sea"))


@pytest.mark.parametrize("place", PLACES)
def test_a_model_that_is_not_there_or_not_deployed_is_404(client, index, definition, place):
    with fresh_model(client) as stopped:
        upload(client, stopped, definition)
        for name in ("test-nothing", stopped):
            assert refused(client, index, **PLACES[place](by_text(name, "sea"))) == (
                404,
                "status_exception",
                f"[{name}] is not an inference service model or a deployed ml model",
            )


@pytest.mark.parametrize(
    ("builder", "reason"),
    [
        ({"model_text": "sea"}, "[model_id] must not be null."),
        ({"model_id": "x"}, "Required [model_text]"),
        ({"model_id": "x", "model_text": 5}, "[text_embedding] model_text doesn't support values of type"),
        (
            {"model_id": "x", "model_text": "sea", "modeltext": "sea"},
            "[text_embedding] unknown field [modeltext]",
        ),
    ],
)
def test_a_builder_with_wrong_fields_is_400(client, index, builder, reason):
    knn = {**by_vector([]), "query_vector_builder": {"text_embedding": builder}}
    status, _, said = refused(client, index, knn=knn)
    assert status == 400
    assert reason in said


def test_a_model_of_other_dims_is_400(client, index, tmp_path):
    with fresh_model(client) as wide:
        upload(client, wide, torchscript(tmp_path / "wide.pt", dims=8))
        client.ml.start_trained_model_deployment(model_id=wide)
        with pytest.raises(ApiError) as error:
            client.search(index=index, knn=by_text(wide, "sea"))
    [cause] = error.value.body["error"]["root_cause"]
    assert error.value.status_code == 400
    assert "different number of dimensions [8] than the document vectors [4]" in cause["reason"]


def test_the_prefix_for_searches_stands_before_the_text(client, index, model_id, definition):
    with fresh_model(client) as prefixed:
        prefixes = {"search": "a red ", "ingest": "sea "}
        client.ml.put_trained_model(model_id=prefixed, **config(), prefix_strings=prefixes)
        put_parts(client, prefixed, parts(definition, 1))
        client.ml.put_trained_model_vocabulary(model_id=prefixed, vocabulary=VOCABULARY)
        client.ml.start_trained_model_deployment(model_id=prefixed)
        found = hits(client.search(index=index, knn=by_text(prefixed, "boat")))
    expected = by_vector(vector(client, model_id, "a red boat"))
    assert same(found, hits(client.search(index=index, knn=expected)))


def test_a_busy_model_refuses_and_a_slow_one_runs_out_of_time(client, index, tmp_path):
    gate = Gate(tmp_path / "gate")
    with fresh_model(client) as slow, ThreadPoolExecutor(2) as pool:
        upload(client, slow, torchscript(tmp_path / "slow.pt", gate=gate.path))
        client.ml.start_trained_model_deployment(model_id=slow, queue_capacity=1)

        def pending() -> int:
            [stats] = client.ml.get_trained_models_stats(model_id=slow)["trained_model_stats"]
            return stats["deployment_stats"]["nodes"][0]["number_of_pending_requests"]

        with gate.closed():
            asked = [pool.submit(refused, client, index, knn=by_text(slow, "sea")) for _ in range(2)]
            wait_until(lambda: pending() == 1)
            path, headers = "/_tasks?actions=*search&detailed=true", {"accept": "application/json"}
            tasks = client.perform_request("GET", path, headers=headers).body["nodes"].values()
            described = [task["description"] for node in tasks for task in node["tasks"].values()]
            assert sum('"model_text":"sea"' in text for text in described) == 2
            assert refused(client, index, knn=by_text(slow, "sea")) == (
                429,
                "es_rejected_execution_exception",
                "inference process queue is full. Unable to execute command",
            )
            # A search that needs no model is answered meanwhile.
            assert client.count(index=index)["count"] == len(TEXTS)
            for each in asked:
                status, _, reason = each.result(timeout=PATIENCE_S)
                assert (status, reason) == (408, "timeout [10s] waiting for inference result")


def test_many_searches_at_once_each_get_their_own_answer(client, index, model_id):
    texts = ["a red boat", "sea", "red", "!", "boats", "a"]
    expected = {
        text: hits(client.search(index=index, knn=by_vector(vector(client, model_id, text))))
        for text in texts
    }

    def ask(number: int) -> list[str]:
        wrong = []
        for turn in range(10):
            text = texts[(number + turn) % len(texts)]
            if not same(hits(client.search(index=index, knn=by_text(model_id, text))), expected[text]):
                wrong.append(text)
        return wrong

    with ThreadPoolExecutor(16) as pool:
        assert [wrong for each in pool.map(ask, range(16)) for wrong in each] == []
