"""Report a reindexing and the next steps."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from es_config.aliases import Switched
from es_config.text_model import TrainedModel
from ingest.reindex.reindex import Reindexer, ReindexSummary
from models.profiles import PROFILES, Profile

GO_ON = "Interrupted. Searches go on in the former index; the same command goes on from there."


@dataclass(frozen=True, kw_only=True)
class ReindexReport:
    """Words for the summaries of one `reindexer`."""

    reindexer: Reindexer
    model_dir: Path | None
    """of the next index's models, if that was given"""
    former: Profile | None
    """the models of the index that answered before, or None if they are not here"""
    former_dir: Path | None
    """their folder, if they are not those of the profile table"""
    store: str | None

    def paragraphs(self, summary: ReindexSummary) -> str:
        """Return the outcome, and the commands that may follow."""
        alias = self.reindexer.alias
        paragraphs = [_counts(summary)]
        if summary.switched:
            paragraphs.append(self._switched(summary.switched))
        elif not (summary.missing or summary.interrupted):
            paragraphs.append(
                f"'{alias.name}' is {self.reindexer.old.name()} as before. The same command without"
                f" --no-switch puts {summary.index} in its place; `glimpse search --index {alias.next}`"
                " tries it."
            )
        if self.former and not summary.interrupted:
            paragraphs.append(
                "To compare the former models with the new ones on your pictures:\n"
                f"  {self._evaluate_command(self.former)}"
            )
        return "\n\n".join(paragraphs)

    def not_switched(self, summary: ReindexSummary) -> str:
        """Return why the next index is not put behind the alias, and the way out."""
        return (
            f"Error: '{self.reindexer.alias.name}' is {self.reindexer.old.name()} as before:"
            f" {len(summary.missing)} of its pictures would be lost. Name the folders that hold them with"
            " --originals-from, or add --allow-missing."
        )

    def _switched(self, switched: Switched) -> str:
        old, former_alias = self.reindexer.old, self.reindexer.alias.former
        profile = f"--profile {self.reindexer.profile.name}"
        profile += f" --model-dir {self.model_dir}" if self.model_dir else ""
        calibrate = " and `glimpse calibrate`" if old.meta().relevance else ""
        lines = [
            f"'{self.reindexer.alias.name}' is {switched.now} now, in place of {switched.former}.",
            f"Commands need {profile} now; a running `glimpse serve` follows by itself.",
            f"Run `glimpse tune`{calibrate}: what was measured belongs to the former vectors.",
            *self._text_model(profile),
            f"`glimpse reindex --back` goes back to {switched.former}; `glimpse index delete --index"
            f" {former_alias}` deletes it.",
        ]
        if switched.left:
            lines.append(
                f"No alias names {switched.left} any more: `glimpse index delete --index {switched.left}`."
            )
        return "\n".join(lines)

    def _text_model(self, profile: str) -> list[str]:
        """Say which text model Elasticsearch needs, if it embedded texts for the former index."""
        client, new = self.reindexer.client, self.reindexer.profile
        if self.former is None:
            return []
        if TrainedModel(client, model_id=self.former.es_model_id).status().state != "started":
            return []
        if "infer" not in new.text_lanes:
            return [f"The text model of profile {new.name} runs in the commands, not in Elasticsearch."]
        status = TrainedModel(client, model_id=new.es_model_id).status()
        if status.state == "started" and status.revision in (None, new.text_revision()):
            return []
        clear = "" if status.state == "absent" else " --clear-previous"
        command = f"glimpse model upload {profile}{clear} --start"
        return [f"Run `{command}`: until then texts are embedded in the commands, not in Elasticsearch."]

    def _evaluate_command(self, former: Profile) -> str:
        new, alias = self.reindexer.profile, self.reindexer.alias.name
        names = (former.name, "new" if new.name == former.name else new.name)
        folders = (None if former == PROFILES[former.name] else self.former_dir, self.model_dir)
        pair = [f"{name}={folder}" if folder else name for name, folder in zip(names, folders, strict=True)]
        words = ["glimpse", "evaluate", "--profiles", ",".join(pair)]
        words += ["--index", alias] if alias != "images" else []
        return shlex.join(words + (["--store", self.store] if self.store else []))


def _counts(summary: ReindexSummary) -> str:
    copies = f" ({summary.from_copies} from WebP copies)" if summary.from_copies else ""
    parts = [f"{summary.embedded} embedded{copies}"]
    parts += [f"{summary.updated} otherwise changed"] if summary.updated else []
    parts += [f"{summary.deleted} left"] if summary.deleted else []
    parts += [f"{len(summary.missing)} missing"] if summary.missing else []
    counts = ", ".join(parts)
    return f"{summary.index} holds {summary.images} pictures: {counts}, in {summary.seconds:.1f} s."
