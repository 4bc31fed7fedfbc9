"""`glimpse import` and `glimpse export`."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import click

from es_config.commands.options import (
    AS_JSON,
    FOLDER,
    INDEX,
    MODELS,
    exit_with,
    open_client,
    say,
    store_option,
)

PLACE = click.Path(exists=True, path_type=Path)


@click.command("import")
@click.argument("folder", required=False, type=FOLDER)
@click.option("--vectors", multiple=True, type=PLACE, help="A .npy file, or a folder of them; repeatable.")
@click.option(
    "--metadata",
    multiple=True,
    type=PLACE,
    help="A Parquet or JSON lines file with a row for each vector, or a folder of them; repeatable.",
)
@click.option(
    "--caption-vectors",
    multiple=True,
    type=PLACE,
    help="A .npy file with the vectors of captions, or a folder; zeros where there is none; repeatable.",
)
@click.option("--vector-column", metavar="NAME", help="Column of the metadata that holds the vectors.")
@click.option("--path-column", metavar="NAME", help="Column of paths or addresses.  [default: known names]")
@click.option(
    "--caption-column", metavar="NAME", default="caption", show_default=True, help="Column of captions."
)
@click.option(
    "--pictures",
    type=FOLDER,
    help="Read pictures below this folder, for their ids, sizes, dates and thumbnails.",
)
@click.option("--no-check", is_flag=True, help="Do not compare a sample of pictures with their vectors.")
@click.option("--limit", type=click.IntRange(min=0), help="Stop after this many rows.")
@click.option("--dry-run", is_flag=True, help="Check everything, write nothing.")
@MODELS
@INDEX
@store_option("Keep thumbnails here: a folder or s3://bucket/prefix.")
@AS_JSON
def import_vectors(
    *,
    folder: Path | None,
    vectors: tuple[Path, ...],
    metadata: tuple[Path, ...],
    caption_vectors: tuple[Path, ...],
    vector_column: str | None,
    path_column: str | None,
    caption_column: str,
    pictures: Path | None,
    no_check: bool,
    limit: int | None,
    dry_run: bool,
    profile: str | None,
    model_dir: Path | None,
    alias: str,
    store: str | None,
    as_json: bool,
) -> None:
    """Make documents of vectors that were made elsewhere, without embedding anything.

    FOLDER is what `glimpse export` or clip-retrieval wrote; otherwise name the files. Nothing in vectors says
    which model made them: for a new index, name its profile. Where pictures can be read, a sample is embedded
    and compared. A row that cannot be used is named with its reason, and the exit code is then 1. The same
    command again adds nothing twice, and goes on after an interruption.

    \b
    Example:
      glimpse import --vectors img_emb --metadata metadata --profile clip
      glimpse import ~/export --index copy
    """
    from es_config.client import glimpse_home
    from es_config.runs import RunFile
    from ingest.exchange.importer import ImportOptions, in_words, open_import
    from ingest.exchange.shards import VectorSources
    from ingest.report import open_progress

    named = bool(vectors or metadata or caption_vectors or vector_column)
    if named == bool(folder):
        raise click.UsageError("Name a folder of an export, or --vectors and --metadata.")
    options = ImportOptions(pictures, path_column, caption_column, not no_check, limit, dry_run)
    job = open_import(
        folder,
        VectorSources(vectors, metadata, caption_vectors, vector_column) if named else None,
        os.environ,
        profile_name=profile,
        model_dir=model_dir,
        alias=alias,
        store=store,
        options=options,
    )
    file = None if dry_run else RunFile(glimpse_home(os.environ), alias)
    with open_progress(doing="Importing", noun="pictures", file=file) as progress:
        summary = job.run(progress)
    if as_json:
        click.echo(json.dumps(summary.as_dict(), indent=2))
    else:
        first, *more = in_words(summary, check=options.check)
        click.echo(first)
        for sentence in more:
            say(sentence)
    exit_with(interrupted=summary.interrupted, failed=bool(summary.failed))


@click.command("export")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--shard-size",
    type=click.IntRange(min=1),
    default=100_000,
    show_default=True,
    help="Pictures in each file.",
)
@INDEX
@AS_JSON
def export(*, folder: Path, shard_size: int, alias: str, as_json: bool) -> None:
    """Write all pictures of the index, vectors included, as files that other programs read.

    FOLDER gets NumPy files of vectors in `img_emb` and `caption_emb`, and Parquet files in `metadata` with a
    row for each: path, caption, size, SHA-256 and the whole document as JSON. `glimpse import FOLDER` makes
    an index of them again. Thumbnails and originals are not in it: copy the store.

    \b
    Example:
      glimpse export ~/export
    """
    from es_config.client import glimpse_home
    from es_config.index import ImageIndex
    from es_config.runs import RunFile
    from ingest.exchange.exporter import export_index
    from ingest.report import open_progress

    client = open_client()
    file = RunFile(glimpse_home(os.environ), alias)
    progress = open_progress(doing="Exporting", noun="pictures", file=file)
    try:
        summary = export_index(
            client, ImageIndex(client, alias=alias), folder, progress=progress, shard_rows=shard_size
        )
    except KeyboardInterrupt:
        say("Interrupted: the export is not whole. The same command begins it anew.")
        raise SystemExit(130) from None
    click.echo(json.dumps(asdict(summary), indent=2) if as_json else summary.in_words())
