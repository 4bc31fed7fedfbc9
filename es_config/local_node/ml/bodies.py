"""The bodies of the `_ml` routes, field by field, with the names and checks of Elasticsearch.

Fields that Elasticsearch takes and this node cannot serve are read too: `models.py` refuses them with a
reason.
"""

from __future__ import annotations

from typing import Any

from es_config.local_node.ml.deployment import KINDS, TRUNCATE
from es_config.local_node.rest import RestError
from es_config.local_node.xcontent import NULL, Body

ML = "org.elasticsearch.xpack.core.ml.inference"


def enumerated(value: str, names: tuple[str, ...], java_class: str) -> str:
    """Return a name of a Java enumeration in lower case. Raises `RestError` 400 for any other."""
    if value.lower() not in names:
        reason = f"No enum constant {ML}.{java_class}.{value.upper()}"
        raise RestError(400, reason, "illegal_argument_exception")
    return value.lower()


def _check_tokenization(given: dict[str, Any]) -> None:
    longest, span = given.get("max_sequence_length", 512), given.get("span", -1)
    truncate = enumerated(given.get("truncate", "first"), TRUNCATE, "trainedmodel.Tokenization.Truncate")
    fault = None
    if longest <= 0:
        fault = "[max_sequence_length] must be positive"
    elif span < -1:
        fault = "[span] must be non-negative to indicate span length or [-1] to indicate no windowing"
        fault += " should occur"
    elif span > longest:
        fault = (
            f"[span] provided [{span}] must not be greater than [max_sequence_length] provided [{longest}]"
        )
    elif span != -1 and truncate != "none":
        fault = f"[span] must not be provided when [truncate] is [{truncate}]"
    if fault:
        raise RestError(400, fault, "illegal_argument_exception")


def _check_text_embedding(given: dict[str, Any]) -> None:
    if "vocabulary" in given:
        raise RestError(400, "illegal setting [vocabulary] on inference model creation")
    size = given.get("embedding_size")
    if size is not None and size <= 0:
        raise RestError(400, f"[embedding_size] must be a number greater than 0; configured size [{size}]")
    _refuse_windows(given)


def _refuse_windows(given: dict[str, Any]) -> None:
    for tokenization in given.get("tokenization", {}).values():
        if (span := tokenization.get("span", -1)) != -1:
            fault = "does not support windowing long text sequences; configured span"
            raise RestError(400, f"[text_embedding] {fault} [{span}]")


def _check_deployment(given: dict[str, Any]) -> None:
    """Refuse an unknown priority. The other values are checked with those of the query string."""
    if "priority" in given:
        enumerated(given["priority"], ("low", "normal"), "assignment.Priority")


def adaptive_faults(settings: dict[str, Any]) -> list[str]:
    """Return everything that is wrong with `adaptive_allocations`, in Elasticsearch's words."""
    least, most = (settings.get(f"{end}_number_of_allocations", NULL) for end in ("min", "max"))
    faults = []
    if least != NULL and least < 0:
        faults.append("[min_number_of_allocations] must be a non-negative integer or null")
    if most != NULL and most < 1:
        faults.append("[max_number_of_allocations] must be a positive integer or null")
    if NULL not in (least, most) and least > most:
        faults.append("[min_number_of_allocations] must not be larger than [max_number_of_allocations]")
    return faults


def ml_bodies() -> dict[str, Body]:
    """Return the bodies by the routes that take them."""
    common = {"truncate": "text", "span": "whole"}
    whole = {
        "do_lower_case": "flag",
        "with_special_tokens": "flag",
        "max_sequence_length": "whole",
        **common,
    }
    tokenizations = {kind: Body(f"{kind}_tokenization", whole, check=_check_tokenization) for kind in KINDS}
    updates = {kind: Body(f"{kind}_tokenization_update", common, check=_check_update) for kind in KINDS}
    embedding = Body(
        "text_embedding",
        {
            "vocabulary": "object",
            "tokenization": tokenizations,
            "results_field": "text",
            "embedding_size": "whole",
        },
        check=_check_text_embedding,
    )
    embedding_update = Body(
        "text_embedding", {"tokenization": updates, "results_field": "text"}, check=_refuse_windows
    )
    adaptive = Body(
        "autoscaling_settings",
        {
            "enabled": "flag",
            "min_number_of_allocations": "whole or null",
            "max_number_of_allocations": "whole or null",
        },
    )
    texts = dict.fromkeys(
        (
            "model_id",
            "model_type",
            "created_by",
            "version",
            "description",
            "license_level",
            "compressed_definition",
            "platform_architecture",
        ),
        "text",
    )
    objects = dict.fromkeys(
        ("metadata", "definition", "default_field_map", "location", "model_package"), "object"
    )
    start = "cluster:admin/xpack/ml/trained_models/deployment"
    return {
        "model": Body(
            "trained_model_config",
            {
                **texts,
                **objects,
                "create_time": "value",
                "tags": "texts",
                "input": Body("trained_model_config_input", {"field_names": "texts"}, check=_check_input),
                "model_size_bytes": "long",
                "estimated_operations": "long",
                "inference_config": {"text_embedding": embedding},
                "prefix_strings": Body(
                    "trained_model_config_prefix_strings", {"ingest": "text", "search": "text"}
                ),
            },
        ),
        "part": Body(
            "put_trained_model_part_action",
            {"definition": "bytes", "total_definition_length": "long", "total_parts": "whole"},
        ),
        "vocabulary": Body(
            "put_trained_model_vocabulary", {"vocabulary": "texts", "merges": "texts", "scores": "numbers"}
        ),
        "start": Body(
            f"{start}/start",
            {
                "model_id": "text",
                "deployment_id": "text",
                "timeout": "text",
                "wait_for": "text",
                "threads_per_allocation": "whole",
                "number_of_allocations": "whole",
                "queue_capacity": "whole",
                "cache_size": "value",
                "priority": "text",
                "adaptive_allocations": adaptive,
            },
            check=_check_deployment,
        ),
        "update": Body(
            f"{start}/update",
            {
                "deployment_id": "text",
                "timeout": "text",
                "number_of_allocations": "whole",
                "adaptive_allocations": adaptive,
            },
        ),
        "stop": Body(
            f"{start}/stop",
            {"allow_no_match": "flag", "force": "flag", "id": "text", "finish_pending_work": "flag"},
        ),
        "infer": Body(
            "cluster:internal/xpack/ml/inference/infer",
            {
                "id": "text",
                "docs": "objects",
                "timeout": "text",
                "inference_config": {"text_embedding": embedding_update},
            },
        ),
    }


def _check_input(given: dict[str, Any]) -> None:
    if "field_names" not in given:  # in the words of ConstructingObjectParser
        raise RestError(400, "Required [field_names]", "illegal_argument_exception")


def _check_update(given: dict[str, Any]) -> None:
    if "truncate" in given:
        enumerated(given["truncate"], TRUNCATE, "trainedmodel.Tokenization.Truncate")
