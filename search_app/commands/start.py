"""`glimpse start`: from a folder of pictures to a page that searches it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import webbrowser
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from es_config.commands.options import (
    INDEX,
    MODELS,
    open_client,
    own_profile,
    say,
    setting,
    store_option,
    warn,
)

if TYPE_CHECKING:
    from es_config.runs import RunFile
    from models.profiles import Profile

POLL_S = 0.2
END_S = 60.0
"""seconds for the ingest to write the pictures that it has embedded"""


class BackgroundIngest:
    """Fetches the models, then ingests in a process of its own, while this one serves the page.

    When the models cannot be had, the reason is kept in `error`, and the page ends.
    """

    def __init__(self, command: list[str], profile: Profile, *, home: Path, alias: str) -> None:
        self.error: Exception | None = None
        self._command, self._profile, self._home, self._alias = command, profile, home, alias
        self._process: subprocess.Popen[bytes] | None = None
        self._is_over = False
        self._lock = threading.Lock()

    def start(self) -> None:
        """Begin, in a thread."""
        threading.Thread(target=self._run, name="start", daemon=True).start()

    def stop(self) -> None:
        """Interrupt the ingest, which writes the pictures that it has embedded, and wait for its end."""
        with self._lock:
            self._is_over = True
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _run(self) -> None:
        from es_config.runs import RunFile, read_runs

        with RunFile(self._home, self._alias, keep_outcome=False) as file:
            file.write("Getting ready")
            try:
                self._fetch(file)
            except Exception as error:  # whatever a download raises is said when the page has ended
                self.error = error
                os.kill(os.getpid(), signal.SIGINT)
                return
            file.write("Getting ready")
            with self._lock:
                if self._is_over:
                    return
                # A session of its own: Ctrl-C comes from `stop`, and not from the terminal once more.
                process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, start_new_session=True)
                self._process = process
            while process.poll() is None and len(read_runs(self._home, self._alias)) < 2:
                time.sleep(POLL_S)

    def _fetch(self, file: RunFile) -> None:
        from models.hub import download_bar, fetch

        sources = {each.role: self._profile.models()[each.role] for each in self._profile.missing()}
        if not sources:
            return
        with download_bar() as bar:

            def report(done: int, total: int) -> None:
                bar(done, total)
                file.write("Downloading the models:", noun="MB", done=done // 10**6, total=total // 10**6)

            fetch(sources, report=report)


@click.command()
@click.argument(
    "folders", nargs=-1, required=True, metavar="FOLDER...", type=click.Path(exists=True, path_type=Path)
)
@setting("--port", "GLIMPSE_PORT", type=click.IntRange(1, 65535), default=5000)
@click.option("--browser/--no-browser", default=True, show_default=True, help="Open the page in the browser.")
@click.option("--watch", is_flag=True, help="Go on indexing new and changed pictures.")
@MODELS
@INDEX
@store_option("Keep thumbnails here.")
def start(
    *,
    folders: tuple[Path, ...],
    port: int,
    browser: bool,
    watch: bool,
    profile: str | None,
    model_dir: Path | None,
    alias: str,
    store: str | None,
) -> None:
    """Make the pictures of folders searchable, and serve the page meanwhile.

    Starts Elasticsearch unless it runs, downloads the models that are missing, then ingests and captions in
    the background. The page finds pictures from the first ones on, and shows how far it is. Ctrl-C ends all
    of it, and the same command goes on from there: later runs take seconds and find the new pictures.

    \b
    Example:
      glimpse start ~/Pictures
      glimpse start ~/Pictures --port 8080 --no-browser
    """
    from es_config.client import glimpse_home, remote_url
    from es_config.local_node.node import LocalNode
    from models.pixels import give_memory_back
    from models.profiles import get_profile
    from search_app.commands.serve import (
        find_duplicates,
        open_indexer,
        open_originals,
        open_remover,
    )
    from search_app.settings import AppSettings, SearchSettings
    from search_app.web.hosts import trusted_hosts
    from search_app.web.server import ListenOptions, check_port
    from search_app.wiring import serve_pictures

    give_memory_back()
    host, home = "127.0.0.1", glimpse_home(os.environ)
    check_port(host, port)
    with ExitStack() as undo:
        if not remote_url(os.environ):
            node = LocalNode(home, environ=os.environ, say=say)
            if node.up().new:
                undo.callback(node.down)
        row = get_profile(own_profile(open_client(), alias, asked=profile), model_dir=model_dir)
        say_downloads(row)
        command = ingest_command(folders, row.name, model_dir, alias, store, watch=watch)
        background = BackgroundIngest(command, row, home=home, alias=alias)
        undo.callback(background.stop)

        def ready(address: str) -> None:
            say(f"Glimpse is at {address} (Ctrl+C stops it)")
            background.start()
            if browser and has_browser(os.environ):
                threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()

        serve_pictures(
            SearchSettings(profile, model_dir, alias),
            AppSettings(trusted_hosts=trusted_hosts(host, ())),
            {**os.environ, **({"GLIMPSE_STORE": store} if store else {})},
            listen=ListenOptions(host, port),
            with_login=False,
            warn=partial(warn, context=click.get_current_context()),
            ready=ready,
            open_indexer=open_indexer,
            open_originals=open_originals,
            open_remover=open_remover,
            find_duplicates=find_duplicates,
            warm_first=False,
        )
    if background.error:
        raise background.error


def say_downloads(profile: Profile) -> None:
    """Say which models will be downloaded, and how large they are."""
    absent = profile.missing()
    if absent:
        total = sum(each.size_bytes for each in absent) / 1e9
        say(f"To be downloaded once, {total:.1f} GB in all: {', '.join(map(str, absent))}.")


def ingest_command(
    folders: tuple[Path, ...],
    profile: str,
    model_dir: Path | None,
    alias: str,
    store: str | None,
    *,
    watch: bool,
) -> list[str]:
    """Return the command that ingests in the background."""
    words = [sys.executable, "-m", "glimpse", "ingest", "--profile", profile, "--index", alias]
    words += ["--model-dir", str(model_dir)] if model_dir else []
    words += ["--store", store] if store else []
    words += ["--watch"] if watch else []
    return [*words, "--", *map(str, folders)]


def has_browser(environ: Mapping[str, str]) -> bool:
    """Return whether a window can be opened: a browser of the terminal would take its place."""
    return sys.platform in ("darwin", "win32") or any(
        environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")
    )
