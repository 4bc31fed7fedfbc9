"""Request bodies of the local node, read by Elasticsearch's own parsers.

JSON, YAML, CBOR and SMILE are taken alike, and a wrong body is refused in Elasticsearch's words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import jpype
from jpype import JClass

from es_config.local_node.rest import RestError

XCONTENT = "org.elasticsearch.xcontent"
PLAIN_FIELDS = {
    "flag": "declareBoolean",
    "long": "declareLong",
    "numbers": "declareDoubleArray",
    "text": "declareString",
    "texts": "declareStringArray",
    "whole": "declareInt",
    "whole or null": "declareIntOrNull",
}
"""kind of a field → the method of `AbstractObjectParser` that declares it"""
READ_FIELDS: dict[str, Callable[[Any], Any]] = {
    "bytes": lambda parser: parser.binaryValue(),
    "object": lambda parser: parser.mapOrdered(),
    "objects": lambda parser: parser.mapOrdered(),
    "value": lambda parser: parser.text(),
}
"""kind of a field → what reads it: base64, any object, an array of such, a text or a number as text"""
NULL = -1
"""the number that stands for null, as in Elasticsearch's `declareIntOrNull`"""


class Body:
    """The fields that an object may hold, and a check of their values."""

    def __init__(
        self,
        name: str,
        fields: Mapping[str, str | Body | Mapping[str, Body]],
        *,
        check: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        """Take Elasticsearch's name of the parser, which stands in its errors, and the kinds of the fields.

        A kind is a key of `PLAIN_FIELDS` or `READ_FIELDS`, a body of its own, or the bodies by name of a
        field that holds exactly one named object, as in `{"bert": {…}}`; an object of another name is read as
        it stands. `check` raises `RestError`. The JVM must run.
        """
        self._check = check
        new_map = _proxy("java.util.function.Supplier", get=JClass("java.util.HashMap"))
        self._parser = JClass(f"{XCONTENT}.ObjectParser")(name, new_map)
        for field, kind in fields.items():
            self._declare(field, kind)

    def apply(self, parser: Any) -> Any:
        """Read an object from a Java parser, as a Java map. Raises Java exceptions and `RestError`."""
        values = self._parser.apply(parser, None)
        if self._check is not None:
            self._check(to_python(values))
        return values

    def read(self, parser: Any) -> dict[str, Any]:
        """Read an object from a Java parser as Python values. Raises Java exceptions and `RestError`."""
        values: dict[str, Any] = to_python(self.apply(parser))
        return values

    def _declare(self, field: str, kind: str | Body | Mapping[str, Body]) -> None:
        java_field = JClass(f"{XCONTENT}.ParseField")(field)
        keep = _proxy("java.util.function.BiConsumer", accept=lambda target, value: target.put(field, value))
        if isinstance(kind, Mapping):
            read = _proxy(f"{XCONTENT}.ObjectParser$NamedObjectParser", parse=_named_reader(kind))
            self._parser.declareNamedObject(keep, read, java_field)
        elif isinstance(kind, str) and kind in PLAIN_FIELDS:
            default = [JClass("java.lang.Integer").valueOf(NULL)] if kind.endswith("null") else []
            getattr(self._parser, PLAIN_FIELDS[kind])(keep, *default, java_field)
        else:
            reads = kind.apply if isinstance(kind, Body) else READ_FIELDS[kind]
            read = _proxy(f"{XCONTENT}.ContextParser", parse=lambda parser, _: reads(parser))
            types = JClass(f"{XCONTENT}.ObjectParser$ValueType")
            if kind == "objects":
                self._parser.declareObjectArray(keep, read, java_field)
            elif kind in ("bytes", "value"):
                self._parser.declareField(
                    keep, read, java_field, types.STRING if kind == "bytes" else types.VALUE
                )
            else:
                self._parser.declareObject(keep, read, java_field)


def _named_reader(bodies: Mapping[str, Body]) -> Callable[[Any, Any, Any], Any]:
    def read(parser: Any, _: Any, name: Any) -> Any:
        parser.nextToken()  # from the name to its object
        body = bodies.get(str(name))
        value = body.apply(parser) if body else parser.mapOrdered()
        return JClass("java.util.Collections").singletonMap(name, value)

    return read


def _proxy(interface: str, **methods: Callable[..., Any]) -> Any:
    """Return a Java object that answers with Python functions. A `RestError` reaches Java as an exception."""

    def in_java(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            try:
                return function(*arguments)
            except RestError as error:
                raise error.in_java() from error

        return call

    return jpype.JProxy(interface, dict={name: in_java(function) for name, function in methods.items()})


def to_python(value: Any) -> Any:
    """Return a Java value as one of Python's own types."""
    for java_class, read in _readers():
        if isinstance(value, java_class):
            return read(value)
    return None if value is None else bytes(memoryview(value))  # byte[]


@cache
def _readers() -> tuple[tuple[Any, Callable[[Any], Any]], ...]:
    """Look the classes up once, the most frequent first: a vocabulary has a hundred thousand texts."""
    return (
        (JClass("java.lang.String"), str),
        (
            JClass("java.util.Map"),
            lambda value: {str(e.getKey()): to_python(e.getValue()) for e in value.entrySet()},
        ),
        (JClass("java.util.List"), lambda value: [to_python(each) for each in value]),
        (JClass("java.lang.Boolean"), lambda value: bool(value.booleanValue())),
        (JClass("java.lang.Double"), float),
        (JClass("java.lang.Float"), float),
        (JClass("java.lang.Number"), lambda value: int(str(value))),
    )
