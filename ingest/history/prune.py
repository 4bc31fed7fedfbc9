"""The end of a run: paths whose files have moved, changed or gone leave the index."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from es_config.hidden import HiddenPictures
from es_config.home import private_file
from es_config.index import ImageIndex, Removed
from ingest.errors import IngestError
from ingest.files.walk import Rules, admits, is_gone, outermost, valid_unicode
from ingest.history.ingested_files import IngestedFile, IngestHistory, StalePath, folder_of
from ingest.options import IngestOptions
from ingest.report import PruneSummary
from ingest.sources.source import ExternalSource
from storage.keys import ORIGINAL_TYPES, original_key, thumbnail_key
from storage.store import Storage

MOST = 0.2
"""share of the known files below a folder and on a device that may go without --prune-anyway"""


@dataclass(frozen=True)
class Missing:
    """Files that are missing with no copy left: those that may leave the index, and why others stay."""

    deleted: tuple[IngestedFile, ...] = ()
    refused: tuple[IngestedFile, ...] = ()
    """so many of one folder and device that somebody has to confirm it"""
    reasons: tuple[str, ...] = ()
    """a sentence with the way out for each reason to keep some of them"""


def known_files(
    history: IngestHistory, folders: Iterable[Path], options: IngestOptions
) -> Iterator[IngestedFile]:
    """Yield the notes of this run's shard below the folders, each once."""
    for folder in outermost(folders):
        for note in history.below(folder, moved_only=False):
            if options.shard.holds(note.relative_path):
                yield note


def sift(
    missing: Sequence[IngestedFile],
    history: IngestHistory,
    *,
    folders: Sequence[Path],
    options: IngestOptions,
) -> Missing:
    """Sort missing files into deleted ones and those that stay. Raises `IngestError`."""
    if not missing or options.prune.anyway:
        return Missing(tuple(missing))
    absent = _out_of_reach(missing, history, folders, options)
    proven = [note for note in missing if note not in absent]
    reasons = [_absent_in_words(absent)] if absent else []
    roots = outermost([*folders, *options.prune.moved_from])
    known: Counter[tuple[Path | None, int | None]] = Counter()
    if proven:
        known.update(_group(note, roots, history) for note in known_files(history, roots, options))
    gone = Counter(_group(note, roots, history) for note in proven)
    too_many = {group for group, number in gone.items() if number > MOST * known[group]}
    refused = tuple(note for note in proven if _group(note, roots, history) in too_many)
    for group in sorted(too_many, key=str):
        of_group = [note for note in refused if _group(note, roots, history) == group]
        below = f" below {_shared_folder(of_group)}" if len(known) > 1 else ""
        reasons.append(
            f"Nothing was pruned{below}: {gone[group]} of {known[group]} files are gone, more than a fifth."
            " If a disk is not plugged in, plug it in; if they are to leave the index, add --prune-anyway."
        )
    deleted = tuple(note for note in proven if _group(note, roots, history) not in too_many)
    return Missing(deleted, refused, tuple(reasons))


def _out_of_reach(
    missing: Sequence[IngestedFile],
    history: IngestHistory,
    folders: Sequence[Path],
    options: IngestOptions,
) -> dict[IngestedFile, bytes]:
    """Return the files whose absence proves nothing, each with the nearest folder that is there.

    That folder is empty, or it is on another device than the one that held the file. Systems number their
    devices anew when they start: where another file of the same device is there under the new number, the
    disk is, too. Of folders that were named as `moved_from`, somebody has said that they are elsewhere.
    """
    roots = [os.fsencode(each) for each in outermost(folders)]
    named = tuple(root.rstrip(b"/") + b"/" for root in roots)
    nearest = {note.folder: b"" for note in missing if note.path.startswith(named)}
    nearest = {folder: _nearest_folder(folder) for folder in nearest}
    there = {found: history.device_of(os.fsdecode(found)) for found in set(nearest.values())}
    emptied = {found for found in there if found.startswith(named) or found in roots if _is_empty(found)}
    elsewhere: dict[IngestedFile, tuple[int, int]] = {}
    absent: dict[IngestedFile, bytes] = {}
    for note in missing:
        found = nearest.get(note.folder)
        if found is None:
            continue
        held, now = history.noted_device(note.folder), there[found]
        if found in emptied:
            absent[note] = found
        elif held is not None and now is not None and held != now:
            elsewhere[note] = (held, now)
    if elsewhere:
        renumbered = _renumbered(history, folders, options)
        absent |= {note: nearest[note.folder] for note, pair in elsewhere.items() if pair not in renumbered}
        again = {note.folder: pair[1] for note, pair in elsewhere.items() if pair in renumbered}
        history.note_devices(again)
    return absent


def _renumbered(
    history: IngestHistory, folders: Sequence[Path], options: IngestOptions
) -> set[tuple[int, int]]:
    """Return former and present numbers of devices whose files are there, and note the present ones."""
    alive = {note.folder for note in known_files(history, folders, options) if _is_there(note)}
    devices = {
        folder: (history.noted_device(folder), history.device_of(os.fsdecode(folder))) for folder in alive
    }
    changed = {
        folder: (held, now)
        for folder, (held, now) in devices.items()
        if held is not None and now is not None and held != now
    }
    history.note_devices({folder: now for folder, (_, now) in changed.items()})
    return set(changed.values())


def _is_there(note: IngestedFile) -> bool:
    return not is_gone(note.path)


def _nearest_folder(folder: bytes) -> bytes:
    """Return the folder itself if it is there, or the nearest one above it that is."""
    while is_gone(folder) and (above := folder_of(folder)) != folder:
        folder = above
    return folder


def _is_empty(folder: bytes) -> bool:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except OSError:
        return False


def _group(
    note: IngestedFile, roots: Sequence[Path], history: IngestHistory
) -> tuple[Path | None, int | None]:
    """Return the folder of the run, and the device, among whose files this one counts."""
    root = next((each for each in roots if note.path.startswith(os.fsencode(each).rstrip(b"/") + b"/")), None)
    return root, history.noted_device(note.folder)


def _shared_folder(notes: Sequence[IngestedFile]) -> str:
    return valid_unicode(os.fsdecode(os.path.commonpath([note.folder for note in notes])))


def _absent_in_words(absent: dict[IngestedFile, bytes]) -> str:
    places = sorted({valid_unicode(os.fsdecode(found)) for found in absent.values()})
    more = f" and {len(places) - 1} more folders" if len(places) > 1 else ""
    files = "1 missing file stays" if len(absent) == 1 else f"{len(absent)} missing files stay"
    return (
        f"{files} in the index: {places[0]}{more} is empty, or not on the disk that held them. If a disk"
        " is not mounted, mount it; if they are to leave the index, delete the empty folder or add"
        " --prune-anyway."
    )


TOGETHER = 500


def prune_paths(
    history: IngestHistory,
    *,
    index: ImageIndex,
    storage: Storage,
    folders: Sequence[Path],
    options: IngestOptions,
    gone: Sequence[Path] | None = None,
    sources: Sequence[ExternalSource] = (),
) -> PruneSummary:
    """Take stale paths out of the index: of changed and moved files and, with `--prune`, of files
    that are gone or that rules now leave out.

    With `gone`, look only at these paths and at the former paths of moved contents. What the `sources` no
    longer list counts as a file that is gone. Raises `EngineError`,
    `StorageError` or `IngestError`; the next run then goes on from there.
    """
    if history.path is None:
        return PruneSummary()
    lost: list[IngestedFile] = []
    left_out: list[IngestedFile] = []
    if gone is not None:
        lost, moved = _among(history, gone, folders, options)
    elif options.prune.prune:
        lost, moved, left_out = _below(history, [*folders, *options.prune.moved_from], options)
    else:
        notes = (note for folder in folders for note in history.below(folder, moved_only=True))
        moved = [note for note in notes if is_gone(note.path)]
    missing = sift(lost, history, folders=folders, options=options)
    unlisted = _unlisted(history, sources, options)
    refused = " ".join((*missing.reasons, *unlisted.reasons)) or None
    moved = [*moved, *unlisted.moved]
    listed = sorted(
        (*missing.deleted, *missing.refused, *unlisted.deleted, *unlisted.refused, *left_out), key=_place
    )
    names = tuple(valid_unicode(os.fsdecode(note.path)) for note in listed)
    if options.dry_run:
        return PruneSummary(gone=names, refused=refused)
    leaving = [*moved, *left_out, *missing.deleted, *unlisted.deleted]
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


@dataclass(frozen=True)
class _Unlisted(Missing):
    moved: tuple[IngestedFile, ...] = ()


def _unlisted(history: IngestHistory, sources: Iterable[ExternalSource], options: IngestOptions) -> _Unlisted:
    """Sort the objects that sources no longer list. One that was not listed whole proves nothing."""
    deleted: list[IngestedFile] = []
    refused: list[IngestedFile] = []
    moved: list[IngestedFile] = []
    reasons: list[str] = []
    for source in sources:
        if not source.is_complete:
            continue
        found = [
            note
            for note in history.below_address(source.address, unseen=True)
            if options.shard.holds(note.relative_path)
        ]
        places = {note.path for note in found}
        lost: list[IngestedFile] = []
        for note in found:
            others = (each for each in history.of_image(note.image_id) if each.path not in places)
            lives = history.was_moved(note.image_id) or _any_exists(others)
            (moved if lives else lost).append(note)
        if not options.prune.prune:
            continue
        known = history.count_below(source.address) // options.shard.of
        if len(lost) > MOST * known and not options.prune.anyway:
            refused += lost
            reasons.append(
                f"Nothing was pruned below {source.address}: {len(lost)} of {known} objects are gone, more"
                " than a fifth. If they are to leave the index, add --prune-anyway."
            )
        else:
            deleted += lost
    return _Unlisted(tuple(deleted), tuple(refused), tuple(reasons), tuple(moved))


def _below(
    history: IngestHistory, folders: Iterable[Path], options: IngestOptions
) -> tuple[list[IngestedFile], list[IngestedFile], list[IngestedFile]]:
    """Return the files below folders that are missing with no copy left, moved, and left out by rules."""
    lost: list[IngestedFile] = []
    moved: list[IngestedFile] = []
    left_out: list[IngestedFile] = []
    roots = outermost(folders)
    rules: Rules = {}
    for note in known_files(history, roots, options):
        if is_gone(note.path):
            lives = history.was_moved(note.image_id) or _any_exists(history.of_image(note.image_id))
            (moved if lives else lost).append(note)
        elif _is_left_out(note, roots, options, rules):
            left_out.append(note)
    return lost, moved, left_out


def _is_left_out(note: IngestedFile, roots: Iterable[Path], options: IngestOptions, rules: Rules) -> bool:
    """Return whether the walk that once found a file now passes it over.

    A file of a folder that somebody named, below one of these and hidden there, was not found by that walk.
    """
    path = os.fsdecode(note.path)
    root = next((each for each in roots if path.startswith(f"{str(each).rstrip('/')}/")), None)
    if root is None:
        return False
    rest = path[len(str(root).rstrip("/")) + 1 :]
    found_there = "/".join(map(valid_unicode, rest.split("/"))) == note.relative_path
    return found_there and not admits(root, rest, exclude=options.exclude, rules=rules)


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
        paths = _without_files(history, batch)
        changed = index.drop_paths(paths)
        away = HiddenPictures(index).drop_paths({image_id: paths[image_id] for image_id in changed.absent})
        left = (*changed.removed, *away.removed)
        _keep_captions(history, left)
        removed += left
        failed = changed.failed | away.failed
        failures |= failed
        contents = dict.fromkeys(away.absent, "") | {each.image_id: each.content_id for each in left}
        delete_files(contents, history, index=index, storage=storage)
        history.delete_stale([each for each in batch if each.image_id not in failed])
        if failed:
            break
    if removed:
        index.refresh()
    return removed, tuple(f"{image_id}: {reason}" for image_id, reason in failures.items())


def delete_files(
    contents: Mapping[str, str], history: IngestHistory, *, index: ImageIndex, storage: Storage
) -> None:
    """Delete thumbnails and originals of pictures from the store, unless another index may need it.

    `contents` has the id of each picture's file by its own, or nothing where that is the same.
    Raises `StorageError`, `EngineError` or `IngestError`.
    """
    others = {each: history.other_indexes(content or each) for each, content in contents.items()}
    living = index.uuids() if any(others.values()) else frozenset()
    for image_id, uuids in others.items():
        if not (uuids if living is None else uuids & living):
            storage.delete(thumbnail_key(image_id))
            for extension in ORIGINAL_TYPES:
                storage.delete(original_key(image_id, extension))


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
