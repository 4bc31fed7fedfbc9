"""`glimpse reindex`."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import click

from es_config.commands.options import (
    AS_JSON,
    BACKEND,
    FOLDER,
    INDEX,
    ON,
    complete_remedies,
    exit_with,
    open_client,
    open_workers,
    say,
    store_option,
)


@click.command()
@click.option("--profile", help="Build the new index with this profile's models.")
@click.option("--model-dir", type=FOLDER, help="Take that profile's models from this folder.")
@INDEX
@store_option("Look for originals here too.")
@click.option(
    "--originals-from",
    "folders",
    multiple=True,
    type=FOLDER,
    help="Look for pictures below this folder, which was ingested elsewhere; may be repeated.",
)
@BACKEND
@ON
@click.option("--no-switch", is_flag=True, help="Only build; the same command then switches.")
@click.option("--allow-missing", is_flag=True, help="Switch even if pictures could not be found.")
@click.option("--back", is_flag=True, help="Only put the former index behind the alias again.")
@AS_JSON
def reindex(
    *,
    profile: str | None,
    model_dir: Path | None,
    alias: str,
    store: str | None,
    folders: tuple[Path, ...],
    precision: str,
    backend: str,
    on: str | None,
    no_switch: bool,
    allow_missing: bool,
    back: bool,
    as_json: bool,
) -> None:
    """Build a new index with other models beside the old one, then put it behind the alias at once.

    Searches go on all the time, in the old index until the switch. Pictures are read from where they were
    ingested, or else from the store. Captions, keywords, paths and everything else except vectors stay.
    Ctrl-C is safe, and so is a crash: the same command goes on from there. The old index is kept.

    \b
    Example:
      glimpse reindex --profile clip --no-switch
      glimpse reindex --profile clip
      glimpse reindex --back
    """
    from es_config.client import glimpse_home
    from es_config.runs import RunFile
    from ingest.reindex import GO_ON, ReindexReport, SameModelsError, open_reindexer
    from ingest.report import open_progress
    from ingest.wiring import EncoderOptions, IngestSettings
    from ingest.workers.wiring import shared_reindex
    from models.fast.choose import Requested
    from search_app.settings import SearchSettings
    from search_app.wiring import profile_of

    if back == bool(profile):
        raise click.UsageError("Give either --profile or --back.")
    if profile is None:
        _go_back(alias, as_json=as_json)
        return
    crew = open_workers(on)
    encoder = EncoderOptions(requested=Requested(backend, precision), say=say)
    settings = IngestSettings(profile, model_dir, alias, store, encoder)
    file = RunFile(glimpse_home(os.environ), alias)
    progress = open_progress(doing="Reindexing", noun="pictures", file=file)
    folder = os.environ.get("GLIMPSE_MODEL_DIR")
    former_dir = Path(folder) if folder else None
    try:
        with (
            open_reindexer(settings, os.environ, folders=folders, progress=progress) as reindexer,
            shared_reindex(crew, reindexer, settings=settings, environ=os.environ, say=say) as work,
        ):
            reindexer.work = work
            summary = reindexer.run(switch=not no_switch, allow_missing=allow_missing)
            report = ReindexReport(
                reindexer=reindexer,
                model_dir=model_dir,
                former=profile_of(reindexer.old, SearchSettings(reindexer.old.meta().profile, former_dir)),
                former_dir=former_dir,
                store=store,
            )
            click.echo(
                json.dumps(summary.as_dict(), indent=2)
                if as_json
                else complete_remedies(report.paragraphs(summary))
            )
    except SameModelsError as error:
        raise click.UsageError(str(error)) from error
    except KeyboardInterrupt:
        say(GO_ON)
        raise SystemExit(130) from None
    would_lose = bool(summary.missing) and not allow_missing
    if summary.interrupted:
        say(GO_ON)
    elif would_lose:
        say(report.not_switched(summary))
    exit_with(interrupted=summary.interrupted, failed=would_lose)


def _go_back(alias: str, *, as_json: bool) -> None:
    from es_config.aliases import Alias
    from es_config.hidden import HiddenPictures
    from es_config.index import ImageIndex

    client = open_client()
    switched = Alias(client, alias=alias).back()
    HiddenPictures(ImageIndex(client, alias=alias)).finish()  # they stay away from the former index, too
    text = (
        f"'{alias}' is {switched.now} again, in place of {switched.former}.\n"
        f"What came in since the switch is in {switched.former}"
        " only; `glimpse reindex --back` returns to it."
    )
    click.echo(json.dumps({"switched": asdict(switched)}, indent=2) if as_json else text)
