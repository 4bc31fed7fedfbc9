"""`glimpse describe`: words for a picture."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from es_config.commands.options import AS_JSON, SEARCHER, warn
from search_app.settings import SearchSettings

if TYPE_CHECKING:
    from models.captioning import Captioner
    from models.profiles import Profile


@click.command()
@click.argument("photo", type=click.Path(path_type=Path))
@click.option(
    "-k", "--k", type=click.IntRange(1, 10_000), default=5, show_default=True, help="Captions to show."
)
@AS_JSON
@SEARCHER
def describe(
    *,
    photo: Path,
    k: int,
    as_json: bool,
    profile: str | None,
    model_dir: Path | None,
    text_lane: str,
    alias: str,
) -> None:
    """Caption a picture file, and show the captions of the index that are nearest to that.

    PHOTO may be any picture, in the index or not. The captioner is that of the index. Without an index, the
    caption alone is printed.

    \b
    Example:
      glimpse describe photo.jpg
      glimpse describe photo.jpg -k 3 --json
    """
    from es_config.documents import one_line
    from models.captioning import load_captioner
    from models.profiles import default_profile, get_profile
    from search_app.core.describe import describe as described
    from search_app.wiring import build_searcher

    settings = SearchSettings(profile, model_dir, alias, text_lane)

    def captioner_of(own: Profile | None) -> Captioner:
        chosen = own or get_profile(profile or default_profile(os.environ), model_dir=model_dir)
        return load_captioner(chosen.caption_model)

    description = described(
        photo,
        build_searcher=lambda: build_searcher(settings, os.environ, warn=warn),
        load_captioner=captioner_of,
        k=k,
        warn=warn,
    )
    if as_json:
        click.echo(json.dumps(description.to_json(), ensure_ascii=False, indent=2))
        return
    click.echo(one_line(description.caption))
    for hit in description.nearest:
        click.echo(f"{hit.similarity:.4f}\t{one_line(hit.caption or '')}\t{one_line(hit.path)}")
