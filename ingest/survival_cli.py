"""Options of `glimpse ingest` about parts, bad files and files that are gone, and what is said of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from es_config.commands.options import say, together

if TYPE_CHECKING:
    from ingest.parts import Part
    from ingest.options import PruneSummary


def _read_part(_context: click.Context, _parameter: click.Parameter, text: str | None) -> Part | None:
    """Turn `3/16` into a part; what is none is a wrong use of the command."""
    from ingest.errors import IngestError
    from ingest.parts import parse_part

    try:
        return parse_part(text) if text else None
    except IngestError as error:
        raise click.BadParameter(str(error)) from error


survival_options = together(
    click.option(
        "--part",
        metavar="3/16",
        callback=_read_part,
        help="Take the third of sixteen parts of the files, the same on every machine.",
    ),
    click.option("--retry-failed", is_flag=True, help="Try again what failed before and has not changed."),
    click.option("--prune", is_flag=True, help="Take pictures out of the index whose files are gone."),
    click.option(
        "--prune-anyway", is_flag=True, help="Do so even if more than a fifth of the files are gone."
    ),
    click.option(
        "--moved-from",
        multiple=True,
        metavar="FOLDER",
        type=click.Path(path_type=Path),
        help="With --prune, a folder that was ingested and is now elsewhere; may be repeated.",
    ),
)


def say_pruned(pruned: PruneSummary, *, dry_run: bool) -> None:
    """Say on stderr what left the index, or would leave it, and why nothing did."""
    from ingest.report import pruned_in_words

    for sentence in pruned_in_words(pruned, dry_run=dry_run):
        say(sentence)
