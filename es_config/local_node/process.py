"""The background process of the local node: Elasticsearch in a JVM inside Python.

`glimpse up` starts it as `python -m es_config.local_node.process`; it ends on SIGTERM, after Elasticsearch
has closed.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from es_config.local_node import info
from es_config.local_node.install import NODE_NAME, NodeHome
from es_config.local_node.ml import routes

JVM_OPTIONS = (
    "-Xrs",
    "-XX:+ExitOnOutOfMemoryError",
    "--enable-native-access=ALL-UNNAMED",
    "-Dfile.encoding=UTF-8",
    "-Djava.awt.headless=true",
    "-Djava.locale.providers=CLDR",
    "-Des.distribution.type=tar",
    "-Dio.netty.noUnsafe=true",
    "-Dio.netty.noKeySetOptimization=true",
    "-Dlog4j.shutdownHookEnabled=false",
    "-Dlog4j2.disable.jmx=true",
    # The native vector library is not among the published jars; Lucene's own, in Java, is.
    "-Dorg.elasticsearch.nativeaccess.enableVectorLibrary=false",
)


def main(arguments: list[str] | None = None) -> int:
    """Run a node until a signal asks for its end; the process file tells its state to other processes."""
    parser = argparse.ArgumentParser(prog="es_config.local_node.process")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--libjvm", type=Path, required=True)
    parser.add_argument("--heap-mb", type=int, required=True)
    parser.add_argument("--vectors", action="store_true")
    options = parser.parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="[%(asctime)s][%(levelname)-5s] %(message)s"
    )
    return run(options)


def run(options: argparse.Namespace) -> int:
    """Start the node, say where it listens, wait for a signal, close the node."""
    stop = threading.Event()
    home = NodeHome(options.home)
    write_process_file(home, url="", state="starting")
    start_jvm(home, options)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    node = start_node(home)
    # Routes that the published jars lack.
    info.register(node)
    routes.register(node, home=options.home)
    write_process_file(home, url=node_url(node), state="ready")
    while not stop.wait(1):  # with a time-out, so that Python comes round to run its signal handlers
        pass
    logging.info("Closing the node")
    close_node(node)
    home.process_file.unlink(missing_ok=True)
    logging.shutdown()
    os._exit(0)  # Elasticsearch has closed; nothing of the JVM's own shutdown is worth waiting for


def start_jvm(home: NodeHome, options: argparse.Namespace) -> None:
    """Load the JVM; `-Xrs` leaves the signals to Python."""
    import jpype

    jpype.startJVM(
        str(options.libjvm),
        *JVM_OPTIONS,
        f"-Xmx{options.heap_mb}m",
        f"-XX:MaxDirectMemorySize={options.heap_mb // 2}m",
        f"-XX:ErrorFile={home.logs / 'jvm-crash.log'}",
        *(["--add-modules=jdk.incubator.vector"] if options.vectors else []),
        f"-Des.path.home={home.root}",
        classpath=[str(jar) for jar in sorted(home.lib.glob("*.jar"))],
        convertStrings=False,
    )


def start_node(home: NodeHome) -> Any:
    """Start Elasticsearch as its own bootstrap does, without the parts that need the full distribution."""
    from jpype import JClass

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
    return JClass("org.elasticsearch.node.Node")(environment, loader).start()


def node_url(node: Any) -> str:
    """Return where the node listens, which may not be the first port of its range."""
    import jpype

    transport = jpype.JClass("org.elasticsearch.http.HttpServerTransport")
    address = node.injector().getInstance(transport).boundAddress().publishAddress()
    return f"http://{address.getAddress()}:{address.getPort()}"


def close_node(node: Any) -> None:
    """Close Elasticsearch so that every index is flushed to disk."""
    import jpype

    node.prepareForClose()
    node.close()
    node.awaitClose(20, jpype.JClass("java.util.concurrent.TimeUnit").SECONDS)


def write_process_file(home: NodeHome, *, url: str, state: str) -> None:
    """Replace the process file at once, so that no reader sees half of it."""
    import psutil

    process = {
        "pid": os.getpid(),
        "created": psutil.Process().create_time(),
        "url": url,
        "state": state,
        "since": time.time(),
    }
    partial = home.process_file.with_suffix(".tmp")
    partial.write_text(json.dumps(process), encoding="utf-8")
    partial.replace(home.process_file)


if __name__ == "__main__":
    sys.exit(main())
