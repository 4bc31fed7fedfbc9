"""`glimpse duplicates`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from es_config.commands.options import AS_JSON, INDEX, open_client

if TYPE_CHECKING:
    from ingest.duplicates import Duplicates


@click.command()
@click.option(
    "--distance",
    type=click.IntRange(0, 3),
    default=2,
    show_default=True,
    help="Bits of 64 in which the hashes of near duplicates may differ.",
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
    click.echo(json.dumps(found.as_dict(), indent=2) if as_json else in_words(found))


def in_words(found: Duplicates) -> str:
    """Return the groups for people, each with its paths, and a last line that sums up."""
    from es_config.documents import one_line

    lines = []
    for copies in found.exact:
        lines += [f"exact, {len(copies.paths)} paths", *(f"  {one_line(path)}" for path in copies.paths), ""]
    for group in found.near:
        lines.append(f"near, {len(group)} pictures")
        for each in group:
            lines += [f"  {each.distance:2} bits  {one_line(path)}" for path in each.paths]
        lines.append("")
    counted = f"{found.pictures} pictures: {len(found.exact)} exact and {len(found.near)} near groups"
    return "\n".join([*lines, counted])
