"""Commands that ask: `glimpse search` and `glimpse knn`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from es_config.commands.options import FILTERS, INDEX, MODELS, say, setting, together, warn
from search_app.settings import SearchSettings

if TYPE_CHECKING:
    from models.voice import Transcriber
    from search_app.core.query import Query
    from search_app.core.searcher import Searcher

DEFAULT_K = 10

MODEL_OPTIONS = together(
    MODELS,
    setting(
        "--text-lane",
        "GLIMPSE_TEXT_LANE",
        default="auto",
        help="Where texts are embedded: in Elasticsearch (infer), here (local), or what works (auto).",
    ),
    INDEX,
)
VOICE_OPTION = setting(
    "--voice-model",
    "GLIMPSE_VOICE_MODEL",
    metavar="SIZE|PATH|off",
    help="What hears: tiny, base or small (downloaded), a folder, or off.  [default: the profile's]",
)
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
    MODEL_OPTIONS,
)


@click.command()
@click.argument("query", required=False)
@click.option("--text", help="Search for this text, even if a file has this name.")
@click.option("--image", type=click.Path(path_type=Path), help="Search with this picture file.")
@click.option("--like", metavar="IMAGE_ID", help="Search with a picture of the index.")
@click.option("--voice", type=click.Path(path_type=Path), help="Search with what is said in this recording.")
@VOICE_OPTION
@click.option("--min-relevance", metavar="weak|strong", help="Leave out lower hits; see `glimpse calibrate`.")
@SEARCH_OPTIONS
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
        from search_app.voice import needed_transcriber, read_clip

        text = sentence_of(read_clip(voice), needed_transcriber(settings))
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
    "--show-request",
    is_flag=True,
    help="Print the request to Elasticsearch as curl and send nothing; tuned settings are not looked up, and"
    " only --exact counts the pictures first.",
)
@QUERY_OPTIONS
@INDEX
def knn(*, vector, field, show_request, as_json, alias, **rest) -> None:
    """Search with a raw vector: a JSON array, plain numbers or a .npy file.

    \b
    Example:
      glimpse knn vector.json --k 5
      glimpse knn vector.npy --show-request
    """
    from search_app.core.searcher import FIELDS
    from search_app.core.vector_input import read_vector
    from search_app.wiring import request_as_curl

    mode = next(mode for mode, name in FIELDS.items() if name == field)
    asked = _query({"vector": list(read_vector(vector.read())), "mode": mode, **rest})
    if show_request:
        click.echo(request_as_curl(asked, os.environ, alias=alias))
    else:
        _answer(_searcher(SearchSettings(alias=alias, text_lane="local")), asked, as_json)


def sentence_of(recording: bytes, transcriber: Transcriber) -> str:
    """Return the sentence that is said in a recording, and show it on stderr. Raises as `heard` does."""
    from search_app.examples import LANGUAGES
    from search_app.voice import heard

    transcript = heard(recording, transcriber)
    language = LANGUAGES.get(transcript.language, transcript.language)
    say(f"Heard ({language}): {transcript.text}")
    return transcript.text


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

    return build_searcher(settings, os.environ, warn=warn)


def _answer(searcher: Searcher, query: Query, as_json: bool) -> None:
    from search_app.printing import print_response

    print_response(searcher.search(query), as_json=as_json, first=query.depth - query.k + 1)
