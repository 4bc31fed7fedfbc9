"""Requests of eland and the client, and the local node's answers, against Elastic's API description.

The description is not part of the repository: these tests exist where GLIMPSE_SHARED names the folder that
has it. What they check stands in the plain tests as well.
"""

import json
import os
from pathlib import Path

import pytest
from tiny_torchscript import VOCABULARY, config, fresh_model, parts, put_parts, torchscript

DESCRIPTION = "data/elasticsearch-ml-openapi.json"

if "GLIMPSE_SHARED" in os.environ:

    class Recorded:
        """One exchange, in the two shapes that openapi-core takes: a request and a response."""

        def __init__(self, method: str, url: str, body: bytes | None, status: int, answer: bytes) -> None:
            from urllib.parse import parse_qsl, urlsplit

            from openapi_core.datatypes import RequestParameters
            from werkzeug.datastructures import Headers, ImmutableMultiDict

            where = urlsplit(url)
            self.host_url = f"{where.scheme}://{where.netloc}"
            self.path, self.full_url_pattern, self.method = where.path, where.path, method.lower()
            query = ImmutableMultiDict(parse_qsl(where.query))
            self.parameters = RequestParameters(query=query, header=Headers(), path={})
            self.body, self.content_type = body, "application/json"
            self.status_code, self.data, self.headers = status, answer, Headers()

    @pytest.fixture(scope="module")
    def description():
        """Elastic's description, with two slips mended that contradict its own examples.

        `docs` may hold texts; the overlapping alternatives of a predicted value need not exclude each other.
        """
        from openapi_core import Config, OpenAPI

        content = json.loads((Path(os.environ["GLIMPSE_SHARED"]) / DESCRIPTION).read_text(encoding="utf-8"))
        infer = content["paths"]["/_ml/trained_models/{model_id}/_infer"]["post"]
        docs = infer["requestBody"]["content"]["application/json"]["schema"]["properties"]["docs"]
        docs["items"]["additionalProperties"] = True
        schemas = content["components"]["schemas"]
        result = schemas["ml._types.InferenceResponseResult"]["properties"]["predicted_value"]
        for one in (schemas["_types.ScalarValue"], schemas["ml._types.PredictedValue"], result):
            one["anyOf"] = one.pop("oneOf")
        content["servers"] = [{"url": "/"}]
        # The description itself is not checked: it has a default that its own enumeration does not know.
        return OpenAPI.from_dict(content, config=Config(spec_validator_cls=None))

    @pytest.fixture
    def exchanges(node):
        """Yield a client and the list of all its exchanges."""
        from elasticsearch import Elasticsearch

        kept = []
        with Elasticsearch(node.url, api_key=node.key, request_timeout=60) as recorded:
            send = recorded.transport.perform_request

            def perform_request(method, target, *, body=None, **options):
                answer = send(method, target, body=body, **options)
                raw = json.dumps(body).encode() if body is not None else None
                kept.append(
                    Recorded(
                        method, node.url + target, raw, answer.meta.status, json.dumps(answer.body).encode()
                    )
                )
                return answer

            recorded.transport.perform_request = perform_request
            yield recorded, kept

    def check(description, kept) -> set[str]:
        """Validate every exchange and return the paths seen. Only answers of status 200 are described."""
        for exchange in kept:
            description.validate_request(exchange)
            if exchange.status_code == 200:
                description.validate_response(exchange, exchange)
        return {exchange.path for exchange in kept}

    def test_what_the_client_sends_and_gets_follows_the_description(exchanges, description, tmp_path):
        client, kept = exchanges
        with fresh_model(client) as model_id:
            client.ml.put_trained_model(model_id=model_id, **config())
            put_parts(client, model_id, parts(torchscript(tmp_path / "tiny.pt"), 2))
            client.ml.put_trained_model_vocabulary(model_id=model_id, vocabulary=VOCABULARY)
            client.ml.get_trained_models(model_id=model_id, include="definition_status")
            client.ml.get_trained_models()
            client.ml.get_trained_models_stats(model_id=model_id)
            client.ml.start_trained_model_deployment(
                model_id=model_id, number_of_allocations=2, timeout="30s"
            )
            client.ml.infer_trained_model(model_id=model_id, docs=[{"text_field": "boat"}] * 3, timeout="5s")
            client.ml.get_trained_models_stats()
            client.ml.stop_trained_model_deployment(model_id=model_id, force=True)
            client.ml.delete_trained_model(model_id=model_id, force=True)
            client.info()
        assert len(check(description, kept)) == 11

    def test_what_eland_sends_and_gets_follows_the_description(exchanges, description, tiny_pair):
        from es_config.text_model import TextModelSource, TrainedModel, upload

        client, kept = exchanges
        with fresh_model(client) as model_id:
            model = TrainedModel(client, model_id=model_id)
            upload(model, TextModelSource(tiny_pair / "text", name="tiny", revision="sha256:tiny", dims=16))
            model.start()
            assert model.status().state == "started"
        assert f"/_ml/trained_models/{model_id}/vocabulary" in check(description, kept)
