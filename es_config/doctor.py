"""Check everything that a search needs, and say where Elasticsearch is and what it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from es_config.bulk import is_loading, put_back
from es_config.client import EngineSettings, connect, engine_errors, engine_settings, remote_url
from es_config.errors import EngineError
from es_config.index import ImageIndex
from es_config.local_node.install import find_java
from es_config.mapping import differences

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

LOW_DISK = 2 * 2**30
"""bytes; the local node takes no new index below it"""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool
    detail: str
    """what was found, or what is wrong with the way out"""


def examine(
    environ: Mapping[str, str], home: Path, *, alias: str, profile_dims: Mapping[str, int]
) -> list[Check]:
    """Return every check that can be made; `profile_dims` maps the known profiles to their dims."""
    checks = [] if remote_url(environ) else [_check("java", lambda: _java(environ))]
    try:
        settings = engine_settings(environ, home)
        client = connect(settings)
    except EngineError as error:
        return [*checks, Check("elasticsearch", False, str(error))]
    with client:
        return [*checks, *_examine_server(client, settings, ImageIndex(client, alias=alias), profile_dims)]


def _examine_server(
    client: Elasticsearch, settings: EngineSettings, index: ImageIndex, profile_dims: Mapping[str, int]
) -> Iterator[Check]:
    yield _check("elasticsearch", lambda: f"{client.info()['version']['number']} at {settings.shown_url}")
    yield _check("licence", lambda: _licence(client))
    yield _check("disk", lambda: _disk(client))
    if not index.exists():
        yield Check(
            "index", True, f"none called '{index.alias}' yet: run `glimpse ingest` on a folder of pictures"
        )
        return
    yield _check("mapping", lambda: _mapping(index))
    yield _check("profile", lambda: _profile(index, profile_dims))
    yield _check("writable", lambda: _writable(client, index))
    yield _check("refresh", lambda: _refresh(client, index))
    yield _check("images", lambda: str(index.count()))


def _check(name: str, look: Callable[[], str]) -> Check:
    """Run one look; an EngineError, of the look or of the server, is what is wrong."""
    try:
        with engine_errors():
            return Check(name, True, look())
    except EngineError as error:
        return Check(name, False, str(error))


def _java(environ: Mapping[str, str]) -> str:
    java, notes = find_java(environ)
    speed = (
        "" if java.has_vectors else " (without jdk.incubator.vector: a full JDK would search twice as fast)"
    )
    return "; ".join([f"{java.version} in {java.home}{speed}", *notes])


def _licence(client: Elasticsearch) -> str:
    # The local node answers 400, as it has no licence service; it may also be named by ELASTICSEARCH_URL.
    answer = client.options(ignore_status=[400, 404]).license.get()
    if "license" not in answer.body:
        return "basic features, no licence service"
    licence = answer.body["license"]
    if licence["status"] != "active":
        raise EngineError(
            f"The {licence['type']} licence is {licence['status']}: renew it, or go back to basic."
        )
    return f"{licence['type']}, {licence['status']}"


def _disk(client: Elasticsearch) -> str:
    nodes = client.nodes.stats(metric="fs")["nodes"].values()
    free = min(
        (node["fs"]["total"]["available_in_bytes"] for node in nodes if node["fs"]["total"]), default=None
    )
    if free is None:
        return "not shown by this server"
    if free < LOW_DISK:
        raise EngineError(
            f"Only {free / 2**30:.1f} GB are free where Elasticsearch keeps its data: free space there."
        )
    return f"{free / 2**30:.0f} GB free"


def _mapping(index: ImageIndex) -> str:
    ((name, found),) = index.mappings().items()
    wrong = differences(index.meta(), found["mappings"])
    if wrong:
        raise EngineError(
            f"{name} is not as Glimpse makes it ({'; '.join(wrong)}): run `glimpse index delete`, "
            "then ingest again."
        )
    kind = found["mappings"]["properties"]["image_embedding"]["index_options"]["type"]
    return f"{index.alias} is {name}, {kind}, {index.meta().similarity}"


def _profile(index: ImageIndex, profile_dims: Mapping[str, int]) -> str:
    meta = index.meta()
    if meta.profile not in profile_dims:
        raise EngineError(
            f"The index holds vectors of profile '{meta.profile}', which this version lacks: use one of "
            f"{', '.join(profile_dims)} and ingest again, or the version of Glimpse that made the index."
        )
    return f"{meta.profile}, {meta.dims} dims"


def _refresh(client: Elasticsearch, index: ImageIndex) -> str:
    if not is_loading(client, index.alias):
        return "as usual"
    if put_back(client, index.alias):
        return "put back: an ingest that was killed had left it off"
    return "rare while an ingest writes: what it adds is searchable when it ends"


def _writable(client: Elasticsearch, index: ImageIndex) -> str:
    blocks: dict[str, Any] = client.indices.get_settings(index=index.alias, flat_settings=True).body
    settings = next(iter(blocks.values()))["settings"]
    on = [name for name, value in settings.items() if name.startswith("index.blocks.") and value == "true"]
    if "index.blocks.read_only_allow_delete" in on:
        raise EngineError(
            "The index is read-only, as its disk was full: free space; the block lifts by itself."
        )
    if on:
        raise EngineError(f"The index is blocked by {', '.join(on)}: set it to null in the index's settings.")
    return "yes"


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
