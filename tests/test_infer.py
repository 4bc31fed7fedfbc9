"""`_infer` from the client's side: vectors, and why there are none."""

import numpy as np
import pytest
from elasticsearch import Elasticsearch
from http_fronts import closed_port
from tiny_torchscript import Gate, fresh_model, torchscript, upload

from es_config.errors import EngineError
from es_config.text_model import DOCS_A_REQUEST, InferTextEncoder, InferUnavailableError
from models.hub import fingerprint


def encoder(client, model_id: str, *, dims: int = 4, revision: str = "any", **options) -> InferTextEncoder:
    """Return an encoder that asks `model_id`."""
    return InferTextEncoder(client, model_id=model_id, dims=dims, revision=revision, **options)


def cause(asked: InferTextEncoder, *texts: str) -> str:
    """Return why texts cannot be embedded."""
    with pytest.raises(InferUnavailableError) as error:
        asked.embed_texts(texts or ["a boat"])
    assert isinstance(error.value, EngineError)
    return error.value.cause


@pytest.fixture
def model_id(client):
    with fresh_model(client) as fresh:
        yield fresh


def test_vectors_have_unit_length_and_the_order_of_the_texts(client, deployed, tiny_pair):
    asked = encoder(client, deployed, dims=16, revision=fingerprint(tiny_pair / "text"))
    texts = [f"{number} red boats" for number in range(DOCS_A_REQUEST + 3)]
    vectors = asked.embed_texts(texts)
    assert (vectors.shape, vectors.dtype) == ((len(texts), 16), np.float32)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-6)
    # Not to the last bit: the same sum may be added up in another order the next time.
    np.testing.assert_allclose(vectors[-1:], asked.embed_texts(texts[-1:]), rtol=0, atol=1e-6)
    assert asked.embed_texts([]).shape == (0, 16)


def test_a_model_that_is_not_uploaded_or_not_started_is_named(client, model_id, tmp_path):
    asked = encoder(client, model_id)
    assert cause(asked) == "not uploaded"
    upload(client, model_id, torchscript(tmp_path / "tiny.pt"))
    assert cause(asked) == "not started"
    client.ml.start_trained_model_deployment(model_id=model_id)
    assert asked.embed_texts(["a boat"]).shape == (1, 4)


def test_a_slow_model_is_a_time_out_and_a_full_queue_is_one(client, model_id, tmp_path):
    gate = Gate(tmp_path / "gate")
    upload(client, model_id, torchscript(tmp_path / "slow.pt", gate=gate.path))
    client.ml.start_trained_model_deployment(model_id=model_id, queue_capacity=2)
    with gate.closed():
        assert cause(encoder(client, model_id, timeout_s=0.02), "a boat", "the sea") == "time-out"
        assert cause(encoder(client, model_id, timeout_s=60), *["a boat"] * 20) == "queue full"


def test_an_elasticsearch_that_is_down_is_a_connection_failure():
    with closed_port() as port, Elasticsearch(f"http://127.0.0.1:{port}") as nobody:
        assert cause(encoder(nobody, "any")) == "connection"


def test_vectors_of_another_width_are_refused(client, deployed, tiny_pair):
    asked = encoder(client, deployed, dims=512, revision=fingerprint(tiny_pair / "text"))
    assert cause(asked) == "other dims"


def test_vectors_of_other_weights_are_refused(client, deployed):
    assert cause(encoder(client, deployed, dims=16, revision="sha256:of-something-else")) == "other weights"


def test_a_model_that_eland_alone_uploaded_is_taken_as_it_is(client, model_id, tmp_path):
    upload(client, model_id, torchscript(tmp_path / "tiny.pt"))
    client.ml.start_trained_model_deployment(model_id=model_id)
    assert encoder(client, model_id, revision="sha256:whatever").embed_texts(["sea"]).shape == (1, 4)
