"""`glimpse serve`: the page and the REST API for as long as it runs."""

from __future__ import annotations

import os
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

import click

from es_config.commands.options import FILE, SEARCHER, VOICE_MODEL, say, setting, store_option, warn
from search_app.settings import DEFAULT_MAX_UPLOAD, AppSettings, SearchSettings, parse_size

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from es_config.index import ImageIndex
    from ingest.hiding import Remover
    from ingest.originals import IngestedOriginals
    from ingest.uploads import UploadIndexer
    from search_app.core.duplicates import Duplicates
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
@setting(
    "--max-added",
    "GLIMPSE_MAX_ADDED",
    type=click.IntRange(0),
    help="Pictures that may be added in all.  [default: no limit]",
)
@setting(
    "--open-files/--no-open-files",
    "GLIMPSE_OPEN_FILES",
    default=True,
    help="Let people open the files that this machine ingested, where they lie.",
)
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
    help="Accept this Host header beside this machine's own names; may be repeated.",
)
@setting(
    "--login/--no-login with_login",
    "GLIMPSE_LOGIN",
    default=None,
    help="Let only people in who sign in, see `glimpse user`.  [default: where others can connect]",
)
@setting("--certificate", "GLIMPSE_CERTIFICATE", type=FILE, help="Serve HTTPS with this PEM certificate.")
@setting("--key", "GLIMPSE_KEY", type=FILE, help="The private key of the certificate, PEM.")
@setting(
    "--self-signed",
    "GLIMPSE_SELF_SIGNED",
    is_flag=True,
    help="Serve HTTPS with a certificate of its own, kept in GLIMPSE_HOME.",
)
@setting("--prefix", "GLIMPSE_PREFIX", default="", help="Serve below this path, such as /glimpse.")
@setting(
    "--trusted-proxy proxies",
    "GLIMPSE_TRUSTED_PROXY",
    multiple=True,
    help="Believe X-Forwarded headers from this address or network; may be repeated.",
)
@setting("--access-log log_access", "GLIMPSE_ACCESS_LOG", is_flag=True, help="Print a line for each answer.")
@VOICE_MODEL
@SEARCHER
def serve(
    *,
    host: str,
    port: int,
    threads: int,
    max_upload: str,
    store: str | None,
    max_added: int | None,
    open_files: bool,
    read_only: bool,
    query_log: bool,
    trusted: tuple[str, ...],
    with_login: bool | None,
    certificate: Path | None,
    key: Path | None,
    self_signed: bool,
    prefix: str,
    proxies: tuple[str, ...],
    log_access: bool,
    voice_model: str | None,
    profile: str | None,
    model_dir: Path | None,
    text_lane: str,
    alias: str,
) -> None:
    """Serve the page and the REST API.

    \b
    Example:
      glimpse serve --port 8080
    """
    from es_config.client import glimpse_home
    from models.pixels import give_memory_back
    from search_app.web.hosts import check_prefix, is_loopback, parse_networks, trusted_hosts
    from search_app.web.server import ListenOptions
    from search_app.web.tls import open_tls
    from search_app.wiring import serve_pictures

    give_memory_back()
    reachable = not is_loopback(host)
    if with_login is None:
        with_login = reachable
    if reachable and not with_login:
        warn(_who_can(host, read_only))
    tls = open_tls(certificate, key, self_signed=self_signed, home=glimpse_home(os.environ), say=say)
    serve_pictures(
        SearchSettings(profile, model_dir, alias, text_lane, voice_model),
        AppSettings(
            parse_size(max_upload),
            trusted_hosts=trusted_hosts(host, trusted),
            rate_limits=reachable or with_login,
            max_added=max_added,
            read_only=read_only,
            query_log=query_log,
        ),
        {**os.environ, **({"GLIMPSE_STORE": store} if store else {})},
        listen=ListenOptions(
            host, port, threads, tls, check_prefix(prefix), parse_networks(proxies), log_access
        ),
        with_login=with_login,
        warn=partial(warn, context=click.get_current_context()),
        ready=lambda address: say(f"Glimpse is at {address} (Ctrl+C stops it)"),
        open_indexer=None if read_only else open_indexer,
        open_originals=open_originals if open_files else None,
        open_remover=None if read_only else open_remover,
        find_duplicates=find_duplicates,
    )


def _who_can(host: str, read_only: bool) -> str:
    if read_only:
        return f"everyone who can reach {host} can search without signing in."
    return (
        f"everyone who can reach {host} can search, add, correct, hide and remove pictures without signing"
        " in. With --read-only they can only search."
    )


def open_originals(index: Callable[[], ImageIndex]) -> IngestedOriginals:
    """Return the opener of the files that this machine ingested into the index of a search."""
    from es_config.client import glimpse_home
    from ingest.history.ingested_files import HISTORY_FILE
    from ingest.originals import IngestedOriginals

    return IngestedOriginals(glimpse_home(os.environ) / HISTORY_FILE, index)


def find_duplicates(index: ImageIndex, distance: int) -> Duplicates:
    """Group the pictures of an index by their look, with the files that this machine ingested."""
    from ingest.duplicates import read_duplicates
    from ingest.errors import IngestError
    from ingest.hiding import notes_of
    from storage.errors import StorageError

    try:
        with closing(notes_of(os.environ)(index)) as notes:
            return read_duplicates(index, notes, distance=distance)
    except IngestError as error:
        raise StorageError(str(error)) from error


def open_remover(searcher: Searcher, storage: Storage) -> Remover:
    """Return the `Remover` of the searcher's index. Models load when they are needed."""
    from ingest.hiding import Remover, notes_of
    from models.encoders import Lazy, load_caption_text_encoder

    profile = searcher.profile
    return Remover(
        index=searcher.index,
        profile=profile,
        storage=storage,
        image_encoder=searcher.image_encoder,
        caption_encoder=Lazy(lambda: load_caption_text_encoder(profile)),
        open_notes=notes_of(os.environ),
    )


def open_indexer(searcher: Searcher, storage: Storage) -> UploadIndexer:
    """Return the `UploadIndexer` of the searcher's index. Other models load with the first picture."""
    from es_config.client import cache_folder
    from ingest.uploads import UploadIndexer
    from models.captioning import load_captioner
    from models.encoders import Lazy, load_caption_text_encoder
    from models.words import load_word_reader
    from search_app.core.places import Gazetteer

    profile = searcher.profile
    return UploadIndexer(
        index=searcher.index,
        profile=profile,
        image_encoder=searcher.image_encoder,
        caption_encoder=Lazy(lambda: load_caption_text_encoder(profile)),
        captioner=Lazy(lambda: load_captioner(profile.caption_model)),
        word_reader=Lazy(load_word_reader),
        storage=storage,
        places=Gazetteer(cache_folder(os.environ)),
    )
