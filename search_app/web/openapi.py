"""Describe the REST API: the OpenAPI document for programs, and the same as a page for people."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Flask, current_app, jsonify, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_smorest import Api

from search_app.core.users import Role
from search_app.web.http import OCTETS

METHODS = ("get", "post", "put", "patch", "delete")
FORM = "multipart/form-data"
TYPES = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
"""kinds of values by their name in OpenAPI"""
DEEPEST = 3
"""lists and objects in each other that a table shows"""
TOKEN = "token"
INTRODUCTION = (
    "Search and manage the pictures of one index. Errors are problem documents (RFC 9457) whose `detail` says"
    " in a sentence what is wrong."
)

Json = dict[str, Any]


@dataclass(frozen=True)
class Field:
    """A parameter, or a field of a body, as a row of a table."""

    name: str
    kind: str
    is_required: bool
    description: str


@dataclass(frozen=True)
class Payload:
    """A body of a request or of an answer."""

    media_type: str
    fields: tuple[Field, ...]


@dataclass(frozen=True)
class Answer:
    """A kind of answer to a request."""

    status: str
    description: str
    bodies: tuple[Payload, ...]


@dataclass(frozen=True)
class Operation:
    """A method of a path."""

    name: str
    """its `operationId`"""
    method: str
    path: str
    summary: str
    description: str
    role: str
    parameters: tuple[Field, ...]
    bodies: tuple[Payload, ...]
    answers: tuple[Answer, ...]
    """those that are not errors"""
    errors: tuple[Answer, ...]
    example: str
    """a command for a shell"""


def openapi_blueprint(api: Api) -> Blueprint:
    """Return the routes of the document and of the page that is made from it."""
    docs = Blueprint("docs", __name__)

    @docs.get("/openapi.json")
    def document() -> ResponseReturnValue:
        """Send the OpenAPI document."""
        return jsonify(openapi_document(current_app, api))

    @docs.get("/docs")
    def page() -> str:
        """Show every route with its parameters, bodies, answers and an example."""
        described = openapi_document(current_app, api)
        groups = {tag["name"]: tag["description"] for tag in described["tags"]}
        here = request.root_url.rstrip("/")
        operations = [
            (tag, operation) for tag, operation in operations_of(described, server=here) if tag in groups
        ]
        return render_template(
            "docs.html",
            groups={
                description: [each for tag, each in operations if tag == name]
                for name, description in groups.items()
            },
            document=url_for("docs.document"),
        )

    return docs


def openapi_document(app: Flask, api: Api) -> Json:
    """Return the OpenAPI document of the routes that are registered, for the server of this request."""
    document: Json = deepcopy(api.spec.to_dict())
    document["info"]["description"] = INTRODUCTION
    document["servers"] = [{"url": request.script_root or "/"}]
    document["components"]["securitySchemes"] = {
        TOKEN: {
            "type": "http",
            "scheme": "bearer",
            "description": "where people sign in; see `glimpse token`",
        }
    }
    document["security"] = [{TOKEN: []}, {}]
    document["components"]["schemas"].pop("PaginationMetadata", None)  # flask-smorest's own, of no route
    views = {
        (str(rule), method.lower()): rule.endpoint
        for rule in app.url_map.iter_rules()
        for method in rule.methods or ()
    }
    for path, method, operation in _operations(document):
        endpoint = views[path.replace("{", "<").replace("}", ">"), method]
        view = app.view_functions[endpoint]
        operation.setdefault("operationId", view.__name__)
        operation["x-role"] = str(getattr(view, "role", Role.VIEWER))
        for answer in operation["responses"].values():
            _offer_octets(answer.get("content", {}))
        for parameter in operation.get("parameters", ()):
            parameter["schema"].pop("writeOnly", None)
    return document


def _offer_octets(content: Json) -> None:
    """Name a type beside those of pictures that generated clients know as a file."""
    for media_type in [each for each in content if each.startswith("image/")]:
        content.setdefault(OCTETS, content[media_type])


def _operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, Json]]:
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                yield path, method, item[method]


def operations_of(document: Mapping[str, Any], *, server: str) -> Iterator[tuple[str, Operation]]:
    """Give each operation of a document with its tag. The address in its example begins with `server`."""
    for path, method, operation in _operations(document):
        common = document["paths"][path].get("parameters", ())
        parameters = [*common, *operation.get("parameters", ())]
        content = operation.get("requestBody", {}).get("content", {})
        answers = tuple(
            _answer(status, answer, document)
            for status, answer in sorted(operation["responses"].items())
            if status != "default"
        )
        yield (
            operation["tags"][0],
            Operation(
                name=operation["operationId"],
                method=method.upper(),
                path=path,
                summary=operation.get("summary", ""),
                description=operation.get("description", ""),
                role=operation["x-role"],
                parameters=tuple(_parameter(each, document) for each in parameters),
                bodies=_bodies(content, document),
                answers=tuple(each for each in answers if each.status < "400"),
                errors=tuple(each for each in answers if each.status >= "400"),
                example=example(server, path, method, operation, document),
            ),
        )


def _parameter(parameter: Json, document: Mapping[str, Any]) -> Field:
    return Field(
        parameter["name"],
        _kind(parameter["schema"], document),
        parameter.get("required", False),
        parameter.get("description", ""),
    )


def _answer(status: str, answer: Json, document: Mapping[str, Any]) -> Answer:
    return Answer(status, answer.get("description", ""), _bodies(answer.get("content", {}), document))


def _bodies(content: Json, document: Mapping[str, Any]) -> tuple[Payload, ...]:
    return tuple(
        Payload(media_type, tuple(_fields(body["schema"], document))) for media_type, body in content.items()
    )


def _fields(schema: Json, document: Mapping[str, Any], *, start: str = "", depth: int = 0) -> Iterator[Field]:
    """Give the fields of an object, and below each list or object those of its parts."""
    schema = _resolved(schema, document)
    for name, part in schema.get("properties", {}).items():
        whole = _resolved(part, document)
        inner = _resolved(whole.get("items", {}), document) or whole
        yield Field(
            start + name,
            _kind(part, document),
            name in schema.get("required", ()),
            part.get("description") or whole.get("description", ""),
        )
        if depth < DEEPEST and inner.get("properties"):
            mark = "[]." if "items" in whole else "."
            yield from _fields(inner, document, start=f"{start}{name}{mark}", depth=depth + 1)


def _resolved(schema: Json, document: Mapping[str, Any]) -> Json:
    """Return a schema with its reference followed."""
    if len(parts := schema.get("allOf", ())) == 1:
        schema = {**parts[0], **{name: value for name, value in schema.items() if name != "allOf"}}
    if reference := schema.get("$ref"):
        target: Json = document["components"]["schemas"][reference.rpartition("/")[2]]
        return {**target, **{name: value for name, value in schema.items() if name != "$ref"}}
    return schema


def _kind(schema: Json, document: Mapping[str, Any]) -> str:
    schema = _resolved(schema, document)
    if values := [value for value in schema.get("enum", ()) if value is not None]:
        return " | ".join(map(str, values))
    if schema.get("format") == "binary":
        return "file"
    if "items" in schema:
        return f"list of {_kind(schema['items'], document)}"
    if choices := schema.get("oneOf") or schema.get("anyOf"):
        return " or ".join(_kind(each, document) for each in choices)
    if "properties" in schema or schema.get("type") == "object":
        return "object"
    return TYPES.get(schema.get("type", ""), "any")


def example(server: str, path: str, method: str, operation: Json, document: Mapping[str, Any]) -> str:
    """Return a command that asks for an operation, with capitals where the reader has to fill in."""
    words = ["curl"]
    if method not in ("get", "post"):
        words.append(f"-X {method.upper()}")
    content = operation.get("requestBody", {}).get("content", {})
    query = ""
    if FORM in content:
        schema = _resolved(content[FORM]["schema"], document)
        files = [name for name, part in schema["properties"].items() if "file" in _kind(part, document)]
        words += [f"-F {name}=@FILE" for name in files[:1]]
    elif "application/json" in content:
        schema = _resolved(content["application/json"]["schema"], document)
        body = dict.fromkeys(schema.get("required", ()), "…")
        words += ["-H 'Content-Type: application/json'", f"-d '{json.dumps(body, ensure_ascii=False)}'"]
    elif method == "post":
        words.append("-X POST")
    elif any(parameter["name"] == "q" for parameter in operation.get("parameters", ())):
        query = "?q=a+red+boat"
    address = path.replace("{", "").replace("}", "").replace("image_id", "IMAGE_ID")
    return " ".join([*words, f"'{server}{address}{query}'"])
