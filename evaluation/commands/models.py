"""The door of `glimpse evaluate --profiles`: pictures, questions and models for a contest."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from es_config.commands.options import open_client, say
from evaluation.compare_models import Contest, Contestant, Picture, Question
from evaluation.errors import EvaluationError
from evaluation.labels import find_answers, picture_finder

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch
    from PIL.Image import Image

    from es_config.index import ImageIndex
    from ingest.files.walk import Candidate
    from models.profiles import Profile
    from storage.store import Storage

Material = tuple[list[Picture], list[Question], str, tuple[str, ...]]
"""pictures and questions, where the questions came from, and warnings"""


def contest_of(profiles: str, options: Mapping[str, Any]) -> tuple[Contest, tuple[str, ...]]:
    """Hold the contest that the options describe, and return it with its warnings.

    Raises `EvaluationError`, `ModelError`, `EngineError` and `StorageError`.
    """
    from es_config.mapping import IndexOptions
    from es_config.vector_field import temporary_index
    from evaluation.compare_models import hold_contest

    rows = _named_profiles(profiles)
    client = open_client()
    pictures, questions, asked, warnings = _material(options, client)

    def open_index(each: Contestant) -> AbstractContextManager:
        return temporary_index(
            client,
            label=each.name,
            dims=each.dims,
            similarity=each.similarity,
            index_options=IndexOptions().graph,
        )

    contest = hold_contest(
        list(rows),
        pictures=pictures,
        questions=questions,
        asked=asked,
        load=lambda name: _load(name, rows[name]),
        open_index=open_index,
        k=options["k"],
        say=say,
    )
    return contest, warnings


def _named_profiles(text: str) -> dict[str, Profile]:
    """Return the rows of `clip,mine=FOLDER`. A folder is loaded as the row of its name, else as `pocket`."""
    from models.profiles import PROFILES, get_profile

    rows: dict[str, Profile] = {}
    for part in (part.strip() for part in text.split(",")):
        name, _, folder = part.partition("=")
        if name in rows or not name:
            raise EvaluationError(
                f"'{text}' must name different profiles: give each name=FOLDER its own name."
            )
        row = name if name in PROFILES or not folder else "pocket"
        rows[name] = get_profile(row, model_dir=Path(folder).expanduser() if folder else None)
    return rows


def _load(name: str, profile: Profile) -> Contestant:
    from models.encoders import load_image_encoder, load_text_encoder

    images, texts = load_image_encoder(profile), load_text_encoder(profile)
    return Contestant(name, profile.dims, profile.similarity, images.embed_images, texts.embed_texts)


def _material(options: Mapping[str, Any], client: Elasticsearch) -> Material:
    """Return the pictures and queries on which the models are compared."""
    from evaluation.compare_models import caption_questions

    if options["folder"]:
        say(f"Reading the pictures of {options['folder']}")
        source = from_folder(options["folder"])
    else:
        source = from_index(options, client)
    if options["queries"] is not None:
        return _labelled(options, source)
    pictures = source.take(options["sample"], ())
    return pictures, caption_questions(pictures), "the pictures' captions", ()


def _labelled(options: Mapping[str, Any], source: Source) -> Material:
    """Return the labelled queries with the pictures that answer them, and others to fill the sample."""
    from evaluation.labels import read_labels

    labels = read_labels(options["queries"], qrels=options["qrels"])
    answers = find_answers([query for query in labels.queries if query.text], find=source.find)
    wanted = dict.fromkeys(each for ids in answers.relevant.values() for each in ids)
    pictures = source.take(options["sample"], tuple(wanted))
    held = {picture.image_id for picture in pictures}
    asked = [
        Question(query.text or "", tuple(each for each in answers.relevant[query.key] if each in held))
        for query in answers.queries
    ]
    warnings = (*labels.warnings, *answers.warnings)
    return pictures, [question for question in asked if question.relevant], "labelled queries", warnings


@dataclass(frozen=True)
class Source:
    """Pictures to choose from."""

    take: Callable[[int, Sequence[str]], list[Picture]]
    """gives at most so many pictures: those with the wanted ids first, then others in the order of ids"""
    find: Callable[[Sequence[str]], Mapping[str, Sequence[str]]]
    """maps labels to ids"""


def from_folder(folder: Path) -> Source:
    """Return the pictures below a folder. Every file is read once for its id."""
    from ingest.errors import UnreadableImageError
    from ingest.files.picture import read_content
    from ingest.files.walk import Candidate, walk

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
    from ingest.files.picture import read_image

    def read():
        return read_image(found.path)

    try:
        said = read().exif.description
    except UnreadableImageError:
        return None
    return Picture(image_id, lambda: read().image, (said,) if said else ())


def from_index(options: Mapping[str, Any], client: Elasticsearch) -> Source:
    """Return the pictures of an index, as their thumbnails show them. Raises as connecting does."""
    from es_config.client import glimpse_home
    from es_config.index import ImageIndex
    from evaluation.labels import pictures_named
    from search_app.settings import store_uri
    from storage.store import open_storage

    index = ImageIndex(client, alias=options["alias"])
    index.meta()  # says in one sentence what is wrong with the index
    store = open_storage(options["store"] or store_uri(os.environ, glimpse_home(os.environ)))
    find = picture_finder(known=index.known, by_name=lambda names: pictures_named(index, names))
    return Source(lambda size, wanted: _thumbnails(index, store, size, wanted), find)


def _thumbnails(index: ImageIndex, store: Storage, size: int, wanted: Sequence[str]) -> list[Picture]:
    from storage.keys import thumbnail_key

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

    from storage.keys import thumbnail_key

    return Image.open(io.BytesIO(store.get(thumbnail_key(image_id)))).convert("RGB")
