"""The door of `glimpse evaluate --profiles`: pictures, questions and models for a contest."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from es_config.shared_cli import open_client, say
from evaluation.contest_types import Contest, Contestant, Picture, Question
from evaluation.errors import EvaluationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from models.profile import Profile


def contest_of(profiles: str, options: Mapping[str, Any]) -> tuple[Contest, tuple[str, ...]]:
    """Hold the contest that the options describe; return it with its warnings.

    Raises `EvaluationError`, `ModelError`, `EngineError` and `StorageError`.
    """
    from es_config.temporary_index import temporary_index
    from evaluation.contest import hold_contest

    rows = _named_profiles(profiles)
    client = open_client()
    pictures, questions, asked, warnings = _material(options, client)

    def open_index(each: Contestant) -> AbstractContextManager:
        return temporary_index(client, label=each.name, dims=each.dims, similarity=each.similarity)

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
    """Return the rows of `clip,mine=FOLDER`; a folder is loaded as the row of its name, else as `pocket`."""
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
    from models.embedding import load_image_encoder, load_text_encoder

    images, texts = load_image_encoder(profile), load_text_encoder(profile)
    return Contestant(name, profile.dims, profile.similarity, images.embed_images, texts.embed_texts)


def _material(options, client) -> tuple[list[Picture], list[Question], str, tuple[str, ...]]:
    """Return pictures and questions, where the questions came from, and warnings."""
    from evaluation.contest import caption_questions
    from evaluation.contest_pictures_cli import from_folder, from_index

    if options["folder"]:
        say(f"Reading the pictures of {options['folder']}")
        source = from_folder(options["folder"])
    else:
        source = from_index(options, client)
    if options["queries"] is not None:
        return _labelled(options, source)
    pictures = source.take(options["sample"], ())
    return pictures, caption_questions(pictures), "the pictures' captions", ()


def _labelled(options, source) -> tuple[list[Picture], list[Question], str, tuple[str, ...]]:
    """Return the labelled queries with the pictures that answer them, and others to fill the sample."""
    from evaluation.answers import find_answers
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
