"""Three real nodes on the loopback interface that form one cluster. Each can be killed and restarted."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from elasticsearch import ApiError, Elasticsearch, TransportError
from http_fronts import kept_port
from waiting import PATIENCE_S

from es_config.home import PROGRAM
from es_config.local_node.install import NodeHome, fetch_jars, find_java

ROOT = Path(__file__).parent.parent
HEAP_MB = 512
QUICK = {"JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"}
"""what a JVM that lives for minutes would compile is not worth its time"""
SETTINGS = """cluster.name: glimpse-three
node.name: node-{number}
network.host: 127.0.0.1
http.port: {http}
transport.port: {transport}
discovery.seed_hosts: [{seeds}]
cluster.initial_master_nodes: [node-0, node-1, node-2]
cluster.routing.allocation.disk.threshold_enabled: false
path.data: {home}/data
path.logs: {home}/logs
"""


class ThreeNodes:
    """The cluster, with an address for each node."""

    def __init__(self, folder: Path, ports: list[int]) -> None:
        """Take a folder for the nodes' homes, and six ports: three for HTTP, three between the nodes."""
        self._http, self._transport = ports[:3], ports[3:]
        self._homes = [folder / f"home{number}" for number in range(3)]
        self._java, _ = find_java(dict(os.environ))
        self._processes: list[subprocess.Popen | None] = [None] * 3
        self.urls = [f"http://127.0.0.1:{port}" for port in self._http]

    def start(self, number: int) -> None:
        """Start one node with the data on its disk. It is ready some seconds later."""
        home = NodeHome(self._homes[number])
        home.root.mkdir(parents=True, exist_ok=True)
        home.prepare(fetch_jars(), http_port=str(self._http[number]))
        settings = SETTINGS.format(
            number=number,
            http=self._http[number],
            transport=self._transport[number],
            seeds=", ".join(f'"127.0.0.1:{port}"' for port in self._transport),
            home=home.root,
        )
        (home.config / "elasticsearch.yml").write_text(settings, encoding="utf-8")
        command = [sys.executable, "-m", PROGRAM, "--home", str(self._homes[number])]
        command += ["--java", str(self._java.home), "--heap-mb", str(HEAP_MB)]
        with home.process_log.open("ab") as log:
            self._processes[number] = subprocess.Popen(
                command, cwd=ROOT, env=os.environ | QUICK, stdout=log, stderr=log
            )

    def kill(self, number: int) -> None:
        """End one node as a power cut does."""
        process = self._processes[number]
        if process is not None:
            process.kill()
            process.wait()
            self._processes[number] = None

    def wait(self, client: Elasticsearch, *, nodes: int, status: str = "green") -> None:
        """Wait until so many nodes are there and every shard has its copies."""
        deadline = time.monotonic() + PATIENCE_S
        wanted = {"wait_for_nodes": str(nodes), "wait_for_status": status, "timeout": "2s"}
        while time.monotonic() < deadline:
            try:
                if not client.cluster.health(**wanted)["timed_out"]:
                    return
            except (ApiError, TransportError):
                time.sleep(0.2)
        raise AssertionError(f"the cluster of three is not {status} with {nodes} nodes")


@contextmanager
def three_nodes(folder: Path) -> Iterator[tuple[ThreeNodes, Elasticsearch]]:
    """Give a green cluster and a client that knows every node."""
    with ExitStack() as ended:
        cluster = ThreeNodes(folder, [ended.enter_context(kept_port()) for _ in range(6)])
        for number in range(3):
            ended.callback(cluster.kill, number)
            cluster.start(number)
        with Elasticsearch(cluster.urls, request_timeout=60) as waiting:
            cluster.wait(waiting, nodes=3)
        # Another client: to that one, nodes that were slow to start are dead for half a minute more.
        yield cluster, ended.enter_context(Elasticsearch(cluster.urls, request_timeout=60))
