"""Reading `_ml` requests of the local node, bodies and query strings: what is wrong is a `RestError` 400."""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from es_config.local_node.rest import RestError

MOST_PARTS = 10_000
SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class DeploymentParameters:
    """How a deployment runs: worker threads, torch threads for each of them, places in the queue."""

    number_of_allocations: int = 1
    threads_per_allocation: int = 1
    queue_capacity: int = 1024
    priority: str = "normal"

    @classmethod
    def read(cls, query: Mapping[str, str]) -> DeploymentParameters:
        """Take them from a request's query string. Raises `RestError` 400."""
        numbers = ("number_of_allocations", "threads_per_allocation", "queue_capacity")
        given = {name: positive(query[name], name) for name in numbers if name in query}
        priority = query.get("priority", "normal")
        if priority not in ("normal", "low"):
            raise bad_request(
                f"No enum constant Priority.{priority.upper()}", kind="illegal_argument_exception"
            )
        return cls(**given, priority=priority)

    def as_dict(self) -> dict[str, Any]:
        """Return the parameters as they are kept on disk."""
        return asdict(self)


def bad_request(reason: str, *, kind: str = "status_exception") -> RestError:
    """Return the refusal of a request that cannot be understood."""
    return RestError(400, reason, kind)


def positive(text: str, name: str) -> int:
    """Return a whole number above 0. Raises `RestError` 400 as Elasticsearch's validation does."""
    number = whole_number({name: text}, name, default=0)
    if number < 1:
        raise invalid(f"[{name}] must be a positive integer")
    return number


def whole_number(query: Mapping[str, str], name: str, *, default: int) -> int:
    """Return the whole number that `query` holds as `name`. Raises `RestError` 400."""
    text = query.get(name, str(default))
    try:
        return int(text)
    except ValueError:
        reason = f"Failed to parse int parameter [{name}] with value [{text}]"
        raise bad_request(reason, kind="illegal_argument_exception") from None


def flag(query: Mapping[str, str], name: str, *, default: bool) -> bool:
    """Return the boolean that `query` holds as `name`; a bare name is true."""
    value = query.get(name, "true" if default else "false")
    if value not in ("true", "false", ""):
        reason = f"Failed to parse value [{value}] as only [true] or [false] are allowed."
        raise bad_request(reason, kind="illegal_argument_exception")
    return value != "false"


def seconds(text: str) -> float:
    """Return a time value such as `10s` or `500ms` in seconds."""
    match = re.fullmatch(r"(\d+)(ms|s|m|h)", text)
    if match is None:
        reason = f"failed to parse setting [timeout] with value [{text}] as a time value"
        raise bad_request(reason, kind="illegal_argument_exception")
    return int(match[1]) * SECONDS[match[2]]


def read_json(body: bytes, *, fields: tuple[str, ...], parser: str) -> dict[str, Any]:
    """Return the object in a request's body. Raises `RestError` 400 on anything else or on unknown fields."""
    if not body:
        raise bad_request("request body is required", kind="parse_exception")
    try:
        content = json.loads(body)
    except ValueError as error:
        raise bad_request(f"[{parser}] failed to parse: {error}", kind="x_content_parse_exception") from error
    if not isinstance(content, dict):
        raise bad_request(f"[{parser}] Expected START_OBJECT", kind="x_content_parse_exception")
    unknown = next((name for name in content if name not in fields), None)
    if unknown is not None:
        raise bad_request(f"[{parser}] unknown field [{unknown}]", kind="x_content_parse_exception")
    return content


def truncation(value: Any) -> str:
    """Return `first`, `second` or `none`. Raises `RestError` 400 on anything else."""
    if str(value).lower() not in ("first", "second", "none"):
        reason = f"No enum constant Tokenization.Truncate.{str(value).upper()}"
        raise bad_request(reason, kind="illegal_argument_exception")
    return str(value).lower()


def definition_part(part: str, body: bytes) -> tuple[int, bytes, int, int]:
    """Return (part, bytes, total_definition_length, total_parts). Raises `RestError` 400."""
    parser = "put_trained_model_part_action"
    fields = ("definition", "total_definition_length", "total_parts")
    given = read_json(body, fields=fields, parser=parser)
    try:
        number, totals = int(part), [int(given.get(name, 0)) for name in fields[1:]]
        data = binascii.a2b_base64(given["definition"], strict_mode=True)
    except KeyError:
        raise bad_request("[definition] must not be null.", kind="illegal_argument_exception") from None
    except (binascii.Error, ValueError, TypeError) as error:
        reason = f"[{parser}] failed to parse field [definition] or a total: {error}"
        raise bad_request(reason, kind="x_content_parse_exception") from error
    _check_part(number, *totals)
    return number, data, *totals


def _check_part(part: int, total_length: int, total_parts: int) -> None:
    problems = [
        (part < 0, "[part] must be greater or equal to 0"),
        (total_parts <= 0, "[total_parts] must be greater than 0"),
        (total_parts > MOST_PARTS, f"[total_parts] must be less than or equal to {MOST_PARTS}"),
        (total_length <= 0, "[total_definition_length] must be greater than 0"),
        (part >= total_parts, "[part] must be less than total_parts"),
    ]
    found = [reason for is_wrong, reason in problems if is_wrong]
    if found:
        raise invalid(*found)


def vocabulary(body: bytes) -> dict[str, Any]:
    """Return an uploaded vocabulary. Raises `RestError` 400: empty, or lists that disagree in length."""
    given = read_json(body, fields=("vocabulary", "merges", "scores"), parser="put_trained_model_vocabulary")
    words, scores = given.get("vocabulary"), given.get("scores") or []
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        reason = "[put_trained_model_vocabulary] failed to parse field [vocabulary]"
        raise bad_request(reason, kind="x_content_parse_exception")
    if not words:
        raise invalid("[vocabulary] must not be empty")
    if scores and len(scores) != len(words):
        raise invalid("[scores] must have same length as [vocabulary]")
    return given


def invalid(*problems: str) -> RestError:
    """Return the refusal of a request whose values break the rules of its action."""
    numbered = "".join(f"{number}: {problem};" for number, problem in enumerate(problems, start=1))
    return bad_request(f"Validation Failed: {numbered}", kind="action_request_validation_exception")
