"""REST routes of the local node that are written in Python."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import jpype
from jpype import JClass

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RestRequest:
    """A request, copied out of Java."""

    path: Mapping[str, str]
    """the values of the names in the route's path"""
    query: Mapping[str, str]
    body: bytes
    login: str = ""
    """the header `Authorization`"""


Answer = tuple[int, Any]
"""a status, and a body that `json` can write"""


class RestError(Exception):
    """A request that is refused: `status`, a reason, and `kind`, Elasticsearch's name for the error."""

    def __init__(self, status: int, reason: str, kind: str | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.kind = kind or ("resource_not_found_exception" if status == 404 else "status_exception")

    def answer(self) -> dict[str, Any]:
        """Return the body that Elasticsearch itself would send."""
        cause = {"type": self.kind, "reason": str(self)}
        return {"error": {"root_cause": [cause], **cause}, "status": self.status}


class RestRoutes:
    """Registers Python functions as REST routes of a running `org.elasticsearch.node.Node`.

    The functions run in a pool of `workers` threads, so that the node's transport threads never wait.
    """

    def __init__(self, node: Any, *, workers: int) -> None:
        self._controller = node.injector().getInstance(JClass("org.elasticsearch.rest.RestController"))
        self._pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="glimpse-rest")

    def add(self, method: str, path: str, function: Callable[[RestRequest], Answer]) -> None:
        """Answer `method path` with `function`. The path may hold names, as in `/_ml/trained_models/{id}`."""
        verb = JClass("org.elasticsearch.rest.RestRequest$Method").valueOf(method)
        route = JClass("org.elasticsearch.rest.RestHandler$Route")(verb, path)
        self._controller.registerHandler(route, self._handler(path, function))

    def _handler(self, path: str, function: Callable[[RestRequest], Answer]) -> Any:
        """Return a Java `RestHandler` that hands each request to `function` in the pool."""
        names = re.findall(r"{(\w+)}", path)

        def handle(request: Any, channel: Any, client: Any) -> None:
            call = _read(request, names)
            context = client.threadPool().getThreadContext().newRestorableContext(True)
            self._pool.submit(_answer, function, call, request, channel, context)

        # JPype does not forward default methods that take arguments: every method of the interface is here.
        fixed = {
            "routes": jpype.java.util.List.of(),
            "mediaTypesValid": True,
            "canTripCircuitBreaker": True,
            "supportsContentStream": False,
            "supportsReadOnlyFormEncodedPostBody": False,
            "getServerlessScope": None,
            "allSupportedParameters": None,
            "supportedQueryParameters": None,
            "supportedCapabilities": jpype.java.util.Set.of(),
            "allowSystemIndexAccessByDefault": False,
            "getName": f"glimpse {path}",
        }
        methods: dict[str, Callable[..., Any]] = {
            "handleRequest": handle,
            "getConcreteRestHandler": lambda: handler,
        }
        for name, value in fixed.items():
            methods[name] = lambda *_, value=value: value
        handler: Any = jpype.JProxy("org.elasticsearch.rest.RestHandler", dict=methods)
        return handler


def _read(request: Any, names: list[str]) -> RestRequest:
    """Copy a request out of Java: its content is released as soon as `handleRequest` returns."""
    params = {str(entry.getKey()): str(entry.getValue() or "") for entry in request.params().entrySet()}
    path = {name: params.pop(name) for name in names if name in params}
    login, body = str(request.header("Authorization") or ""), b""
    if request.hasContent():
        content = JClass("org.elasticsearch.common.bytes.BytesReference").toBytes(request.content())
        body = bytes(memoryview(content))
    return RestRequest(path, params, body, login)


def _answer(
    function: Callable[[RestRequest], Answer], call: RestRequest, request: Any, channel: Any, context: Any
) -> None:
    """Send the answer of `function`, which is 500 and a line in the log if it fails unexpectedly."""
    try:
        status, answer = function(call)
    except RestError as error:
        status, answer = error.status, error.answer()
    except Exception as error:
        _log.exception("%s %s failed", request.method(), request.path())
        status, answer = 500, RestError(500, f"{type(error).__name__}: {error}", "glimpse_exception").answer()
    try:
        text = json.dumps(answer, indent=2 if "pretty" in call.query else None) + "\n"
        code = JClass("org.elasticsearch.rest.RestStatus").fromCode(status)
        response = JClass("org.elasticsearch.rest.RestResponse")(code, "application/json", text)
        stored = context.get()  # with the headers of the request, X-Elastic-Product among them
        try:
            channel.sendResponse(response)
        finally:
            stored.close()
    except Exception:
        _log.exception("The answer to %s %s could not be sent", request.method(), request.path())
