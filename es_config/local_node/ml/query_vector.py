"""`query_vector_builder.text_embedding`: a `knn` search that embeds its text by itself.

In Elasticsearch the machine-learning plug-in brings this builder. The published jars lack the plug-in, so
the node gets a builder that asks a function of this process. A plug-in is a Java class, which Python cannot
write: the builder is put into the registries of named objects, where a plug-in's would be, before the start.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any

import jpype
from jpype import JClass

from es_config.local_node.rest import RestError
from es_config.local_node.xcontent import Body

_log = logging.getLogger(__name__)

NAME = "text_embedding"
BUILDER = "org.elasticsearch.search.vectors.QueryVectorBuilder"
Embed = Callable[[str, str], Sequence[float]]
"""(model id, text) → vector. Raises `RestError`"""


def add_text_embedding(node: Any, embed: Embed, *, workers: Executor) -> None:
    """Teach a node that has not started the builder. Each text is embedded by one of the workers."""
    body = Body(NAME, {"model_id": "text", "model_text": "text"})

    def parse(parser: Any, _: Any) -> Any:
        given = body.read(parser)
        if "model_text" not in given:  # in the words of ConstructingObjectParser
            raise JClass("java.lang.IllegalArgumentException")("Required [model_text]")
        return _builder(given.get("model_id"), given["model_text"], embed, workers)

    def read(stream: Any) -> Any:
        model_id, text = stream.readOptionalString(), stream.readString()
        return _builder(None if model_id is None else str(model_id), str(text), embed, workers)

    kind = JClass(BUILDER).class_
    parser = jpype.JProxy("org.elasticsearch.xcontent.ContextParser", dict={"parse": parse})
    field = JClass("org.elasticsearch.xcontent.ParseField")(NAME)
    entry = JClass("org.elasticsearch.xcontent.NamedXContentRegistry$Entry")(kind, field, parser)
    parsers = _instance(node, "org.elasticsearch.xcontent.NamedXContentRegistry")
    for of_version in _open(parsers).values():
        by_name = JClass("java.util.HashMap")(of_version.get(kind))
        by_name.put(NAME, entry)
        of_version.put(kind, by_name)
    reader = jpype.JProxy("org.elasticsearch.common.io.stream.Writeable$Reader", dict={"read": read})
    readers = _open(_instance(node, "org.elasticsearch.common.io.stream.NamedWriteableRegistry"))
    by_name = JClass("java.util.HashMap")(readers.get(kind))
    by_name.put(NAME, reader)
    readers.put(kind, by_name)


def _instance(node: Any, name: str) -> Any:
    return node.injector().getInstance(JClass(name))


def _open(registry: Any) -> Any:
    """Replace the map of a registry, which nobody can change, by an equal one, and return it.

    The field is final, which from Java 26 on needs `--enable-final-field-mutation`, as in `refuse_pages`.
    """
    field = registry.getClass().getDeclaredField("registry")
    field.setAccessible(True)
    opened = JClass("java.util.HashMap")(field.get(registry))
    for entry in opened.entrySet():
        entry.setValue(JClass("java.util.HashMap")(entry.getValue()))
    field.set(registry, opened)
    return opened


def _builder(model_id: str | None, text: str, embed: Embed, workers: Executor) -> Any:
    """Return a Java `QueryVectorBuilder` for one text."""

    def build(client: Any, listener: Any) -> None:
        if model_id is None:
            raise JClass("java.lang.IllegalArgumentException")("[model_id] must not be null.")
        # The search goes on in a thread of Elasticsearch and with the context of its request.
        pool = client.threadPool()
        support = "org.elasticsearch.action.support"
        threaded = JClass(f"{support}.ThreadedActionListener")(pool.executor("search_coordination"), listener)
        keeping = JClass(f"{support}.ContextPreservingActionListener").wrapPreservingContext
        workers.submit(_embed, embed, model_id, text, keeping(threaded, pool.getThreadContext()))

    def to_xcontent(builder: Any, _: Any) -> Any:
        builder.startObject()
        if model_id is not None:
            builder.field("model_id", model_id)
        return builder.field("model_text", text).endObject()

    def write(stream: Any) -> None:
        stream.writeOptionalString(model_id)
        stream.writeString(text)

    # JPype does not forward default methods that take arguments: every method of the interface is here.
    methods: dict[str, Callable[..., Any]] = {
        "buildVector": build,
        "getWriteableName": lambda: NAME,
        "getMinimalSupportedVersion": lambda: JClass(
            "org.elasticsearch.TransportVersion"
        ).minimumCompatible(),
        "supportsVersion": lambda _: True,
        "writeTo": write,
        "toXContent": to_xcontent,
        "isFragment": lambda: False,
    }
    return jpype.JProxy(BUILDER, dict=methods)


def _embed(embed: Embed, model_id: str, text: str, listener: Any) -> None:
    """Give the listener of a search its vector, or the error that the search is to fail with."""
    try:
        vector = jpype.JArray(jpype.JFloat)(embed(model_id, text))
    except Exception as error:
        if not isinstance(error, RestError):
            _log.exception("The text of a search could not be embedded")
            error = RestError(500, f"{type(error).__name__}: {error}")
        listener.onFailure(error.in_java())
    else:
        listener.onResponse(vector)
