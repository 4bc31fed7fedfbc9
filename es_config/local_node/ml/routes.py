"""The routes of machine learning on the local node, with the requests and answers of a licensed cluster.

`docs/text-model.md` lists the parts that are emulated. An uploaded model is code: `docs/security.md` says
who may upload one.
"""

from __future__ import annotations

import datetime
import hmac
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from es_config.local_node.install import NODE_NAME
from es_config.local_node.ml.bodies import adaptive_faults, enumerated, ml_bodies
from es_config.local_node.ml.deployment import MAX_THREADS, Deployment, DeploymentParameters
from es_config.local_node.ml.models import (
    GENERATED,
    LocalModels,
    ModelStore,
    missing_deployment,
    trained_model,
)
from es_config.local_node.ml.query_vector import add_text_embedding
from es_config.local_node.rest import (
    CAT_PARAMETERS,
    CatTable,
    RestError,
    RestRequest,
    RestRoute,
    RestRoutes,
    byte_size,
    bytes_cell,
    seconds,
)

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
STATES = ("starting", "started", "fully_allocated")
IMPORTANCE = ("total_feature_importance", "feature_importance_baseline", "hyperparameters")
INCLUDED = ("definition_status", "definition", *IMPORTANCE)
ILLEGAL = "illegal_argument_exception"
CAT_COLUMNS = (
    ("id", "desc:the trained model id"),
    ("created_by", "alias:c,createdBy;default:false;text-align:right;desc:who created the model"),
    ("heap_size", "alias:hs,modelHeapSize;desc:the estimated heap size to keep the model in memory"),
    ("operations", "alias:o,modelOperations;desc:the estimated number of operations to use the model"),
    ("license", "alias:l;default:false;desc:The license level of the model"),
    ("create_time", "alias:ct;desc:The time the model was created"),
    ("version", "alias:v;default:false;desc:The version of Elasticsearch when the model was created"),
    ("description", "alias:d;default:false;desc:The model description"),
    ("type", "alias:t;desc:The model type"),
    ("ingest.pipelines", "alias:ip,ingestPipelines;desc:The number of pipelines referencing the model"),
    ("data_frame.id", "alias:dfid,dataFrameAnalytics;desc:The data frame analytics config id"),
)


@dataclass(frozen=True)
class ModelRoute:
    """One route: the method that answers it, and the query parameters and the body that it takes."""

    method: str
    path: str
    answer: Callable[[Any, RestRequest], Any]
    parameters: Mapping[str, str] = field(default_factory=dict)
    body: str | None = None
    """a key of `ml_bodies`"""
    no_body: RestError | None = None

    @property
    def is_writing(self) -> bool:
        """Whether it changes anything."""
        return self.method != "GET" and not self.path.endswith(INFER)


class TrainedModelRoutes:
    """Answers the routes with the models in a folder, which survive a restart of the node."""

    def __init__(self, folder: Path, *, node_id: str, key: str) -> None:
        """Take the API key without which no route changes anything."""
        self._models = LocalModels(ModelStore(folder))
        self._node_id = node_id
        self._login = f"ApiKey {key}".encode()

    def add_to(self, node: Any) -> None:
        """Register everything with a node that has not started, and load the deployments.

        No upload can occupy the threads of `_infer` or of searches.
        """
        managing = RestRoutes(node, workers=MANAGING_WORKERS)
        inferring = RestRoutes(node, workers=INFERRING_WORKERS)
        bodies = ml_bodies()
        for route in ROUTES:
            routes = inferring if route.path.endswith(INFER) else managing
            routes.add(
                RestRoute(
                    route.method,
                    route.path,
                    partial(self._answer, route),
                    route.parameters,
                    bodies[route.body].read if route.body else None,
                    route.no_body,
                    self._check_login if route.is_writing else lambda _: None,
                )
            )
        for path, reason in ABSENT.items():
            for method in METHODS:
                managing.add(RestRoute(method, path, partial(_refuse, reason), takes_anything=True))
        searching = ThreadPoolExecutor(INFERRING_WORKERS, thread_name_prefix="glimpse-query-vector")
        add_text_embedding(node, self.embed, workers=searching)
        threading.Thread(target=self._models.load_deployments, name="glimpse-models", daemon=True).start()

    def _check_login(self, login: str) -> None:
        if not hmac.compare_digest(login.encode(), self._login):
            raise RestError(401, LOGIN_NEEDED, "security_exception")

    def _answer(self, route: ModelRoute, request: RestRequest) -> tuple[int, Any]:
        return 200, route.answer(self, request)

    def embed(self, model_id: str, text: str) -> list[float]:
        """Return the vector of a search's text, with the model's prefix for searches. Raises `RestError`."""
        if model_id not in self._models.store.ids() or self._models.store.deployment(model_id) is None:
            reason = f"[{model_id}] is not an inference service model or a deployed ml model"
            raise RestError(404, reason, "status_exception")
        deployment = self._models.deployment(model_id)
        prefix = deployment.config.get("prefix_strings", {}).get("search", "")
        [(vector, _)] = deployment.infer([prefix + text], timeout_s=INFER_TIMEOUT_S)
        return vector

    def show(self, request: RestRequest) -> dict[str, Any]:
        """Return the configurations that match a list of names and wildcards."""
        given, store = request.query, self._models.store
        included = set(given.get("include", ()))
        if unknown := included - {*INCLUDED}:
            valid = f"Valid options are [{', '.join(INCLUDED)}]"
            raise RestError(400, f"unknown [include] parameters [{', '.join(sorted(unknown))}]. {valid}")
        if "definition" in included:
            raise RestError(400, "The local node does not give the [definition] of a model back")
        count, ids = self._page(request)
        if "definition_status" in included and len(ids) > 1:
            reason = "Getting the model download status is not supported when getting more than one model"
            raise RestError(400, reason)
        found = [store.config(model_id) for model_id in ids]
        if given.get("human", False):
            found = [{**each, **_for_people(each)} for each in found]
        if given.get("exclude_generated", False):
            generated = {*GENERATED, "create_time", "create_time_string", "model_size", "model_size_bytes"}
            found = [{name: each[name] for name in each if name not in generated} for each in found]
        if "definition_status" in included:
            found = [{**each, "fully_defined": store.is_defined(each["model_id"])} for each in found]
        return {"count": count, "trained_model_configs": found}

    def create(self, request: RestRequest) -> dict[str, Any]:
        """Create a model without its definition and vocabulary."""
        config = trained_model(request.path["model_id"], request.body)
        self._models.store.create(config)
        return {"model_size_bytes": 0, **config}

    def put_part(self, request: RestRequest) -> dict[str, Any]:
        """Keep one part of the TorchScript."""
        given = request.body
        try:
            part = int(request.path["part"])
        except ValueError as error:
            reason = f"Failed to parse int parameter [part] with value [{request.path['part']}]"
            raise RestError(400, reason, ILLEGAL) from error
        if "definition" not in given:
            raise RestError(400, "[definition] must not be null.", ILLEGAL)
        length, total_parts = given.get("total_definition_length", 0), given.get("total_parts", 0)
        faults = {
            "[part] must be greater or equal to 0": part < 0,
            "[total_parts] must be greater than 0": total_parts <= 0,
            f"[total_parts] must be less than or equal to {MAX_PARTS}": total_parts > MAX_PARTS,
            "[total_definition_length] must be greater than 0": length <= 0,
            "[part] must be less than total_parts": part >= total_parts,
        }
        if any(faults.values()):
            raise RestError.of_faults([fault for fault, is_there in faults.items() if is_there])
        self._models.store.put_part(
            request.path["model_id"],
            part,
            given["definition"],
            total_length=length,
            total_parts=total_parts,
        )
        return {"acknowledged": True}

    def put_vocabulary(self, request: RestRequest) -> dict[str, Any]:
        """Keep the vocabulary."""
        if "vocabulary" not in request.body:
            raise RestError(400, "[vocabulary] must not be null.", ILLEGAL)
        if not request.body["vocabulary"]:
            raise RestError.of_faults(["[vocabulary] must not be empty"])
        self._models.store.put_vocabulary(request.path["model_id"], request.body["vocabulary"])
        return {"acknowledged": True}

    def delete(self, request: RestRequest) -> dict[str, Any]:
        """Remove the model."""
        self._models.delete(request.path["model_id"], force=request.query.get("force", False))
        return {"acknowledged": True}

    def start(self, request: RestRequest) -> dict[str, Any]:
        """Start the deployment that has the model's own id. It returns when the model runs."""
        model_id, given = request.path["model_id"], {**request.body, **request.query}
        if (named := given.get("model_id", model_id)) != model_id:
            where = f"'{named}' specified in the body differs from '{model_id}' specified as a URL argument"
            raise RestError(400, f"Inconsistent model_id; {where}")
        if given.get("deployment_id", model_id) != model_id:
            raise RestError(400, "On the local node [deployment_id] must be the [model_id]")
        enumerated(given.get("wait_for", "started"), STATES, "assignment.AllocationStatus.State")
        priority = given.get("priority", "normal")
        given["priority"] = enumerated(priority, ("low", "normal"), "assignment.Priority")
        if "cache_size" in request.body:
            given["cache_size"] = byte_size(request.body["cache_size"], "cache_size")
        faults = ["[timeout] must be positive"] if _seconds(given, default=1.0) <= 0 else []
        options = {each.name: given[each.name] for each in fields(DeploymentParameters) if each.name in given}
        options = _adapted(options, given.get("adaptive_allocations", {}), faults)
        parameters = DeploymentParameters(**options)
        if faults := [*parameters.faults(), *faults]:
            raise RestError.of_faults(faults)
        return self._assignment(model_id, self._models.start(model_id, parameters))

    def update(self, request: RestRequest) -> dict[str, Any]:
        """Change the number of workers of a deployment."""
        model_id, given = request.path["model_id"], {**request.body, **request.query}
        faults: list[str] = []
        options = _adapted(
            {name: given[name] for name in given if name == "number_of_allocations"},
            given.get("adaptive_allocations", {}),
            faults,
        )
        if (count := options.get("number_of_allocations")) is not None and count < 1:
            faults.insert(0, "[number_of_allocations] must be a positive integer")
        if faults:
            raise RestError.of_faults(faults)
        if count is None:
            return self._assignment(model_id, self._deployed(model_id))
        return self._assignment(model_id, self._models.update(model_id, count))

    def clear_cache(self, request: RestRequest) -> dict[str, Any]:
        """Clear the cache of a deployment, which is always empty."""
        self._deployed(request.path["model_id"])
        return {"cleared": True}

    def stop(self, request: RestRequest) -> dict[str, Any]:
        """End the deployment."""
        model_id, given = request.path["model_id"], {**request.body, **request.query}
        if (named := given.get("id", model_id)) != model_id:
            where = f"'{named}' specified in the body differs from '{model_id}' specified as a URL argument"
            raise RestError(400, f"Inconsistent id; {where}")
        self._models.stop(
            model_id,
            allow_no_match=given.get("allow_no_match", True),
            finish_pending_work=given.get("finish_pending_work", False),
        )
        return {"stopped": True}

    def stats(self, request: RestRequest) -> dict[str, Any]:
        """Return sizes, states and counts."""
        count, ids = self._page(request)
        return {"count": count, "trained_model_stats": [self._statistics(model_id) for model_id in ids]}

    def infer(self, request: RestRequest) -> dict[str, Any]:
        """Embed the texts of `docs`."""
        given = {**request.body, **request.query}
        if "docs" not in given:
            raise RestError(400, "[docs] must not be null.", ILLEGAL)
        deployment = self._models.deployment(request.path["model_id"])
        config = deployment.config["inference_config"]["text_embedding"]
        change = _changed(given.get("inference_config", {}), config)
        results = deployment.infer(
            [_text(doc, deployment.config["input"]["field_names"][0]) for doc in given["docs"]],
            timeout_s=_seconds(given, default=INFER_TIMEOUT_S),
            truncate=change.get("truncate"),
        )
        results_field = change.get("results_field", config.get("results_field", "predicted_value"))
        marks = {True: {"is_truncated": True}, False: {}}
        return {"inference_results": [{results_field: vector, **marks[is_cut]} for vector, is_cut in results]}

    def info(self, _: RestRequest) -> dict[str, Any]:
        """Return the limits of machine learning here."""
        limits = {
            "total_ml_memory": f"{psutil.virtual_memory().total >> 20}mb",
            "total_ml_processors": MAX_THREADS,
            "max_single_ml_node_processors": MAX_THREADS,
        }
        native = {"version": "N/A", "build_hash": "N/A"}
        return {"defaults": {}, "upgrade_mode": False, "native_code": native, "limits": limits}

    def cat(self, request: RestRequest) -> CatTable:
        """Return the models as a table."""
        _, ids = self._page(request)
        return CatTable(CAT_COLUMNS, [_cat_row(self._models.store.config(model_id)) for model_id in ids])

    def _deployed(self, model_id: str) -> Deployment:
        if model_id not in self._models.store.ids() or self._models.store.deployment(model_id) is None:
            raise missing_deployment(model_id)
        return self._models.deployment(model_id)

    def _assignment(self, model_id: str, deployment: Deployment) -> dict[str, Any]:
        """Return the answer of `_start` and `_update`."""
        started = datetime.datetime.fromtimestamp(deployment.start_time / 1000, tz=datetime.UTC)
        length = self._models.store.definition_length(model_id)
        task = {
            "model_id": model_id,
            "deployment_id": model_id,
            "model_bytes": length,
            **asdict(deployment.parameters),
            "cache_size": deployment.parameters.cache_size or f"{length}b",
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
                "max_assigned_allocations": deployment.parameters.number_of_allocations,
            }
        }

    def _page(self, request: RestRequest) -> tuple[int, list[str]]:
        """Return the number of models that match and the ids of the page that was asked for."""
        given = request.query
        start, size = given.get("from", 0), given.get("size", PAGE_SIZE)
        for name, number in (("from", start), ("size", size)):
            if number < 0:
                raise RestError(400, f"Parameter [{name}] cannot be < 0", ILLEGAL)
        ids = self._models.matching(
            request.path.get("model_id", "_all"),
            tags=given.get("tags", ()),
            allow_no_match=given.get("allow_no_match", True),
        )
        return len(ids), ids[start : start + size]

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
            node["inference_cache_hit_count"] = 0
            node["number_of_pending_requests"] = running.pending
            node["start_time"] = running.start_time
        if running and counts["inference_count"]:
            node["average_inference_time_ms"] = running.inference_ms / counts["inference_count"]
        stats["deployment_stats"] = {
            "deployment_id": model_id,
            "model_id": model_id,
            **asdict(parameters),
            "cache_size": parameters.cache_size or f"{length}b",
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


def _adapted(options: dict[str, Any], adaptive: Mapping[str, Any], faults: list[str]) -> dict[str, Any]:
    """Return options with the number of allocations that `adaptive_allocations` begins with."""
    faults.extend(adaptive_faults(dict(adaptive)))
    if adaptive.get("enabled", False):
        if "number_of_allocations" in options:
            faults.append("[number_of_allocations] cannot be set if adaptive allocations is enabled")
        elif not faults:
            reason = (
                "The local node cannot adapt the number of allocations: set [number_of_allocations] instead"
            )
            raise RestError(400, f"{reason} of [adaptive_allocations]")
    if (least := adaptive.get("min_number_of_allocations", 0)) > 0:
        options = {"number_of_allocations": least, **options}
    return options


def _changed(update: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return `truncate` and `results_field` of the configuration of one request. Raises `RestError` 400."""
    for task, options in update.items():
        if task != "text_embedding":
            raise RestError(
                400, f"Trained model of type [text_embedding] cannot take an update of type [{task}]"
            )
        for kind, tokenization in options.get("tokenization", {}).items():
            if kind not in config["tokenization"]:
                [here] = config["tokenization"]
                raise RestError(400, f"Unable to update a [{here}] tokenization by one of type [{kind}]")
            return {**options, **tokenization}
        return dict(options)
    return {}


def _seconds(given: Mapping[str, Any], *, default: float) -> float:
    """Return the time-out of a request, whose body spells it as a time value."""
    timeout = given.get("timeout", default)
    return seconds(timeout, "timeout") if isinstance(timeout, str) else timeout


def _for_people(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the fields that `human` adds."""
    created = datetime.datetime.fromtimestamp(config["create_time"] / 1000, tz=datetime.UTC)
    return {
        "create_time_string": created.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "model_size": str(bytes_cell(config["model_size_bytes"])),
    }


def _cat_row(config: Mapping[str, Any]) -> list[Any]:
    return [
        config["model_id"],
        config["created_by"],
        bytes_cell(config["model_size_bytes"]),
        config["estimated_operations"],
        config["license_level"].upper(),
        _for_people(config)["create_time_string"],
        config["version"],
        config.get("description"),
        config["model_type"],
        0,
        "__none__",
    ]


def _refuse(reason: str, _: RestRequest) -> tuple[int, Any]:
    raise RestError(400, reason)


NEEDS_BODY = RestError(400, "request body is required", "parse_exception")
PAGE = {"allow_no_match": "flag", "from": "whole", "size": "whole"}
MASTER = {"timeout": "seconds", "master_timeout": "seconds"}
SHOW = {
    **PAGE,
    "decompress_definition": "flag",
    "exclude_generated": "flag",
    "human": "flag",
    "include": "list",
    "tags": "list",
}
PUT = {**MASTER, "defer_definition_decompression": "flag", "wait_for_completion": "flag"}
START = {
    "cache_size": "size",
    "deployment_id": "text",
    "number_of_allocations": "whole",
    "priority": "text",
    "queue_capacity": "whole",
    "threads_per_allocation": "whole",
    "timeout": "seconds",
    "wait_for": "text",
}
STOP = {"allow_no_match": "flag", "force": "flag", "finish_pending_work": "flag"}
CAT = {**PAGE, **dict.fromkeys(CAT_PARAMETERS, "text")}
OF = TrainedModelRoutes
ROUTES = (
    ModelRoute("GET", MODELS, OF.show, SHOW),
    ModelRoute("GET", MODEL, OF.show, SHOW),
    ModelRoute("GET", MODELS + "/_stats", OF.stats, PAGE),
    ModelRoute("GET", MODEL + "/_stats", OF.stats, PAGE),
    ModelRoute("PUT", MODEL, OF.create, PUT, "model", NEEDS_BODY),
    ModelRoute("PUT", MODEL + "/definition/{part}", OF.put_part, MASTER, "part", NEEDS_BODY),
    ModelRoute("PUT", MODEL + "/vocabulary", OF.put_vocabulary, MASTER, "vocabulary", NEEDS_BODY),
    ModelRoute("DELETE", MODEL, OF.delete, {**MASTER, "force": "flag"}),
    ModelRoute("POST", MODEL + "/deployment/_start", OF.start, START, "start"),
    ModelRoute(
        "POST",
        MODEL + "/deployment/_update",
        OF.update,
        {**MASTER, "number_of_allocations": "whole"},
        "update",
    ),
    ModelRoute("POST", MODEL + "/deployment/_stop", OF.stop, STOP, "stop"),
    ModelRoute("POST", MODEL + "/deployment/cache/_clear", OF.clear_cache, {"timeout": "seconds"}),
    ModelRoute(
        "POST", MODEL + INFER, OF.infer, {"timeout": "seconds"}, "infer", RestError(400, "requires body")
    ),
    ModelRoute("GET", "/_ml/info", OF.info),
    ModelRoute("GET", "/_cat/ml/trained_models", OF.cat, CAT),
    ModelRoute("GET", "/_cat/ml/trained_models/{model_id}", OF.cat, CAT),
)
"""every route that is answered"""

NO_ALIASES = "The local node has no model aliases: use the model_id itself"
NO_OTHER_ML = "The local node has no machine learning but [_ml/trained_models] and [_ml/info]"
NO_INFERENCE = (
    "The local node has no [_inference] endpoints: upload a text model with `glimpse model upload` and ask"
    " [_ml/trained_models/<model_id>/_infer]"
)
NO_LICENSE = "The local node has no licences: everything that it can do is allowed"
OTHER_ML = (
    *("_delete_expired_data", "anomaly_detectors", "calendars", "data_frame", "datafeeds", "filters"),
    *("memory", "set_upgrade_mode"),
)
METHODS = ("GET", "PUT", "POST", "DELETE")
BELOW = ("", "/{a}", "/{a}/{b}", "/{a}/{b}/{c}")
ABSENT = {
    **{MODEL + "/model_aliases/{model_alias}": NO_ALIASES},
    **{f"/_ml/{name}{below}": NO_OTHER_ML for name in OTHER_ML for below in BELOW},
    **{f"/_inference{below}": NO_INFERENCE for below in BELOW[:3]},
    **{f"/_license{below}": NO_LICENSE for below in BELOW[:2]},
}
"""paths of Elasticsearch that this node refuses, with the sentence that says so"""
