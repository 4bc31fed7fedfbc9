"""`glimpse log`: the queries that `glimpse serve --query-log` kept."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click


@click.group()
def log() -> None:
    """Show or delete the queries that `glimpse serve --query-log` kept.

    \b
    Example:
      glimpse log show
      glimpse log labels > queries.jsonl
      glimpse log clear
    """


@log.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def show(as_json: bool) -> None:
    """Print the queries, oldest first.

    \b
    Example:
      glimpse log show
    """
    from search_app.printing import printable
    from search_app.query_log import read_entries

    entries = list(read_entries(_path()))
    for entry in entries:
        plain = f"{entry.time}\t{entry.mode}\t{entry.took_ms} ms\t{entry.hits}\t{printable(entry.text)}"
        click.echo(json.dumps(vars(entry), ensure_ascii=False) if as_json else plain)
    if not entries:
        click.echo("No queries are kept: `glimpse serve --query-log` keeps them.", err=True)


@log.command()
def labels() -> None:
    """Print each text once, the most frequent first, as lines to label for `glimpse evaluate`.

    \b
    Example:
      glimpse log labels > queries.jsonl
    """
    from collections import Counter

    from search_app.query_log import read_query_log

    for text, _ in Counter(read_query_log(_path())).most_common():
        click.echo(json.dumps({"query": text, "relevant": []}, ensure_ascii=False))


@log.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
def clear(yes: bool) -> None:
    """Delete the queries that were kept.

    \b
    Example:
      glimpse log clear --yes
    """
    from search_app.query_log import clear_log

    if not yes:
        click.confirm(f"Delete the queries in {_path()}?", abort=True, err=True)
    try:
        count = clear_log(_path())
    except OSError as error:
        raise click.ClickException(f"{_path()} cannot be deleted ({error.strerror}).") from error
    click.echo(f"{count} queries deleted.")


def _path() -> Path:
    from es_config.settings import glimpse_home
    from search_app.query_log import log_path

    return log_path(glimpse_home(os.environ))
