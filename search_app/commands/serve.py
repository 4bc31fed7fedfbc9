"""`glimpse serve`: the page and the REST API for as long as it runs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from es_config.commands.options import SEARCHER, VOICE_MODEL, say, setting, store_option, warn
from search_app.settings import DEFAULT_MAX_UPLOAD, AppSettings, SearchSettings, parse_size

if TYPE_CHECKING:
    from pathlib import Path

    from ingest.uploads import UploadIndexer
    from search_app.core.searcher import Searcher
    from storage.store import Storage


@click.command()
@setting("--host", "GLIMPSE_HOST", default="127.0.0.1", help="Address to listen on.")
@setting("--port", "GLIMPSE_PORT", type=click.IntRange(1, 65535), default=5000)
@setting(
    "--threads", "GLIMPSE_THREADS", type=click.IntRange(1, 64), default=8,
    help="Requests answered at a time.",
)  # fmt: skip
@setting(
    "--max-upload", "GLIMPSE_MAX_UPLOAD", default=DEFAULT_MAX_UPLOAD,
    help="Largest picture to search with or to add, in bytes or with KB or MB.",
)  # fmt: skip
@store_option("Where thumbnails and uploads are kept.")
@setting("--read-only", "GLIMPSE_READ_ONLY", is_flag=True, help="Only search: nobody adds or corrects.")
@setting(
    "--query-log",
    "GLIMPSE_QUERY_LOG",
    is_flag=True,
    help="Keep the queries in GLIMPSE_HOME/queries.jsonl, and say so on the page.",
)
@setting(
    "--trusted-host trusted",
    "GLIMPSE_TRUSTED_HOST",
    multiple=True,
    help="Accept this Host header; may be repeated.",
)
@VOICE_MODEL
@SEARCHER
def serve(
    *,
    host: str,
    max_upload: str,
    store: str | None,
    read_only: bool,
    query_log: bool,
    trusted: tuple[str, ...],
    voice_model: str | None,
    profile: str,
    model_dir: Path | None,
    text_lane: str,
    alias: str,
    **listen: Any,
) -> None:
    """Serve the page and the REST API.

    \b
    Example:
      glimpse serve --port 8080
    """
    from search_app.web.server import is_loopback, trusted_hosts
    from search_app.wiring import serve_pictures

    if not is_loopback(host):
        can = "search" if read_only else "search, add pictures and correct captions"
        way_out = "" if read_only else " With --read-only they can only search."
        warn(f"everyone who can reach {host} can {can}; there is no login.{way_out}")
    serve_pictures(
        SearchSettings(profile, model_dir, alias, text_lane, voice_model),
        AppSettings(
            parse_size(max_upload),
            trusted_hosts=trusted_hosts(host, trusted),
            read_only=read_only,
            query_log=query_log,
        ),
        {**os.environ, **({"GLIMPSE_STORE": store} if store else {})},
        host=host,
        warn=warn,
        ready=lambda address: say(f"Glimpse is at {address} (Ctrl+C stops it)"),
        open_indexer=None if read_only else _open_indexer,
        **listen,
    )


def _open_indexer(searcher: Searcher, storage: Storage) -> UploadIndexer:
    """Return the `UploadIndexer` of the searcher's index. Other models load with the first picture."""
    from ingest.uploads import UploadIndexer
    from models.captioning import load_captioner
    from models.encoders import Lazy, load_caption_text_encoder

    profile = searcher.profile
    return UploadIndexer(
        index=searcher.index,
        profile=profile,
        image_encoder=searcher.image_encoder,
        caption_encoder=Lazy(lambda: load_caption_text_encoder(profile)),
        captioner=Lazy(lambda: load_captioner(profile.caption_model)),
        storage=storage,
    )
