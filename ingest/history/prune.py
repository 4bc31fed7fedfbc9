"""The end of a run: paths whose files have moved, changed or gone leave the index."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ingest.errors import IngestError
from ingest.files.walk import is_gone, outermost, valid_unicode
from ingest.options import IngestOptions, PruneSummary
from storage.keys import ORIGINAL_TYPES, original_key, thumbnail_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from es_config.index import ImageIndex, Removed
    from ingest.history.ingested_files import Note, Notes, Stale
    from storage.store import Storage

MOST = 0.2
"""share of the files known below the folders that may go without being asked for twice"""
TOGETHER = 500


def tidy(
    notes: Notes,
    *,
    index: ImageIndex,
    storage: Storage,
    folders: Sequence[Path],
    options: IngestOptions,
    gone: Sequence[Path] | None = None,
) -> PruneSummary:
    """Take out of the index what the notes say is stale, after adding to that what has moved or gone.

    With `gone`, only these paths are looked at, and where contents that came were before. Raises
    `EngineError`, `StorageError` or `IngestError`; the next run then goes on from there.
    """
    lost: list[Note] = []
    refused = None
    if gone is not None:
        lost, moved = _changed(notes, gone, folders, options)
        known = len(lost) and sum(1 for _ in _known(notes, folders, options))
    elif options.prune.prune:
        lost, known, moved = _gone(notes, [*folders, *options.prune.moved_from], options)
    else:
        moved = (
            note for folder in folders for note in notes.below(folder, moved_only=True) if is_gone(note.path)
        )
    if lost and len(lost) > MOST * known and not options.prune.anyway:
        refused = _refusal(len(lost), known)
    names = tuple(valid_unicode(os.fsdecode(note.path)) for note in lost)
    if options.dry_run:
        return PruneSummary(gone=names, refused=refused)
    leaving = [*moved, *(() if refused else lost)]
    for start in range(0, len(leaving), TOGETHER):
        notes.forget(leaving[start : start + TOGETHER])
    removed, failures = _settle(notes, index, storage)
    return PruneSummary(
        gone=names,
        documents=len(removed),
        human_captions=sum(each.caption is not None for each in removed),
        failures=failures,
        refused=refused,
    )


def _gone(
    notes: Notes, folders: Iterable[Path], options: IngestOptions
) -> tuple[list[Note], int, list[Note]]:
    """Return files that are gone for good, how many there were, and those whose content is still there."""
    gone, moved, known = [], [], 0
    for note in _known(notes, folders, options):
        known += 1
        if is_gone(note.path):
            lives = notes.has_come(note.image_id) or _lives(notes.of_image(note.image_id))
            (moved if lives else gone).append(note)
    return gone, known, moved


def _changed(
    notes: Notes, paths: Sequence[Path], folders: Sequence[Path], options: IngestOptions
) -> tuple[list[Note], list[Note]]:
    """Return the files at `paths` that are to leave the index, and those whose content is elsewhere now."""
    gone = {note for path in paths for note in notes.at(path) if is_gone(note.path)}
    gone = {note for note in gone if options.part.holds(note.relative_path)}
    ours = tuple(os.fsencode(folder).rstrip(b"/") + b"/" for folder in outermost(folders))
    moved = {note for note in notes.come() if note.path.startswith(ours) and is_gone(note.path)}
    moved |= {note for note in gone if _lives(notes.of_image(note.image_id))}
    lost = gone - moved if options.prune.prune else ()
    return sorted(lost, key=_place), sorted(moved, key=_place)


def _place(note: Note) -> tuple[bytes, str]:
    return note.path, note.relative_path


def _known(notes: Notes, folders: Iterable[Path], options: IngestOptions) -> Iterator[Note]:
    """Yield the notes of this part of the files below the folders, each once."""
    for folder in outermost(folders):
        for note in notes.below(folder, moved_only=False):
            if options.part.holds(note.relative_path):
                yield note


def _lives(notes: Iterable[Note]) -> bool:
    return any(not is_gone(note.path) for note in notes)


def _refusal(gone: int, known: int) -> str:
    return (
        f"Nothing was pruned: {gone} of {known} files are gone, more than a fifth. If a disk is not plugged"
        " in, plug it in; if they are to leave the index, add --prune-anyway."
    )


def _settle(notes: Notes, index: ImageIndex, storage: Storage) -> tuple[list[Removed], tuple[str, ...]]:
    """Take stale paths from their documents, and what the store kept of those that are gone then."""
    removed, failures = [], {}
    while batch := [each for each in notes.stale() if each.image_id not in failures]:
        changed = index.drop_paths(_without_files(notes, batch))
        _keep_captions(notes, changed.removed)
        removed += changed.removed
        failures |= changed.failed
        absent = changed.absent | {each.image_id for each in changed.removed}
        others = {image_id: notes.elsewhere(image_id) for image_id in absent}
        living = index.uuids() if any(others.values()) else frozenset()
        for image_id in absent:
            if not others[image_id] & living:
                _forget_files(storage, image_id)
        notes.settle([each for each in batch if each.image_id not in changed.failed])
        if changed.failed:
            break
    if removed:
        index.refresh()
    return removed, tuple(f"{image_id}: {reason}" for image_id, reason in failures.items())


def _without_files(notes: Notes, stale: Iterable[Stale]) -> dict[str, list[str]]:
    """Return those paths, by image id, behind which no file stands under any folder that was ingested."""
    paths: dict[str, list[str]] = {}
    for each in stale:
        same = [note for note in notes.of_image(each.image_id) if note.relative_path == each.relative_path]
        if not _lives(same):
            paths.setdefault(each.image_id, []).append(each.relative_path)
    return paths


def _forget_files(storage: Storage, image_id: str) -> None:
    storage.delete(thumbnail_key(image_id))
    for extension in ORIGINAL_TYPES:
        storage.delete(original_key(image_id, extension))


def _keep_captions(notes: Notes, removed: Sequence[Removed]) -> None:
    """Write down what people had said of pictures that left: nobody else could say it again."""
    written = [each for each in removed if each.caption is not None]
    if not written:
        return
    now = datetime.now(UTC).isoformat(timespec="seconds")
    rows = ({"image_id": each.image_id, "caption": each.caption, "removed_at": now} for each in written)
    lines = [json.dumps(row) for row in rows]
    path = notes.path.with_name("removed-captions.jsonl")
    try:
        with path.open("a", encoding="ascii") as file:
            file.writelines(f"{line}\n" for line in lines)
    except OSError as error:
        raise IngestError(
            f"{path} cannot be written: {error}. It should hold what people had written of pictures that"
            f" have left the index, and nobody else knows it now: {' '.join(lines)}"
        ) from error
