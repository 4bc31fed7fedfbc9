"""The end of a run: paths whose files have moved, changed or gone leave the index."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from es_config.home import private_file
from es_config.index import ImageIndex, Removed
from ingest.errors import IngestError
from ingest.files.walk import is_gone, outermost, valid_unicode
from ingest.history.deletions import known_files, sift
from ingest.history.ingested_files import IngestedFile, IngestHistory, StalePath
from ingest.options import IngestOptions
from ingest.report import PruneSummary
from storage.keys import ORIGINAL_TYPES, original_key, thumbnail_key
from storage.store import Storage

TOGETHER = 500


def prune_paths(
    history: IngestHistory,
    *,
    index: ImageIndex,
    storage: Storage,
    folders: Sequence[Path],
    options: IngestOptions,
    gone: Sequence[Path] | None = None,
) -> PruneSummary:
    """Take stale paths out of the index: of changed, moved and (with `--prune`) gone files.

    With `gone`, look only at these paths and at the former paths of moved contents. Raises `EngineError`,
    `StorageError` or `IngestError`; the next run then goes on from there.
    """
    if history.path is None:
        return PruneSummary()
    lost: list[IngestedFile] = []
    if gone is not None:
        lost, moved = _among(history, gone, folders, options)
    elif options.prune.prune:
        lost, moved = _below(history, [*folders, *options.prune.moved_from], options)
    else:
        notes = (note for folder in folders for note in history.below(folder, moved_only=True))
        moved = [note for note in notes if is_gone(note.path)]
    missing = sift(lost, history, folders=folders, options=options)
    refused = " ".join(missing.reasons) or None
    listed = sorted((*missing.deleted, *missing.refused), key=_place)
    names = tuple(valid_unicode(os.fsdecode(note.path)) for note in listed)
    if options.dry_run:
        return PruneSummary(gone=names, refused=refused)
    leaving = [*moved, *missing.deleted]
    for start in range(0, len(leaving), TOGETHER):
        history.forget(leaving[start : start + TOGETHER])
    removed, failures = _drop_stale(history, index, storage)
    return PruneSummary(
        gone=names,
        documents=len(removed),
        human_captions=sum(each.caption is not None for each in removed),
        failures=failures,
        refused=refused,
    )


def _below(
    history: IngestHistory, folders: Iterable[Path], options: IngestOptions
) -> tuple[list[IngestedFile], list[IngestedFile]]:
    """Return the files below folders that are missing with no copy left, and those that moved."""
    lost: list[IngestedFile] = []
    moved: list[IngestedFile] = []
    for note in known_files(history, folders, options):
        if is_gone(note.path):
            lives = history.was_moved(note.image_id) or _any_exists(history.of_image(note.image_id))
            (moved if lives else lost).append(note)
    return lost, moved


def _among(
    history: IngestHistory, paths: Sequence[Path], folders: Sequence[Path], options: IngestOptions
) -> tuple[list[IngestedFile], list[IngestedFile]]:
    """Return the files at `paths` that are to leave the index, and those that moved."""
    gone = {note for path in paths for note in history.at(path) if is_gone(note.path)}
    gone = {note for note in gone if options.shard.holds(note.relative_path)}
    ours = tuple(os.fsencode(folder).rstrip(b"/") + b"/" for folder in outermost(folders))
    moved = {note for note in history.moved_notes() if note.path.startswith(ours) and is_gone(note.path)}
    moved |= {note for note in gone if _any_exists(history.of_image(note.image_id))}
    lost = gone - moved if options.prune.prune else set()
    return sorted(lost, key=_place), sorted(moved, key=_place)


def _place(note: IngestedFile) -> tuple[bytes, str]:
    return note.path, note.relative_path


def _any_exists(notes: Iterable[IngestedFile]) -> bool:
    return any(not is_gone(note.path) for note in notes)


def _drop_stale(
    history: IngestHistory, index: ImageIndex, storage: Storage
) -> tuple[list[Removed], tuple[str, ...]]:
    """Take stale paths from their documents, and the files of deleted documents from the store."""
    removed: list[Removed] = []
    failures: dict[str, str] = {}
    while batch := [each for each in history.stale() if each.image_id not in failures]:
        changed = index.drop_paths(_without_files(history, batch))
        _keep_captions(history, changed.removed)
        removed += changed.removed
        failures |= changed.failed
        absent = changed.absent | {each.image_id for each in changed.removed}
        others = {image_id: history.other_indexes(image_id) for image_id in absent}
        living = index.uuids() if any(others.values()) else frozenset()
        for image_id in absent:
            if not (others[image_id] if living is None else others[image_id] & living):
                storage.delete(thumbnail_key(image_id))
                for extension in ORIGINAL_TYPES:
                    storage.delete(original_key(image_id, extension))
        history.delete_stale([each for each in batch if each.image_id not in changed.failed])
        if changed.failed:
            break
    if removed:
        index.refresh()
    return removed, tuple(f"{image_id}: {reason}" for image_id, reason in failures.items())


def _without_files(history: IngestHistory, stale: Iterable[StalePath]) -> dict[str, list[str]]:
    """Return by image id the paths that no existing file has, below any folder that was ingested."""
    paths: dict[str, list[str]] = {}
    for each in stale:
        notes = history.of_image(each.image_id)
        if not _any_exists(note for note in notes if note.relative_path == each.relative_path):
            paths.setdefault(each.image_id, []).append(each.relative_path)
    return paths


def _keep_captions(history: IngestHistory, removed: Sequence[Removed]) -> None:
    """Write down the captions of people whose pictures left: nobody else could write them again."""
    written = [each for each in removed if each.caption is not None]
    if not written or history.path is None:
        return
    now = datetime.now(UTC).isoformat(timespec="seconds")
    rows = ({"image_id": each.image_id, "caption": each.caption, "removed_at": now} for each in written)
    lines = [json.dumps(row) for row in rows]
    path = history.path.with_name("removed-captions.jsonl")
    try:
        private_file(path)
        with path.open("a", encoding="ascii") as file:
            file.writelines(f"{line}\n" for line in lines)
    except OSError as error:
        raise IngestError(
            f"{path} cannot be written: {error}. It should hold what people had written of pictures that"
            f" have left the index, and nobody else knows it now: {' '.join(lines)}"
        ) from error
