"""`glimpse demo`: from nothing to a page that searches."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from storage.store import DEMO_ALIAS, default_store

PROFILE = "pocket"
"""the models that know the drawn world"""
THREE_THINGS = (
    'type    "red boats at night", or "zwei gelbe Vögel im Wald"',
    'speak   hold the microphone and say "a green house in the desert"',
    "show    drop any picture of {folder} on the page",
)


@click.command()
@click.option(
    "--pictures", type=click.IntRange(1, 1000), default=300, show_default=True, help="How many to draw."
)
@click.option("--port", type=click.IntRange(1, 65535), default=5001, show_default=True)
@click.option("--index", default=DEMO_ALIAS, show_default=True, help="Alias of the demo's own index.")
@click.option("--serve/--no-serve", default=True, show_default=True, help="Serve the page at the end.")
@click.pass_context
def demo(ctx: click.Context, pictures: int, port: int, index: str, serve: bool) -> None:
    """Draw pictures, make them searchable and serve the page.

    A second run starts what is not running, adds nothing twice and serves the page again. Its index, store
    and port are its own: your pictures stay as they are.

    \b
    Example:
      glimpse demo --pictures 100
    """
    from demo.gallery import draw_gallery
    from es_config.client import glimpse_home

    home = glimpse_home(os.environ)
    folder = home / "demo"
    _start_node(home)
    _announce(f"Drawing {pictures} pictures in {folder} …")
    new = draw_gallery(folder, pictures)
    _announce(f"{new} drawn, {pictures - new} were there.")
    # Before ingest, which first uses torch in a thread: torch's profiler wants its first use in the main one.
    _deploy_text_model(ctx, home)
    mine = ("--index", index, "--store", default_store(home, index))
    _run(ctx, "ingest", str(folder), "--profile", PROFILE, *mine)
    if serve:
        _announce("Three things to try:")
        for line in THREE_THINGS:
            _announce("  " + line.format(folder=folder))
        _run(ctx, "serve", "--port", str(port), *mine)


def _deploy_text_model(ctx: click.Context, home: Path) -> None:
    """Put the text model into Elasticsearch unless it is there. Without it, texts are embedded here."""
    from es_config.client import connect, engine_settings
    from es_config.errors import EngineError
    from es_config.text_model import TrainedModel
    from models.profiles import get_profile

    try:
        client = connect(engine_settings(os.environ, home))
        state = TrainedModel(client, model_id=get_profile(PROFILE).es_model_id).status().state
        if state == "stopped":
            _run(ctx, "model", "start", "--profile", PROFILE)
        elif state != "started":
            _run(ctx, "model", "upload", "--profile", PROFILE, "--clear-previous", "--start")
    except EngineError as error:
        _announce(f"Texts will be embedded by the page itself: {error}")


def _start_node(home: Path) -> None:
    """Start the local node, unless the environment names another Elasticsearch."""
    from es_config.local_node.node import LocalNode

    if not any(os.environ.get(name) for name in ("ELASTICSEARCH_URL", "ES_URL")):
        started = LocalNode(home, environ=os.environ, say=_announce).up()
        _announce(f"Elasticsearch is at {started.node.url}.")


def _run(ctx: click.Context, name: str, *arguments: str) -> None:
    """Run another command of the umbrella, as if it had been typed."""
    root = ctx.find_root()
    group = root.command
    command = group.get_command(root, name) if isinstance(group, click.Group) else None
    if command is None:
        raise click.UsageError(f"`glimpse demo` runs `glimpse {name}`: call it as a command of glimpse.")
    with command.make_context(name, list(arguments), parent=ctx.find_root()) as child:
        command.invoke(child)


def _announce(text: str) -> None:
    click.echo(text, file=sys.stderr)
