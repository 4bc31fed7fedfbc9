"""How the top ten of sample queries differ between the index that answers and the next one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ingest.reindex.reindex import Compared, Comparison
    from ingest.reindex.wiring import ReindexParts
    from models.profiles import Profile
    from search_app.core.searcher import Searcher

K = 10
QUERIES = 50
FEWEST = 10
"""different queries that a log must hold to be used"""
SHOWN = 3
WIDTH = 44


def compare(parts: ReindexParts, *, asked: Sequence[str], labelled: Path | None) -> Comparison | None:
    """Search both indices, each with its own models; None, said on stderr, when that cannot be done."""
    from ingest.reindex.reindex import Compared, Comparison
    from models.errors import ModelError
    from search_app.wiring import searcher_of

    texts, source = _texts(parts, asked, labelled)
    profile = former_profile(parts)
    if profile is None or not texts:
        why = "no query is known: give --query" if profile else "the former models are not here"
        click.echo(f"The top ten are not compared: {why}.", err=True)
        return None
    pairs = ((parts.old, profile), (parts.new, parts.profile))
    alone = {"lane": "local", "warn": lambda _: None}  # one lane has nothing to warn of
    former, new = (searcher_of(*each, parts.client, **alone) for each in pairs)
    try:
        found = tuple(Compared(text, _top(former, text), _top(new, text)) for text in texts)
    except ModelError as error:
        click.echo(f"The top ten are not compared. {error}", err=True)
        return None
    return Comparison(source, found)


def former_profile(parts: ReindexParts) -> Profile | None:
    """Return the models of the index that answered before: of the table, or of GLIMPSE_MODEL_DIR."""
    from search_app.settings import SearchSettings
    from search_app.wiring import profile_of

    folder = os.environ.get("GLIMPSE_MODEL_DIR")
    return profile_of(parts.old, SearchSettings(parts.old.meta().profile, Path(folder) if folder else None))


def _top(searcher: Searcher, text: str) -> dict[str, str]:
    from search_app.core.query import Query

    hits = searcher.search(Query(text=text, k=K)).hits
    return {hit.image_id: hit.path for hit in hits}


def _texts(parts: ReindexParts, asked: Sequence[str], labelled: Path | None) -> tuple[list[str], str]:
    """Return the queries and where they come from: given, of the kept log, or captions."""
    from es_config.client import glimpse_home
    from es_config.scan import read_sample
    from search_app.core.query_log import log_path, read_query_log

    given = [*asked, *(_read(labelled) if labelled else ())]
    if given:
        return list(dict.fromkeys(given)), "as given"
    logged = list(dict.fromkeys(read_query_log(log_path(glimpse_home(os.environ)))))
    if len(logged) >= FEWEST:
        return Random(0).sample(logged, min(QUERIES, len(logged))), "the log of real queries"
    where = {"fields": ["caption_embedding"], "size": QUERIES, "source": ["caption"]}
    sources = read_sample(parts.client, parts.old.name(), **where).sources
    return list(dict.fromkeys(each["caption"] for each in sources if each.get("caption"))), "captions"


def _read(path: Path) -> list[str]:
    from evaluation.errors import LabelError
    from evaluation.labels import read_labels

    try:
        texts = [query.text for query in read_labels(path).queries]
    except LabelError as error:
        raise click.BadParameter(str(error), param_hint="--queries") from error
    if None in texts:
        raise click.BadParameter(
            f"{path} holds vectors, and each model has its own: words are needed.", param_hint="--queries"
        )
    return texts


def in_words(comparison: Comparison) -> str:
    """Return how much the top ten have in common, and the most different ones side by side."""
    count = len(comparison.queries)
    common = f"{comparison.overlap:.0%} of the top ten in common"
    lines = [f"{count} {'query' if count == 1 else 'queries'} ({comparison.source}): {common}."]
    for each in sorted(comparison.queries, key=lambda each: each.overlap)[:SHOWN]:
        lines += ["", f'"{each.query}": {each.overlap:.0%} in common', *_rows(each)]
    return "\n".join(lines)


def _rows(compared: Compared) -> list[str]:
    former, new = (list(hits.values()) for hits in (compared.former, compared.new))
    both = compared.former.keys() & compared.new.keys()
    marks = ["=" if image_id in both else " " for image_id in compared.new]
    rows = max(len(former), len(new))
    former, new, marks = (each + [""] * (rows - len(each)) for each in (former, new, marks))
    titles = [f"     {'former':<{WIDTH}}   new"]
    return titles + [
        f"{place:>4} {_cut(one):<{WIDTH}} {mark} {_cut(other)}".rstrip()
        for place, (one, mark, other) in enumerate(zip(former, marks, new, strict=True), 1)
    ]


def _cut(name: str) -> str:
    return name if len(name) <= WIDTH else f"…{name[1 - WIDTH :]}"
