"""The folder of the local node: its jars, configuration, data and logs, laid out as Elasticsearch expects."""

from __future__ import annotations

import ctypes.util
import json
import platform
import shutil
from collections.abc import Iterable
from pathlib import Path

from es_config.local_node.jars import VERSION

NODE_NAME = "glimpse-local"
MODULE = "transport-netty4"
IN_MODULE = ("netty-", MODULE, "elasticsearch-ssl-config")
DESCRIPTOR = f"""description=HTTP and transport over Netty
version={VERSION}
elasticsearch.version={VERSION}
java.version=21
name={MODULE}
classname=org.elasticsearch.transport.netty4.Netty4Plugin
"""
# One node on one machine. Elasticsearch's own watermarks are percentages: on a large, nearly full disk they
# would stop all writing while hundreds of gigabytes are free.
SETTINGS = """cluster.name: glimpse
node.name: {name}
network.host: 127.0.0.1
discovery.type: single-node
http.port: {http_port}
transport.port: 0
path.data: {data}
path.logs: {logs}
cluster.routing.allocation.disk.watermark.low: 2gb
cluster.routing.allocation.disk.watermark.high: 1gb
cluster.routing.allocation.disk.watermark.flood_stage: 500mb
"""


class NodeHome:
    """Where the local node of a GLIMPSE_HOME keeps what; everything lies below `root`, its folder `node`."""

    def __init__(self, glimpse_home: Path) -> None:
        self.root = glimpse_home.absolute() / "node"
        self.lib, self.config, self.data, self.logs = (
            self.root / name for name in ("lib", "config", "data", "logs")
        )
        self.module = self.root / "modules" / MODULE
        self.process_file, self.lock_file = self.root / "process.json", self.root / "up.lock"
        self.elasticsearch_log = self.logs / "elasticsearch.log"
        # What the process writes before Elasticsearch's log is open, and Python's part of it.
        self.process_log = self.logs / "node.log"

    def prepare(self, jars: Iterable[Path], *, http_port: str) -> None:
        """Write everything but the data anew; `http_port` is one port or a range such as `9200-9300`."""
        for folder in (self.lib, self.module, self.config):
            shutil.rmtree(folder, ignore_errors=True)
        for folder in (self.lib, self.module, self.config, self.data, self.logs):
            folder.mkdir(parents=True, exist_ok=True)
        for jar in jars:
            _link(jar, (self.module if jar.name.startswith(IN_MODULE) else self.lib) / jar.name)
        (self.module / "plugin-descriptor.properties").write_text(DESCRIPTOR, encoding="utf-8")
        self._configure(http_port)
        self._link_zstd()

    def _configure(self, http_port: str) -> None:
        settings = SETTINGS.format(
            name=NODE_NAME,
            http_port=http_port,
            data=json.dumps(str(self.data)),
            logs=json.dumps(str(self.logs)),
        )
        (self.config / "elasticsearch.yml").write_text(settings, encoding="utf-8")
        shutil.copy(Path(__file__).with_name("log4j2.properties"), self.config / "log4j2.properties")

    def _link_zstd(self) -> None:
        """Offer the system's libzstd where Elasticsearch looks for its own, which spares a warning."""
        found = _find_zstd()
        if found is None:
            return
        system = {"Linux": "linux", "Darwin": "darwin"}.get(platform.system(), "windows")
        machine = {"x86_64": "x64", "amd64": "x64", "arm64": "aarch64"}.get(
            platform.machine().lower(), "aarch64"
        )
        folder = self.lib / "platform" / f"{system}-{machine}"
        folder.mkdir(parents=True)
        _link(found, folder / f"libzstd{'.dylib' if system == 'darwin' else '.so'}")


def _find_zstd() -> Path | None:
    name = ctypes.util.find_library("zstd")
    if name is None:
        return None
    folders = (
        Path(),
        *Path("/usr/lib").glob("*-linux-*"),
        Path("/usr/lib64"),
        Path("/usr/lib"),
        Path("/lib"),
    )
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def _link(source: Path, target: Path) -> None:
    """Link, or copy where the file system has no links."""
    try:
        target.symlink_to(source.resolve())
    except OSError:
        shutil.copy(source, target)
