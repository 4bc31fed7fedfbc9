"""The seam between a run and the places of pictures: a source yields candidates that open themselves."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from ingest.files.picture import MAX_BYTES, FileContent, read_content
from ingest.files.walk import (
    EVERYTHING,
    EXTENSIONS,
    OTHER_EXTENSIONS,
    SIGNATURE,
    Candidate,
    Exclusions,
    Failure,
    Origin,
    PassedOver,
    Shard,
    Stamp,
    valid_unicode,
    walk,
)

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".zip")
"""ends of the names of archives that are opened where they are named"""
FETCHERS, FETCHES_AHEAD = 16, 32
"""threads that read objects of sources that are far away, and objects that they hold ahead at most"""
INSIDE = "!/"
"""stands in an address between an archive and the name of a member"""


class ExternalSource(Protocol):
    """A place of pictures that is no folder of this machine."""

    @property
    def address(self) -> str:
        """Return the beginning of all its addresses."""

    @property
    def is_complete(self) -> bool:
        """Whether all was listed in this run, so that an object that was not is gone. No list proves that."""

    @property
    def is_far(self) -> bool:
        """Whether each object takes its time, so that many are read at once."""

    def candidates(self, rules: Rules) -> Iterator[Candidate | Failure]:
        """Yield the objects in a stable order, as they are listed. Raises `StorageError`."""

    def close(self) -> None:
        """Give back connections and temporary files."""


@dataclass(frozen=True)
class Rules:
    """The choice of objects that a source yields."""

    exclude: Exclusions
    passed_over: PassedOver

    def admit(self, relative: str, *, head: bytes | None = None, named: bool = False) -> bool:
        """Return whether an object is taken: by the patterns, its extension, or the `head` of its content.

        An object that somebody `named` is taken whatever its extension is. Others are counted.
        """
        if rule := self._rule(relative):
            self.passed_over.add_rule(rule)
            return False
        if named or extension(relative) in EXTENSIONS:
            return True
        if head is not None and is_picture_head(head, relative):
            return True
        self.passed_over.add_kinds([relative])
        return False

    def _rule(self, relative: str) -> str | None:
        parts = relative.split("/")
        for number in range(1, len(parts)):
            if rule := self.exclude.rule("/".join(parts[:number]), folder=True):
                return rule
        return self.exclude.rule(relative, folder=False)


def extension(name: str) -> str:
    """Return the extension of a name in lower case, with its dot."""
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - a name, no path


def is_picture_head(head: bytes, name: str) -> bool:
    """Return whether content begins like a picture, where its name says nothing."""
    return extension(name) not in OTHER_EXTENSIONS and SIGNATURE.match(head) is not None


def stamp_by(tag: str, size: int) -> Stamp:
    """Return the stamp of content that a server tells by a tag: the time is a hash of it."""
    digest = hashlib.blake2b(tag.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return Stamp(size, int.from_bytes(digest, "big") >> 1)


def relative_name(name: str) -> str | None:
    """Return a name as a relative path, or None for one that would lead out of its archive or list."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    if not parts or ".." in parts or name.startswith(("/", "\\")) or re.match(r"[a-zA-Z]:[\\/]", name):
        return None
    return valid_unicode("/".join(parts))


def candidate(origin: Origin, relative: str, stamp: Stamp | None) -> Candidate:
    """Return the candidate of an object. Of its path only the extension is meant."""
    return Candidate(Path(relative.rpartition("/")[2]), relative, stamp, origin=origin)


@dataclass(frozen=True)
class ReadCandidate:
    """The content of a candidate, and the candidate with the stamp of that content."""

    candidate: Candidate
    content: FileContent


def read_candidate(found: Candidate) -> ReadCandidate:
    """Read a file, or let an object read itself.

    Raises `UnreadableImageError`, and `StorageError` where no object of the same place can be read.
    """
    if found.origin is None:
        return ReadCandidate(found, read_content(found.path))
    data, stamp = found.origin.read()
    content = FileContent(data, hashlib.sha256(data).hexdigest())
    return ReadCandidate(replace(found, stamp=stamp) if stamp else found, content)


def too_large(size: int) -> str | None:
    """Return why an object of so many bytes is not read, or None."""
    return f"larger than {MAX_BYTES >> 20} MiB" if size > MAX_BYTES else None


def gather(
    paths: Sequence[Path],
    sources: Iterable[ExternalSource],
    *,
    exclude: Exclusions,
    limit: int | None = None,
    shard: Shard = EVERYTHING,
    passed_over: PassedOver,
) -> Iterator[Candidate | Failure]:
    """Yield the files below `paths`, and then the objects of the sources, as one walk.

    Raises `StorageError` where a source cannot be listed.
    """
    found = walk(paths, exclude=exclude, limit=limit, shard=shard, passed_over=passed_over)
    files = 0
    for each in found:
        files += isinstance(each, Candidate)
        yield each
    rules = Rules(exclude, passed_over)
    for source in sources:
        for each in source.candidates(rules):
            if not shard.holds(each.relative_path if isinstance(each, Candidate) else each.path):
                continue
            files += isinstance(each, Candidate)
            if limit is not None and files > limit:
                return
            yield each
