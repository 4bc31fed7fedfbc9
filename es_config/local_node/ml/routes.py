"""`_ml/trained_models` on the local node: Elastic's published jars leave machine learning out.

Requests and answers are those of a licensed cluster, so that one client serves both. `docs/text-model.md`
says what is emulated and what is not. An uploaded model is code: `docs/security.md` says who may upload one.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from es_config.local_node.ml import answers
from es_config.local_node.ml.config import trained_model
from es_config.local_node.ml.models import LocalModels
from es_config.local_node.ml.requests import (
    DeploymentParameters,
    bad_request,
    definition_part,
    flag,
    read_json,
    seconds,
    truncation,
    vocabulary,
    whole_number,
)
from es_config.local_node.ml.store import ModelStore
from es_config.local_node.rest import RestRoutes

MODELS = "/_ml/trained_models"
MANAGING_WORKERS = 2
INFERRING_WORKERS = 32
Answer = tuple[int, dict[str, Any]]


def register(node: Any, *, home: Path) -> None:
    """Add the routes to a running node; the models in `home/node/trained_models` survive a restart."""
    models = LocalModels(ModelStore(home.absolute() / "node" / "trained_models"))
    routes = MlRoutes(models, node_id=str(node.getNodeEnvironment().nodeId()))
    routes.add_to(RestRoutes(node, workers=MANAGING_WORKERS), RestRoutes(node, workers=INFERRING_WORKERS))
    threading.Thread(target=models.load_deployments, name="glimpse-models", daemon=True).start()


class MlRoutes:
    """Translates requests into calls of `LocalModels`, and what they give into answers."""

    def __init__(self, models: LocalModels, *, node_id: str) -> None:
        self._models = models
        self._node_id = node_id

    def add_to(self, managing: RestRoutes, inferring: RestRoutes) -> None:
        """Register every route; `inferring` has a pool of its own, so that an upload never delays a query."""
        model = MODELS + "/{model_id}"
        for method, path, function in (
            ("GET", MODELS, self.get),
            ("GET", model, self.get),
            ("PUT", model, self.put),
            ("DELETE", model, self.delete),
            ("GET", MODELS + "/_stats", self.stats),
            ("GET", model + "/_stats", self.stats),
            ("PUT", model + "/definition/{part}", self.put_part),
            ("PUT", model + "/vocabulary", self.put_vocabulary),
            ("POST", model + "/deployment/_start", self.start),
            ("POST", model + "/deployment/_stop", self.stop),
        ):
            managing.add(method, path, function)
        inferring.add("POST", model + "/_infer", self.infer)

    def get(self, path: Mapping[str, str], query: Mapping[str, str], _body: bytes) -> Answer:
        """Show the configurations that match a list of names and wildcards."""
        ids = self._matching(path, query)
        found = [self._models.store.config(model_id) for model_id in _window(ids, query)]
        if "definition_status" in query.get("include", ""):
            found = [
                {**one, "fully_defined": self._models.store.is_defined(one["model_id"])} for one in found
            ]
        return 200, {"count": len(ids), "trained_model_configs": found}

    def put(self, path: Mapping[str, str], _query: Mapping[str, str], body: bytes) -> Answer:
        """Create a model without its definition and vocabulary."""
        config = trained_model(path["model_id"], body)
        self._models.store.create(config)
        return 200, config

    def put_part(self, path: Mapping[str, str], _query: Mapping[str, str], body: bytes) -> Answer:
        """Keep one part of the TorchScript."""
        part, data, total_length, total_parts = definition_part(path["part"], body)
        self._models.store.put_part(
            path["model_id"], part, data, total_length=total_length, total_parts=total_parts
        )
        return 200, {"acknowledged": True}

    def put_vocabulary(self, path: Mapping[str, str], _query: Mapping[str, str], body: bytes) -> Answer:
        """Keep the vocabulary."""
        self._models.store.put_vocabulary(path["model_id"], vocabulary(body))
        return 200, {"acknowledged": True}

    def start(self, path: Mapping[str, str], query: Mapping[str, str], _body: bytes) -> Answer:
        """Start the deployment that has the model's own id."""
        model_id = path["model_id"]
        if query.get("deployment_id", model_id) != model_id:
            raise bad_request("On the local node [deployment_id] must be the [model_id]")
        deployment = self._models.start(model_id, DeploymentParameters.read(query))
        size = self._models.store.definition_length(model_id)
        return 200, answers.assignment(model_id, deployment, model_bytes=size, node_id=self._node_id)

    def stop(self, path: Mapping[str, str], query: Mapping[str, str], body: bytes) -> Answer:
        """End the deployment; what to do without one is said in the query string or in the body."""
        given = read_json(body, fields=("id", "allow_no_match", "force"), parser="stop") if body else {}
        said = {name: str(value).lower() for name, value in given.items()}
        self._models.stop(
            path["model_id"], allow_no_match=flag({**said, **query}, "allow_no_match", default=True)
        )
        return 200, {"stopped": True}

    def delete(self, path: Mapping[str, str], query: Mapping[str, str], _body: bytes) -> Answer:
        """Remove the model."""
        self._models.delete(path["model_id"], force=flag(query, "force", default=False))
        return 200, {"acknowledged": True}

    def stats(self, path: Mapping[str, str], query: Mapping[str, str], _body: bytes) -> Answer:
        """Show sizes, states and counts."""
        ids = self._matching(path, query)
        found = [self._stats(model_id) for model_id in _window(ids, query)]
        return 200, {"count": len(ids), "trained_model_stats": found}

    def infer(self, path: Mapping[str, str], query: Mapping[str, str], body: bytes) -> Answer:
        """Embed the texts of `docs`."""
        given = read_json(body, fields=("docs", "inference_config", "timeout", "id"), parser="infer")
        if not isinstance(given.get("docs"), list):
            raise bad_request("[docs] must not be null.", kind="illegal_argument_exception")
        timeout_s = seconds(query.get("timeout") or given.get("timeout") or "10s")
        deployment = self._models.deployment(path["model_id"])
        options = deployment.config["inference_config"]["text_embedding"]
        update = _update(given.get("inference_config"))
        texts = [_text(doc, deployment.config["input"]["field_names"][0]) for doc in given["docs"]]
        embeddings = deployment.infer(texts, truncate=_truncate(options, update), timeout_s=timeout_s)
        field = update.get("results_field") or options.get("results_field") or "predicted_value"
        return 200, answers.inference(embeddings, results_field=field)

    def _matching(self, path: Mapping[str, str], query: Mapping[str, str]) -> list[str]:
        allow_no_match = flag(query, "allow_no_match", default=True)
        return self._models.matching(path.get("model_id", "_all"), allow_no_match=allow_no_match)

    def _stats(self, model_id: str) -> dict[str, Any]:
        store = self._models.store
        started = store.deployment(model_id)
        deployment = started and answers.deployment_statistics(
            model_id,
            DeploymentParameters(**started),
            self._models.running(model_id),
            failure=self._models.failure(model_id),
            node_id=self._node_id,
        )
        return answers.statistics(
            model_id, model_bytes=store.definition_length(model_id), deployment=deployment
        )


def _window(ids: list[str], query: Mapping[str, str]) -> list[str]:
    start, size = whole_number(query, "from", default=0), whole_number(query, "size", default=100)
    return ids[start : start + size]


def _text(doc: Any, field: str) -> str:
    value = doc.get(field) if isinstance(doc, dict) else None
    if value is None:
        raise bad_request(f"Input field [{field}] does not exist in the source document")
    if not isinstance(value, str):
        raise bad_request(f"Input value [{value}] for field [{field}] must be a string")
    return value


def _update(given: Any) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, dict) or list(given) != ["text_embedding"]:
        raise bad_request("[inference_config] of a text embedding model must hold [text_embedding]")
    return given["text_embedding"]


def _truncate(options: dict[str, Any], update: dict[str, Any]) -> str:
    [(kind, tokenization)] = options["tokenization"].items()
    changed = (update.get("tokenization") or {}).get(kind) or {}
    return truncation(changed.get("truncate", tokenization["truncate"]))
