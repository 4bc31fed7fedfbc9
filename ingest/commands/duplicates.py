"""`glimpse duplicates`."""

from __future__ import annotations

import json
import os
from contextlib import closing

import click

from es_config.commands.options import AS_JSON, INDEX, open_client


@click.command()
@click.option(
    "--distance",
    type=click.IntRange(0, 3),
    default=2,
    show_default=True,
    help="Bits of 64 in which the hashes of near-duplicates may differ.",
)
@INDEX
@AS_JSON
def duplicates(*, distance: int, alias: str, as_json: bool) -> None:
    """List pictures that the index holds several times, and which copy to keep.

    Exact: one content in several files. Near: other files that look the same, such as a copy in another size
    or format. A file counts once, however many paths lead to it; paths are absolute where this machine
    ingested them. Nothing is changed.

    \b
    Example:
      glimpse duplicates
      glimpse duplicates --distance 1 --json
    """
    from es_config.index import ImageIndex
    from ingest.duplicates import read_duplicates
    from ingest.options import IngestOptions
    from ingest.wiring import open_history

    index = ImageIndex(open_client(), alias=alias)
    index.name()  # an index that is not there is said first
    with closing(open_history(index, os.environ, options=IngestOptions(dry_run=True))) as history:
        found = read_duplicates(index, history, distance=distance)
    click.echo(json.dumps(found.as_dict(), indent=2) if as_json else found.in_words())
