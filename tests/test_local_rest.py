"""The parts that all routes of the local node share, and the refusals that name missing routes."""

import json
import platform
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
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

MODELS = "/_ml/trained_models"


@pytest.fixture(scope="module")
def definition(tmp_path_factory) -> bytes:
    """A TorchScript that embeds the tiny vocabulary in four dims."""
    return torchscript(tmp_path_factory.mktemp("tiny") / "model.pt")


@pytest.fixture
def model_id(client):
    """An id that no model has."""
    with fresh_model(client) as fresh:
        yield fresh


@pytest.fixture
def uploaded(client, model_id, definition) -> str:
    """The id of a model that has not been started."""
    upload(client, model_id, definition)
    return model_id


@pytest.fixture
def send(node):
    """A function that sends a request as it stands and returns status, content type and text."""

    def call(method: str, path: str, body: bytes | dict | None = None, **headers: str):
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        given = {"Authorization": f"ApiKey {node.key}"}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        if data is not None:
            given.setdefault("Content-Type", "application/json")
        request = urllib.request.Request(node.url + path, data, given, method=method)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
                return answer.status, answer.headers["Content-Type"], answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers["Content-Type"], error.read().decode()

    return call


def reason(answer) -> tuple[int, str, str]:
    """Return status, type and reason of an error."""
    status, _, text = answer
    error = json.loads(text)["error"]
    return status, error["type"], error["reason"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", MODELS),
        ("GET", MODELS + "/x"),
        ("GET", MODELS + "/x/_stats"),
        ("GET", "/_ml/info"),
        ("GET", "/_cat/ml/trained_models"),
        ("PUT", MODELS + "/x"),
        ("PUT", MODELS + "/x/definition/0"),
        ("PUT", MODELS + "/x/vocabulary"),
        ("DELETE", MODELS + "/x"),
        ("POST", MODELS + "/x/deployment/_start"),
        ("POST", MODELS + "/x/deployment/_stop"),
        ("POST", MODELS + "/x/deployment/_update"),
        ("POST", MODELS + "/x/deployment/cache/_clear"),
        ("POST", MODELS + "/x/_infer"),
    ],
)
def test_every_route_refuses_unknown_parameters(send, method, path):
    body = {} if method in ("PUT", "POST") and not path.endswith("_clear") else None
    said = f"request [{path}] contains unrecognized parameter: [unheard_of]"
    assert reason(send(method, path + "?unheard_of=1", body)) == (400, "illegal_argument_exception", said)


def test_a_parameter_that_was_nearly_right_is_named(send):
    _, _, said = reason(send("GET", MODELS + "?tag=3&exclude_generate=true"))
    assert said.endswith(
        "unrecognized parameters: [exclude_generate] -> did you mean [exclude_generated]?,"
        " [tag] -> did you mean [tags]?"
    )


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("size=few", "Failed to parse int parameter [size] with value [few]"),
        ("from=-1", "Parameter [from] cannot be < 0"),
        ("size=-1", "Parameter [size] cannot be < 0"),
        ("allow_no_match=maybe", "Failed to parse value [maybe] as only [true] or [false] are allowed."),
        ("include=everything", "unknown [include] parameters [everything]. Valid options are [definition_st"),
        ("include=definition", "The local node does not give the [definition] of a model back"),
    ],
)
def test_parameters_of_the_wrong_kind_are_refused(send, query, said):
    status, _, found = reason(send("GET", f"{MODELS}?{query}"))
    assert status == 400
    assert found.startswith(said)


@pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("GET", MODELS), ("DELETE", MODELS + "/x")])
def test_a_body_is_refused_by_routes_that_take_none(send, method, path):
    said = f"request [{method} {path}] does not support having a body"
    assert reason(send(method, path, {"a": 1})) == (400, "illegal_argument_exception", said)


def test_a_body_that_is_needed_is_asked_for(send, uploaded):
    said = (400, "parse_exception", "request body is required")
    assert reason(send("PUT", MODELS + "/x")) == said
    assert reason(send("POST", f"{MODELS}/{uploaded}/_infer")) == (400, "status_exception", "requires body")
    said = (400, "illegal_argument_exception", "[docs] must not be null.")
    assert reason(send("POST", f"{MODELS}/{uploaded}/_infer", {})) == said


@pytest.mark.parametrize("path", ["/", f"{MODELS}/{{model}}"])
def test_answers_come_in_the_format_and_with_the_fields_that_are_asked_for(send, uploaded, path):
    path = path.format(model=uploaded)
    kept = "tagline" if path == "/" else "trained_model_configs.model_id"
    status, kind, text = send("GET", f"{path}?filter_path={kept}")
    value = "You Know, for Search" if path == "/" else [{"model_id": uploaded}]
    assert (status, kind, json.loads(text)) == (200, "application/json", {kept.partition(".")[0]: value})
    status, kind, text = send("GET", f"{path}?format=yaml&filter_path={kept}")
    assert (status, kind, text.splitlines()[0]) == (200, "application/yaml", "---")
    assert "\n" not in send("GET", path)[2].strip()
    assert send("GET", f"{path}?pretty")[2].startswith('{\n  "')
    accepted = "application/vnd.elasticsearch+json;compatible-with=9"
    assert send("GET", path, Accept=accepted)[1] == accepted


def test_errors_come_in_the_format_that_is_asked_for(send):
    status, kind, text = send("GET", f"{MODELS}/none?format=yaml")
    assert (status, kind) == (404, "application/yaml")
    assert 'type: "resource_not_found_exception"' in text
    assert "stack_trace" not in send("GET", f"{MODELS}/none")[2]
    assert "stack_trace" in send("GET", f"{MODELS}/none?error_trace=true")[2]


YAML = b"---\ndocs:\n- text_field: boat\n"
CBOR = bytes.fromhex("a164646f637381a1") + b"\x6atext_field\x64boat"


def test_bodies_are_read_in_every_format_of_elasticsearch(client, send, uploaded):
    client.ml.start_trained_model_deployment(model_id=uploaded)
    path = f"{MODELS}/{uploaded}/_infer"
    expected = json.loads(send("POST", path, {"docs": [{"text_field": "boat"}]})[2])
    for body, kind in ((YAML, "application/yaml"), (CBOR, "application/cbor")):
        status, _, text = send("POST", path, body, Content_Type=kind, Accept="application/json")
        assert (status, json.loads(text)) == (200, expected), kind
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        assert send("POST", path, YAML, Content_Type=kind)[0] == 406


def test_models_are_found_by_their_tags(client):
    with fresh_model(client) as one, fresh_model(client) as other, fresh_model(client) as third:
        client.ml.put_trained_model(model_id=one, **config(), tags=[f"{one}-a", f"{one}-b"])
        client.ml.put_trained_model(model_id=other, **config(), tags=[f"{one}-a"])

        def found(**options: object) -> list[str]:
            answer = client.ml.get_trained_models(**options)
            assert answer["count"] == len(answer["trained_model_configs"])
            return [each["model_id"] for each in answer["trained_model_configs"]]

        assert found(tags=[f"{one}-a"]) == sorted([one, other])
        assert found(tags=[f"{one}-a", f"{one}-b"]) == [one]
        assert found(tags=["nothing"]) == []
        assert (
            client.options(ignore_status=404).ml.get_trained_models(model_id=other, tags=["x"]).meta.status
            == 404
        )
        put = client.options(ignore_status=400).ml.put_trained_model
        refused = put(model_id=third, **config(), tags=[one])
        assert refused["error"]["reason"] == f"The provided tags [{one}] must not match existing model_ids"
        refused = put(model_id=f"{one}-b", **config())
        assert refused["error"]["reason"] == f"The provided model_id {one}-b must not match existing tags"


def test_a_model_can_be_exported_and_made_again(client, send, model_id):
    client.ml.put_trained_model(
        model_id=model_id, **config(), tags=["a-tag"], metadata={"numbers": [1, 2.5, None, True]}
    )
    path = f"{MODELS}/{model_id}"
    [shown] = json.loads(send("GET", f"{path}?human")[2])["trained_model_configs"]
    assert (shown["model_size"], shown["create_time_string"][:2]) == ("0b", "20")
    generated = {"created_by", "version", "create_time", "model_size_bytes", "estimated_operations"}
    assert shown.keys() >= {*generated, "license_level"}
    [exported] = json.loads(send("GET", f"{path}?exclude_generated=true&human")[2])["trained_model_configs"]
    given = {"model_id", "model_type", "tags", "metadata", "input", "inference_config"}
    assert exported.keys() == given
    assert exported["metadata"] == {"numbers": [1, 2.5, None, True]}
    client.ml.delete_trained_model(model_id=model_id)
    assert send("PUT", path, exported)[0] == 200


def test_the_status_of_the_definition_is_told_of_one_model(client, send, uploaded):
    with fresh_model(client) as other:
        client.ml.put_trained_model(model_id=other, **config())
        said = "Getting the model download status is not supported when getting more than one model"
        found = reason(send("GET", f"{MODELS}/_all?include=definition_status"))
        assert found == (400, "status_exception", said)
        [one] = client.ml.get_trained_models(model_id=uploaded, include="definition_status")[
            "trained_model_configs"
        ]
        assert one["fully_defined"] is True


def test_a_model_without_an_input_field_reads_the_field_input(client, definition, model_id):
    client.ml.put_trained_model(
        model_id=model_id, **{name: config()[name] for name in config() if name != "input"}
    )
    put_parts(client, model_id, parts(definition, 1))
    client.ml.put_trained_model_vocabulary(model_id=model_id, vocabulary=VOCABULARY)
    client.ml.start_trained_model_deployment(model_id=model_id)
    [shown] = client.ml.get_trained_models(model_id=model_id)["trained_model_configs"]
    assert shown["input"] == {"field_names": ["input"]}
    [found] = client.ml.infer_trained_model(model_id=model_id, docs=[{"input": "boat"}])["inference_results"]
    assert len(found["predicted_value"]) == 4


def test_a_model_for_another_platform_does_not_start(client, definition):
    here = f"{platform.system().lower()}-{platform.machine()}".replace("amd64", "x86_64").replace(
        "arm64", "aarch64"
    )
    for wanted, status in ((here, 200), ("linux-sparc", 400)):
        with fresh_model(client) as model_id:
            client.ml.put_trained_model(model_id=model_id, **config(), platform_architecture=wanted)
            put_parts(client, model_id, parts(definition, 1))
            client.ml.put_trained_model_vocabulary(model_id=model_id, vocabulary=VOCABULARY)
            [shown] = client.ml.get_trained_models(model_id=model_id)["trained_model_configs"]
            assert shown["platform_architecture"] == wanted
            start = client.options(ignore_status=400).ml.start_trained_model_deployment(model_id=model_id)
            assert start.meta.status == status
            if status == 400:
                said = f"incompatible with ML nodes in the cluster; expected [{wanted}]; but was [{here}]"
                assert start["error"]["reason"].endswith(said)


@pytest.mark.parametrize("size", ["0", "10kb", None])
def test_a_start_takes_its_values_from_the_body_too(client, send, definition, uploaded, size):
    body = {
        "number_of_allocations": 2,
        "queue_capacity": 77,
        "priority": "NORMAL",
        "wait_for": "fully_allocated",
    }
    if size is not None:
        body["cache_size"] = size
    status, _, text = send("POST", f"{MODELS}/{uploaded}/deployment/_start?queue_capacity=78", body)
    task = json.loads(text)["assignment"]["task_parameters"]
    assert status == 200
    shown = size or f"{len(definition)}b"
    [stats] = client.ml.get_trained_models_stats(model_id=uploaded)["trained_model_stats"]
    for found in (task, stats["deployment_stats"]):
        assert (found["number_of_allocations"], found["queue_capacity"]) == (2, 78)
        assert (found["threads_per_allocation"], found["priority"], found["cache_size"]) == (
            1,
            "normal",
            shown,
        )
    assert stats["deployment_stats"]["nodes"][0]["inference_cache_hit_count"] == 0


def test_the_faults_of_a_start_are_told_together(send, uploaded):
    query = "priority=low&number_of_allocations=3&threads_per_allocation=4&queue_capacity=0"
    body = {
        "adaptive_allocations": {
            "enabled": False,
            "min_number_of_allocations": 3,
            "max_number_of_allocations": 2,
        }
    }
    assert reason(send("POST", f"{MODELS}/{uploaded}/deployment/_start?{query}", body)) == (
        400,
        "action_request_validation_exception",
        "Validation Failed: 1: [queue_capacity] must be a positive integer;"
        "2: [number_of_allocations] must be 1 when [priority] is low;"
        "3: [threads_per_allocation] must be 1 when [priority] is low;"
        "4: [min_number_of_allocations] must not be larger than [max_number_of_allocations];",
    )


def test_a_request_can_name_its_results_and_refuse_long_texts(client, model_id, definition):
    upload(client, model_id, definition, max_sequence_length=4)
    client.ml.start_trained_model_deployment(model_id=model_id)

    def infer(**options: object):
        docs = [{"text_field": "a red boat"}]
        update = {"text_embedding": options}
        ask = client.options(ignore_status=400).ml.infer_trained_model
        return ask(model_id=model_id, docs=docs, inference_config=update).body

    assert list(infer(results_field="vector")["inference_results"][0]) == ["vector", "is_truncated"]
    refused = infer(tokenization={"bert": {"truncate": "none"}})["error"]["reason"]
    assert (
        refused == "Input too large. The tokenized input length [5] exceeds the maximum sequence length [4]"
    )
    assert "by one of type [mpnet]" in infer(tokenization={"mpnet": {}})["error"]["reason"]
    assert infer(tokenization={"bert": {"span": 2}})["status"] == 400


def test_a_deployment_changes_its_size_while_it_runs(client, uploaded):
    update = client.ml.update_trained_model_deployment
    missing = client.options(ignore_status=404).ml.update_trained_model_deployment(
        model_id=uploaded, number_of_allocations=2
    )
    assert missing["error"]["reason"] == f"No known model deployment with id [{uploaded}]"
    client.ml.start_trained_model_deployment(model_id=uploaded, queue_capacity=7)
    client.ml.infer_trained_model(model_id=uploaded, docs=[{"text_field": "boat"}])
    changed = update(model_id=uploaded, number_of_allocations=2)["assignment"]["task_parameters"]
    assert (changed["number_of_allocations"], changed["queue_capacity"]) == (2, 7)
    client.ml.infer_trained_model(model_id=uploaded, docs=[{"text_field": "boat"}])
    [stats] = client.ml.get_trained_models_stats(model_id=uploaded)["trained_model_stats"]
    assert stats["deployment_stats"]["inference_count"] == 2
    assert stats["deployment_stats"]["allocation_status"]["target_allocation_count"] == 2
    refused = client.options(ignore_status=400).ml.update_trained_model_deployment(
        model_id=uploaded, number_of_allocations=0
    )
    assert "[number_of_allocations] must be a positive integer" in refused["error"]["reason"]


def test_a_stop_can_finish_the_texts_that_wait(client, send, model_id, tmp_path):
    gate = Gate(tmp_path / "gate")
    upload(client, model_id, torchscript(tmp_path / "slow.pt", gate=gate.path))
    client.ml.start_trained_model_deployment(model_id=model_id)

    def pending() -> int:
        [stats] = client.ml.get_trained_models_stats(model_id=model_id)["trained_model_stats"]
        return stats["deployment_stats"]["nodes"][0]["number_of_pending_requests"]

    with ThreadPoolExecutor(1) as pool:
        with gate.closed():
            docs = [{"text_field": "boat"}, {"text_field": "sea"}]
            asked = pool.submit(client.ml.infer_trained_model, model_id=model_id, docs=docs, timeout="300s")
            wait_until(lambda: pending() == 1)
            path = f"{MODELS}/{model_id}/deployment/_stop?finish_pending_work=true"
            assert send("POST", path)[0] == 200
        assert len(asked.result(timeout=PATIENCE_S)["inference_results"]) == 2


def test_the_cache_of_a_deployment_is_cleared(client, uploaded):
    clear = client.options(ignore_status=404).ml.clear_trained_model_deployment_cache
    assert clear(model_id=uploaded).meta.status == 404
    client.ml.start_trained_model_deployment(model_id=uploaded)
    assert clear(model_id=uploaded)["cleared"] is True


def test_models_are_listed_as_a_table(send, uploaded, definition):
    path = f"/_cat/ml/trained_models/{uploaded}"
    status, kind, text = send("GET", f"{path}?h=id,type,heap_size,data_frame.id&v=true&bytes=b")
    assert (status, kind) == (200, "text/plain; charset=UTF-8")
    head, row = text.splitlines()
    assert head.split() == ["id", "type", "heap_size", "data_frame.id"]
    assert row.split() == [uploaded, "pytorch", str(len(definition)), "__none__"]
    [found] = json.loads(send("GET", f"{path}?format=json&h=id,created_by")[2])
    assert found == {"id": uploaded, "created_by": "api_user"}
    assert "| who created the model" in send("GET", f"{path}?help")[2]
    assert reason(send("GET", "/_cat/ml/trained_models/none"))[0] == 404


def test_the_limits_are_told(client):
    info = client.ml.info()
    assert info["upgrade_mode"] is False
    assert info["limits"]["total_ml_processors"] >= 8


@pytest.mark.parametrize(
    ("method", "path", "said"),
    [
        (
            "PUT",
            MODELS + "/x/model_aliases/y",
            "The local node has no model aliases: use the model_id itself",
        ),
        ("GET", "/_ml/anomaly_detectors", "The local node has no machine learning but [_ml/trained_models]"),
        (
            "POST",
            "/_ml/datafeeds/x/_start",
            "The local node has no machine learning but [_ml/trained_models]",
        ),
        (
            "PUT",
            "/_inference/text_embedding/x?timeout=1s",
            "The local node has no [_inference] endpoints: up",
        ),
        ("GET", "/_license", "The local node has no licences: everything that it can do is allowed"),
    ],
)
def test_routes_that_the_node_lacks_are_refused_with_a_sentence(send, method, path, said):
    status, kind, found = reason(send(method, path, {"any": "thing"} if method == "PUT" else None))
    assert (status, kind) == (400, "status_exception")
    assert found.startswith(said)


def test_a_wrong_method_is_refused_as_ever(send):
    status, _, text = send("POST", MODELS)
    assert status == 405
    assert "allowed: [GET]" in text
