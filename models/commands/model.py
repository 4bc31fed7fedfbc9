"""`glimpse model`: the profiles, and the text model in Elasticsearch."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from es_config.commands.options import (
    AS_JSON,
    INDEX,
    MODELS,
    VOICE_MODEL,
    Decorator,
    keep_option,
    open_client,
    own_profile,
    say,
    setting,
    together,
)

if TYPE_CHECKING:
    from es_config.text_model import ModelStatus, TrainedModel

POSITIVE = click.IntRange(min=1)
LOW_PRIORITY = 10
"""of Unix, where the lowest is 19"""


def option(name: str, text: str, **more: Any) -> Decorator:
    """Return a click option."""
    return click.option(name, help=text, show_default="default" in more, **more)


PROFILE = together(
    MODELS,
    INDEX,
    setting(
        "--es-model-id",
        "GLIMPSE_ES_MODEL_ID",
        callback=keep_option,
        help="Id in Elasticsearch; by default the profile's.",
    ),
)
DEPLOYMENT = together(
    option("--number-of-allocations", "Texts embedded at the same time.", default=1, type=POSITIVE),
    option("--threads-per-allocation", "Threads for each text.", default=1, type=POSITIVE),
    option("--queue-capacity", "Texts that may wait in the queue.", default=1024, type=POSITIVE),
)
EXPORT = together(
    option("--hub-model-id", "Another text model, by its hub name or folder."),
    option(
        "--task-type", "Task of the model.", default="text_embedding", type=click.Choice(["text_embedding"])
    ),
    option("--max-model-input-length", "Longest text in tokens; by default the model's own.", type=POSITIVE),
)


def on_model(command: Callable[..., None]) -> Callable[..., None]:
    """Hand the command its trained model, and show the model's status afterwards."""

    @wraps(command)
    def run(
        profile: str | None,
        model_dir: Path | None,
        es_model_id: str | None,
        alias: str,
        as_json: bool,
        **options: Any,
    ) -> None:
        from es_config.text_model import TrainedModel
        from models.profiles import get_profile

        client = open_client()
        if es_model_id is None:
            row = get_profile(profile or own_profile(client, alias), model_dir=model_dir)
            es_model_id = row.es_model_id
        trained = TrainedModel(client, model_id=es_model_id)
        command(trained, **options)
        _show(trained.status(), as_json=as_json)

    on_command: Callable[..., None] = PROFILE(AS_JSON(run))
    return on_command


@click.group()
def model() -> None:
    """Show the profiles, and put the text model into Elasticsearch.

    \b
    Example:
      glimpse model list
      glimpse model upload --start
      glimpse model status
    """


@model.command("list")
@AS_JSON
def list_profiles(as_json: bool) -> None:
    """Show the profiles: which models belong together, and which of them this machine can run."""
    from es_config.local_node.node import memory_megabytes
    from models.hub import free_megabytes
    from models.profiles import PROFILES

    memory_mb, disk_mb = memory_megabytes(), free_megabytes()
    lacks = {name: row.lacks(memory_mb=memory_mb, disk_mb=disk_mb) for name, row in PROFILES.items()}
    rows = [{**row.to_json(), "lacks": lacks[name] or None} for name, row in PROFILES.items()]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        click.echo(f"{row['name']:{width}} {row['description']}")
        facts = (
            f"{row['dims']} dims, {row['languages']}, lanes: {' and '.join(row['text_lanes'])}",
            f"{row['size_mb']} MB to download for all five models, {row['licence']}",
            f"about {row['memory_mb'] / 1000:.1f} GB of memory: "
            + (f"too much, {row['lacks']}" if row["lacks"] else "fits this machine"),
            f"text model in Elasticsearch: {row['es_model_id'] or 'none'}",
        )
        click.echo("".join(f"{'':{width}} {fact}\n" for fact in facts), nl=False)


@model.command("fetch")
@setting("--profile", "GLIMPSE_PROFILE", default="clip", help="Which models; see `glimpse model list`.")
@VOICE_MODEL
@click.option(
    "--to",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Write them into the folders of FOLDER that --model-dir takes, instead of the cache.",
)
@click.option("--verify", is_flag=True, help="Compare files that are there with the hub's checksums too.")
def fetch_models(profile: str, voice_model: str | None, to: Path | None, verify: bool) -> None:
    """Download all models of a profile, and go on with a download that was cut.

    Searches and ingests need no internet afterwards. With --verify, damaged files are downloaded anew.

    \b
    Example:
      glimpse model fetch
      glimpse model fetch --profile siglip2 --to /media/usb/models
    """
    from dataclasses import replace

    from models.hub import cache_folder, download_bar, fetch
    from models.profiles import get_profile

    row = get_profile(profile)
    models = replace(row, voice_model=voice_model or row.voice_model).models()
    say(f"Fetching the models of profile {profile}: about {row.size_mb} MB, less those that are here.")
    with download_bar() as report:
        fetch(models, to=to, verify=verify, report=report)
    click.echo(f"The models of profile {profile} are in {to or cache_folder()}.")
    if to:
        click.echo(f"Use them with --profile {profile} --model-dir {shlex.quote(str(to))}")


@model.command()
@MODELS
@INDEX
@click.option("--low-priority", is_flag=True, help="Let other programs go first.")
def prepare(profile: str | None, model_dir: Path | None, alias: str, *, low_priority: bool) -> None:
    """Make the form of the models in which a search starts at once.

    The first search makes it otherwise, which takes seconds, and with large models a minute. `glimpse start`
    and `glimpse serve` make it while they get ready, and `glimpse ingest` on a terminal starts this command
    once the pictures are searchable.

    \b
    Example:
      glimpse model prepare
    """
    from es_config.client import cache_folder
    from models.fast.standalone import QuickTowers
    from models.profiles import get_profile

    if low_priority and hasattr(os, "nice"):
        os.nice(LOW_PRIORITY)
    name = own_profile(open_client(), alias, asked=profile)
    QuickTowers(get_profile(name, model_dir=model_dir), cache_folder(os.environ)).make()
    say(f"Searches with the models of profile {name} start at once.")


@model.command()
@PROFILE
@EXPORT
@click.option("--clear-previous", is_flag=True, help="Replace a model that has this id.")
@click.option("--start", is_flag=True, help="Start the model as well.")
@DEPLOYMENT
@AS_JSON
def upload(
    *,
    profile: str | None,
    model_dir: Path | None,
    alias: str,
    es_model_id: str | None,
    hub_model_id: str | None,
    task_type: str,
    max_model_input_length: int | None,
    clear_previous: bool,
    start: bool,
    as_json: bool,
    **deployment: int,
) -> None:
    """Put a text model into Elasticsearch.

    \b
    Example:
      glimpse model upload --start
      glimpse model upload --clear-previous --start
    """
    from es_config.text_model import TextModelSource, TrainedModel, check_model_id
    from es_config.text_model import upload as upload_model
    from models.profiles import upload_source

    if es_model_id is not None:
        check_model_id(es_model_id)
    client = open_client()
    found = upload_source(
        profile or own_profile(client, alias),
        model_dir=model_dir,
        hub_model_id=hub_model_id,
        given_id=es_model_id,
    )
    source = TextModelSource(
        found.folder,
        name=found.name,
        revision=found.revision,
        dims=found.dims,
        task_type=task_type,
        max_model_input_length=max_model_input_length,
    )
    uploaded = TrainedModel(client, model_id=found.es_model_id)
    upload_model(uploaded, source, clear_previous=clear_previous, say=say)
    if start:
        _start(uploaded, deployment)
    _show(uploaded.status(), as_json=as_json)


@model.command()
@on_model
def status(_trained: TrainedModel) -> None:
    """Show the text model's state in Elasticsearch."""


@model.command("start")
@DEPLOYMENT
@on_model
def start_model(trained: TrainedModel, **deployment: int) -> None:
    """Start the text model, and wait until it answers."""
    _start(trained, deployment)


@model.command()
@click.option("--force", is_flag=True, help="Stop it even if an ingest pipeline uses it.")
@on_model
def stop(trained: TrainedModel, force: bool) -> None:
    """Stop the text model and keep it uploaded."""
    trained.stop(force=force)


@model.command()
@click.option("--force", is_flag=True, help="Stop it first if it is started.")
@on_model
def delete(trained: TrainedModel, force: bool) -> None:
    """Remove the text model from Elasticsearch."""
    trained.delete(force=force)


def _start(trained: TrainedModel, deployment: dict[str, int]) -> None:
    from es_config.text_model import DeploymentOptions

    say(f"Starting {trained.model_id}")
    trained.start(DeploymentOptions(**deployment))


def _show(found: ModelStatus, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(asdict(found), indent=2))
        return
    line = f"{found.model_id}: {found.state}"
    if found.state != "absent":
        line += f", {found.dims} dims, {found.size_bytes / 1e6:.1f} MB"
    if found.number_of_allocations:
        line += f", {found.number_of_allocations} × {found.threads_per_allocation} threads"
        line += f", {found.inference_count} texts embedded"
    click.echo(line + (f" ({found.reason})" if found.reason else ""))
