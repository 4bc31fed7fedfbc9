"""The routes of `_ml/trained_models` on the local node, with the requests and answers of a licensed cluster.

`docs/text-model.md` lists the parts that are emulated. An uploaded model is code: `docs/security.md` says
who may upload one.
"""

from __future__ import annotations

import binascii
import datetime
import hmac
import json
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

from es_config.local_node.install import NODE_NAME
from es_config.local_node.ml.deployment import DeploymentParameters
from es_config.local_node.ml.models import CONFIG_FIELDS, LocalModels, ModelStore, trained_model
from es_config.local_node.rest import Answer, RestError, RestRequest, RestRoutes

Values = Mapping[str, Any]
"""the checked values of a request, from its path, body and query string; absent if not given"""

MODELS = "/_ml/trained_models"
MODEL = MODELS + "/{model_id}"
INFER = "/_infer"
LOGIN_NEEDED = "missing or wrong API key: it is in the file node/api_key of GLIMPSE_HOME"
MANAGING_WORKERS = 2
INFERRING_WORKERS = 32
INFER_TIMEOUT_S = 10.0
PAGE_SIZE = 100
MAX_PARTS = 10_000
OVERHEAD_BYTES = 240 * 1024 * 1024
"""Elasticsearch estimates a deployment's memory as twice the model's size and this"""
COUNTS = ("inference_count", "error_count", "rejected_execution_count", "timeout_count")
SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def flag(value: object) -> bool:
    """Read a boolean, which is true for a name without a value in a query string."""
    said = str(value).lower()
    if said not in ("true", "false", ""):
        raise ValueError("must be true or false")
    return said != "false"


def positive(value: Any) -> int:
    """Read a whole number above 0."""
    if int(value) < 1:
        raise ValueError("must be a positive integer")
    return int(value)


def seconds(value: object) -> float:
    """Read a time value such as `10s` or `500ms`."""
    match = re.fullmatch(r"(\d+)(ms|s|m|h|d)", str(value))
    if match is None:
        raise ValueError("must be a time value such as 10s or 500ms")
    return int(match[1]) * SECONDS[match[2]]


def json_object(value: object) -> dict[str, Any]:
    """Read a JSON object."""
    if not isinstance(value, dict):
        raise ValueError("must be an object")
    return value


def list_of(kind: type) -> Callable[[object], list[Any]]:
    """Return a reader of JSON arrays whose elements are all of one type."""

    def read(value: object) -> list[Any]:
        if not isinstance(value, list) or not all(isinstance(each, kind) for each in value):
            raise ValueError(f"must be an array of {kind.__name__}")
        return value

    return read


READERS: dict[str, Callable[[Any], Any]] = {
    "inference_config": json_object,
    "input": json_object,
    "allow_no_match": flag,
    "force": flag,
    "from": int,
    "size": int,
    "part": int,
    "total_parts": positive,
    "total_definition_length": positive,
    "definition": lambda value: binascii.a2b_base64(value, strict_mode=True),
    "vocabulary": list_of(str),
    "number_of_allocations": positive,
    "threads_per_allocation": positive,
    "queue_capacity": positive,
    "docs": list_of(dict),
    "timeout": seconds,
}
"""name → a reader that returns its value or raises ValueError or TypeError; other values stay as they are"""


@dataclass(frozen=True)
class ModelRoute:
    """One route of `_ml`, with the names that its JSON body must and may hold."""

    method: str
    path: str
    answer: Callable[[Any, Values], dict[str, Any]]
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()

    @property
    def is_writing(self) -> bool:
        """Whether it changes anything."""
        return self.method != "GET" and not self.path.endswith(INFER)

    def read(self, request: RestRequest) -> Values:
        """Return the values of a request. Raises `RestError` 400."""
        try:
            content = json_object(json.loads(request.body or "{}"))
        except (ValueError, RecursionError) as error:
            raise RestError(400, f"failed to parse: {error}", "x_content_parse_exception") from error
        if unknown := content.keys() - {*self.required, *self.optional}:
            raise RestError(400, f"unknown field [{min(unknown)}]", "x_content_parse_exception")
        sent = {name: value for name, value in content.items() if value is not None}
        if missing := [name for name in self.required if name not in sent]:
            raise RestError(400, f"[{missing[0]}] must not be null.", "illegal_argument_exception")
        values = {**request.query, **sent, **request.path}
        for name in values.keys() & READERS.keys():
            try:
                values[name] = READERS[name](values[name])
            except (ValueError, TypeError) as error:
                reason = f"failed to parse [{name}]: {error}"
                raise RestError(400, reason, "illegal_argument_exception") from error
        return values


class TrainedModelRoutes:
    """Answers the routes with the models in a folder, which survive a restart of the node."""

    def __init__(self, folder: Path, *, node_id: str, key: str) -> None:
        """Take the API key without which no route changes anything."""
        self._models = LocalModels(ModelStore(folder))
        self._node_id = node_id
        self._login = f"ApiKey {key}".encode()

    def add_to(self, node: Any) -> None:
        """Register the routes and load the deployments. No upload can occupy the threads of `_infer`."""
        managing = RestRoutes(node, workers=MANAGING_WORKERS)
        inferring = RestRoutes(node, workers=INFERRING_WORKERS)
        for route in ROUTES:
            routes = inferring if route.path.endswith(INFER) else managing
            routes.add(route.method, route.path, partial(self._answer, route))
        threading.Thread(target=self._models.load_deployments, name="glimpse-models", daemon=True).start()

    def _answer(self, route: ModelRoute, request: RestRequest) -> Answer:
        if route.is_writing and not hmac.compare_digest(request.login.encode(), self._login):
            raise RestError(401, LOGIN_NEEDED, "security_exception")
        return 200, route.answer(self, route.read(request))

    def show(self, given: Values) -> dict[str, Any]:
        """Return the configurations that match a list of names and wildcards."""
        count, ids = self._page(given)
        store = self._models.store
        found = [store.config(model_id) for model_id in ids]
        if "definition_status" in given.get("include", ""):
            found = [{**each, "fully_defined": store.is_defined(each["model_id"])} for each in found]
        return {"count": count, "trained_model_configs": found}

    def create(self, given: Values) -> dict[str, Any]:
        """Create a model without its definition and vocabulary."""
        config = trained_model(given["model_id"], given)
        self._models.store.create(config)
        return config

    def put_part(self, given: Values) -> dict[str, Any]:
        """Keep one part of the TorchScript."""
        part, total_parts = given["part"], given["total_parts"]
        if not 0 <= part < total_parts <= MAX_PARTS:
            raise RestError(
                400, f"[part] must be from 0 to [total_parts] - 1, and [total_parts] at most {MAX_PARTS}"
            )
        length = given["total_definition_length"]
        self._models.store.put_part(
            given["model_id"], part, given["definition"], total_length=length, total_parts=total_parts
        )
        return {"acknowledged": True}

    def put_vocabulary(self, given: Values) -> dict[str, Any]:
        """Keep the vocabulary."""
        if not given["vocabulary"]:
            raise RestError(400, "[vocabulary] must not be empty")
        self._models.store.put_vocabulary(given["model_id"], given["vocabulary"])
        return {"acknowledged": True}

    def delete(self, given: Values) -> dict[str, Any]:
        """Remove the model."""
        self._models.delete(given["model_id"], force=given.get("force", False))
        return {"acknowledged": True}

    def start(self, given: Values) -> dict[str, Any]:
        """Start the deployment that has the model's own id."""
        model_id = given["model_id"]
        if given.get("deployment_id", model_id) != model_id:
            raise RestError(400, "On the local node [deployment_id] must be the [model_id]")
        options = {each.name: given[each.name] for each in fields(DeploymentParameters) if each.name in given}
        deployment = self._models.start(model_id, DeploymentParameters(**options))
        started = datetime.datetime.fromtimestamp(deployment.start_time / 1000, tz=datetime.UTC)
        task = {
            "model_id": model_id,
            "deployment_id": model_id,
            "model_bytes": self._models.store.definition_length(model_id),
            **asdict(deployment.parameters),
            "per_deployment_memory_bytes": 0,
            "per_allocation_memory_bytes": 0,
        }
        names = ("current_allocations", "target_allocations")
        node = dict.fromkeys(names, deployment.parameters.number_of_allocations)
        return {
            "assignment": {
                "task_parameters": task,
                "routing_table": {self._node_id: {**node, "routing_state": "started"}},
                "assignment_state": "started",
                "start_time": started.isoformat(timespec="milliseconds"),
            }
        }

    def stop(self, given: Values) -> dict[str, Any]:
        """End the deployment."""
        self._models.stop(given["model_id"], allow_no_match=given.get("allow_no_match", True))
        return {"stopped": True}

    def stats(self, given: Values) -> dict[str, Any]:
        """Return sizes, states and counts."""
        count, ids = self._page(given)
        return {"count": count, "trained_model_stats": [self._statistics(model_id) for model_id in ids]}

    def infer(self, given: Values) -> dict[str, Any]:
        """Embed the texts of `docs`."""
        deployment = self._models.deployment(given["model_id"])
        field = deployment.config["inference_config"]["text_embedding"].get(
            "results_field", "predicted_value"
        )
        results = deployment.infer(
            [_text(doc, deployment.config["input"]["field_names"][0]) for doc in given["docs"]],
            timeout_s=given.get("timeout", INFER_TIMEOUT_S),
        )
        marks = {True: {"is_truncated": True}, False: {}}
        return {"inference_results": [{field: vector, **marks[is_cut]} for vector, is_cut in results]}

    def _page(self, given: Values) -> tuple[int, list[str]]:
        """Return the number of models that match and the ids of the page that was asked for."""
        start, name = given.get("from", 0), given.get("model_id", "_all")
        ids = self._models.matching(name, allow_no_match=given.get("allow_no_match", True))
        return len(ids), ids[start : start + given.get("size", PAGE_SIZE)]

    def _statistics(self, model_id: str) -> dict[str, Any]:
        """Return the sizes of a model and its deployment, `starting` while a restarted node loads it."""
        store, running = self._models.store, self._models.running.get(model_id)
        length, parameters = store.definition_length(model_id), store.deployment(model_id)
        needed = 2 * length + OVERHEAD_BYTES if length else 0
        size = {"model_size_bytes": length, "required_native_memory_bytes": needed}
        stats = {"model_id": model_id, "model_size_stats": size, "pipeline_count": 0}
        if parameters is None:
            return stats
        failure = self._models.failures.get(model_id)
        state = "started" if running else "failed" if failure else "starting"
        reason = {"reason": failure} if failure else {}
        counts = {name: running.counts[name] if running else 0 for name in COUNTS}
        node: dict[str, Any] = {
            "node": {self._node_id: {"name": NODE_NAME}},
            "routing_state": {"routing_state": state, **reason},
            "peak_throughput_per_minute": 0,
            "throughput_last_minute": 0,
            **counts,
        }
        if running:
            node["number_of_pending_requests"] = running.pending
            node["start_time"] = running.start_time
        if running and counts["inference_count"]:
            node["average_inference_time_ms"] = running.inference_ms / counts["inference_count"]
        stats["deployment_stats"] = {
            "deployment_id": model_id,
            "model_id": model_id,
            **asdict(parameters),
            "state": state,
            "start_time": running.start_time if running else 0,
            "peak_throughput_per_minute": 0,
            **counts,
            "nodes": [node],
            **reason,
            "allocation_status": {
                "allocation_count": parameters.number_of_allocations if running else 0,
                "target_allocation_count": parameters.number_of_allocations,
                "state": "fully_allocated" if running else "starting",
            },
        }
        return stats


def _text(doc: dict[str, Any], field: str) -> str:
    value = doc.get(field)
    if value is None:
        raise RestError(400, f"Input field [{field}] does not exist in the source document")
    if not isinstance(value, str):
        raise RestError(400, f"Input value [{value}] for field [{field}] must be a string")
    return value


CONFIG = ("model_type", "input", "inference_config")
PART = ("definition", "total_definition_length", "total_parts")
STOP = ("allow_no_match", "force", "id")
ROUTES = (
    ModelRoute("GET", MODELS, TrainedModelRoutes.show),
    ModelRoute("GET", MODEL, TrainedModelRoutes.show),
    ModelRoute("GET", MODELS + "/_stats", TrainedModelRoutes.stats),
    ModelRoute("GET", MODEL + "/_stats", TrainedModelRoutes.stats),
    ModelRoute("PUT", MODEL, TrainedModelRoutes.create, CONFIG, (*CONFIG_FIELDS, "platform_architecture")),
    ModelRoute("PUT", MODEL + "/definition/{part}", TrainedModelRoutes.put_part, PART),
    ModelRoute(
        "PUT", MODEL + "/vocabulary", TrainedModelRoutes.put_vocabulary, ("vocabulary",), ("merges", "scores")
    ),
    ModelRoute("DELETE", MODEL, TrainedModelRoutes.delete),
    ModelRoute("POST", MODEL + "/deployment/_start", TrainedModelRoutes.start),
    ModelRoute("POST", MODEL + "/deployment/_stop", TrainedModelRoutes.stop, optional=STOP),
    ModelRoute("POST", MODEL + INFER, TrainedModelRoutes.infer, ("docs",), ("timeout", "id")),
)
"""every route, with the fields that its body must and may hold"""
