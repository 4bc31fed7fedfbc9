"""REST routes of the local node that are written in Python.

Everything that all routes share is done here, by Elasticsearch's own classes: query parameters are read and
unknown ones refused, bodies are parsed (`xcontent.py`), and answers and errors are written in the format that
was asked for, with `filter_path`, `pretty` and `error_trace`.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import jpype
from jpype import JClass

_log = logging.getLogger(__name__)

FOR_EVERY_ROUTE = frozenset({"error_trace", "filter_path", "format", "human", "pretty"})
CAT_PARAMETERS = frozenset({"bytes", "h", "help", "s", "time", "ts", "v"})
"""query parameters that Elasticsearch's `RestTable` reads"""

PARAMETERS: Mapping[str, Callable[[Any, str], Any]] = {
    "flag": lambda request, name: bool(request.paramAsBoolean(name, False)),
    "whole": lambda request, name: int(request.paramAsInt(name, 0)),
    "seconds": lambda request, name: request.paramAsTime(name, None).nanos() / 1e9,
    "text": lambda request, name: str(request.param(name)),
    "list": lambda request, name: [str(value) for value in request.paramAsStringArray(name, None)],
    "size": lambda request, name: byte_size(str(request.param(name)), name),
}
"""kind of a query parameter → how Elasticsearch reads it"""


class RestError(Exception):
    """A request that is refused: `status`, a reason, and `kind`, Elasticsearch's name for the error."""

    def __init__(self, status: int, reason: str, kind: str | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.kind = kind or ("resource_not_found_exception" if status == 404 else "status_exception")
        self.faults: Sequence[str] = ()

    @classmethod
    def of_faults(cls, faults: Sequence[str]) -> RestError:
        """Return the 400 that lists everything that is wrong with the values of a request."""
        listed = "".join(f"{number}: {fault};" for number, fault in enumerate(faults, 1))
        error = cls(400, f"Validation Failed: {listed}", "action_request_validation_exception")
        error.faults = faults
        return error

    def in_java(self) -> Any:
        """Return Elasticsearch's own exception for the error."""
        reason = str(self)
        if self.kind == "action_request_validation_exception":
            exception = JClass("org.elasticsearch.action.ActionRequestValidationException")()
            for fault in self.faults:
                exception.addValidationError(fault)
            return exception
        if self.kind in (with_status := {"status_exception": "Status", "security_exception": "Security"}):
            status = JClass("org.elasticsearch.rest.RestStatus").fromCode(self.status)
            return JClass(f"org.elasticsearch.Elasticsearch{with_status[self.kind]}Exception")(reason, status)
        return JClass(EXCEPTIONS[self.kind])(reason)


ELASTIC = "org.elasticsearch"
EXCEPTIONS = {
    "es_rejected_execution_exception": f"{ELASTIC}.common.util.concurrent.EsRejectedExecutionException",
    "illegal_argument_exception": "java.lang.IllegalArgumentException",
    "parse_exception": f"{ELASTIC}.ElasticsearchParseException",
    "resource_already_exists_exception": f"{ELASTIC}.ResourceAlreadyExistsException",
    "resource_not_found_exception": f"{ELASTIC}.ResourceNotFoundException",
}
"""Elasticsearch's name for an error → the class of the exception that has this name, and its status"""


@dataclass(frozen=True)
class RestRequest:
    """A request, read and copied out of Java."""

    path: Mapping[str, str]
    """the values of the names in the route's path"""
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CatTable:
    """A table of the `_cat` routes: (name, attributes) of each column, and the rows."""

    columns: Sequence[tuple[str, str]]
    rows: Sequence[Sequence[Any]]


Answer = tuple[int, Any]
"""a status, and a `CatTable` or a body that `json` can write"""


@dataclass(frozen=True)
class RestRoute:
    """A route with everything that it takes. Whatever else a request holds is refused."""

    method: str
    path: str
    """may hold names, as in `/_ml/trained_models/{model_id}`"""
    answer: Callable[[RestRequest], Answer]
    parameters: Mapping[str, str] = field(default_factory=dict)
    """name of a query parameter → its kind, a key of `PARAMETERS`"""
    body: Callable[[Any], Mapping[str, Any]] | None = None
    """reads a body from a Java `XContentParser`; None if the route takes none"""
    no_body: RestError | None = None
    """the refusal of a request without a body; None if the body may be left out"""
    check_login: Callable[[str], None] = lambda _: None
    """raises `RestError` for a header `Authorization` that does not suffice"""
    takes_anything: bool = False
    """whether parameters and body are not looked at"""


class RestRoutes:
    """Registers Python functions as REST routes of an `org.elasticsearch.node.Node`.

    The functions run in a pool of `workers` threads, so that the node's transport threads never wait.
    """

    def __init__(self, node: Any, *, workers: int) -> None:
        self._controller = node.injector().getInstance(JClass("org.elasticsearch.rest.RestController"))
        self._pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="glimpse-rest")

    def add(self, route: RestRoute) -> None:
        """Answer the route's requests with its function."""
        verb = JClass("org.elasticsearch.rest.RestRequest$Method").valueOf(route.method)
        registered = JClass("org.elasticsearch.rest.RestHandler$Route")(verb, route.path)
        self._controller.registerHandler(registered, self._handler(route))

    def _handler(self, route: RestRoute) -> Any:
        """Return a Java `RestHandler` that hands each request to the route in the pool."""

        def handle(request: Any, channel: Any, client: Any) -> None:
            content = None
            if request.hasContent():  # it is released as soon as this function returns
                bytes_of = JClass("org.elasticsearch.common.bytes.BytesReference").toBytes
                content = JClass("org.elasticsearch.common.bytes.BytesArray")(bytes_of(request.content()))
            context = client.threadPool().getThreadContext().newRestorableContext(True)
            self._pool.submit(_respond, route, request, content, channel, context)

        # JPype does not forward default methods that take arguments: every method of the interface is here.
        fixed = {
            "routes": jpype.java.util.List.of(),
            "canTripCircuitBreaker": True,
            "supportsContentStream": False,
            "supportsReadOnlyFormEncodedPostBody": False,
            "getServerlessScope": None,
            "allSupportedParameters": None,
            "supportedQueryParameters": None,
            "supportedCapabilities": jpype.java.util.Set.of(),
            "allowSystemIndexAccessByDefault": False,
            "getName": f"glimpse {route.path}",
        }
        methods: dict[str, Callable[..., Any]] = {
            "handleRequest": handle,
            "mediaTypesValid": lambda request: request.getXContentType() is not None,
            "getConcreteRestHandler": lambda: handler,
        }
        for name, value in fixed.items():
            methods[name] = lambda *_, value=value: value
        handler: Any = jpype.JProxy("org.elasticsearch.rest.RestHandler", dict=methods)
        return handler


def byte_size(value: str, name: str) -> str:
    """Return a size such as `10kb` if it is one. Raises Java's exception for the value of `name`."""
    parsed = JClass("org.elasticsearch.common.unit.ByteSizeValue").parseBytesSizeValue(value, name)
    return str(parsed.getStringRep())


def bytes_cell(count: int) -> Any:
    """Return a number of bytes for a table, which shows it in the unit that suits it or was asked for."""
    return JClass("org.elasticsearch.common.unit.ByteSizeValue").ofBytes(count)


def seconds(value: str, name: str) -> float:
    """Return the seconds of a time value such as `10s`. Raises Java's exception for the value of `name`."""
    return float(JClass("org.elasticsearch.core.TimeValue").parseTimeValue(value, name).nanos()) / 1e9


def _read(route: RestRoute, request: Any, content: Any) -> RestRequest:
    """Check a request and copy it out of Java, in the order in which Elasticsearch does."""
    given = {str(name) for name in request.params().keySet()}
    names = set(re.findall(r"{(\w+)}", route.path))
    path = {name: str(request.param(name)) for name in names & given}
    wanted = [name for name in route.parameters if name in given - names]
    query = {name: PARAMETERS[route.parameters[name]](request, name) for name in wanted}
    if route.takes_anything:
        return RestRequest(path)
    body: Mapping[str, Any] = {}
    if content is not None and route.body is not None:
        configuration = request.contentParserConfig()
        helper = JClass("org.elasticsearch.common.xcontent.XContentHelper")
        with helper.createParser(configuration, content, request.getXContentType()) as parser:
            body = route.body(parser)
    elif route.no_body is not None:
        raise route.no_body
    if unknown := given - names - route.parameters.keys() - FOR_EVERY_ROUTE:
        raise RestError(
            400, _unrecognized(request, unknown, [*route.parameters]), "illegal_argument_exception"
        )
    if content is not None and route.body is None:
        called = f"request [{request.method()} {request.path()}]"
        raise RestError(400, f"{called} does not support having a body", "illegal_argument_exception")
    return RestRequest(path, query, body)


def _unrecognized(request: Any, unknown: set[str], known: Sequence[str]) -> str:
    """Return Elasticsearch's sentence about unknown parameters, with the names that may have been meant."""
    handler, sets = JClass("org.elasticsearch.rest.BaseRestHandler").class_, JClass("java.util.TreeSet")
    kinds = (JClass("org.elasticsearch.rest.RestRequest"), JClass("java.util.Set"), JClass("java.util.Set"))
    method = handler.getDeclaredMethod(
        "unrecognized", [*(kind.class_ for kind in kinds), JClass("java.lang.String").class_]
    )
    method.setAccessible(True)
    invalid, candidates = sets(), sets()
    for names, values in ((invalid, unknown), (candidates, [*known, *FOR_EVERY_ROUTE])):
        for value in values:
            names.add(value)
    return str(method.invoke(None, [request, invalid, candidates, "parameter"]))


def _respond(route: RestRoute, request: Any, content: Any, channel: Any, context: Any) -> None:
    """Send the answer of a route, which is 500 and a line in the log if it fails unexpectedly."""
    stored = context.get()  # with the headers of the request, X-Elastic-Product among them
    try:
        try:
            response = _answer(route, request, content, channel)
        except RestError as error:
            response = _error(channel, error.in_java())
        except jpype.JException as error:
            response = _error(channel, error)
        channel.sendResponse(response)
    except Exception:
        _log.exception("The answer to %s %s could not be sent", request.method(), request.path())
    finally:
        stored.close()


def _answer(route: RestRoute, request: Any, content: Any, channel: Any) -> Any:
    try:
        route.check_login(str(request.header("Authorization") or ""))
        status, answer = route.answer(_read(route, request, content))
        return (
            _table(answer, request, channel)
            if isinstance(answer, CatTable)
            else _body(status, answer, channel)
        )
    except (RestError, jpype.JException):
        raise
    except Exception as error:
        _log.exception("%s %s failed", request.method(), request.path())
        raise RestError(500, f"{type(error).__name__}: {error}") from error


def _error(channel: Any, exception: Any) -> Any:
    return JClass("org.elasticsearch.rest.RestResponse")(channel, exception)


def _body(status: int, answer: Any, channel: Any) -> Any:
    """Return a response in the format that the request asks for, with the fields that `filter_path` keeps."""
    code = JClass("org.elasticsearch.rest.RestStatus").fromCode(status)
    builder = channel.newBuilder()
    configuration = JClass("org.elasticsearch.xcontent.XContentParserConfiguration").EMPTY
    json_type = JClass("org.elasticsearch.xcontent.XContentType").JSON
    with json_type.xContent().createParser(configuration, json.dumps(answer)) as parser:
        parser.nextToken()
        builder.copyCurrentStructure(parser)
    return JClass("org.elasticsearch.rest.RestResponse")(code, builder)


def _table(answer: CatTable, request: Any, channel: Any) -> Any:
    """Return a table as text, or as JSON or YAML if `format` asks for it, or its columns for `help`."""
    table = JClass("org.elasticsearch.common.Table")()
    table.startHeaders()
    for name, attributes in answer.columns:
        table.addCell(name, attributes)
    table.endHeaders()
    for row in answer.rows:
        table.startRow()
        for cell in row:
            table.addCell(cell)
        table.endRow()
    if request.paramAsBoolean("help", False):
        return _help(answer)
    return JClass("org.elasticsearch.rest.action.cat.RestTable").buildResponse(table, channel)


def _help(answer: CatTable) -> Any:
    """Return the columns of a table with their aliases and descriptions."""
    lines = []
    for name, attributes in answer.columns:
        said = dict(part.split(":", 1) for part in attributes.split(";"))
        lines.append((name, said.get("alias", ""), said.get("desc", "")))
    widths = [max(len(line[column]) for line in lines) for column in (0, 1)]
    text = "".join(f"{a:<{widths[0]}} | {b:<{widths[1]}} | {c}\n" for a, b, c in lines)
    return JClass("org.elasticsearch.rest.RestResponse")(JClass("org.elasticsearch.rest.RestStatus").OK, text)
