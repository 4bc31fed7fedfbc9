"""Commands that ask: `glimpse search` and `glimpse knn`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

import click

from es_config.commands.options import FILTERS, INDEX, SEARCHER, VOICE_MODEL, say, setting, together, warn
from es_config.documents import one_line
from es_config.requests import DEFAULT_K
from search_app.settings import SearchSettings

if TYPE_CHECKING:
    from search_app.core.query import Query, SearchHit, SearchResponse

QUERY_OPTIONS = together(
    setting("--k", "GLIMPSE_K", default=str(DEFAULT_K), help="Hits a page."),
    click.option("--page", help="1 for the k nearest, 2 for the next k, ..."),
    setting("--num-candidates", "GLIMPSE_NUM_CANDIDATES", help="Per shard; more find more and take longer."),
    click.option("--exact", is_flag=True, help="Look at every vector instead of the graph."),
    FILTERS,
    click.option("--json", "as_json", is_flag=True, help="Print what the REST API would answer."),
)
SEARCH_OPTIONS = together(
    setting(
        "--mode",
        "GLIMPSE_MODE",
        default="image",
        help="Search the pictures (image), their captions (caption), or both together (hybrid).",
    ),
    QUERY_OPTIONS,
    SEARCHER,
)


@click.command()
@click.argument("query", required=False)
@click.option("--text", help="Search for this text, even if a file has this name.")
@click.option("--image", type=click.Path(path_type=Path), help="Search with this picture file.")
@click.option("--like", metavar="IMAGE_ID", help="Search with a picture of the index.")
@click.option("--voice", type=click.Path(path_type=Path), help="Search with what is said in this recording.")
@VOICE_MODEL
@click.option("--min-relevance", metavar="weak|strong", help="Leave out lower hits; see `glimpse calibrate`.")
@SEARCH_OPTIONS
def search(
    *,
    query: str | None,
    text: str | None,
    image: Path | None,
    voice: Path | None,
    voice_model: str | None,
    as_json: bool,
    profile: str,
    model_dir: Path | None,
    text_lane: str,
    alias: str,
    **rest: Any,
) -> None:
    """Search by words, by a picture file, by a recording of a voice or by a picture of the index.

    QUERY is a picture if a file has that name, and a text otherwise.

    \b
    Example:
      glimpse search "a red boat"
      glimpse search ./photo.jpg --k 5
      glimpse search --voice clip.wav
      glimpse search "a red boat" --mode hybrid
      glimpse search "a red boat" --path holidays/ --json
    """
    settings = SearchSettings(profile, model_dir, alias, text_lane, voice_model)
    if sum(one is not None for one in (query, text, image, voice)) > 1:
        raise click.UsageError("Ask for one thing at a time: QUERY, --text, --image, --voice or --like.")
    if query is not None and _is_file(query):
        image = Path(query)
    elif query is not None:
        text = query
    elif voice is not None:
        from search_app.core.voice import LANGUAGES, transcribe_file

        transcript = transcribe_file(voice, settings, warn=warn)
        language = transcript.language and f" ({LANGUAGES.get(transcript.language, transcript.language)})"
        say(f"Heard{language or ''}: {transcript.text}")
        text = transcript.text
    _answer(settings, _query({"q": text, **rest}, image=image), as_json)


@click.command()
@click.argument("vector", type=click.File("rb"), default="-", metavar="[FILE|-]")
@click.option(
    "--field",
    type=click.Choice(["image_embedding", "caption_embedding"]),
    default="image_embedding",
    show_default=True,
    help="Which vectors to search.",
)
@click.option(
    "--show-request",
    is_flag=True,
    help="Print the request to Elasticsearch as curl and send nothing; tuned settings are not looked up, and"
    " only --exact counts the pictures first.",
)
@QUERY_OPTIONS
@INDEX
def knn(*, vector: BinaryIO, field: str, show_request: bool, as_json: bool, alias: str, **rest: Any) -> None:
    """Search with a raw vector: a JSON array, plain numbers or a .npy file.

    \b
    Example:
      glimpse knn vector.json --k 5
      glimpse knn vector.npy --show-request
    """
    from es_config.documents import MODE_FIELDS
    from search_app.core.query import read_vector
    from search_app.wiring import request_as_curl

    mode = next(mode for mode, name in MODE_FIELDS.items() if name == field)
    asked = _query({"vector": list(read_vector(vector.read())), "mode": mode, **rest})
    if show_request:
        click.echo(request_as_curl(asked, os.environ, alias=alias))
    else:
        _answer(SearchSettings(alias=alias, text_lane="local"), asked, as_json)


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except (OSError, ValueError):  # too long for a name, or with a NUL: words, then
        return False


def _query(arguments: dict[str, Any], *, image: Path | None = None) -> Query:
    from search_app.core.query import load_query
    from search_app.errors import QueryError

    if image is not None and not image.is_file():
        raise QueryError(f"There is no picture file '{image}'.")
    given = {name: value for name, value in arguments.items() if value not in (None, False)}
    return load_query(given, image=image)


def _answer(settings: SearchSettings, query: Query, as_json: bool) -> None:
    from es_config.transport import accepting_partial_answers
    from search_app.wiring import build_searcher

    with accepting_partial_answers():
        response = build_searcher(settings, os.environ, warn=warn).search(query)
    if response.partial:
        warn(
            f"{response.shards_failed} of {response.shards} shards did not answer, so pictures may be"
            " missing: see `glimpse doctor`."
        )
    first = query.depth - query.k + 1
    if as_json:
        click.echo(json.dumps(response.to_json(), ensure_ascii=False, indent=2))
        return
    if sys.stdout.isatty():
        print_table(response, sys.stdout, first=first)
    else:
        for rank, hit in enumerate(response.hits, first):
            click.echo("\t".join([str(rank), _number(hit.similarity, 4), *_texts(hit)]))
    if not response.hits:
        say(why_nothing(query))
    elif response.nothing_good:
        say("Nothing good was found; these are the nearest pictures all the same.")


def why_nothing(query: Query) -> str:
    """Return the sentence about an answer without hits."""
    if query.min_relevance:
        return (
            f"No hit is marked {query.min_relevance} or better: leave --min-relevance out to see the nearest"
            " pictures."
        )
    return "Nothing was found: the index is empty, or no picture passes the filters."


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
