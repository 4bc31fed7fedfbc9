"""The configuration of a trained model on the local node: what is accepted, and its defaults."""

from __future__ import annotations

import re
import time
from typing import Any

from es_config.local_node.ml.requests import bad_request, invalid, read_json, truncation
from es_config.local_node.ml.tokenizer import KINDS, WordPieceTokenizer

VALID_ID = re.compile(r"[a-z0-9](?:[a-z0-9_\-.]*[a-z0-9])?")
LONGEST_ID = 64
INDEX = "local-node"
CONFIG_FIELDS = (
    "description",
    "inference_config",
    "input",
    "metadata",
    "model_type",
    "tags",
    "prefix_strings",
)
IGNORED_FIELDS = ("model_id", "platform_architecture")
NOT_EMULATED = ("bert_ja", "deberta_v2", "roberta", "xlm_roberta")
TOKENIZATION = {
    "do_lower_case": False,
    "with_special_tokens": True,
    "max_sequence_length": 512,
    "truncate": "first",
    "span": -1,
}


def trained_model(model_id: str, body: bytes) -> dict[str, Any]:
    """Return the configuration of a new model with every default filled in. Raises `RestError` 400."""
    _check_id(model_id)
    given = read_json(body, fields=(*CONFIG_FIELDS, *IGNORED_FIELDS), parser="trained_model_config")
    if given.get("model_type") != "pytorch":
        raise bad_request("The local node keeps models of [model_type] [pytorch] only")
    field_names = (given.get("input") or {}).get("field_names")
    if not isinstance(field_names, list) or len(field_names) != 1:
        raise invalid("[input.field_names] must name exactly one field")
    kept = {name: given[name] for name in CONFIG_FIELDS if given.get(name) is not None}
    return {
        "model_id": model_id,
        "tags": [],
        **kept,
        "inference_config": {"text_embedding": _text_embedding(given.get("inference_config"))},
        "version": "12.0.0",
        "created_by": "api_user",
        "create_time": int(time.time() * 1000),
        "model_size_bytes": 0,
        "estimated_operations": 0,
        "license_level": "platinum",
        "location": {"index": {"name": INDEX}},
    }


def _check_id(model_id: str) -> None:
    if not VALID_ID.fullmatch(model_id):
        raise bad_request(
            f"Invalid model_id; '{model_id}' can contain lowercase alphanumeric (a-z and 0-9), hyphens or"
            " underscores; must start and end with alphanumeric"
        )
    if len(model_id) > LONGEST_ID:
        raise bad_request(f"Invalid model_id; '{model_id}' cannot contain more than {LONGEST_ID} characters.")


def _text_embedding(given: Any) -> dict[str, Any]:
    if not isinstance(given, dict) or len(given) != 1:
        raise invalid("[inference_config] must hold exactly one configuration")
    [(task, options)] = given.items()
    if task != "text_embedding" or not isinstance(options, dict):
        raise bad_request(f"The local node runs [text_embedding] models only, not [{task}]")
    return {
        **{key: value for key, value in options.items() if key in ("embedding_size", "results_field")},
        "vocabulary": {"index": INDEX},
        "tokenization": _tokenization(options.get("tokenization") or {"bert": {}}),
    }


def _tokenization(given: Any) -> dict[str, Any]:
    if not isinstance(given, dict) or len(given) != 1:
        raise invalid("[tokenization] must hold exactly one tokenization")
    [(kind, options)] = given.items()
    if kind in NOT_EMULATED:
        raise bad_request(f"The local node cannot run tokenization [{kind}]; it runs [{', '.join(KINDS)}]")
    if kind not in KINDS:
        raise bad_request(f"unknown field [{kind}]", kind="named_object_not_found_exception")
    unknown = next((name for name in options if name not in TOKENIZATION), None)
    if unknown is not None:
        raise bad_request(
            f"[{kind}_tokenization] unknown field [{unknown}]", kind="x_content_parse_exception"
        )
    full = {**TOKENIZATION, **options}
    if type(full["max_sequence_length"]) is not int or full["max_sequence_length"] <= 0:
        raise bad_request("[max_sequence_length] must be positive", kind="illegal_argument_exception")
    if full["span"] != -1:
        raise bad_request("The local node does not cut texts into windows; [span] must be [-1]")
    return {kind: {**full, "truncate": truncation(full["truncate"])}}


def tokenizer(config: dict[str, Any], vocabulary: list[str]) -> WordPieceTokenizer:
    """Build the tokeniser that a model's configuration asks for. Raises `RestError` 409 as it does."""
    [(kind, options)] = config["inference_config"]["text_embedding"]["tokenization"].items()
    wanted = ("do_lower_case", "with_special_tokens", "max_sequence_length")
    return WordPieceTokenizer(vocabulary, kind=KINDS[kind], **{name: options[name] for name in wanted})
