"""`glimpse up | down | status | doctor | keys | index`: the engine's commands."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from es_config.commands.options import AS_JSON, INDEX, MODELS, Decorator, open_client, say
from es_config.documents import INDEX_TYPES, SIMILARITIES
from es_config.home import START_TIMEOUT_S

if TYPE_CHECKING:
    from es_config.index import ImageIndex
    from es_config.local_node.node import LocalNode


def _option(name: str, kind: Any, text: str, **settings: Any) -> Decorator:
    return click.option(name, type=kind, help=text, show_default=True, **settings)


def _megabytes(_ctx: click.Context, _param: click.Parameter, text: str | None) -> int | None:
    match = re.fullmatch(r"(\d+)\s*(m|g)?b?", text.strip().lower()) if text else None
    if text and match is None:
        raise click.BadParameter(f"'{text}' is not a size: write 512m, 2g or a number of megabytes.")
    return int(match[1]) * (1024 if match[2] == "g" else 1) if match else None


@click.command()
@_option("--port", click.IntRange(1, 65535), "Port on 127.0.0.1; else the last one, or the first free.")
@_option("--heap", str, "Java heap, as 512m or 2g; else by the memory.", callback=_megabytes)
@_option("--timeout", click.FloatRange(1), "Seconds to wait.", default=START_TIMEOUT_S)
@AS_JSON
def up(port: int | None, heap: int | None, timeout: float, as_json: bool) -> None:
    """Start the local Elasticsearch node and wait until it can be searched.

    It runs in the background, for this machine alone: it has no login. Its data stays when it stops.

    \b
    Example:
      glimpse up --heap 2g
    """
    from es_config.client import remote_url

    started = _local_node().up(port=port, heap_mb=heap, timeout_s=timeout)
    if remote_url(os.environ):
        click.echo("ELASTICSEARCH_URL is set: the other commands go there, not to the local node.", err=True)
    what = f"is up ({started.seconds:.1f} s)" if started.new else "was up already"
    answer = {"url": started.node.url, "pid": started.node.pid, "started": started.new}
    answer["seconds"] = round(started.seconds, 1)
    _print(answer, f"Elasticsearch {what}: {started.node.url}", as_json)


@click.command()
@AS_JSON
def down(as_json: bool) -> None:
    """Stop the local Elasticsearch node. The pictures stay in its index.

    \b
    Example:
      glimpse down
    """
    stopped = _local_node().down()
    _print({"stopped": stopped}, "Elasticsearch is down." if stopped else "No local node was up.", as_json)


@click.command()
@INDEX
@AS_JSON
def status(alias: str, as_json: bool) -> None:
    """Say where Elasticsearch is, how full its index is, which runs there are, and whether all is well.

    \b
    Example:
      glimpse status --json
    """
    from es_config.doctor import read_status
    from es_config.overview import in_lines, read_overview
    from models.profiles import PROFILES

    found = asdict(read_status(os.environ, _home(), alias=alias))
    dims = {profile.name: profile.dims for profile in PROFILES.values()}
    now = read_overview(
        _open_index(alias), home=_home(), url=found["url"], store=_store(alias), profile_dims=dims
    )
    lines = [_table({**found, **in_lines(now)})]
    _print({**found, "overview": now.to_json()}, "\n".join(lines), as_json)


@click.command()
@INDEX
@AS_JSON
def doctor(alias: str, as_json: bool) -> None:
    """Check everything, and say how to mend each fault. Exit code 1 if there is one.

    \b
    Example:
      glimpse doctor
    """
    from es_config.doctor import examine
    from models.profiles import PROFILES

    dims = {profile.name: profile.dims for profile in PROFILES.values()}
    checks = examine(os.environ, _home(), alias=alias, profile_dims=dims, store=_store(alias))
    healthy = all(check.ok for check in checks)
    lines = [f"{'ok   ' if check.ok else 'WRONG'}  {check.name:<14} {check.detail}" for check in checks]
    _print({"ok": healthy, "checks": [asdict(check) for check in checks]}, "\n".join(lines), as_json)
    if not healthy:
        raise SystemExit(1)


@click.command()
@INDEX
@AS_JSON
def keys(alias: str, as_json: bool) -> None:
    """Print requests that create API keys with the fewest privileges, for three kinds of machines.

    A searching, an ingesting and an uploading machine. Nothing is sent. Whoever may create API keys sends
    one, and sets ELASTICSEARCH_API_KEY on the machine to what the answer calls `encoded`.

    \b
    Example:
      glimpse keys --index images
    """
    from es_config.client import EngineSettings, remote_url
    from es_config.keys import key_requests

    requests = key_requests(alias)
    url = EngineSettings(remote_url(os.environ) or "https://elastic.example:9200").shown_url.split(",")[0]
    ca_certs = os.environ.get("ELASTICSEARCH_CA_CERTS")
    shown = [
        f"# {each.machine}: {each.commands}\n{each.as_curl(url, ca_certs=ca_certs)}" for each in requests
    ]
    _print({each.machine: each.body for each in requests}, "\n\n".join(shown), as_json)


@click.group()
def index() -> None:
    """Create, show or delete the index.

    \b
    Example:
      glimpse index status
    """


@index.command("create")
@MODELS
@_option("--index-type", click.Choice(INDEX_TYPES), "How vectors are kept.", default="int8_hnsw")
@_option("--similarity", click.Choice(SIMILARITIES), "Instead of the profile's.")
@_option("--m", click.IntRange(2, 512), "Neighbours that a node of the graph keeps.", default=16)
@_option("--ef-construction", click.IntRange(2, 3200), "Candidates when the graph grows.", default=100)
@_option("--shards", click.IntRange(1), "Primary shards.", default=1)
@_option("--replicas", click.IntRange(0), "Copies of each shard.", default=0)
@click.option(
    "--replicas-later", is_flag=True, help="Make the copies when the first ingest ends, see docs/scale.md."
)
@INDEX
@AS_JSON
def create_index(
    profile: str | None, model_dir: Path | None, alias: str, as_json: bool, index_type: str, **options: Any
) -> None:
    """Create an empty index for the vectors of a profile.

    \b
    Example:
      glimpse index create --profile clip --index-type int4_hnsw
    """
    from es_config.documents import IndexMeta, IndexOptions
    from models.profiles import default_profile, get_profile

    row = get_profile(profile or default_profile(os.environ), model_dir=model_dir)
    weights = row.revisions()
    meta = IndexMeta(row.name, weights, row.dims, row.caption_dims, row.similarity)
    name = _open_index(alias).create(meta, IndexOptions(type=index_type, **options))
    _print({"index": name, "alias": alias}, f"Created {name}; search it as {alias}.", as_json)


@index.command("status")
@INDEX
@AS_JSON
def index_status(alias: str, as_json: bool) -> None:
    """Show the index: its name, models, options and number of pictures.

    \b
    Example:
      glimpse index status
    """
    from es_config.doctor import describe_index

    answer = describe_index(_open_index(alias))
    _print(answer, _table(answer), as_json)


@index.command("delete")
@click.option("--yes", is_flag=True, help="Do not ask.")
@INDEX
@AS_JSON
def delete_index(yes: bool, alias: str, as_json: bool) -> None:
    """Delete the index with everything in it. The picture files stay untouched.

    \b
    Example:
      glimpse index delete --yes
    """
    opened = _open_index(alias)
    name = opened.name()
    if not yes:
        click.confirm(f"Delete {name} with {opened.count()} pictures?", abort=True, err=True)
    opened.delete()
    _print({"deleted": name}, f"Deleted {name}.", as_json)


def _home() -> Path:
    from es_config.client import glimpse_home

    return glimpse_home(os.environ)


def _store(alias: str) -> str:
    from storage.store import default_store

    return os.environ.get("GLIMPSE_STORE") or default_store(_home(), alias)


def _local_node() -> LocalNode:
    from es_config.local_node.node import LocalNode

    return LocalNode(_home(), environ=os.environ, say=say)


def _open_index(alias: str) -> ImageIndex:
    from es_config.index import ImageIndex

    return ImageIndex(open_client(), alias=alias)


def _table(values: Mapping[str, Any]) -> str:
    width = max(len(name) for name in values) + 2
    return "\n".join(f"{name:<{width}}{'–' if value is None else value}" for name, value in values.items())


def _print(answer: Mapping[str, Any], text: str, as_json: bool) -> None:
    click.echo(json.dumps(answer, indent=2) if as_json else text)
