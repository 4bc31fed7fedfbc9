"""What `glimpse reindex` says at the end: what was done, how the hits differ, and what to run next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ingest.reindex_compare_cli import former_profile, in_words

if TYPE_CHECKING:
    from ingest.reindex_types import Filled, Outcome
    from ingest.reindex.wiring import ReindexParts

GO_ON = "Interrupted. Searches go on in the former index; the same command goes on from there."


def say_outcome(parts: ReindexParts, outcome: Outcome) -> list[str]:
    """Return paragraphs."""
    said = [_filled(outcome.filled)]
    if outcome.comparison:
        said.append(in_words(outcome.comparison))
    if outcome.switched:
        said.append(_switched(parts, outcome))
    elif not (outcome.filled.missing or outcome.filled.interrupted):
        said.append(
            f"'{parts.alias.name}' is {parts.old.name()} as before. The same command without --no-switch puts"
            f" {outcome.filled.index} in its place; `glimpse search --index {parts.alias.next}` tries it."
        )
    return said


def _filled(filled: Filled) -> str:
    counts = {"embedded": filled.embedded, "otherwise changed": filled.updated, "left": filled.deleted}
    parts = [f"{count} {what}" for what, count in counts.items() if count or what == "embedded"]
    copies = f" ({filled.from_copies} from WebP copies)" if filled.from_copies else ""
    missing = f", {len(filled.missing)} missing" if filled.missing else ""
    done = ", ".join(parts).replace("embedded", f"embedded{copies}", 1)
    return f"{filled.index} holds {filled.images} pictures: {done}{missing}, in {filled.seconds:.1f} s."


def not_switched(parts: ReindexParts, filled: Filled) -> str:
    """Return why the next index is not put behind the alias, and what to do."""
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
    """Say what Elasticsearch needs where it embedded the texts of the former index."""
    from es_config.trained_model import TrainedModel

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
