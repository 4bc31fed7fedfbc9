"""`_ml/trained_models` on the local node: storage, refusals, answers and tokens."""

import base64
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from elasticsearch import Elasticsearch
from hard_texts import hard_texts
from model_folders import vocabulary as pocket_words
from tiny_torchscript import VOCABULARY, Gate, config, fresh_model, parts, put_parts, torchscript, upload
from waiting import PATIENCE_S, wait_until

from es_config.local_node.ml.deployment import KINDS, DeploymentParameters, WordPieceTokenizer
from es_config.local_node.ml.models import LocalModels, ModelStore, trained_model
from es_config.local_node.rest import RestError
from models.encoders import plain_text

LAST_DIGITS = 1e-6
"""How far sums of the same numbers may differ: threads and TorchScript's compiler add in another order."""


@pytest.fixture(scope="session")
def definition(tmp_path_factory) -> bytes:
    """A TorchScript that embeds the tiny vocabulary in four dims."""
    return torchscript(tmp_path_factory.mktemp("tiny") / "model.pt")


@pytest.fixture
def model_id(client):
    """An id that no model has."""
    with fresh_model(client) as fresh:
        yield fresh


@pytest.fixture
def started(client, model_id, definition) -> str:
    """The id of a started model."""
    upload(client, model_id, definition, max_sequence_length=8)
    client.ml.start_trained_model_deployment(model_id=model_id)
    return model_id


def refused(call, *arguments, **keywords) -> tuple[int, str, str]:
    """Return the status, the type and the reason with which Elasticsearch's own client sees a refusal.

    The reason holds those of the causes, outermost first: a parser names the place, and its cause the fault.
    """
    from elasticsearch import ApiError

    with pytest.raises(ApiError) as error:
        call(*arguments, **keywords)
    body = error.value.body
    assert body["status"] == error.value.status_code
    chain = [body["error"]]
    while "caused_by" in chain[-1]:
        chain.append(chain[-1]["caused_by"])
    [root] = body["error"]["root_cause"]
    assert root in [{key: cause[key] for key in ("type", "reason")} for cause in chain]
    return body["status"], chain[0]["type"], "; ".join(cause["reason"] for cause in chain)


def embedding(**options: object) -> dict:
    """Return the change of a configuration that sets options of `text_embedding`."""
    return {"inference_config": {"text_embedding": options}}


def infer(client, model_id: str, *texts: str, **options) -> list[dict]:
    """Return the inference results of some texts."""
    docs = [{"text_field": text} for text in texts]
    return client.ml.infer_trained_model(model_id=model_id, docs=docs, **options)["inference_results"]


def put(node, path: str, body: bytes | str) -> int:
    """Send a body that no client would make, and return the status."""
    import urllib.error
    import urllib.request

    url = f"{node.url}/_ml/trained_models/{path}"
    data = body if isinstance(body, bytes) else body.encode()
    headers = {"Content-Type": "application/json", "Authorization": f"ApiKey {node.key}"}
    request = urllib.request.Request(url, data, headers, method="POST" if "_infer" in path else "PUT")
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_a_model_is_shown_with_every_default(client, model_id):
    client.ml.put_trained_model(model_id=model_id, **config())
    shown = client.ml.get_trained_models(model_id=model_id, include="definition_status")
    [found] = shown["trained_model_configs"]
    tokenization = found["inference_config"]["text_embedding"]["tokenization"]["bert"]
    assert tokenization == {
        "do_lower_case": True,
        "with_special_tokens": True,
        "max_sequence_length": 512,
        "truncate": "first",
        "span": -1,
    }
    assert (shown["count"], found["fully_defined"], found["model_size_bytes"]) == (1, False, 0)


def test_models_are_found_by_lists_and_wildcards(client, model_id):
    client.ml.put_trained_model(model_id=model_id, **config())
    assert client.ml.get_trained_models(model_id=f"{model_id[:-4]}*")["count"] == 1
    assert client.ml.get_trained_models(model_id="test-nothing-*")["count"] == 0
    status, kind, _ = refused(client.ml.get_trained_models, model_id="test-nothing-*", allow_no_match=False)
    assert (status, kind) == (404, "resource_not_found_exception")
    assert refused(client.ml.get_trained_models, model_id="unknown") == (
        404,
        "resource_not_found_exception",
        "No known trained model with model_id [unknown]",
    )


def test_an_id_belongs_to_one_model(client, model_id):
    client.ml.put_trained_model(model_id=model_id, **config())
    assert refused(client.ml.put_trained_model, model_id=model_id, **config()) == (
        400,
        "resource_already_exists_exception",
        f"Trained machine learning model [{model_id}] already exists",
    )


@pytest.mark.parametrize("bad_id", ["Upper", "ends-", "..", "a b", "a" * 65])
def test_ids_that_elasticsearch_does_not_take_are_refused(client, bad_id):
    status, _, reason = refused(client.ml.put_trained_model, model_id=bad_id, **config())
    assert status == 400
    assert reason.startswith("Validation Failed: 1: Invalid model_id; ")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model_type": "tree_ensemble"}, "with [model_type] [tree_ensemble]; it runs [pytorch] models"),
        ({"input": {"field_names": []}}, "Validation Failed: 1: [input.field_names] must not be empty;"),
        ({"input": {"field_names": ["a..b"]}}, "[input.field_names] must only contain valid dot delimited"),
        ({"input": {"field_names": ["a", "b"]}}, "with [input.field_names] [['a', 'b']]; it runs"),
        ({"inference_config": {"ner": {}}}, "with [inference_config] [ner]; it runs"),
        (config(span=2), "[span] must not be provided when [truncate] is [first]"),
        (
            config(span=2, truncate="none"),
            "does not support windowing long text sequences; configured span [2]",
        ),
        (
            config(span=-2),
            "[span] must be non-negative to indicate span length or [-1] to indicate no windowing",
        ),
        (config(max_sequence_length=0), "[max_sequence_length] must be positive"),
        (config(max_sequence_length="x"), "failed to parse field [max_sequence_length]"),
        (config(truncate="middle"), "No enum constant"),
        (config(unheard_of=1), "[bert_tokenization] unknown field [unheard_of]"),
        (embedding(vocabulary={}), "illegal setting [vocabulary] on inference model creation"),
        (
            embedding(embedding_size=0),
            "[embedding_size] must be a number greater than 0; configured size [0]",
        ),
        (embedding(unheard_of=1), "[text_embedding] unknown field [unheard_of]"),
        ({"unheard_of": 1}, "[trained_model_config] unknown field [unheard_of]"),
        (
            {"version": "1", "created_by": "x"},
            "1: illegal to set [version] at inference model creation;2: ill",
        ),
        ({"tags": ["Bad!"]}, "Invalid tags [Bad!]; must only can contain lowercase alphanumeric"),
        ({"default_field_map": {"a": "b"}}, "with [default_field_map] [given]; it runs"),
        (
            {"model_id": "another"},
            "Inconsistent model_id; 'another' specified in the body differs from 'test-",
        ),
    ],
)
def test_configurations_that_cannot_run_here_are_refused(client, model_id, change, reason):
    # not by a method of the client, which knows no wrong names
    headers = {"accept": "application/json", "content-type": "application/json"}
    body, path = {**config(), **change}, f"/_ml/trained_models/{model_id}"
    status, _, said = refused(client.perform_request, "PUT", path, headers=headers, body=body)
    assert status == 400
    assert reason in said
    assert client.ml.get_trained_models(model_id=f"{model_id}*")["count"] == 0


@pytest.mark.parametrize("kind", ["roberta", "xlm_roberta", "bert_ja", "deberta_v2", "my_own"])
def test_other_tokenizations_are_a_clear_400(client, model_id, kind):
    changed = {"text_embedding": {"tokenization": {kind: {}}}}
    status, _, reason = refused(
        client.ml.put_trained_model, model_id=model_id, **{**config(), "inference_config": changed}
    )
    assert status == 400
    assert kind in reason


@pytest.mark.parametrize("body", ["", "[]", "{", '{"unknown_field": 1}', b"\xff\xfe", "[" * 100_000])
def test_bodies_that_are_not_understood_are_400(node, started, body):
    for path in ("test-bad", f"{started}/vocabulary", f"{started}/definition/0", f"{started}/_infer"):
        assert put(node, path, body) == 400, path


def test_parts_may_come_in_any_order(client, model_id, definition):
    client.ml.put_trained_model(model_id=model_id, **config())
    put_parts(client, model_id, parts(definition, 3), order=[2, 0, 1])
    client.ml.put_trained_model_vocabulary(model_id=model_id, vocabulary=VOCABULARY)
    [found] = client.ml.get_trained_models(model_id=model_id, include="definition_status")[
        "trained_model_configs"
    ]
    assert (found["fully_defined"], found["model_size_bytes"]) == (True, len(definition))
    client.ml.start_trained_model_deployment(model_id=model_id)
    assert len(infer(client, model_id, "a red boat")[0]["predicted_value"]) == 4


def test_a_missing_part_keeps_a_model_from_starting(client, model_id, definition):
    client.ml.put_trained_model(model_id=model_id, **config())
    assert refused(client.ml.start_trained_model_deployment, model_id=model_id) == (
        404,
        "resource_not_found_exception",
        f"Model definition not found [{model_id}]",
    )
    truncated = f"Model definition truncated. Unable to deserialize trained model definition [{model_id}]"
    bodies = parts(definition, 3)
    put_parts(client, model_id, bodies, order=[0, 2])
    assert refused(client.ml.start_trained_model_deployment, model_id=model_id)[2] == truncated
    put_parts(client, model_id, bodies, order=[1])
    client.ml.put_trained_model_vocabulary(model_id=model_id, vocabulary=VOCABULARY)
    client.ml.start_trained_model_deployment(model_id=model_id)


def test_a_part_is_never_overwritten(client, model_id, definition):
    upload(client, model_id, definition)
    body = parts(definition, 2)[1]
    taken = (
        400,
        "resource_already_exists_exception",
        f"Trained machine learning model chunked doc [{model_id}][1] already exists",
    )
    call = client.ml.put_trained_model_definition_part
    assert refused(call, model_id=model_id, part=1, **body) == taken
    client.ml.start_trained_model_deployment(model_id=model_id)
    assert refused(call, model_id=model_id, part=1, **body) == taken


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"definition": "not base64!"}, "failed to parse field [definition]; "),
        ({"definition": "QUJDR"}, "failed to parse field [definition]; "),
        (
            {"total_parts": 0},
            "1: [total_parts] must be greater than 0;2: [part] must be less than total_parts;",
        ),
        ({"total_parts": 10_001}, "[total_parts] must be less than or equal to 10000"),
        ({"total_definition_length": 0}, "[total_definition_length] must be greater than 0"),
        ({"total_parts": 1}, "Validation Failed: 1: [part] must be less than total_parts;"),
    ],
)
def test_parts_that_are_damaged_leave_nothing(client, model_id, node_home, change, reason):
    client.ml.put_trained_model(model_id=model_id, **config())
    body = {"definition": base64.b64encode(b"abc").decode(), "total_definition_length": 9, "total_parts": 2}
    call = client.ml.put_trained_model_definition_part
    status, _, said = refused(call, model_id=model_id, part=1, **{**body, **change})
    assert status == 400
    assert reason in said
    assert list((node_home / "node" / "trained_models" / model_id / "parts").iterdir()) == []


@pytest.mark.parametrize("total", [{"total_definition_length": 5}, {"total_parts": 3}])
def test_a_part_that_disagrees_with_the_first_is_refused(client, model_id, definition, total):
    client.ml.put_trained_model(model_id=model_id, **config())
    first, second = parts(definition, 2)
    put_parts(client, model_id, [first])
    call = client.ml.put_trained_model_definition_part
    status, _, reason = refused(call, model_id=model_id, part=1, **{**second, **total})
    assert status == 400
    assert "[total_definition_length] must be the same in all definition parts" in reason
    put_parts(client, model_id, [first, second], order=[1])
    client.ml.put_trained_model_vocabulary(model_id=model_id, vocabulary=VOCABULARY)
    client.ml.start_trained_model_deployment(model_id=model_id)


def test_a_definition_that_is_no_torchscript_does_not_start(client, model_id):
    upload(client, model_id, b"this is no model at all")
    status, _, reason = refused(client.ml.start_trained_model_deployment, model_id=model_id)
    assert status == 500
    assert reason.startswith("Could not start trained model deployment")
    assert (
        "deployment_stats"
        not in client.ml.get_trained_models_stats(model_id=model_id)["trained_model_stats"][0]
    )


def test_vocabularies_are_checked(client, model_id, definition):
    client.ml.put_trained_model(model_id=model_id, **config())
    put_parts(client, model_id, parts(definition, 1))
    call = client.ml.put_trained_model_vocabulary
    start = client.ml.start_trained_model_deployment
    assert "Could not find vocabulary" in refused(start, model_id=model_id)[2]
    assert "[vocabulary] must not be empty;" in refused(call, model_id=model_id, vocabulary=[])[2]
    call(model_id=model_id, vocabulary=["a", "b"])
    assert refused(call, model_id=model_id, vocabulary=["a"])[1] == "resource_already_exists_exception"
    assert refused(start, model_id=model_id) == (
        409,
        "status_exception",
        "stored vocabulary is missing required [[UNK]] token",
    )


def test_a_vocabulary_larger_than_the_model_fails_in_the_inference_alone(client, model_id, definition):
    client.ml.put_trained_model(model_id=model_id, **config())
    put_parts(client, model_id, parts(definition, 1))
    client.ml.put_trained_model_vocabulary(model_id=model_id, vocabulary=[*VOCABULARY, "house"])
    client.ml.start_trained_model_deployment(model_id=model_id)
    status, _, reason = refused(infer, client, model_id, "house")
    assert status == 500
    assert reason.startswith("Error in inference process")
    assert len(infer(client, model_id, "boat")) == 1


def test_texts_are_embedded_one_by_one_and_together_alike(client, started):
    texts = ["a red boat", "sea", "", "boats on the sea!", "🚤"]
    together = [one["predicted_value"] for one in infer(client, started, *texts)]
    alone = [infer(client, started, text)[0]["predicted_value"] for text in texts]
    np.testing.assert_allclose(together, alone, rtol=0, atol=LAST_DIGITS)
    assert infer(client, started) == []


def test_vectors_are_those_of_the_model(client, started, definition):
    import io

    import torch

    ids = torch.tensor([[2, 5, 6, 7, 8, 3]])  # [CLS] a red boat ##s [SEP]
    model = torch.jit.load(io.BytesIO(definition))
    expected = model(ids, torch.ones_like(ids), torch.zeros_like(ids), torch.arange(6)[None])[0].tolist()
    assert infer(client, started, "A réd boats")[0]["predicted_value"] == pytest.approx(
        expected, abs=LAST_DIGITS
    )


def test_a_text_that_is_too_long_is_cut_and_marked(client, started):
    assert infer(client, started, "boat " * 20)[0]["is_truncated"] is True
    assert "is_truncated" not in infer(client, started, "boat")[0]


def test_a_text_that_is_too_long_is_refused_where_truncation_is_off(client, model_id, definition):
    upload(client, model_id, definition, max_sequence_length=8, truncate="none")
    client.ml.start_trained_model_deployment(model_id=model_id)
    status, _, reason = refused(infer, client, model_id, "boat", "boat " * 20)
    assert status == 400
    assert (
        reason == "Input too large. The tokenized input length [22] exceeds the maximum sequence length [8]"
    )


def test_the_results_field_can_be_named(client, model_id, definition):
    named = config()
    named["inference_config"]["text_embedding"]["results_field"] = "vector"
    client.ml.put_trained_model(model_id=model_id, **named)
    put_parts(client, model_id, parts(definition, 1))
    client.ml.put_trained_model_vocabulary(model_id=model_id, vocabulary=VOCABULARY)
    client.ml.start_trained_model_deployment(model_id=model_id)
    assert list(infer(client, model_id, "boat")[0]) == ["vector"]


@pytest.mark.parametrize(
    ("docs", "reason"),
    [
        ([{}], "Input field [text_field] does not exist in the source document"),
        ([{"text_field": 5}], "Input value [5] for field [text_field] must be a string"),
        ([{"text_field": "boat"}, {"other": "sea"}], "Input field [text_field] does not exist"),
    ],
)
def test_documents_without_a_text_are_refused(client, started, docs, reason):
    status, _, said = refused(client.ml.infer_trained_model, model_id=started, docs=docs)
    assert status == 400
    assert reason in said


def test_models_that_are_not_there_or_not_started_do_not_answer(client, model_id, definition):
    assert refused(infer, client, model_id, "boat") == (
        404,
        "resource_not_found_exception",
        f"Could not find trained model [{model_id}]",
    )
    upload(client, model_id, definition)
    assert refused(infer, client, model_id, "boat") == (
        409,
        "status_exception",
        f"Model [{model_id}] must be deployed to use."
        " Please deploy with the start trained model deployment API.",
    )


def test_a_started_model_is_protected(client, started):
    assert refused(client.ml.start_trained_model_deployment, model_id=started)[0] == 400
    assert refused(client.ml.delete_trained_model, model_id=started) == (
        409,
        "status_exception",
        f"Cannot delete model [{started}] as it is currently deployed; use force to delete the model",
    )
    assert client.ml.stop_trained_model_deployment(model_id=started)["stopped"]
    assert client.ml.stop_trained_model_deployment(model_id=started)["stopped"]
    stop = client.ml.stop_trained_model_deployment
    assert refused(stop, model_id=started, allow_no_match=False)[0] == 404
    client.ml.delete_trained_model(model_id=started)
    assert (
        refused(client.ml.delete_trained_model, model_id=started)[2]
        == f"Could not find trained model [{started}]"
    )


def test_force_deletes_a_started_model_and_leaves_nothing(client, started, node_home):
    client.ml.delete_trained_model(model_id=started, force=True)
    folder = node_home / "node" / "trained_models"
    assert not (folder / started).exists()
    assert list(folder.glob(".*")) == []


@pytest.mark.parametrize(
    "options",
    [
        {"number_of_allocations": 0},
        {"threads_per_allocation": -1},
        {"queue_capacity": 0},
        {"deployment_id": "x"},
        {"threads_per_allocation": 3},
        {"threads_per_allocation": 3000},
        {"number_of_allocations": 100, "threads_per_allocation": 100},
        {"queue_capacity": 100_001},
        {"timeout": "0s"},
        {"timeout": "soon"},
        {"wait_for": "nonsense"},
        {"wait_for": "stopping"},
        {"priority": "high"},
        {"cache_size": "much"},
        {"adaptive_allocations": {"enabled": True}},
        {"adaptive_allocations": {"enabled": False, "max_number_of_allocations": 0}},
        {"adaptive_allocations": {"unheard_of": 1}},
    ],
)
def test_deployments_that_cannot_run_are_refused(client, model_id, definition, options):
    upload(client, model_id, definition)
    assert refused(client.ml.start_trained_model_deployment, model_id=model_id, **options)[0] == 400
    [stats] = client.ml.get_trained_models_stats(model_id=model_id)["trained_model_stats"]
    assert "deployment_stats" not in stats


def test_a_deployment_that_needs_more_threads_than_there_are_is_429(client, model_id, definition):
    upload(client, model_id, definition)
    start = client.options(max_retries=0).ml.start_trained_model_deployment
    status, _, reason = refused(start, model_id=model_id, number_of_allocations=3000)
    assert status == 429
    assert "not enough resources to provide all requested allocations" in reason


def test_statistics_tell_what_a_deployment_did(client, started):
    infer(client, started, "a boat", "the sea")
    stats = client.ml.get_trained_models_stats(model_id=started)["trained_model_stats"][0]
    deployment = stats["deployment_stats"]
    assert (deployment["state"], deployment["inference_count"]) == ("started", 2)
    assert deployment["allocation_status"]["state"] == "fully_allocated"
    assert deployment["nodes"][0]["average_inference_time_ms"] > 0


def test_a_slow_model_runs_out_of_time_and_a_full_queue_refuses(client, model_id, tmp_path):
    gate = Gate(tmp_path / "gate")
    upload(client, model_id, torchscript(tmp_path / "slow.pt", gate=gate.path))
    client.ml.start_trained_model_deployment(model_id=model_id, queue_capacity=2)
    at_once = client.options(max_retries=0)
    with gate.closed():
        status, _, reason = refused(infer, at_once, model_id, "boat", "sea", timeout="1ms")
        assert (status, reason) == (408, "timeout [0.001s] waiting for inference result")
        status, kind, reason = refused(infer, at_once, model_id, *["boat"] * 9, timeout="60s")
        assert (status, kind) == (429, "es_rejected_execution_exception")
        assert reason == "inference process queue is full. Unable to execute command"


def test_a_stop_refuses_the_texts_that_wait(client, model_id, tmp_path):
    gate = Gate(tmp_path / "gate")
    upload(client, model_id, torchscript(tmp_path / "slow.pt", gate=gate.path))
    client.ml.start_trained_model_deployment(model_id=model_id)
    with ThreadPoolExecutor(1) as pool:
        with gate.closed():
            asked = pool.submit(refused, infer, client, model_id, "boat", "sea", timeout="300s")
            wait_until(lambda: _pending(client, model_id) == 1)
            client.ml.stop_trained_model_deployment(model_id=model_id)
        status, _, reason = asked.result(timeout=PATIENCE_S)
    assert (status, reason) == (500, "Error in inference process: [the deployment was stopped]")


def _pending(client, model_id: str) -> int:
    [stats] = client.ml.get_trained_models_stats(model_id=model_id)["trained_model_stats"]
    return stats["deployment_stats"]["nodes"][0]["number_of_pending_requests"]


def test_many_clients_at_once_each_get_their_own_answer(client, started):
    texts = ["a", "red", "boat", "sea", "!", "boats", "a red boat", "red sea"]
    expected = {text: infer(client, started, text)[0]["predicted_value"] for text in texts}
    wrong = []
    gate = threading.Barrier(16)

    def ask(number: int) -> None:
        gate.wait(timeout=PATIENCE_S)
        for turn in range(12):
            text = texts[(number + turn) % len(texts)]
            if infer(client, started, text)[0]["predicted_value"] != pytest.approx(
                expected[text], abs=LAST_DIGITS
            ):
                wrong.append(text)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, range(16)))
    assert wrong == []


@pytest.mark.usefixtures("torch_threads")
def test_models_and_deployments_outlive_the_node(tmp_path, definition):
    store = ModelStore(tmp_path / "models")
    store.create(trained_model("kept", config()))
    for number, body in enumerate(parts(definition, 2)):
        data = base64.b64decode(body["definition"])
        store.put_part("kept", number, data, total_length=len(definition), total_parts=2)
    store.put_vocabulary("kept", VOCABULARY)
    before = LocalModels(store)
    running = before.start("kept", DeploymentParameters(number_of_allocations=2))
    vector, _ = running.infer(["a red boat"], timeout_s=PATIENCE_S)[0]

    (tmp_path / "models" / ".half-written").mkdir()
    (tmp_path / "models" / ".half-written" / "config.json").touch()
    (tmp_path / "models" / "stray").touch()
    after = LocalModels(ModelStore(tmp_path / "models"))
    assert not (tmp_path / "models" / ".half-written").exists()
    assert after.running == {}
    after.load_deployments()
    again = after.running["kept"]
    assert again.parameters.number_of_allocations == 2
    found, _ = again.infer(["a red boat"], timeout_s=PATIENCE_S)[0]
    np.testing.assert_allclose(found, vector, rtol=0, atol=LAST_DIGITS)
    for models in (before, after):
        models.stop("kept")


@pytest.mark.parametrize("login", [None, "Basic abc", "ApiKey wrong", "ApiKey"])
def test_models_are_changed_only_with_the_key_of_the_home(node, started, definition, login):
    with Elasticsearch(node.url, headers={"authorization": login} if login else {}) as stranger:
        ml = stranger.ml
        for call, more in (
            (ml.put_trained_model, config()),
            (ml.put_trained_model_definition_part, {"part": 0, **parts(definition, 1)[0]}),
            (ml.put_trained_model_vocabulary, {"vocabulary": VOCABULARY}),
            (ml.start_trained_model_deployment, {}),
            (ml.stop_trained_model_deployment, {}),
            (ml.delete_trained_model, {"force": True}),
        ):
            status, kind, reason = refused(call, model_id=started, **more)
            assert (status, kind) == (401, "security_exception")
            assert "node/api_key of GLIMPSE_HOME" in reason
        assert ml.get_trained_models(model_id=started)["count"] == 1
        assert len(infer(stranger, started, "boat")) == 1


@pytest.mark.usefixtures("torch_threads")
def test_a_deployment_that_cannot_be_loaded_again_says_why(tmp_path):
    store = ModelStore(tmp_path)
    store.create(trained_model("broken", config()))
    store.put_part("broken", 0, b"no model", total_length=8, total_parts=1)
    store.put_vocabulary("broken", VOCABULARY)
    store.set_deployment("broken", DeploymentParameters())
    models = LocalModels(store)
    models.load_deployments()
    assert "Could not start trained model deployment" in models.failures["broken"]
    assert models.running == {}


SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [*SPECIALS, "boat", "##s", "red", "sea", "cafe", "café", "!", ".", "[", "sep", "]", "海", "the"]
UNKNOWN, START, END = 1, 2, 3


def tokenizer(**options: object) -> WordPieceTokenizer:
    """Return a BERT tokenizer with the vocabulary above."""
    return WordPieceTokenizer(WORDS, kind=KINDS["bert"], **options)


def words(text: str, **options: object) -> list[str]:
    """Return the tokens between the special ones."""
    ids = tokenizer(**options).encode(text).ids
    assert (ids[0], ids[-1]) == (START, END)
    return [WORDS[number] for number in ids[1:-1]]


def test_words_are_cut_into_the_longest_known_pieces():
    assert words("boats red") == ["boat", "##s", "red"]


def test_a_word_with_any_unknown_part_is_unknown_as_a_whole():
    assert words("boatx red") == ["[UNK]", "red"]


def test_punctuation_and_ideographs_stand_alone():
    assert words("red!boat.海sea") == ["red", "!", "boat", ".", "海", "sea"]


def test_lower_casing_strips_accents_and_is_off_by_default():
    assert words("RED CAFÉ", do_lower_case=True) == ["red", "cafe"]
    assert words("RED café") == ["[UNK]", "café"]


@pytest.mark.parametrize("text", ["", "   ", "\t\n", "\u200d\ufeff"])
def test_a_text_without_words_is_only_the_special_tokens(text):
    assert tokenizer().encode(text).ids == (START, END)


def test_control_characters_are_dropped():
    assert words("re\x00d bo\u200bat") == ["red", "boat"]


def test_only_the_mask_is_special_within_a_text():
    assert words("[MASK]! [sep]", do_lower_case=True) == ["[MASK]", "!", "[", "sep", "]"]


def test_words_of_more_than_100_letters_are_unknown():
    assert words("s" * 101) == ["[UNK]"]


def test_long_texts_are_cut_and_marked():
    tokens = tokenizer(max_sequence_length=5).encode("red boat sea red boat")
    assert tokens.ids == (START, *(WORDS.index(word) for word in ("red", "boat", "sea")), END)
    assert tokens.is_truncated
    assert not tokenizer(max_sequence_length=5).encode("red boat sea").is_truncated


def test_a_long_text_is_refused_where_truncation_is_off():
    with pytest.raises(
        RestError, match=r"tokenized input length \[7\] exceeds the maximum sequence length \[5\]"
    ):
        tokenizer(max_sequence_length=5, truncate="none").encode("red boat sea red boat")


def test_special_tokens_can_be_left_out():
    assert tokenizer(with_special_tokens=False).encode("red boat").ids == (7, 5)


@pytest.mark.parametrize("missing", ["[UNK]", "[PAD]", "[CLS]", "[SEP]"])
def test_a_vocabulary_without_a_special_token_is_refused(missing):
    short = [word for word in WORDS if word != missing]
    with pytest.raises(RestError, match="stored vocabulary is missing required") as refused:
        WordPieceTokenizer(short, kind=KINDS["bert"])
    assert refused.value.status == 409


def test_mpnet_has_special_tokens_of_its_own():
    kind = KINDS["mpnet"]
    spelled = ["<s>", "<pad>", "</s>", "[UNK]", "<mask>", "red"]
    assert WordPieceTokenizer(spelled, kind=kind).encode("red <mask> [SEP]").ids == (0, 5, 4, 3, 3, 3, 2)


@pytest.mark.parametrize("do_lower_case", [True, False])
def test_it_agrees_with_the_reference_implementation_on_plain_texts(tmp_path, do_lower_case):
    from transformers import BertTokenizerFast

    spelled = [*WORDS, *pocket_words()[len(SPECIALS) :], *"éèñßאק赤"]
    known = list(dict.fromkeys(spelled))
    (tmp_path / "vocab.txt").write_text("\n".join(known) + "\n")
    reference = BertTokenizerFast(str(tmp_path / "vocab.txt"), do_lower_case=do_lower_case)
    mine = WordPieceTokenizer(known, kind=KINDS["bert"], do_lower_case=do_lower_case, max_sequence_length=64)
    for text in map(plain_text, hard_texts(1000)):
        expected = reference(text, truncation=True, max_length=64)["input_ids"]
        assert list(mine.encode(text).ids) == expected, text
