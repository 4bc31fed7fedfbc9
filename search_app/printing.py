"""Hits on a terminal: a table for people, tab-separated lines for pipes, JSON for programs."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, TextIO

from es_config.documents import one_line

if TYPE_CHECKING:
    from search_app.core.response import SearchHit, SearchResponse


def print_response(response: SearchResponse, *, as_json: bool, first: int = 1) -> None:
    """Write a response to stdout; `first` is the rank of its first hit."""
    if as_json:
        print(json.dumps(response.to_json(), ensure_ascii=False, indent=2))
        return
    if sys.stdout.isatty():
        print_table(response, sys.stdout, first=first)
    else:
        for line in tab_lines(response, first=first):
            print(line)
    if not response.hits:
        print("Nothing was found: the index is empty, or no picture passes the filters.", file=sys.stderr)
    elif response.nothing_good:
        print("Nothing good was found; these are the nearest pictures all the same.", file=sys.stderr)


def tab_lines(response: SearchResponse, *, first: int = 1) -> list[str]:
    """Return `rank, similarity, path, caption` of each hit, and why where it says so, separated by tabs."""
    return [
        "\t".join([str(rank), _number(hit.similarity, 4), *_texts(hit)])
        for rank, hit in enumerate(response.hits, first)
    ]


def print_table(response: SearchResponse, out: TextIO, *, first: int = 1) -> None:
    """Write a table and a line with the time it took."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", justify="right", style="dim")
    table.add_column("similarity", justify="right")
    table.add_column("path", overflow="fold", style="bold")
    if any(hit.caption or hit.why for hit in response.hits):
        table.add_column("caption", overflow="fold")
    if any(hit.why for hit in response.hits):
        table.add_column("why", overflow="fold", style="dim")
    for rank, hit in enumerate(response.hits, first):
        cells = (str(rank), _number(hit.similarity, 3), *_texts(hit))
        style = "dim" if hit.relevance == "none" else ""
        table.add_row(*(Text(cell, style) for cell in cells[: len(table.columns)]))
    lane = f", text model: {response.lane}" if response.lane else ""
    console = Console(file=out)
    console.print(table)
    noun = "picture" if len(response.hits) == 1 else "pictures"
    summary = f"{len(response.hits)} {noun} in {response.took_ms} ms{lane}"
    console.print(summary, style="dim", highlight=False)


def _texts(hit: SearchHit) -> list[str]:
    return [one_line(text) for text in (hit.path, hit.caption or "", *([hit.why] if hit.why else []))]


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
