"""Where the pictures of a contest come from: a folder, or the thumbnails of an index."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.contest_types import Picture
from evaluation.errors import EvaluationError

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch
    from PIL.Image import Image

    from es_config.index import ImageIndex
    from ingest.walk import Candidate
    from storage.store import Storage


@dataclass(frozen=True)
class Source:
    """Pictures to choose from."""

    take: Callable[[int, Sequence[str]], list[Picture]]
    """gives at most so many pictures: those with the wanted ids first, then others in the order of ids"""
    find: Callable[[Sequence[str]], Mapping[str, Sequence[str]]]
    """maps labels to ids"""


def from_folder(folder: Path) -> Source:
    """Return the pictures of a folder and of those in it; every file is read once for its id."""
    from evaluation.answers import picture_finder
    from ingest.errors import UnreadableImageError
    from ingest.pictures import read_content
    from ingest.walk import Candidate, walk

    files: dict[str, list[Candidate]] = {}
    for found in walk([folder]):
        try:
            if isinstance(found, Candidate):
                files.setdefault(read_content(found.path).image_id, []).append(found)
        except UnreadableImageError:
            continue

    def take(size: int, wanted: Sequence[str]) -> list[Picture]:
        chosen = dict.fromkeys([*(each for each in wanted if each in files), *sorted(files)])
        pictures = (_from_file(image_id, files[image_id][0]) for image_id in chosen)
        return list(islice(filter(None, pictures), size))

    places = [(image_id, [found.relative_path for found in same]) for image_id, same in files.items()]
    known = partial(filter, files.__contains__)
    return Source(take, picture_finder(known=known, by_name=lambda _: places))


def _from_file(image_id: str, found: Candidate) -> Picture | None:
    from ingest.errors import UnreadableImageError
    from ingest.pictures import read_image

    def read():
        return read_image(found.path)

    try:
        said = read().exif.description
    except UnreadableImageError:
        return None
    return Picture(image_id, lambda: read().image, (said,) if said else ())


def from_index(options: Mapping[str, Any], client: Elasticsearch) -> Source:
    """Return the pictures of an index, as their thumbnails show them. Raises as connecting does."""
    from es_config.index import ImageIndex
    from es_config.settings import glimpse_home
    from evaluation.answers import picture_finder
    from evaluation.evaluate_cli import pictures_named
    from search_app.settings import store_uri
    from storage.store import open_storage

    index = ImageIndex(client, alias=options["alias"])
    index.meta()  # says in one sentence what is wrong with the index
    store = open_storage(options["store"] or store_uri(os.environ, glimpse_home(os.environ)))
    find = picture_finder(known=index.known, by_name=lambda names: pictures_named(index, names))
    return Source(lambda size, wanted: _thumbnails(index, store, size, wanted), find)


def _thumbnails(index: ImageIndex, store: Storage, size: int, wanted: Sequence[str]) -> list[Picture]:
    from storage.store import thumbnail_key

    captions: dict[str, str | None] = dict.fromkeys(wanted[:size])
    everything = {"query": {"match_all": {}}, "sort": [{"image_id": "asc"}], "_source": ["caption"]}
    for hit in index.search({**everything, "size": size}).hits:
        if len(captions) < size or hit.image_id in captions:
            captions[hit.image_id] = hit.source.get("caption")
    kept = [image_id for image_id in captions if store.exists(thumbnail_key(image_id))]
    if captions and not kept:
        raise EvaluationError("The store has no thumbnails of this index: check --store, or give --folder.")
    said = {image_id: (captions[image_id],) if captions[image_id] else () for image_id in kept}
    return [Picture(each, partial(_thumbnail, store, each), said[each]) for each in kept]


def _thumbnail(store: Storage, image_id: str) -> Image:
    from PIL import Image

    from storage.store import thumbnail_key

    return Image.open(io.BytesIO(store.get(thumbnail_key(image_id)))).convert("RGB")
