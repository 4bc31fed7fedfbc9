"""`glimpse remove`, `glimpse restore` and `glimpse hidden`."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import click

from es_config.commands.options import AS_JSON, INDEX, MODEL_DIR, exit_with, open_client, say, store_option

if TYPE_CHECKING:
    from pathlib import Path

    from ingest.hiding import Remover

PICTURES = click.argument("pictures", nargs=-1, required=True, metavar="ID|PATH...")


@click.command()
@PICTURES
@click.option("--now", is_flag=True, help="Delete removed uploads at once; they cannot be restored.")
@INDEX
@store_option("Delete files of removed uploads here.")
@AS_JSON
def remove(*, pictures: tuple[str, ...], now: bool, alias: str, store: str | None, as_json: bool) -> None:
    """Put pictures away, so that no search finds them.

    A picture of a folder is hidden: its file stays where it is, and later runs of `glimpse ingest` leave
    it hidden, on every machine that uses the index. An upload is removed, and deleted for good after ten
    minutes, with its file. A folder stands for all its ingested pictures. `glimpse restore` undoes it.

    \b
    Example:
      glimpse remove ~/Pictures/blurred.jpg
    """
    from ingest.hiding import find_pictures

    remover = _open(alias, store)
    remover.tidy()
    ids = find_pictures(pictures, remover)
    done = remover.put_away(ids)
    deleted = remover.delete(ids).done if now else ()
    removed = [each for each in done.removed if each not in deleted]
    if as_json:
        click.echo(
            json.dumps(
                {
                    "hidden": done.hidden,
                    "removed": removed,
                    "deleted": deleted,
                    "until": done.until if removed else None,
                    "failed": done.failed,
                },
                indent=2,
            )
        )
    else:
        click.echo(_sum({"hidden": done.hidden, "removed": removed, "deleted for good": deleted}))
        if removed:
            say(f"Deleted for good after {done.until}: `glimpse restore ID` brings them back until then.")
    _tell(done.failed)


@click.command()
@PICTURES
@INDEX
@MODEL_DIR
@store_option("Read originals from here.")
@AS_JSON
def restore(
    *, pictures: tuple[str, ...], alias: str, model_dir: Path | None, store: str | None, as_json: bool
) -> None:
    """Let searches find pictures again that were put away, with all that is known of them.

    \b
    Example:
      glimpse restore ~/Pictures/blurred.jpg
    """
    from ingest.hiding import find_pictures

    remover = _open(alias, store, model_dir)
    remover.tidy()
    moves = remover.restore(find_pictures(pictures, remover))
    if as_json:
        click.echo(json.dumps({"restored": moves.done, "failed": moves.failed}, indent=2))
    else:
        click.echo(_sum({"restored": moves.done}))
    _tell(moves.failed)


@click.command()
@INDEX
@AS_JSON
def hidden(*, alias: str, as_json: bool) -> None:
    """List the pictures that were put away, the last one first.

    \b
    Example:
      glimpse hidden | cut -f1 | xargs glimpse restore
    """
    from es_config.documents import one_line, shown_path
    from es_config.hidden import HiddenPictures
    from es_config.index import ImageIndex

    away = HiddenPictures(ImageIndex(open_client(), alias=alias)).all()
    rows = (
        {
            "image_id": each.image_id,
            "state": each.state,
            "at": each.at,
            "until": each.until,
            "path": shown_path(each.source, each.image_id),
        }
        for each in away
    )
    if as_json:
        click.echo(json.dumps({"pictures": list(rows)}, indent=2))
        return
    for row in rows:
        click.echo("\t".join(one_line(str(row[name])) for name in ("image_id", "state", "at", "path")))


def _open(alias: str, store: str | None, model_dir: Path | None = None) -> Remover:
    from es_config.index import ImageIndex
    from ingest.hiding import open_remover
    from ingest.wiring import IngestSettings

    index = ImageIndex(open_client(), alias=alias)
    return open_remover(
        IngestSettings(alias=alias, store=store, model_dir=model_dir), os.environ, index=index
    )


def _sum(counts: dict[str, object]) -> str:
    """Return such as `3 pictures hidden, 1 removed`."""
    some = [(len(tuple(ids)), what) for what, ids in counts.items() if ids]  # type: ignore[arg-type]
    if not some:
        return "Nothing has changed."
    (first, what), *others = some
    noun = "picture" if first == 1 else "pictures"
    return ", ".join([f"{first} {noun} {what}", *(f"{number} {each}" for number, each in others)])


def _tell(failed: dict[str, str]) -> None:
    for image_id, reason in failed.items():
        say(f"{image_id}: {reason}")
    exit_with(interrupted=False, failed=bool(failed))
