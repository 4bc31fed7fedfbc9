"""The answers of the `_ml/trained_models` routes, in the shapes of Elastic's API description."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

from es_config.local_node.ml.deployment import Counters, Deployment, Embedding
from es_config.local_node.ml.requests import DeploymentParameters

OVERHEAD_BYTES = 240 * 1024 * 1024
"""What Elasticsearch adds to twice the model's size to estimate a deployment's memory"""


def assignment(model_id: str, deployment: Deployment, *, model_bytes: int, node_id: str) -> dict[str, Any]:
    """Answer a start."""
    parameters = deployment.parameters
    started = datetime.datetime.fromtimestamp(deployment.start_time / 1000, tz=datetime.UTC)
    return {
        "assignment": {
            "task_parameters": {
                "model_id": model_id,
                "deployment_id": model_id,
                "model_bytes": model_bytes,
                **parameters.as_dict(),
                "cache_size": "0b",
                "per_deployment_memory_bytes": 0,
                "per_allocation_memory_bytes": 0,
            },
            "routing_table": {
                node_id: {
                    "current_allocations": parameters.number_of_allocations,
                    "target_allocations": parameters.number_of_allocations,
                    "routing_state": "started",
                    "reason": "",
                }
            },
            "assignment_state": "started",
            "start_time": started.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "max_assigned_allocations": parameters.number_of_allocations,
        }
    }


def statistics(model_id: str, *, model_bytes: int, deployment: dict[str, Any] | None) -> dict[str, Any]:
    """Answer `_stats` for one model; `deployment` is None when the model is not started."""
    size = {
        "model_size_bytes": model_bytes,
        "required_native_memory_bytes": 2 * model_bytes + OVERHEAD_BYTES if model_bytes else 0,
    }
    stats = {"model_id": model_id, "model_size_stats": size, "pipeline_count": 0}
    return {**stats, "deployment_stats": deployment} if deployment else stats


def deployment_statistics(
    model_id: str,
    parameters: DeploymentParameters,
    running: Deployment | None,
    *,
    failure: str | None,
    node_id: str,
) -> dict[str, Any]:
    """Return `deployment_stats`: `starting` while a restarted node loads it, `failed` when it cannot."""
    state = "started" if running else "failed" if failure else "starting"
    allocations = parameters.number_of_allocations if running else 0
    stats: dict[str, Any] = {
        "deployment_id": model_id,
        "model_id": model_id,
        **parameters.as_dict(),
        "state": state,
        "start_time": running.start_time if running else 0,
        "peak_throughput_per_minute": 0,
        **_counts(running.counters if running else Counters()),
        "nodes": [_node(running, state=state, failure=failure, node_id=node_id)],
    }
    if failure:
        return {**stats, "reason": failure}
    status = {
        "allocation_count": allocations,
        "target_allocation_count": parameters.number_of_allocations,
        "state": "fully_allocated" if running else "starting",
    }
    return {**stats, "allocation_status": status}


def _node(running: Deployment | None, *, state: str, failure: str | None, node_id: str) -> dict[str, Any]:
    routing = {"routing_state": state, **({"reason": failure} if failure else {})}
    node: dict[str, Any] = {
        "node": {node_id: {"name": "glimpse-local"}},
        "routing_state": routing,
        "peak_throughput_per_minute": 0,
        "throughput_last_minute": 0,
    }
    if running is None:
        return node
    counters = running.counters
    node |= {
        **_counts(counters),
        "number_of_pending_requests": running.pending,
        "number_of_allocations": running.parameters.number_of_allocations,
        "threads_per_allocation": running.parameters.threads_per_allocation,
        "start_time": running.start_time,
    }
    if counters.inference_count:
        node["average_inference_time_ms"] = counters.inference_ms / counters.inference_count
        node["last_access"] = counters.last_access
    return node


def _counts(counters: Counters) -> dict[str, int]:
    names = ("inference_count", "error_count", "rejected_execution_count", "timeout_count")
    return {name: getattr(counters, name) for name in names}


def inference(embeddings: Sequence[Embedding], *, results_field: str) -> dict[str, Any]:
    """Answer `_infer`; `is_truncated` appears only where it is true."""
    return {
        "inference_results": [
            {results_field: one.vector, **({"is_truncated": True} if one.is_truncated else {})}
            for one in embeddings
        ]
    }
