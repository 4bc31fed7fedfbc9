"""Commands that ask: `glimpse search` and `glimpse knn`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

import click

from es_config.commands.options import (
    FILTERS,
    INDEX,
    SEARCHER,
    VOICE_MODEL,
    OneOf,
    SectionedCommand,
    say,
    section,
    setting,
    together,
    warn,
)
from es_config.documents import one_line
from es_config.requests import DEFAULT_K, MAX_CANDIDATES, Filters
from search_app.settings import SearchSettings

if TYPE_CHECKING:
    from es_config.index import ImageIndex
    from ingest.history.ingested_files import IngestedFile
    from search_app.core.parts import Part
    from search_app.core.query import Query, SearchHit, SearchResponse

NUMBER = click.IntRange(1, MAX_CANDIDATES)
QUERY_OPTIONS = together(
    setting("-k --k", "GLIMPSE_K", type=NUMBER, default=DEFAULT_K, metavar="NUMBER", help="Hits a page."),
    click.option("--page", type=NUMBER, metavar="NUMBER", help="1 for the k nearest, 2 for the next k, ..."),
    setting(
        "--num-candidates",
        "GLIMPSE_NUM_CANDIDATES",
        type=NUMBER,
        metavar="NUMBER",
        help="Per shard; more find more and take longer.",
    ),
    click.option("--exact", is_flag=True, help="Look at every vector instead of the graph."),
    section("Filters", FILTERS),
    section(
        "Output",
        click.option("--paths", "only_paths", is_flag=True, help="Print the paths of the files alone."),
        click.option("-0", "--null", is_flag=True, help="As --paths, with a NUL after each: for `xargs -0`."),
        click.option("--open", "opens", is_flag=True, help="Open the first hit with its usual program."),
        click.option(
            "--json",
            "as_json",
            is_flag=True,
            help="Print what the REST API would answer, with the place of each file on this machine.",
        ),
    ),
)
SEARCH_OPTIONS = together(
    setting(
        "--mode",
        "GLIMPSE_MODE",
        type=OneOf(["image", "caption", "words", "hybrid"]),
        default="image",
        help="Search the pictures (image), their captions (caption), the words written in them (words), or"
        " all together (hybrid).",
    ),
    QUERY_OPTIONS,
    section("Models and index", VOICE_MODEL, SEARCHER),
)
STDIN = "-"


@click.command(cls=SectionedCommand)
@click.argument("words", nargs=-1, metavar="[QUERY]...", type=click.Path())
@section(
    "Parts of the question, each as often as you like, each with a weight at its end if you like (boats^0.5)",
    together(
        click.option(
            "--text",
            "texts",
            metavar="WORDS",
            multiple=True,
            help="Search for this text, even if a file has this name.",
        ),
        click.option("--image", "images", metavar="FILE", multiple=True, help="Search with a picture file."),
        click.option(
            "--like",
            "likes",
            metavar="ID|FILE",
            multiple=True,
            help="Find pictures like one of the index, or like a file.",
        ),
        click.option(
            "--voice",
            "voices",
            metavar="FILE",
            multiple=True,
            help="Search with what is said in this recording.",
        ),
        click.option(
            "--vector", "vectors", metavar="FILE", multiple=True, help="Search with the vector in this file."
        ),
        click.option(
            "--minus",
            metavar="WORDS|FILE",
            multiple=True,
            help="Not such pictures: words, or a picture file.",
        ),
        click.option(
            "--unlike",
            metavar="ID|FILE",
            multiple=True,
            help="Not pictures like this one of the index or file.",
        ),
    ),
)
@click.option(
    "--min-relevance", type=OneOf(["weak", "strong"]), help="Leave out lower hits; see `glimpse calibrate`."
)
@click.option(
    "--sort",
    type=OneOf(["relevance", "newest", "oldest", "name", "added"]),
    help="Order of the hits.  [default: relevance; newest where nothing is asked]",
)
@click.option("--show-request", is_flag=True, help="Print the request to Elasticsearch as curl instead.")
@SEARCH_OPTIONS
def search(
    *,
    words: tuple[str, ...],
    texts: tuple[str, ...],
    images: tuple[str, ...],
    likes: tuple[str, ...],
    voices: tuple[str, ...],
    vectors: tuple[str, ...],
    minus: tuple[str, ...],
    unlike: tuple[str, ...],
    show_request: bool,
    voice_model: str | None,
    only_paths: bool,
    null: bool,
    opens: bool,
    as_json: bool,
    profile: str | None,
    model_dir: Path | None,
    text_lane: str,
    alias: str,
    **rest: Any,
) -> None:
    """Search by words, by a picture file, by a recording of a voice or by a picture of the index.

    QUERY is a picture if a file has that name, - reads words or a picture from stdin, and anything else is a
    text, which needs no quotes. Several parts are one question: what is wanted attracts, and what is not
    (--minus, --unlike) repels. Without a question, the pictures that pass the filters are listed, the newest
    first. The paths of files that this machine ingested are absolute. The exit code is 1 when nothing is
    found.

    \b
    Example:
      glimpse search a red boat at night
      glimpse search ./photo.jpg -k 5 --open
      glimpse search --voice clip.wav
      glimpse search a red boat --mode hybrid
      glimpse search boats --minus "red boats" --like ./harbour.jpg --unlike ./x.jpg^0.5
      glimpse search --date-from 2024-07-01 --path holidays/ --sort oldest
      glimpse search a red boat --path holidays/ -0 | xargs -0 cp -t ~/boats
    """
    settings = SearchSettings(profile, model_dir, alias, text_lane, voice_model)
    output = OutputOptions(only_paths or null, null, opens, as_json)
    parts = [
        *([read_words(words)] if words else []),
        *(read_part(each, as_text=True, may_be_file=False) for each in texts),
        *(read_part(each, must_be_file=True) for each in images),
        *(read_part(each) for each in likes),
        *_read_vectors(vectors),
        *_heard(voices, settings),
        *(read_part(each, as_text=True, wanted=False) for each in minus),
        *(read_part(each, wanted=False) for each in unlike),
    ]
    _answer(settings, _query(rest, parts=[each for each in parts if each]), output, show_request=show_request)


@click.command(cls=SectionedCommand)
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
def knn(
    *,
    vector: BinaryIO,
    field: str,
    show_request: bool,
    only_paths: bool,
    null: bool,
    opens: bool,
    as_json: bool,
    alias: str,
    **rest: Any,
) -> None:
    """Search with a raw vector: a JSON array, plain numbers or a .npy file.

    \b
    Example:
      glimpse knn vector.json -k 5
      glimpse knn vector.npy --show-request
    """
    from es_config.documents import MODE_FIELDS
    from search_app.core.parts import read_vector
    from search_app.wiring import request_as_curl

    mode = next(mode for mode, name in MODE_FIELDS.items() if name == field)
    asked = _query({"vector": list(read_vector(vector.read())), "mode": mode, **rest})
    if show_request:
        click.echo(request_as_curl(asked, os.environ, alias=alias))
    else:
        output = OutputOptions(only_paths or null, null, opens, as_json)
        _answer(SearchSettings(alias=alias, text_lane="local"), asked, output)


@dataclass(frozen=True)
class OutputOptions:
    """How hits are written. Raises click's error for two forms at once."""

    only_paths: bool = False
    null: bool = False
    """whether a NUL follows each path"""
    opens: bool = False
    """whether the first hit is opened"""
    as_json: bool = False

    def __post_init__(self) -> None:
        """Refuse paths alone as JSON."""
        if self.only_paths and self.as_json:
            raise click.UsageError("--json prints whole hits, --paths and -0 their paths alone: use one.")


@dataclass(frozen=True)
class PlacedHit:
    """A hit with the place of its file, as far as this machine has ingested it."""

    hit: SearchHit
    file: IngestedFile | None

    @property
    def path(self) -> str:
        """The absolute path, or the relative one where no other is known."""
        return self.file.shown if self.file else self.hit.path

    def to_json(self) -> dict[str, Any]:
        """Return the hit as the REST API sends it, with `root`, `absolute_path` and `file`."""
        root, path = (self.file.root, self.file.shown) if self.file else (None, None)
        uri = Path(path).as_uri() if path else None
        place = {"root": root, "absolute_path": path, "file": uri}
        return {**vars(self.hit), **{name: value and _utf8(value) for name, value in place.items()}}


def read_words(words: tuple[str, ...]) -> Part | None:
    """Return the part that words without an option are: a text, the picture of that name, or stdin.

    Raises `QueryError` for the name of a picture file that is not there, and click's error for a picture
    among words.
    """
    from ingest.files.walk import EXTENSIONS

    text = " ".join(words)
    if text == STDIN:
        return _read_stdin()
    for word in words:
        if len(words) > 1 and _is_file(word) and Path(word).suffix.lower() in EXTENSIONS:
            raise click.UsageError(f"Put --image before the picture among the words: {one_line(word)!r}.")
    return read_part(text, as_text=True)


def read_part(
    value: str,
    *,
    as_text: bool = False,
    may_be_file: bool = True,
    must_be_file: bool = False,
    wanted: bool = True,
) -> Part | None:
    """Return the part that a value with its weight stands for: a picture file, else a text or an image id.

    Raises `QueryError` for the name of a picture file that is not there.
    """
    from ingest.files.walk import EXTENSIONS
    from search_app.core.parts import Part, split_weight
    from search_app.errors import QueryError

    named, weight = (value, 1.0) if may_be_file and _is_file(value) else split_weight(value)
    if may_be_file and _is_file(named):
        return Part(image=Path(named), weight=weight, wanted=wanted)
    if must_be_file:
        raise QueryError(f"There is no picture file '{named}'.")
    missing = [
        word
        for word in named.split()
        if "/" in word or os.sep in word or Path(word).suffix.lower() in EXTENSIONS
    ]
    if may_be_file and missing and (wanted or missing == [named]):
        hint = "; to search for these words, put --text before them" if as_text and wanted else ""
        raise QueryError(f"There is no file '{missing[0]}'{hint}.")
    if not named.strip():
        return None
    if as_text:
        return Part(text=named, weight=weight, wanted=wanted)
    return Part(like=named, weight=weight, wanted=wanted)


def _read_vectors(files: tuple[str, ...]) -> Iterator[Part]:
    from search_app.core.parts import Part, read_vector, split_weight
    from search_app.errors import QueryError

    for file in files:
        name, weight = (file, 1.0) if _is_file(file) else split_weight(file)
        if not _is_file(name):
            raise QueryError(f"There is no file '{name}'.")
        yield Part(vector=read_vector(Path(name).read_bytes()), weight=weight)


def _heard(recordings: tuple[str, ...], settings: SearchSettings) -> Iterator[Part]:
    from search_app.core.parts import Part, split_weight
    from search_app.core.voice import LANGUAGES, transcribe_file
    from search_app.wiring import build_searcher

    for recording in recordings:
        name, weight = (recording, 1.0) if _is_file(recording) else split_weight(recording)
        hearing = build_searcher(settings, os.environ, warn=warn).profile
        transcript = transcribe_file(Path(name), hearing, settings.voice_model, warn=warn)
        language = transcript.language and f" ({LANGUAGES.get(transcript.language, transcript.language)})"
        say(f"Heard{language or ''}: {transcript.text}")
        yield Part(text=transcript.text, weight=weight)


def _read_stdin() -> Part | None:
    from models.pixels import MAGIC
    from search_app.core.parts import Part
    from search_app.errors import QueryError

    data = sys.stdin.buffer.read()
    if MAGIC.match(data):
        return Part(image=data)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise QueryError("stdin brings neither words in UTF-8 nor a picture that can be read.") from error
    return Part(text=text) if text.strip() else None


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except (OSError, ValueError):  # too long for a name, or with a NUL: words, then
        return False


def _query(arguments: dict[str, Any], *, parts: Sequence[Part] = ()) -> Query:
    from search_app.core.query import load_query

    given = {name: value for name, value in arguments.items() if value not in (None, False)}
    return load_query(given, more=parts)


def _answer(
    settings: SearchSettings, query: Query, output: OutputOptions, *, show_request: bool = False
) -> None:
    from es_config.transport import accepting_partial_answers
    from search_app.wiring import build_searcher, requests_as_curl

    if show_request:
        searcher = build_searcher(settings, os.environ, warn=warn)
        click.echo(requests_as_curl(searcher, query, os.environ))
        return
    with accepting_partial_answers():
        searcher = build_searcher(settings, os.environ, warn=warn)
        searcher.load_models_for(query)
        response = searcher.search(query)
    if response.partial:
        warn(
            f"{response.shards_failed} of {response.shards} shards did not answer, so pictures may be"
            " missing: see `glimpse doctor`."
        )
    hits = _placed(response, searcher.index)
    if output.as_json:
        answer = {**response.to_json(), "hits": [hit.to_json() for hit in hits]}
        click.echo(json.dumps(answer, ensure_ascii=False, indent=2))
    elif output.only_paths:
        _write_paths(hits, null=output.null)
    elif sys.stdout.isatty():
        print_table(response, hits, sys.stdout, first=query.depth - query.k + 1)
    else:
        for rank, hit in enumerate(hits, query.depth - query.k + 1):
            click.echo("\t".join([str(rank), _number(hit.hit.similarity, 4), *_texts(hit)]))
    if not hits:
        say(why_nothing(query))
        raise SystemExit(1)
    if response.nothing_good:
        say("Nothing good was found; these are the nearest pictures all the same.")
    if output.opens:
        _open(hits[0])


def _placed(response: SearchResponse, index: ImageIndex) -> list[PlacedHit]:
    """Return the hits with their files. Without the notes of ingest, paths stay relative."""
    from es_config.client import glimpse_home
    from es_config.errors import EngineError
    from ingest.history.ingested_files import HISTORY_FILE
    from ingest.originals import IngestedOriginals
    from storage.errors import StorageError

    originals = IngestedOriginals(glimpse_home(os.environ) / HISTORY_FILE, lambda: index)
    try:
        files = originals.files_of({_content_of(hit): hit.path for hit in response.hits})
    except (EngineError, StorageError) as error:
        warn(f"paths are relative. {error}")
        files = {}
    return [PlacedHit(hit, next(iter(files.get(_content_of(hit), ())), None)) for hit in response.hits]


def _content_of(hit: SearchHit) -> str:
    """Return the id of the file that a hit is from: of a film's moment that of the film."""
    return str(hit.film["id"]) if hit.film else hit.image_id


def _write_paths(hits: list[PlacedHit], *, null: bool) -> None:
    """Write paths for other programs: byte for byte, as `find` does."""
    if away := sum(hit.file is None for hit in hits):
        warn(
            f"{away} of {len(hits)} pictures were not ingested on this machine, so their paths are relative."
        )
    for hit in hits:
        click.echo(os.fsencode(hit.path) + (b"\0" if null else b"\n"), nl=False)


def _open(hit: PlacedHit) -> None:
    """Open a hit with the program that the desktop uses for such files."""
    if hit.file is None or not Path(hit.path).is_file():
        raise click.ClickException(
            f"{one_line(hit.path)} is not on this machine, so it cannot be opened here."
        )
    if click.launch(hit.path) != 0:
        raise click.ClickException(
            f"No program opens {one_line(hit.path)}: install xdg-utils, or use `glimpse serve`."
        )


def why_nothing(query: Query) -> str:
    """Return the sentence about an answer without hits."""
    if query.min_relevance:
        or_filtered = "" if query.filters == Filters() else ", or no picture passes the filters"
        return (
            f"No hit is marked {query.min_relevance} or better{or_filtered}: leave --min-relevance out"
            " to see the nearest pictures."
        )
    if query.mode == "words":
        return (
            "These words are written in no picture that was read, or none passes the filters: `glimpse words`"
            " reads the pictures that are not read yet."
        )
    return "Nothing was found: the index is empty, or no picture passes the filters."


def print_table(response: SearchResponse, hits: list[PlacedHit], out: TextIO, *, first: int = 1) -> None:
    """Write a line for each hit, whose path can be copied, and a line with the time it took."""
    from rich.console import Console
    from rich.text import Text

    console = Console(file=out)
    console.print("   similarity  path", style="dim", highlight=False)
    for rank, hit in enumerate(hits, first):
        path, *more = _texts(hit)
        line = Text(f"{rank:>2}  {_number(hit.hit.similarity, 3):>9}  ", "dim")
        line.append(path, "dim" if hit.hit.relevance == "none" else "bold")
        line.append("".join(f"  {text}" for text in more if text), "dim")
        console.print(line, soft_wrap=True, highlight=False)
    lane = f", text model: {response.lane}" if response.lane else ""
    noun = "picture" if len(hits) == 1 else "pictures"
    console.print(f"{len(hits)} {noun} in {response.took_ms} ms{lane}", style="dim", highlight=False)


def _texts(hit: PlacedHit) -> list[str]:
    return [
        one_line(text)
        for text in (
            hit.path,
            hit.hit.caption or "",
            *([hit.hit.why] if hit.hit.why else []),
            *(["cut short"] if hit.hit.cut_short else []),
            *([_times(hit.hit.film)] if hit.hit.film else []),
        )
    ]


def _times(film: dict[str, Any]) -> str:
    from search_app.core.films import clock

    also = ", ".join(clock(each["time_ms"]) for each in film["moments"])
    return f"at {clock(film['time_ms'])} of {clock(film['duration_ms'])}" + (f", also {also}" if also else "")


def _utf8(text: str) -> str:
    """Return text that JSON can hold: bytes of a path that are not UTF-8 are spelled out."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
