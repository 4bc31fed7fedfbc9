"""`glimpse reindex`."""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from es_config.commands.options import AS_JSON, BACKEND, FOLDER, INDEX, open_client, say, store_option

if TYPE_CHECKING:
    from ingest.reindex.reindex import Filled, Outcome
    from ingest.reindex.wiring import ReindexParts
    from models.profiles import Profile

GO_ON = "Interrupted. Searches go on in the former index; the same command goes on from there."


def say_outcome(parts: ReindexParts, outcome: Outcome, *, store: str | None) -> list[str]:
    """Return paragraphs."""
    said = [_filled(outcome.filled)]
    if outcome.switched:
        said.append(_switched(parts, outcome))
    elif not (outcome.filled.missing or outcome.filled.interrupted):
        said.append(
            f"'{parts.alias.name}' is {parts.old.name()} as before. The same command without --no-switch puts"
            f" {outcome.filled.index} in its place; `glimpse search --index {parts.alias.next}` tries it."
        )
    if not outcome.filled.interrupted and (command := comparing(parts, store=store)):
        said.append(f"To compare the former models with the new ones on your pictures:\n  {command}")
    return said


def comparing(parts: ReindexParts, *, store: str | None) -> str | None:
    """Return the command that compares the two models, or None if the former ones are not here."""
    from models.profiles import PROFILES

    former, new = former_profile(parts), parts.profile
    if former is None:
        return None
    folder = None if former == PROFILES[former.name] else os.environ["GLIMPSE_MODEL_DIR"]
    name = "new" if new.name == former.name else new.name
    pair = (_named(former.name, folder), _named(name, parts.model_dir))
    words = ["glimpse", "evaluate", "--profiles", ",".join(pair)]
    words += ["--index", parts.alias.name] if parts.alias.name != "images" else []
    return shlex.join(words + (["--store", store] if store else []))


def _named(name: str, folder: Path | str | None) -> str:
    return f"{name}={folder}" if folder else name


def former_profile(parts: ReindexParts) -> Profile | None:
    """Return the models of the index that answered before: of the table, or of GLIMPSE_MODEL_DIR."""
    from search_app.settings import SearchSettings
    from search_app.wiring import profile_of

    folder = os.environ.get("GLIMPSE_MODEL_DIR")
    return profile_of(parts.old, SearchSettings(parts.old.meta().profile, Path(folder) if folder else None))


def _filled(filled: Filled) -> str:
    counts = {"embedded": filled.embedded, "otherwise changed": filled.updated, "left": filled.deleted}
    parts = [f"{count} {what}" for what, count in counts.items() if count or what == "embedded"]
    copies = f" ({filled.from_copies} from WebP copies)" if filled.from_copies else ""
    missing = f", {len(filled.missing)} missing" if filled.missing else ""
    done = ", ".join(parts).replace("embedded", f"embedded{copies}", 1)
    return f"{filled.index} holds {filled.images} pictures: {done}{missing}, in {filled.seconds:.1f} s."


def not_switched(parts: ReindexParts, filled: Filled) -> str:
    """Return why the next index is not put behind the alias, and the way out."""
    return (
        f"Error: '{parts.alias.name}' is {parts.old.name()} as before: {len(filled.missing)} of its pictures"
        " would be lost. Name the folders that hold them with --originals-from, or add --allow-missing."
    )


def _switched(parts: ReindexParts, outcome: Outcome) -> str:
    switched, profile = outcome.switched, parts.profile.name
    folder = f" --model-dir {parts.model_dir}" if parts.model_dir else ""
    calibrate = " and `glimpse calibrate`" if parts.old.meta().relevance else ""
    lines = [
        f"'{parts.alias.name}' is {switched.now} now, in place of {switched.former}.",
        f"Commands need --profile {profile}{folder} now; a running `glimpse serve` follows by itself.",
        f"Run `glimpse tune`{calibrate}: what was measured belongs to the former vectors.",
        *_text_model(parts, folder),
        f"`glimpse reindex --back` goes back to {switched.former}; `glimpse index delete --index"
        f" {parts.alias.former}` deletes it.",
    ]
    if switched.left:
        lines.append(
            f"No alias names {switched.left} any more: `glimpse index delete --index {switched.left}`."
        )
    return "\n".join(lines)


def _text_model(parts: ReindexParts, folder: str) -> list[str]:
    """Name the model that Elasticsearch needs if it embedded the texts of the former index."""
    from es_config.text_model import TrainedModel

    former, new = former_profile(parts), parts.profile
    if former is None or TrainedModel(parts.client, model_id=former.es_model_id).status().state != "started":
        return []
    if "infer" not in new.text_lanes:
        return [f"The text model of profile {new.name} runs in the commands, not in Elasticsearch."]
    status = TrainedModel(parts.client, model_id=new.es_model_id).status()
    if status.state == "started" and status.revision in (None, new.text_revision()):
        return []
    clear = "" if status.state == "absent" else " --clear-previous"
    command = f"glimpse model upload --profile {new.name}{folder}{clear} --start"
    return [f"Run `{command}`: until then texts are embedded in the commands, not in Elasticsearch."]


INTERRUPTED = 130


@click.command()
@click.option("--profile", help="Whose vectors the new index is to hold.")
@click.option("--model-dir", type=FOLDER, help="Take that profile's models from this folder.")
@INDEX
@store_option("Where originals may be kept.")
@click.option(
    "--originals-from",
    "folders",
    multiple=True,
    type=FOLDER,
    help="Look for pictures below this folder, which was ingested elsewhere; may be repeated.",
)
@BACKEND
@click.option("--no-switch", is_flag=True, help="Only build; the same command then switches.")
@click.option("--allow-missing", is_flag=True, help="Switch even if pictures could not be found.")
@click.option(
    "--back", is_flag=True, help="Put the former index behind the alias again, and do nothing else."
)
@AS_JSON
def reindex(
    *, profile, model_dir, alias, store, folders, precision, backend, back, as_json, **options
) -> None:
    """Build a new index with other models beside the old one, then put it behind the alias at once.

    Searches go on all the time, in the old index until the switch. Pictures are read from where they were
    ingested, or else from the store. Captions, keywords, paths and whatever else is not a vector stay.
    Ctrl-C is safe, and so is a crash: the same command goes on from there. The old index is kept.

    \b
    Example:
      glimpse reindex --profile clip --no-switch
      glimpse reindex --profile clip
      glimpse reindex --back
    """
    from ingest.reindex.reindex import SameModelsError
    from ingest.reindex.wiring import open_reindex
    from ingest.report import open_progress
    from ingest.wiring import EncoderOptions, IngestSettings
    from models.fast.execution import Requested

    if back == bool(profile):
        raise click.UsageError("Give either --profile or --back.")
    if back:
        _go_back(alias, as_json=as_json)
        return
    encoder = EncoderOptions(requested=Requested(backend, precision), say=say)
    settings = IngestSettings(profile, model_dir, alias, store, encoder)
    progress = open_progress(doing="Reindexing", noun="pictures")
    try:
        with open_reindex(settings, os.environ, folders=folders, progress=progress) as parts:
            outcome = _outcome(parts, **options)
            allow_missing = options["allow_missing"]
            _finish(parts, outcome, store=store, as_json=as_json, allow_missing=allow_missing)
    except SameModelsError as error:
        raise click.UsageError(str(error)) from error
    except KeyboardInterrupt:
        say(GO_ON)
        raise SystemExit(INTERRUPTED) from None


def _outcome(parts: ReindexParts, *, no_switch: bool, allow_missing: bool) -> Outcome:
    """Fill the next index, and switch unless that was not wanted or would lose pictures."""
    from ingest.reindex.reindex import Outcome

    with parts.progress:
        filled = parts.work.fill()
    if filled.interrupted or no_switch or (filled.missing and not allow_missing):
        return Outcome(filled)
    return Outcome(*parts.work.switch(allow_missing=allow_missing))


def _finish(
    parts: ReindexParts, outcome: Outcome, *, store: str | None, as_json: bool, allow_missing: bool
) -> None:
    """Print the result and end with the exit code."""
    if as_json:
        click.echo(json.dumps(outcome.as_dict(), indent=2))
    else:
        click.echo("\n\n".join(say_outcome(parts, outcome, store=store)))
    if outcome.filled.interrupted:
        say(GO_ON)
        raise SystemExit(INTERRUPTED)
    if outcome.filled.missing and not allow_missing:
        say(not_switched(parts, outcome.filled))
        raise SystemExit(1)


def _go_back(alias: str, *, as_json: bool) -> None:
    from es_config.aliases import Alias

    aliases = Alias(open_client(), alias=alias)
    switched = aliases.back()
    profile = aliases.current().meta().profile
    text = (
        f"'{alias}' is {switched.now} again, in place of {switched.former}.\n"
        f"Commands need --profile {profile} again. What came in since the switch is in {switched.former}"
        " only; `glimpse reindex --back` returns to it."
    )
    click.echo(json.dumps({"switched": asdict(switched)}, indent=2) if as_json else text)
