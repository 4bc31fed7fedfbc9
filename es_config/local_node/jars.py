"""Elasticsearch's published jars: fetched once from Maven Central, and verified by their SHA-256."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from es_config.errors import EngineError

VERSION = "9.5.3"
LIST = Path(__file__).with_name("jars.json")


def fetch_jars(*, say: Callable[[str], None] = lambda _: None) -> list[Path]:
    """Return the paths of the jars of the local node, in the Maven cache of this machine.

    What the cache lacks is downloaded, and `say` is told before that; a full cache needs no network. Raises
    EngineError when a jar can neither be found nor downloaded.
    """
    context = _context()
    artifacts = {_artifact(context, name): sha256 for name, sha256 in _listed().items()}
    if _bad(artifacts):
        say(f"Downloading Elasticsearch {VERSION} (45 MB, once) …")
        _download(artifacts, context.repo_cache)
    for artifact in _bad(artifacts):
        raise EngineError(
            f"{artifact.filename} is not the file that was published: "
            f"delete {artifact.cached_path} and run `glimpse up` again."
        )
    return [artifact.cached_path for artifact in artifacts]


def _listed() -> dict[str, str]:
    """Return `group:artifact:version` → SHA-256 of every jar."""
    return json.loads(LIST.read_text(encoding="utf-8"))


def _context() -> Any:
    """Return jgo's Maven context; the user's jgo settings may name another cache or a mirror."""
    from jgo.config import GlobalSettings
    from jgo.constants import MAVEN_CENTRAL_URL
    from jgo.maven import MavenContext

    settings = GlobalSettings.load()
    repositories = {
        **settings.repositories,
        "central": settings.repositories.get("central", MAVEN_CENTRAL_URL),
    }
    return MavenContext(repo_cache=settings.repo_cache, remote_repos=repositories, timeout=30)


def _artifact(context: Any, name: str) -> Any:
    group, artifact, version = name.split(":")
    return context.project(group, artifact).at_version(version).artifact()


def _bad(artifacts: dict[Any, str]) -> list[Any]:
    """Return the artifacts that the cache lacks or holds damaged."""
    return [artifact for artifact, sha256 in artifacts.items() if not _is_good(artifact.cached_path, sha256)]


def _is_good(path: Path, sha256: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256


def _download(artifacts: dict[Any, str], cache: Path) -> None:
    """Download under a lock on the cache, which other nodes of this user may be filling at the same time."""
    from filelock import FileLock

    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / ".glimpse.lock"), ThreadPoolExecutor(8) as pool:
        try:
            list(pool.map(_replace, _bad(artifacts)))
        except Exception as error:
            raise EngineError(
                f"Elasticsearch {VERSION} could not be downloaded from Maven Central "
                f"({type(error).__name__}): check the network connection, or set ELASTICSEARCH_URL to a "
                "running Elasticsearch."
            ) from error


def _replace(artifact: Any) -> None:
    """Download one jar anew: a download that was cut off leaves a part of the file in the cache."""
    artifact.cached_path.unlink(missing_ok=True)
    artifact.resolve()
