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
    from es_config.documents import paths_of
    from es_config.index import ImageIndex, read_documents
    from es_config.scan import scan_hashes
    from ingest.duplicates import PictureFacts, find_duplicates
    from ingest.options import IngestOptions
    from ingest.wiring import open_history

    client = open_client()
    index = ImageIndex(client, alias=alias)
    name = index.name()

    def facts_of(ids: list[str]) -> dict[str, PictureFacts]:
        found = read_documents(client, name, ids, fields=["relative_path", "width", "height", "size_bytes"])
        sources = {image_id: document["_source"] for image_id, document in found.items()}
        return {
            image_id: PictureFacts(
                paths_of(source), *(source.get(name, 0) for name in ("width", "height", "size_bytes"))
            )
            for image_id, source in sources.items()
        }

    with closing(open_history(index, os.environ, options=IngestOptions(dry_run=True))) as history:
        found = find_duplicates(
            scan_hashes(client, name), facts_of=facts_of, notes_of=history.of_image, distance=distance
        )
    click.echo(json.dumps(found.as_dict(), indent=2) if as_json else found.in_words())
