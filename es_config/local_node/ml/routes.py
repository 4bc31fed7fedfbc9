"""The routes of `_ml/trained_models` on the local node, with the requests and answers of a licensed cluster.

`docs/text-model.md` lists the parts that are emulated. An uploaded model is code: `docs/security.md` says
who may upload one.
"""

from __future__ import annotations

import datetime
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from es_config.local_node.install import NODE_NAME
from es_config.local_node.ml.deployment import Deployment, DeploymentParameters, InferenceCounts
from es_config.local_node.ml.models import CONFIG_FIELDS, TRUNCATE, LocalModels, ModelStore, trained_model
from es_config.local_node.ml.requests import (
    Given,
    ModelRoute,
    Reader,
    anything,
    bad_request,
    base64_bytes,
    flag,
    invalid,
    json_object,
    list_of,
    one_of,
    positive,
    seconds,
    text,
    whole_number,
)
from es_config.local_node.rest import Answer, RestRequest, RestRoutes

MODELS = "/_ml/trained_models"
MODEL = MODELS + "/{model_id}"
MANAGING_WORKERS = 2
INFERRING_WORKERS = 32
INFER_TIMEOUT_S = 10.0
PAGE_SIZE = 100
MAX_PARTS = 10_000
OVERHEAD_BYTES = 240 * 1024 * 1024
"""Elasticsearch estimates a deployment's memory as twice the model's size and this"""


class TrainedModelRoutes:
    """Answers the routes with the models in a folder, which survive a restart of the node."""

    def __init__(self, folder: Path, *, node_id: str) -> None:
        self._models = LocalModels(ModelStore(folder))
        self._node_id = node_id

    def add_to(self, node: Any) -> None:
        """Register the routes and load the deployments; `_infer` has threads that no upload can occupy."""
        managing = RestRoutes(node, workers=MANAGING_WORKERS)
        inferring = RestRoutes(node, workers=INFERRING_WORKERS)
        for route in ROUTES:
            routes = inferring if route.path.endswith("/_infer") else managing
            routes.add(route.method, route.path, self._answering(route))
        threading.Thread(target=self._models.load_deployments, name="glimpse-models", daemon=True).start()

    def _answering(self, route: ModelRoute) -> Callable[[RestRequest], Answer]:
        return lambda request: (200, route.answer(self, route.read(request)))

    def show(self, given: Given) -> dict[str, Any]:
        """Return the configurations that match a list of names and wildcards."""
        count, ids = self._page(given)
        store = self._models.store
        found = [store.config(model_id) for model_id in ids]
        if "definition_status" in given.get("include", ""):
            found = [{**each, "fully_defined": store.is_defined(each["model_id"])} for each in found]
        return {"count": count, "trained_model_configs": found}

    def create(self, given: Given) -> dict[str, Any]:
        """Create a model without its definition and vocabulary."""
        config = trained_model(given["model_id"], given)
        self._models.store.create(config)
        return config

    def put_part(self, given: Given) -> dict[str, Any]:
        """Keep one part of the TorchScript."""
        part, total_parts = given["part"], given.get("total_parts", 0)
        total_length = given.get("total_definition_length", 0)
        rules = {
            "[part] must be greater or equal to 0": part >= 0,
            "[total_parts] must be greater than 0": total_parts > 0,
            f"[total_parts] must be less than or equal to {MAX_PARTS}": total_parts <= MAX_PARTS,
            "[total_definition_length] must be greater than 0": total_length > 0,
            "[part] must be less than total_parts": part < total_parts,
        }
        if problems := [rule for rule, is_kept in rules.items() if not is_kept]:
            raise invalid(*problems)
        self._models.store.put_part(
            given["model_id"], part, given["definition"], total_length=total_length, total_parts=total_parts
        )
        return {"acknowledged": True}

    def put_vocabulary(self, given: Given) -> dict[str, Any]:
        """Keep the vocabulary."""
        words, scores = given["vocabulary"], given.get("scores")
        if not words:
            raise invalid("[vocabulary] must not be empty")
        if scores and len(scores) != len(words):
            raise invalid("[scores] must have same length as [vocabulary]")
        kept = {name: given[name] for name in VOCABULARY_FIELDS if name in given}
        self._models.store.put_vocabulary(given["model_id"], kept)
        return {"acknowledged": True}

    def delete(self, given: Given) -> dict[str, Any]:
        """Remove the model."""
        self._models.delete(given["model_id"], force=given.get("force", False))
        return {"acknowledged": True}

    def start(self, given: Given) -> dict[str, Any]:
        """Start the deployment that has the model's own id."""
        model_id = given["model_id"]
        if given.get("deployment_id", model_id) != model_id:
            raise bad_request("On the local node [deployment_id] must be the [model_id]")
        options = {each.name: given[each.name] for each in fields(DeploymentParameters) if each.name in given}
        deployment = self._models.start(model_id, DeploymentParameters(**options))
        size = self._models.store.definition_length(model_id)
        return _assignment(model_id, deployment, model_bytes=size, node_id=self._node_id)

    def stop(self, given: Given) -> dict[str, Any]:
        """End the deployment."""
        self._models.stop(given["model_id"], allow_no_match=given.get("allow_no_match", True))
        return {"stopped": True}

    def stats(self, given: Given) -> dict[str, Any]:
        """Return sizes, states and counts."""
        count, ids = self._page(given)
        return {"count": count, "trained_model_stats": [self._statistics(model_id) for model_id in ids]}

    def infer(self, given: Given) -> dict[str, Any]:
        """Embed the texts of `docs`."""
        deployment = self._models.deployment(given["model_id"])
        options = deployment.config["inference_config"]["text_embedding"]
        update = given.get("inference_config", {})
        embeddings = deployment.infer(
            [_text(doc, deployment.config["input"]["field_names"][0]) for doc in given["docs"]],
            truncate=_truncate(options["tokenization"], update.get("tokenization") or {}),
            timeout_s=given.get("timeout", INFER_TIMEOUT_S),
        )
        field = update.get("results_field") or options.get("results_field") or "predicted_value"
        truncated = {"is_truncated": True}
        return {
            "inference_results": [
                {field: each.vector, **(truncated if each.is_truncated else {})} for each in embeddings
            ]
        }

    def _page(self, given: Given) -> tuple[int, list[str]]:
        """Return the number of models that match and the ids of the page that was asked for."""
        ids = self._models.matching(
            given.get("model_id", "_all"), allow_no_match=given.get("allow_no_match", True)
        )
        start = given.get("from", 0)
        return len(ids), ids[start : start + given.get("size", PAGE_SIZE)]

    def _statistics(self, model_id: str) -> dict[str, Any]:
        store = self._models.store
        model_bytes = store.definition_length(model_id)
        size = {
            "model_size_bytes": model_bytes,
            "required_native_memory_bytes": 2 * model_bytes + OVERHEAD_BYTES if model_bytes else 0,
        }
        stats = {"model_id": model_id, "model_size_stats": size, "pipeline_count": 0}
        parameters = store.deployment(model_id)
        if parameters is None:
            return stats
        running, failure = self._models.running(model_id), self._models.failure(model_id)
        deployment = _deployment_stats(model_id, parameters, running, failure=failure, node_id=self._node_id)
        return {**stats, "deployment_stats": deployment}


def _text(doc: dict[str, Any], field: str) -> str:
    value = doc.get(field)
    if value is None:
        raise bad_request(f"Input field [{field}] does not exist in the source document")
    if not isinstance(value, str):
        raise bad_request(f"Input value [{value}] for field [{field}] must be a string")
    return value


def _truncate(tokenization: Mapping[str, Any], update: Mapping[str, Any]) -> str:
    [(kind, options)] = tokenization.items()
    changed = (update.get(kind) or {}).get("truncate", options["truncate"])
    try:
        return str(TRUNCATE("truncate", changed))
    except ValueError as error:
        raise bad_request(str(error), kind="illegal_argument_exception") from error


def _assignment(model_id: str, deployment: Deployment, *, model_bytes: int, node_id: str) -> dict[str, Any]:
    """Return the answer to a start."""
    allocations = deployment.parameters.number_of_allocations
    started = datetime.datetime.fromtimestamp(deployment.start_time / 1000, tz=datetime.UTC)
    task = {
        "model_id": model_id,
        "deployment_id": model_id,
        "model_bytes": model_bytes,
        **deployment.parameters.as_dict(),
        "cache_size": "0b",
        "per_deployment_memory_bytes": 0,
        "per_allocation_memory_bytes": 0,
    }
    route = {
        "current_allocations": allocations,
        "target_allocations": allocations,
        "routing_state": "started",
        "reason": "",
    }
    return {
        "assignment": {
            "task_parameters": task,
            "routing_table": {node_id: route},
            "assignment_state": "started",
            "start_time": started.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "max_assigned_allocations": allocations,
        }
    }


def _deployment_stats(
    model_id: str,
    parameters: DeploymentParameters,
    running: Deployment | None,
    *,
    failure: str | None,
    node_id: str,
) -> dict[str, Any]:
    """Return `deployment_stats`: `starting` while a restarted node loads it, `failed` if it cannot."""
    state = "started" if running else "failed" if failure else "starting"
    counts = asdict(running.counts if running else InferenceCounts())
    node: dict[str, Any] = {
        "node": {node_id: {"name": NODE_NAME}},
        "routing_state": {"routing_state": state, **({"reason": failure} if failure else {})},
        "peak_throughput_per_minute": 0,
        "throughput_last_minute": 0,
    }
    if running:
        node |= {
            **counts,
            "number_of_pending_requests": running.pending,
            "number_of_allocations": parameters.number_of_allocations,
            "threads_per_allocation": parameters.threads_per_allocation,
            "start_time": running.start_time,
        }
        if running.counts.inference_count:
            node["average_inference_time_ms"] = running.inference_ms / running.counts.inference_count
            node["last_access"] = running.last_access
    allocation = {
        "allocation_count": parameters.number_of_allocations if running else 0,
        "target_allocation_count": parameters.number_of_allocations,
        "state": "fully_allocated" if running else "starting",
    }
    return {
        "deployment_id": model_id,
        "model_id": model_id,
        **parameters.as_dict(),
        "state": state,
        "start_time": running.start_time if running else 0,
        "peak_throughput_per_minute": 0,
        **counts,
        "nodes": [node],
        **({"reason": failure} if failure else {"allocation_status": allocation}),
    }


def _text_embedding_update(name: str, given: Any) -> dict[str, Any]:
    update = json_object(name, given)
    if list(update) != ["text_embedding"]:
        raise ValueError("a text embedding model takes [text_embedding] only")
    return json_object("text_embedding", update["text_embedding"])


PAGE: dict[str, Reader] = {"allow_no_match": flag, "from": whole_number, "size": whole_number}
VOCABULARY_FIELDS: dict[str, Reader] = {
    "vocabulary": list_of(str),
    "merges": list_of(str),
    "scores": list_of(float, int),
}
ROUTES = (
    ModelRoute("GET", MODELS, TrainedModelRoutes.show, {**PAGE, "include": text}),
    ModelRoute("GET", MODEL, TrainedModelRoutes.show, {**PAGE, "include": text}),
    ModelRoute("GET", MODELS + "/_stats", TrainedModelRoutes.stats, PAGE),
    ModelRoute("GET", MODEL + "/_stats", TrainedModelRoutes.stats, PAGE),
    ModelRoute(
        "PUT",
        MODEL,
        TrainedModelRoutes.create,
        body={
            **dict.fromkeys((*CONFIG_FIELDS, "model_id", "platform_architecture"), anything),
            "input": json_object,
        },
        parser="trained_model_config",
    ),
    ModelRoute(
        "PUT",
        MODEL + "/definition/{part}",
        TrainedModelRoutes.put_part,
        {"part": whole_number},
        body={
            "definition": base64_bytes,
            "total_definition_length": whole_number,
            "total_parts": whole_number,
        },
        required=("definition",),
        parser="put_trained_model_part_action",
    ),
    ModelRoute(
        "PUT",
        MODEL + "/vocabulary",
        TrainedModelRoutes.put_vocabulary,
        body=VOCABULARY_FIELDS,
        required=("vocabulary",),
        parser="put_trained_model_vocabulary",
    ),
    ModelRoute("DELETE", MODEL, TrainedModelRoutes.delete, {"force": flag}),
    ModelRoute(
        "POST",
        MODEL + "/deployment/_start",
        TrainedModelRoutes.start,
        {
            **dict.fromkeys(("number_of_allocations", "threads_per_allocation", "queue_capacity"), positive),
            "priority": one_of("normal", "low"),
            "deployment_id": text,
        },
    ),
    ModelRoute(
        "POST",
        MODEL + "/deployment/_stop",
        TrainedModelRoutes.stop,
        {"allow_no_match": flag},
        body={"allow_no_match": flag, "force": flag, "id": anything},
        body_required=False,
        parser="stop",
    ),
    ModelRoute(
        "POST",
        MODEL + "/_infer",
        TrainedModelRoutes.infer,
        {"timeout": seconds},
        body={
            "docs": list_of(dict),
            "inference_config": _text_embedding_update,
            "timeout": seconds,
            "id": anything,
        },
        required=("docs",),
        parser="infer",
    ),
)
"""every route, with everything that is checked before its function is called"""
