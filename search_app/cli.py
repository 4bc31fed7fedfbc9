"""Commands that ask: `glimpse search` and `glimpse knn`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from search_app.settings import SearchSettings
from search_app.voice_cli import VOICE_OPTION, sentence_of_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from search_app.query import Query
    from search_app.searcher import Searcher

DEFAULT_K = 10


def _setting(name: str, variable: str, **more: Any) -> Callable:
    """Return an option that is an environment variable, too, and says so in its help."""
    return click.option(*name.split(), envvar=variable, show_envvar=True, **more)


INDEX_OPTION = _setting(
    "--index alias", "GLIMPSE_INDEX", default="images", show_default=True, help="Alias to search."
)
MODEL_OPTIONS = (
    _setting("--profile", "GLIMPSE_PROFILE", default="pocket", show_default=True, help="Which models."),
    _setting(
        "--model-dir",
        "GLIMPSE_MODEL_DIR",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        help="Take the profile's models from this folder.",
    ),
    _setting(
        "--text-lane",
        "GLIMPSE_TEXT_LANE",
        default="auto",
        show_default=True,
        help="Where texts are embedded: in Elasticsearch (infer), here (local), or what works (auto).",
    ),
    INDEX_OPTION,
)
MODE_OPTION = _setting(
    "--mode",
    "GLIMPSE_MODE",
    default="image",
    show_default=True,
    help="Search the pictures (image), their captions (caption), or both together (hybrid).",
)
QUERY_OPTIONS = (
    _setting("--k", "GLIMPSE_K", default=str(DEFAULT_K), show_default=True, help="Hits a page."),
    click.option("--page", help="1 for the k nearest, 2 for the next k, ..."),
    _setting("--num-candidates", "GLIMPSE_NUM_CANDIDATES", help="Per shard; more find more and take longer."),
    click.option("--exact", is_flag=True, help="Look at every vector instead of the graph."),
    click.option("--date-from", metavar="YYYY-MM-DD", help="Taken on this day or later."),
    click.option("--date-to", metavar="YYYY-MM-DD", help="Taken on this day or earlier."),
    click.option("--place", metavar="LAT,LON,DISTANCE", help="Taken near here: 48.85,2.35,10km"),
    click.option("--camera", help="Taken with this camera."),
    click.option("--tag", help="Having this keyword."),
    click.option("--path", help="Start of the relative path, or a pattern with *."),
    click.option("--json", "as_json", is_flag=True, help="Print what the REST API would answer."),
)


def _options(*options: Callable) -> Callable:
    def decorate(function: Callable) -> Callable:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


@click.command()
@click.argument("query", required=False)
@click.option("--text", help="Search for this text, even if a file has this name.")
@click.option("--image", type=click.Path(path_type=Path), help="Search with this picture file.")
@click.option("--like", metavar="IMAGE_ID", help="Search with a picture of the index.")
@click.option("--voice", type=click.Path(path_type=Path), help="Search with what is said in this recording.")
@VOICE_OPTION
@click.option("--min-relevance", metavar="weak|strong", help="Leave out lower hits; see `glimpse calibrate`.")
@_options(MODE_OPTION, *QUERY_OPTIONS, *MODEL_OPTIONS)
def search(
    *, query, text, image, voice, voice_model, as_json, profile, model_dir, text_lane, alias, **rest
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
        text = sentence_of_file(voice, settings)
    asked = _query({"q": text, **rest}, image=image)
    _answer(_searcher(settings), asked, as_json)


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
    "--show-request", is_flag=True, help="Print the request to Elasticsearch as curl; send nothing."
)
@_options(*QUERY_OPTIONS, INDEX_OPTION)
def knn(*, vector, field, show_request, as_json, alias, **rest) -> None:
    """Search with a raw vector: a JSON array, plain numbers or a .npy file.

    \b
    Example:
      glimpse knn vector.json --k 5
      glimpse knn vector.npy --show-request
    """
    from search_app.searcher import FIELDS
    from search_app.vector_input import read_vector
    from search_app.wiring import request_as_curl

    mode = next(mode for mode, name in FIELDS.items() if name == field)
    asked = _query({"vector": list(read_vector(vector.read())), "mode": mode, **rest})
    searcher = _searcher(SearchSettings(alias=alias, text_lane="local"))
    if show_request:
        click.echo(request_as_curl(searcher, asked, os.environ))
    else:
        _answer(searcher, asked, as_json)


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except (OSError, ValueError):  # too long for a name, or with a NUL: words, then
        return False


def _query(arguments: dict[str, Any], *, image: Path | None = None) -> Query:
    from search_app.arguments import load_query
    from search_app.errors import QueryError

    if image is not None and not image.is_file():
        raise QueryError(f"There is no picture file '{image}'.")
    given = {name: value for name, value in arguments.items() if value not in (None, False)}
    return load_query(given, k=DEFAULT_K, image=image)


def _searcher(settings: SearchSettings) -> Searcher:
    from search_app.wiring import build_searcher

    return build_searcher(settings, os.environ, warn=_warn)


def _answer(searcher: Searcher, query: Query, as_json: bool) -> None:
    from search_app.printing import print_response

    print_response(searcher.search(query), as_json=as_json, first=query.depth - query.k + 1)


def _warn(sentence: str) -> None:
    click.echo(f"Warning: {sentence}", err=True)
