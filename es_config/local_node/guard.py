"""Refuse the requests of web pages before Elasticsearch looks at them.

A page that somebody visits can make the browser send requests to 127.0.0.1, and a site can give this address
a name of its own (DNS rebinding). `http.cors.enabled` without any origin refuses every foreign `Origin`. This
module refuses every foreign `Host`, and every request that the browser says comes from another site.
"""

from __future__ import annotations

from typing import Any

from jpype import JClass

ALLOWED = {"Host": r"(127\.0\.0\.1|localhost|\[::1\])(:\d+)?", "Sec-Fetch-Site": "(none|same-origin)?"}
"""header → the values that are let in, in any case; an absent header is an empty text"""
REFUSAL = "The local node answers programs of this machine, not web pages: call it as 127.0.0.1 or localhost"
TRANSPORT = "org.elasticsearch.http.netty4.Netty4HttpServerTransport"


def refuse_pages(node: Any) -> None:
    """Make a node that has not started check the headers of every request.

    Elastic's security plug-in checks them in an `HttpValidator`. This one is composed of method handles,
    which Java compiles, so that no request waits for Python. Its field is final, which from Java 26 on needs
    `--enable-final-field-mutation`.
    """
    transport = node.injector().getInstance(JClass("org.elasticsearch.http.HttpServerTransport"))
    field = transport.getClass().getClassLoader().loadClass(TRANSPORT).getDeclaredField("httpValidator")
    [validate] = field.getType().getDeclaredMethods()
    request, channel, listener = validate.getParameterTypes()
    headers = request.getMethod("headers", []).getReturnType()
    names = ("Object", "String", "CharSequence", "Exception")
    anything, text, letters, exception = (JClass(f"java.lang.{name}").class_ for name in names)
    nothing, truth = JClass("java.lang.Void").TYPE, JClass("java.lang.Boolean").TYPE
    handles = JClass("java.lang.invoke.MethodHandles")
    signature = JClass("java.lang.invoke.MethodType").methodType

    def method(owner: Any, name: str, returned: Any, *arguments: Any) -> Any:
        return handles.publicLookup().findVirtual(owner, name, signature(returned, arguments))

    def answer(name: str, kind: Any, value: Any) -> Any:
        """Return a validator that calls one method of its listener."""
        call = handles.insertArguments(method(listener, name, nothing, kind), 1, [value])
        return handles.dropArguments(call, 0, [request, channel])

    validator, refuse = answer("onResponse", anything, None), answer("onFailure", exception, _refusal())
    read_headers, read = method(request, "headers", headers), method(headers, "get", text, letters, text)
    for name, values in ALLOWED.items():
        pattern = JClass("java.util.regex.Pattern").compile(f"(?i){values}").asMatchPredicate()
        test = method(JClass("java.util.function.Predicate").class_, "test", truth, anything).bindTo(pattern)
        value = handles.filterReturnValue(read_headers, handles.insertArguments(read, 1, [name, ""]))
        is_allowed = handles.filterReturnValue(value, test.asType(signature(truth, text)))
        validator = handles.guardWithTest(is_allowed, validator, refuse)
    proxies = JClass("java.lang.invoke.MethodHandleProxies")
    field.setAccessible(True)
    field.set(transport, proxies.asInterfaceInstance(field.getType(), validator))


def _refusal() -> Any:
    """Return the exception that Elasticsearch answers with a 403."""
    status = JClass("org.elasticsearch.rest.RestStatus").FORBIDDEN
    error = JClass("org.elasticsearch.ElasticsearchStatusException")(REFUSAL, status)
    return JClass("org.elasticsearch.http.HttpHeadersValidationException")(error)
