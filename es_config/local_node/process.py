"""The background process of the local node: Elasticsearch in a JVM inside Python.

`glimpse up` starts it as `python -m es_config.local_node.process`; it ends on SIGTERM, after Elasticsearch
has closed.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import jpype
from jpype import JClass

from es_config.home import PROGRAM, make_key, write_process_file
from es_config.local_node.install import DATA, NODE_NAME, VECTOR_MODULE, Java, NodeHome, read_java
from es_config.local_node.ml.routes import TrainedModelRoutes
from es_config.local_node.rest import RestRoute, RestRoutes

ALLOWED = {"Host": r"(127\.0\.0\.1|localhost|\[::1\])(:\d+)?", "Sec-Fetch-Site": "(none|same-origin)?"}
"""header → the values that are let in, in any case; an absent header is an empty text"""
REFUSAL = "The local node answers programs of this machine, not web pages: call it as 127.0.0.1 or localhost"
TRANSPORT = "org.elasticsearch.http.netty4.Netty4HttpServerTransport"


def refuse_pages(node: Any) -> None:
    """Make a node that has not started refuse the requests of web pages, by the headers of each request.

    A page that somebody visits can make the browser send requests to 127.0.0.1, and a site can give this
    address a name of its own (DNS rebinding). `http.cors.enabled` without any origin refuses every foreign
    `Origin`. This check refuses every foreign `Host`, and every request that the browser says comes from
    another site.

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


def main(arguments: list[str] | None = None) -> None:
    """Run a node until a signal asks for its end, and keep its process file up to date."""
    parser = argparse.ArgumentParser(prog=PROGRAM)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--java", type=read_java, required=True)
    parser.add_argument("--heap-mb", type=int, required=True)
    options = parser.parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="[%(asctime)s][%(levelname)-5s] %(message)s"
    )
    os.umask(0o077)
    stop = threading.Event()
    home = NodeHome(options.home)
    write_process_file(options.home, url="", state="starting")
    start_jvm(home, options.java, heap_mb=options.heap_mb)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    node = new_node(home)
    refuse_pages(node)
    root = RestRoutes(node, workers=1)  # Elastic's published jars lack it, and machine learning
    for method in ("GET", "HEAD"):
        root.add(RestRoute(method, "/", lambda _: (200, node_info(node))))
    node_id, key = str(node.getNodeEnvironment().nodeId()), make_key(options.home)
    TrainedModelRoutes(home.trained_models, node_id=node_id, key=key).add_to(node)
    node.start()
    url = node_url(node)
    home.port_file.write_text(url.rpartition(":")[2], encoding="ascii")
    write_process_file(options.home, url=url, state="ready")
    while not stop.wait(1):  # with a time-out, so that Python comes round to run its signal handlers
        pass
    logging.info("Closing the node")
    node.prepareForClose()
    node.close()  # every index is flushed to disk
    node.awaitClose(20, JClass("java.util.concurrent.TimeUnit").SECONDS)
    home.process_file.unlink(missing_ok=True)
    logging.shutdown()
    os._exit(0)  # Elasticsearch has closed; nothing of the JVM's own shutdown is worth waiting for


def start_jvm(home: NodeHome, java: Java, *, heap_mb: int) -> None:
    """Load the JVM, which leaves the signals to Python (`-Xrs`)."""
    lines = (DATA / "jvm.options").read_text(encoding="utf-8").splitlines()
    jpype.startJVM(
        str(java.libjvm),
        *(line for line in lines if not line.startswith("#")),
        f"-Xmx{heap_mb}m",
        f"-XX:MaxDirectMemorySize={heap_mb // 2}m",
        f"-XX:ErrorFile={home.logs / 'jvm-crash.log'}",
        *([f"--add-modules={VECTOR_MODULE}"] if java.has_vectors else []),
        *(["--enable-final-field-mutation=ALL-UNNAMED"] if java.version >= 26 else []),  # see refuse_pages
        f"-Des.path.home={home.root}",
        classpath=[str(jar) for jar in sorted(home.lib.glob("*.jar"))],
        convertStrings=False,
    )


def new_node(home: NodeHome) -> Any:
    """Make an Elasticsearch as its own bootstrap does, without the parts that need the full distribution."""
    # By name, not by import: JPype's importer opens jars that Elasticsearch then fails to open itself.
    HashMap, HashSet = JClass("java.util.HashMap"), JClass("java.util.HashSet")
    paths = JClass("java.nio.file.Path")
    LogConfigurator = JClass("org.elasticsearch.common.logging.LogConfigurator")
    settings = JClass("org.elasticsearch.common.settings.Settings")
    PluginsLoader = JClass("org.elasticsearch.plugins.PluginsLoader")

    LogConfigurator.registerErrorListener()
    environment = JClass("org.elasticsearch.node.InternalSettingsPreparer").prepareEnvironment(
        settings.builder().put("path.home", str(home.root)).build(),
        HashMap(),
        paths.of(str(home.config)),
        lambda: NODE_NAME,
    )
    LogConfigurator.setNodeName(NODE_NAME)
    LogConfigurator.configure(environment, False)
    JClass("org.elasticsearch.nativeaccess.NativeAccess").instance()
    modules = PluginsLoader.loadModulesBundles(paths.of(str(home.module.parent)), True)
    # The last False: the modules are not in a module layer of their own.
    loader = PluginsLoader.createPluginsLoader(modules, HashSet(), HashMap(), False)
    return JClass("org.elasticsearch.node.Node")(environment, loader)


def node_url(node: Any) -> str:
    """Return the address of the node, with the port that it got out of its range."""
    transport = JClass("org.elasticsearch.http.HttpServerTransport")
    address = node.injector().getInstance(transport).boundAddress().publishAddress()
    return f"http://{address.getAddress()}:{address.getPort()}"


def node_info(node: Any) -> dict[str, Any]:
    """Return the name, cluster and versions of a running node, in the shape of Elasticsearch's `GET /`."""
    state = node.injector().getInstance(JClass("org.elasticsearch.cluster.service.ClusterService")).state()
    build = JClass("org.elasticsearch.Build").current()
    version = {
        "number": build.qualifiedVersion(),
        "build_flavor": build.flavor(),
        "build_type": build.type().displayName(),
        "build_hash": build.hash(),
        "build_date": build.date(),
        "build_snapshot": bool(build.isSnapshot()),
        "lucene_version": JClass("org.elasticsearch.index.IndexVersion").current().luceneVersion(),
        "minimum_wire_compatibility_version": build.minWireCompatVersion(),
        "minimum_index_compatibility_version": build.minIndexCompatVersion(),
    }
    return {
        "name": str(node.settings().get("node.name")),
        "cluster_name": str(state.getClusterName().value()),
        "cluster_uuid": str(state.metadata().clusterUUID()),
        "version": {
            name: value if isinstance(value, bool) else str(value) for name, value in version.items()
        },
        "tagline": "You Know, for Search",
    }


if __name__ == "__main__":
    main()
