"""`glimpse duplicates`."""

from __future__ import annotations

import json

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
    """List pictures that the index holds several times.

    Exact: one content under several paths. Near: other files that look the same, such as a copy in another
    size or format. Nothing is changed.

    \b
    Example:
      glimpse duplicates
      glimpse duplicates --distance 1 --json
    """
    from es_config.index import ImageIndex
    from es_config.scan import scan_hashes
    from ingest.duplicates import find_duplicates

    client = open_client()
    index = ImageIndex(client, alias=alias)
    blocks = scan_hashes(client, index.name())
    found = find_duplicates(blocks, paths_of=index.known, distance=distance)
    click.echo(json.dumps(found.as_dict(), indent=2) if as_json else found.in_words())
