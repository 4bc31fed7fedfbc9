"""Which Elasticsearch to talk to, read from the environment or from the local node's process file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from es_config.errors import EngineError


@dataclass(frozen=True)
class EngineSettings:
    """Where Elasticsearch is and how to log in."""

    url: str
    """the address of a node, or of several with commas between them: when one is away, another is asked"""
    api_key: str | None = None
    ca_certs: Path | None = None
    local: bool = False
    """whether it is the local node of this machine"""

    @property
    def shown_url(self) -> str:
        """The addresses without user and password, as they may be printed."""
        parts = map(urlsplit, self.urls)
        return ",".join(each._replace(netloc=each.netloc.rpartition("@")[2]).geturl() for each in parts)

    @property
    def urls(self) -> list[str]:
        """Each address alone."""
        return self.url.split(",")


def glimpse_home(environ: Mapping[str, str]) -> Path:
    """Return GLIMPSE_HOME, by default the platform's folder for the data of a user's programs."""
    if environ.get("GLIMPSE_HOME"):
        return Path(environ["GLIMPSE_HOME"]).expanduser().absolute()
    import platformdirs

    return platformdirs.user_data_path("glimpse")


def engine_settings(environ: Mapping[str, str], home: Path) -> EngineSettings:
    """Return ELASTICSEARCH_URL (or ES_URL) with its key and CA, otherwise the running local node of `home`.

    Raises EngineError when there is neither, or when the URL or the CA file cannot be used.
    """
    url = remote_url(environ)
    if url is None:
        return EngineSettings(_local_url(environ, home), local=True)
    ca_certs = environ.get("ELASTICSEARCH_CA_CERTS") or None
    return EngineSettings(
        ",".join(_checked_url(each.strip()) for each in url.split(",")),
        _either(environ, "ELASTICSEARCH_API_KEY", "ES_API_KEY"),
        _checked_ca(Path(ca_certs).expanduser()) if ca_certs else None,
    )


def remote_url(environ: Mapping[str, str]) -> str | None:
    """Return ELASTICSEARCH_URL, or else ES_URL, as it is written; None where the local node is meant."""
    return _either(environ, "ELASTICSEARCH_URL", "ES_URL")


def _either(environ: Mapping[str, str], *names: str) -> str | None:
    return next((environ[name].strip() for name in names if environ.get(name, "").strip()), None)


def _local_url(environ: Mapping[str, str], home: Path) -> str:
    from es_config.local_node.node import LocalNode

    node = LocalNode(home, environ=environ).running()
    if node is None:
        raise EngineError("No Elasticsearch is running here: run `glimpse up` or set ELASTICSEARCH_URL.")
    if not node.ready:
        raise EngineError(
            "The local node is still starting: wait a few seconds, or run `glimpse up` to wait for it."
        )
    return node.url


def _checked_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise EngineError(f"ELASTICSEARCH_URL is '{url}': write it like https://elastic.example:9200.")
    return url.rstrip("/")


def _checked_ca(path: Path) -> Path:
    if not path.is_file():
        raise EngineError(
            f"ELASTICSEARCH_CA_CERTS names {path}, which is not a file: give the CA certificate as PEM."
        )
    return path
