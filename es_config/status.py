"""Where Elasticsearch is and what it holds, for `glimpse status`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from es_config.client import connect, engine_errors
from es_config.index import ImageIndex
from es_config.settings import engine_settings


@dataclass(frozen=True)
class Status:
    """The engine and its index at one moment; without an index there is neither profile nor image."""

    url: str
    kind: str
    """`local` for the node of this machine, else `remote`"""
    version: str
    index: str | None
    profile: str | None
    images: int


def read_status(environ: Mapping[str, str], home: Path, *, alias: str) -> Status:
    """Ask the Elasticsearch of `environ` and `home`. Raises EngineError when none answers."""
    settings = engine_settings(environ, home)
    with connect(settings) as client, engine_errors(settings.shown_url):
        version = client.info()["version"]["number"]
        index = ImageIndex(client, alias=alias)
        found = index.exists()
        return Status(
            url=settings.shown_url,
            kind="local" if settings.local else "remote",
            version=version,
            index=index.name() if found else None,
            profile=index.meta().profile if found else None,
            images=index.count() if found else 0,
        )


def describe_index(index: ImageIndex) -> dict[str, Any]:
    """Return the name, the number of images, the `_meta` and the vectors' index options of an index."""
    ((name, found),) = index.mappings().items()
    meta = asdict(index.meta())
    options = found["mappings"]["properties"]["image_embedding"]["index_options"]
    return {"index": name, "alias": index.alias, "images": index.count(), **meta, "index_options": options}
