"""Check everything that a search needs: this machine, Elasticsearch and its index."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from elasticsearch import Elasticsearch

from es_config.aliases import lift_dead_block
from es_config.bulk import restore_after_kill
from es_config.client import connect, engine_errors, engine_settings, read_version, remote_url
from es_config.documents import differences, lacking_fields
from es_config.errors import EngineError, NotAllowedError
from es_config.hidden import HiddenPictures
from es_config.index import ImageIndex
from es_config.local_node.install import find_java
from es_config.runs import in_words, read_runs

Found = TypeVar("Found")
SEE_DOCTOR = re.compile(r"see (its log, and )?`glimpse doctor`")
"""the way out of many sentences, which would lead in a circle here"""
LOW_DISK = 2 * 2**30
"""bytes; the local node takes no new index below it"""


@dataclass(frozen=True)
class Check:
    """The result of one check."""

    name: str
    ok: bool
    detail: str
    """the finding, or the fault with the way out"""


@dataclass(frozen=True)
class _Engine:
    """A server that answers, with the index to look at."""

    client: Elasticsearch
    url: str
    index: ImageIndex
    profile_dims: Mapping[str, int]


def examine(
    environ: Mapping[str, str], home: Path, *, alias: str, profile_dims: Mapping[str, int], store: str
) -> list[Check]:
    """Return the result of every check.

    `profile_dims` maps the known profiles to their dims, `store` is the address of the index's store.
    """
    checks = [
        _check("home", lambda: look_at_home(home)),
        _check("notes", lambda: look_at_notes(home)),
        _check("store", lambda: look_at_store(store)),
    ]
    checks += [] if remote_url(environ) else [_check("java", lambda: _java(environ))]
    try:
        settings = engine_settings(environ, home)
        client = connect(settings)
    except EngineError as error:
        return [*checks, Check("elasticsearch", False, SEE_DOCTOR.sub("see its log", str(error)))]
    with client:
        index = ImageIndex(client, alias=alias)
        engine = _Engine(client, settings.shown_url, index, profile_dims)
        checks += [_check(name, partial(look, engine)) for name, look in SERVER_CHECKS]
        try:
            found = index.exists()
        except EngineError as error:
            return [*checks, Check("index", False, str(error))]
        if found:
            return checks + [_check(name, partial(look, engine)) for name, look in INDEX_CHECKS]
        return [*checks, _check("index", partial(_nameless, engine))]


def _check(name: str, look: Callable[[], str]) -> Check:
    """Run one check. Its EngineError, or that of the server, explains the fault."""
    try:
        with engine_errors():
            return Check(name, True, look())
    except NotAllowedError as error:
        return Check(name, True, f"not shown: {error}")
    except EngineError as error:
        return Check(name, False, SEE_DOCTOR.sub("see the log of Elasticsearch", str(error)))


def _nameless(engine: _Engine) -> str:
    """Say that no index has the alias. Raises EngineError when one has lost it."""
    alias = engine.index.alias
    found = engine.client.indices.get(index=f"{alias}-*", expand_wildcards="all").body
    ours = [
        name
        for name, index in found.items()
        if "profile" in index["mappings"].get("_meta", {}) and not index["aliases"]
    ]
    if ours:
        pictures = engine.client.count(index=ours[-1])["count"]
        action = {"add": {"index": ours[-1], "alias": alias, "is_write_index": True}}
        raise EngineError(
            f"None is called '{alias}', and {ours[-1]} holds {pictures} pictures without that name: give it"
            f" back by `POST _aliases {json.dumps({'actions': [action]})}`."
        )
    return f"none called '{alias}' yet: run `glimpse ingest FOLDER`"


def _java(environ: Mapping[str, str]) -> str:
    java, notes = find_java(environ)
    speed = (
        "" if java.has_vectors else " (without jdk.incubator.vector: a full JDK would search twice as fast)"
    )
    return "; ".join([f"{java.version} in {java.home}{speed}", *notes])


def _licence(engine: _Engine) -> str:
    # The local node answers 400, as it has no licence service; it may also be named by ELASTICSEARCH_URL.
    answer = engine.client.options(ignore_status=[400, 404]).license.get()
    if "license" not in answer.body:
        return "basic features, no licence service"
    licence = answer.body["license"]
    if licence["status"] != "active":
        raise EngineError(
            f"The {licence['type']} licence is {licence['status']}: renew it, or go back to basic."
        )
    return f"{licence['type']}, {licence['status']}"


def _version_sentence(engine: _Engine) -> str:
    return f"version {read_version(engine.client) or 'unknown'} at {engine.url}"


def _disk_sentence(engine: _Engine) -> str:
    nodes = engine.client.nodes.stats(metric="fs")["nodes"].values()
    free = min(
        (node["fs"]["total"]["available_in_bytes"] for node in nodes if node["fs"]["total"]), default=None
    )
    if free is None:
        return "not shown by this server"
    if free < LOW_DISK:
        raise EngineError(
            f"Only {free / 2**30:.1f} GB are free where Elasticsearch keeps its data: free space there."
        )
    return f"{free / 2**30:.0f} GB of disk free"


def _shards_sentence(engine: _Engine) -> str:
    """Say whether every shard answers and has its copies."""
    health = engine.client.cluster.health(index=engine.index.alias, level="shards")
    lost = [
        f"shard {number} of {name}"
        for name, index in health["indices"].items()
        for number, shard in sorted(index["shards"].items())
        if not shard["primary_active"]
    ]
    if lost:
        raise EngineError(
            f"{', '.join(lost)} is not there, and searches miss its pictures: start the node that holds it"
            " again. If its files are damaged, restore a snapshot, or run `glimpse index delete` and ingest"
            " anew; Elasticsearch's log says why."
        )
    copies = int(health["unassigned_shards"])
    if copies:
        return (
            f"all answer; {copies} copies (replicas) are nowhere, as each needs a node of its own: add one,"
            " or create the index with `--replicas 0`"
        )
    return "all answer"


def _mapping(engine: _Engine) -> str:
    index = engine.index
    ((name, found),) = index.mappings().items()
    lacking = lacking_fields(found["mappings"])
    later = {f"{name} is missing" for name in lacking}
    wrong = [each for each in differences(index.meta(), found["mappings"]) if each not in later]
    if wrong:
        raise EngineError(
            f"{name} is not as Glimpse makes it ({'; '.join(wrong)}): run `glimpse index delete`, "
            "then ingest again."
        )
    kind = found["mappings"]["properties"]["image_embedding"]["index_options"]["type"]
    answer = f"{index.alias} is {name}, {kind}, {index.meta().similarity}"
    if lacking:
        answer += f"; made by an earlier version, without {', '.join(lacking)}: `glimpse ingest` adds them"
    return answer


def _profile_sentence(engine: _Engine) -> str:
    meta = engine.index.meta()
    if meta.profile not in engine.profile_dims:
        raise EngineError(
            f"The index holds vectors of profile '{meta.profile}', which this version lacks: use one "
            f"of {', '.join(engine.profile_dims)} and ingest again, or the version of Glimpse that made it."
        )
    return f"{meta.profile}, {meta.dims} dimensions"


def _refresh(engine: _Engine) -> str:
    runs, restored = restore_after_kill(engine.client, engine.index.alias)
    if not runs:
        return "as usual"
    named = "; ".join(map(str, runs))
    if restored:
        return f"restored: an ingest that was killed ({named}) had made it rare"
    return f"rare while an ingest writes ({named}): its pictures are searchable when it ends"


def _writable(engine: _Engine) -> str:
    run, lifted = lift_dead_block(engine.client, engine.index.alias)
    if lifted:
        return f"yes, again: a `glimpse reindex` that was killed ({run}) had left it blocked"
    if run:
        return f"not while `glimpse reindex` switches the index ({run})"
    answer = engine.client.indices.get_settings(index=engine.index.alias, flat_settings=True)
    settings = next(iter(answer.body.values()))["settings"]
    on = [name for name, value in settings.items() if name.startswith("index.blocks.") and value == "true"]
    if "index.blocks.read_only_allow_delete" in on:
        raise EngineError(
            "The index is read-only, as its disk was full: free space; the block lifts by itself."
        )
    if on:
        raise EngineError(f"The index is blocked by {', '.join(on)}: set it to null in the index's settings.")
    return "yes"


def _hidden(engine: _Engine) -> str:
    """Say how many pictures were put away, and complete moves that were killed."""
    hidden = HiddenPictures(engine.index)
    count = hidden.count()
    try:
        completed = hidden.finish()
    except NotAllowedError:  # a key that only reads leaves it to those that write
        completed = 0
    if completed:
        return f"{hidden.count()}; {completed} moves that were killed are completed"
    return str(count)


Looks = tuple[tuple[str, Callable[[_Engine], str]], ...]
SERVER_CHECKS: Looks = (
    ("elasticsearch", _version_sentence),
    ("licence", _licence),
    ("disk", _disk_sentence),
)
INDEX_CHECKS: Looks = (
    ("shards", _shards_sentence),
    ("mapping", _mapping),
    ("profile", _profile_sentence),
    ("writable", _writable),
    ("refresh", _refresh),
    ("images", lambda engine: str(engine.index.count())),
    ("hidden", _hidden),
)


LOOKING: Looks = (
    *SERVER_CHECKS[:1],
    ("disk", _disk_sentence),
    ("shards", _shards_sentence),
    ("profile", _profile_sentence),
)
"""checks that are quick and change nothing"""


def look_only(
    index: ImageIndex,
    *,
    home: Path,
    url: str,
    store: str,
    profile_dims: Mapping[str, int],
) -> list[Check]:
    """Return the results of the checks that are quick and change nothing, for a page that asks often."""
    engine = _Engine(index.client, url, index, profile_dims)
    checks = [
        _check("home", lambda: look_at_home(home)),
        _check("store", lambda: look_at_store(store)),
        _check("elasticsearch", lambda: LOOKING[0][1](engine)),
    ]
    if not checks[-1].ok:
        return checks
    looks = LOOKING[1:] if _check("index", lambda: str(index.name())).ok else LOOKING[1:2]
    return checks + [_check(name, partial(look, engine)) for name, look in looks]


@dataclass(frozen=True)
class Status:
    """The engine and its index at one moment. Without an index there is neither profile nor image."""

    url: str
    kind: str
    """`local` for the node of this machine, else `remote`"""
    version: str | None
    index: str | None
    profile: str | None
    images: int | None
    """the version, or these three, are None where the API key may not ask"""
    hidden: int | None = None
    """pictures that were put away"""
    running: str | None = None
    """what processes of this machine do to the index now"""


def read_status(environ: Mapping[str, str], home: Path, *, alias: str) -> Status:
    """Ask the Elasticsearch of `environ` and `home`. Raises EngineError when none answers."""
    settings = engine_settings(environ, home)
    with connect(settings) as client, engine_errors(settings.shown_url):
        index = ImageIndex(client, alias=alias)
        found = _allowed(index.exists)
        return Status(
            url=settings.shown_url,
            kind="local" if settings.local else "remote",
            version=read_version(client),
            index=_allowed(index.name) if found else None,
            profile=_allowed(lambda: index.meta().profile) if found else None,
            images=0 if found is False else _allowed(index.count),
            hidden=_allowed(HiddenPictures(index).count) if found else None,
            running=in_words(read_runs(home, alias)) or None,
        )


def _allowed(look: Callable[[], Found]) -> Found | None:
    """Return a finding, or None where the API key may not ask."""
    try:
        return look()
    except NotAllowedError:
        return None


def describe_index(index: ImageIndex) -> dict[str, Any]:
    """Return the name, the number of images, the `_meta` and the vectors' index options of an index."""
    ((name, found),) = index.mappings().items()
    meta = asdict(index.meta())
    options = found["mappings"]["properties"]["image_embedding"]["index_options"]
    return {"index": name, "alias": index.alias, "images": index.count(), **meta, "index_options": options}


LOW_ROOM = 2**30
"""bytes"""
NOTES = "ingested.sqlite"


def look_at_home(home: Path) -> str:
    """Say whether files can be written in GLIMPSE_HOME. Raises EngineError if not."""
    if not home.exists():
        return f"{home} is not there yet"
    try:
        with tempfile.TemporaryFile(dir=home) as file:
            file.write(b"Glimpse")
            file.flush()
    except OSError as error:
        raise EngineError(
            f"{home} cannot be written ({error.strerror}): free space, mend its rights, or set"
            " GLIMPSE_HOME to another folder."
        ) from error
    return str(home)


def look_at_notes(home: Path) -> str:
    """Say whether the notes of ingested files can be read. Raises EngineError if not."""
    path = home / NOTES
    if not path.exists():
        return "none yet"
    try:
        base = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=5)
        try:
            ((found,),) = base.execute("PRAGMA quick_check(1)").fetchall()
            ((files,),) = base.execute("SELECT count(*) FROM files").fetchall()
        finally:
            base.close()
    except sqlite3.Error as error:
        found = str(error)
    if found != "ok":
        raise EngineError(
            f"{path} is damaged or cannot be read ({found}): mend its rights, or delete it, and the next"
            " `glimpse ingest FOLDER` reads every file once more."
        )
    return f"files noted: {files}"


def look_at_store(store: str) -> str:
    """Say how much room there is for thumbnails and originals. Raises EngineError if there is little.

    `store` is an address such as `file:/path` or `s3://bucket/prefix`.
    """
    if store.startswith("s3:"):
        return "in a bucket, not looked at"
    folder = Path(store.removeprefix("file:")).expanduser().absolute()
    there = next((each for each in (folder, *folder.parents) if each.exists()), Path("/"))
    try:
        free = shutil.disk_usage(there).free
    except OSError as error:
        raise EngineError(
            f"The store {folder} cannot be looked at ({error.strerror}): mend its rights, or name another"
            " with GLIMPSE_STORE."
        ) from error
    if free < LOW_ROOM:
        raise EngineError(
            f"Only {free / 2**30:.1f} GB are free for the store at {folder}: free space there, or name"
            " another with GLIMPSE_STORE."
        )
    return f"{free / 2**30:.0f} GB free for it at {folder}"
