"""The table row of an `_ml` route on the local node, and the reading of its requests.

A row names everything that its route takes. A request that breaks it is refused with a `RestError` 400
before the route's function is called.
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from es_config.local_node.rest import RestError, RestRequest

Reader = Callable[[str, Any], Any]
"""checks the value of a name and returns it as the route needs it, or raises a ValueError"""
Given = Mapping[str, Any]
"""the checked values of a request, from its path, query string and body; absent if not given"""

SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class ModelRoute:
    """One route of `_ml`: its function, and the values that it takes."""

    method: str
    path: str
    answer: Callable[[Any, Given], dict[str, Any]]
    parameters: Mapping[str, Reader] = field(default_factory=dict)
    """of the query string or the path; any other is ignored"""
    body: Mapping[str, Reader] | None = None
    """the fields of the JSON body; any other is refused"""
    required: tuple[str, ...] = ()
    """fields of the body that must be given"""
    body_required: bool = True
    parser: str = ""
    """Elasticsearch's name for the parser of the body, with which its errors begin"""

    def read(self, request: RestRequest) -> Given:
        """Return the values of a request; a parameter has precedence over a field of the body.

        Raises `RestError` 400.
        """
        sent = {**request.query, **request.path}
        readers = {**dict.fromkeys(request.path, text), **self.parameters}
        try:
            given = {name: reader(name, sent[name]) for name, reader in readers.items() if name in sent}
        except ValueError as error:
            raise bad_request(str(error), kind="illegal_argument_exception") from error
        if self.body is None or not (request.body or self.body_required):
            return given
        return {**self._read_fields(self.body, request.body), **given}

    def _read_fields(self, readers: Mapping[str, Reader], body: bytes) -> dict[str, Any]:
        if not body:
            raise bad_request("request body is required", kind="parse_exception")
        try:
            content = json.loads(body)
        except ValueError as error:
            raise self._unparsable(f"failed to parse: {error}") from error
        if not isinstance(content, dict):
            raise self._unparsable("Expected START_OBJECT")
        fields = {name: value for name, value in content.items() if value is not None}
        if unknown := [name for name in content if name not in readers]:
            raise self._unparsable(f"unknown field [{unknown[0]}]")
        if missing := [name for name in self.required if name not in fields]:
            raise bad_request(f"[{missing[0]}] must not be null.", kind="illegal_argument_exception")
        values = {}
        for name, value in fields.items():
            try:
                values[name] = readers[name](name, value)
            except ValueError as error:
                raise self._unparsable(f"failed to parse field [{name}]: {error}") from error
        return values

    def _unparsable(self, problem: str) -> RestError:
        return bad_request(f"[{self.parser}] {problem}", kind="x_content_parse_exception")


def bad_request(reason: str, *, kind: str = "status_exception") -> RestError:
    """Return the refusal of a request that cannot be understood or carried out."""
    return RestError(400, reason, kind)


def invalid(*problems: str) -> RestError:
    """Return the refusal of a request whose values break the rules of its action."""
    numbered = "".join(f"{number}: {problem};" for number, problem in enumerate(problems, start=1))
    return bad_request(f"Validation Failed: {numbered}", kind="action_request_validation_exception")


def anything(_name: str, value: Any) -> Any:
    """Accept any value: the route looks at it later, or ignores it."""
    return value


def json_object(_name: str, value: Any) -> dict[str, Any]:
    """Read a JSON object."""
    if not isinstance(value, dict):
        raise ValueError("Expected START_OBJECT")
    return value


def list_of(*kinds: type) -> Reader:
    """Return a reader of JSON arrays whose elements are all of certain types."""

    def read(_name: str, value: Any) -> list[Any]:
        if not isinstance(value, list) or not all(isinstance(each, kinds) for each in value):
            raise ValueError(f"Expected an array of {kinds[0].__name__}")
        return value

    return read


def one_of(*choices: str) -> Reader:
    """Return a reader of names from a list, in any case."""

    def read(name: str, value: Any) -> str:
        if str(value).lower() not in choices:
            raise ValueError(f"No enum constant {name}.{str(value).upper()}")
        return str(value).lower()

    return read


def text(_name: str, value: Any) -> str:
    """Read any value as a text."""
    return str(value)


def flag(_name: str, value: Any) -> bool:
    """Read a boolean; in a query string, a name without a value is true."""
    said = str(value).lower()
    if said not in ("true", "false", ""):
        raise ValueError(f"Failed to parse value [{value}] as only [true] or [false] are allowed.")
    return said != "false"


def whole_number(name: str, value: Any) -> int:
    """Read a whole number."""
    try:
        return int(value)
    except (ValueError, TypeError):
        raise ValueError(f"Failed to parse int parameter [{name}] with value [{value}]") from None


def positive(name: str, value: Any) -> int:
    """Read a whole number above 0."""
    number = whole_number(name, value)
    if number < 1:
        raise invalid(f"[{name}] must be a positive integer")
    return number


def seconds(name: str, value: Any) -> float:
    """Read a time value such as `10s` or `500ms`."""
    match = re.fullmatch(r"(\d+)(ms|s|m|h)", str(value))
    if match is None:
        raise ValueError(f"failed to parse setting [{name}] with value [{value}] as a time value")
    return int(match[1]) * SECONDS[match[2]]


def base64_bytes(_name: str, value: Any) -> bytes:
    """Read base64 without line breaks."""
    if not isinstance(value, str):
        raise ValueError("Expected a string")
    return binascii.a2b_base64(value, strict_mode=True)
