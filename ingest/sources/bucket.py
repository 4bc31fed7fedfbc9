"""Pictures in buckets."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from ingest.errors import UnreadableImageError
from ingest.files.live_photos import is_part_name, part_keys, still_keys
from ingest.files.picture import MAX_BYTES
from ingest.files.sidecars import Siblings, is_sidecar
from ingest.files.walk import EXTENSIONS, Candidate, Failure, Stamp, is_film_name
from ingest.sources.source import Rules, candidate, extension, far_file, relative_name, stamp_by, too_large
from storage.buckets import BucketObjects
from storage.errors import NoSuchKeyError, UnansweredError
from storage.s3 import ListedObject

NEIGHBOURS = 1000
"""objects before and after one in a listing, among which its sidecars are looked for"""
LARGEST_PART = 16 << 20
"""bytes: a film of this size with a picture's name is that of a live photo; nothing is fetched to be sure"""
TRIES = 3
"""attempts to read an object whose answer was cut; the client repeats requests that failed by itself"""


@dataclass(frozen=True)
class BucketObject:
    """An object of a bucket, as an `Origin`."""

    objects: BucketObjects
    key: str
    size: int | None = None

    @property
    def address(self) -> str:
        """Return the bucket's address and the key, as in `s3://bucket/key`."""
        return f"{self.objects.place}/{self.key}"

    def stamp(self) -> Stamp | None:
        """Ask for the object's tag and size. Raises `StorageError`."""
        try:
            return stamp_of_object(self.objects.look_up(self.key))
        except (NoSuchKeyError, UnansweredError):
            return None

    def read(self) -> tuple[bytes, Stamp | None]:
        """Return the content. Raises `UnreadableImageError`, or `StorageError` for all that follow, too."""
        if self.size == 0:
            raise UnreadableImageError("the object is empty", lasting=True)
        if reason := too_large(self.size or 0):
            raise UnreadableImageError(reason, lasting=True)
        for attempt in range(TRIES):
            try:
                data = self.objects.read(self.key, most=MAX_BYTES + 1)
                break
            except NoSuchKeyError as error:
                raise UnreadableImageError("the object vanished before it was read") from error
            except UnansweredError as error:
                if attempt + 1 == TRIES:
                    raise UnreadableImageError(str(error).rstrip(".")) from error
        if not data:
            raise UnreadableImageError("the object is empty", lasting=True)
        if reason := too_large(len(data)):
            raise UnreadableImageError(reason, lasting=True)
        return data, None

    def stream(self) -> tuple[Iterator[bytes], Stamp | None]:
        """Return the content in pieces. They raise as `read` does."""
        return self._pieces(), None

    def open(self, noted: Stamp) -> BinaryIO | None:
        """Open the object, whose tag tells that it is the noted one."""
        try:
            found = self.objects.look_up(self.key)
        except (NoSuchKeyError, UnansweredError):
            return None
        if stamp_of_object(found) != noted:
            return None
        return far_file(lambda start: self._pieces(start=start, etag=found.etag), found.size)

    def _pieces(self, *, start: int = 0, etag: str | None = None) -> Iterator[bytes]:
        try:
            yield from self.objects.stream(self.key, start=start, etag=etag)
        except NoSuchKeyError as error:
            raise UnreadableImageError("the object vanished before it was read") from error
        except UnansweredError as error:
            raise UnreadableImageError(str(error).rstrip(".")) from error

    def beside(self, name: str, most: int) -> bytes | None:
        """Return the content of an object of the same folder, or None if it is gone."""
        folder, slash, _ = self.key.rpartition("/")
        try:
            data = self.objects.read(f"{folder}{slash}{name}", most=most + 1)
        except NoSuchKeyError:
            return None
        except UnansweredError as error:
            raise UnreadableImageError(str(error).rstrip(".")) from error
        if len(data) > most:
            raise UnreadableImageError(f"larger than {most >> 20} MiB", lasting=True)
        return data

    def caption(self) -> str | None:
        """Return None: nothing in a bucket says which words belong to a picture."""
        return None


def stamp_of_object(found: ListedObject) -> Stamp:
    """Return the stamp of an object: its tag tells its content."""
    return stamp_by(found.etag, found.size)


class BucketSource:
    """The objects of a bucket below a prefix."""

    is_far = True

    def __init__(self, objects: BucketObjects, *, prefix: str = "") -> None:
        self._objects = objects
        self._prefix = f"{prefix.rstrip('/')}/" if prefix.strip("/") else ""
        self.address = f"{objects.place}/{self._prefix}"
        self.is_complete = False

    def candidates(self, rules: Rules) -> Iterator[Candidate | Failure]:
        """Yield the pictures page by page, in the order of keys. Raises `StorageError`."""
        self.is_complete = False
        listed = _Neighbourhood()
        for each in self._objects.objects(self._prefix):
            listed.come(each)
            if len(listed.ahead) > NEIGHBOURS:
                yield from self._of_object(listed.ahead.popleft(), listed, rules)
        while listed.ahead:
            yield from self._of_object(listed.ahead.popleft(), listed, rules)
        for each in listed.leave_all():
            self._admit_sidecar(each, rules)
        self.is_complete = True

    def _of_object(
        self, each: ListedObject, listed: _Neighbourhood, rules: Rules
    ) -> Iterator[Candidate | Failure]:
        for left in listed.pass_by(each):
            self._admit_sidecar(left, rules)
        below = each.key[len(self._prefix) :]
        if (below.endswith("/") and not each.size) or is_sidecar(each.key):  # stands for a folder, or beside
            return
        relative = relative_name(below)
        if relative is None:
            yield Failure(f"{self._objects.place}/{each.key}", "its key is no path")
        elif listed.has_still_of(each) and not rules.exclude.films:
            rules.passed_over.film_parts += 1
        elif rules.admit(relative):
            origin = BucketObject(self._objects, each.key, each.size)
            beside = {name: stamp_of_object(found) for name, found in listed.sidecars_of(each.key).items()}
            yield candidate(origin, relative, stamp_of_object(each), sidecars=beside)

    def _admit_sidecar(self, unused: ListedObject, rules: Rules) -> None:
        """Count a sidecar that belongs to no picture."""
        if relative := relative_name(unused.key[len(self._prefix) :]):
            rules.admit(relative)

    def close(self) -> None:
        """Do nothing: the client keeps no connection that must be closed."""


@dataclass
class _Neighbourhood:
    """The objects around one of a listing, as far as they say something about others."""

    ahead: deque[ListedObject] = field(default_factory=deque)
    """listed, and not yet looked at"""
    _behind: deque[ListedObject] = field(default_factory=deque)
    _sidecars: dict[str, ListedObject] = field(default_factory=dict)
    _siblings: dict[str, Siblings] = field(default_factory=dict)
    """folder -> the sidecars in it"""
    _stills: dict[str, int] = field(default_factory=dict)
    """key of a picture's name, with its folder -> how many there are"""
    _used: set[str] = field(default_factory=set)

    def come(self, each: ListedObject) -> None:
        """Take one more object of the listing."""
        self.ahead.append(each)
        if is_sidecar(each.key):
            folder, _, name = each.key.rpartition("/")
            self._siblings.setdefault(folder, Siblings()).add(name)
            self._sidecars[each.key] = each
        for key in still_keys(each.key):
            self._stills[key] = self._stills.get(key, 0) + 1

    def pass_by(self, each: ListedObject) -> list[ListedObject]:
        """Look at an object, and return a sidecar far behind it that no picture has used."""
        self._behind.append(each)
        return self._leave() if len(self._behind) > NEIGHBOURS else []

    def leave_all(self) -> list[ListedObject]:
        """Return the last sidecars that no picture has used."""
        return [each for _ in range(len(self._behind)) for each in self._leave()]

    def sidecars_of(self, key: str) -> dict[str, ListedObject]:
        """Return the sidecars of an object by their names."""
        folder, slash, name = key.rpartition("/")
        names = self._siblings[folder].of(name) if folder in self._siblings else ()
        keys = {each: f"{folder}{slash}{each}" for each in names}
        self._used.update(keys.values())
        return {each: self._sidecars[beside] for each, beside in keys.items()}

    def has_still_of(self, film: ListedObject) -> bool:
        """Return whether an object is the film of a live photo, by its name and size."""
        if film.size > LARGEST_PART or not is_part_name(film.key):
            return False
        return any(key in self._stills for key in part_keys(film.key))

    def _leave(self) -> list[ListedObject]:
        each = self._behind.popleft()
        for key in still_keys(each.key):
            self._stills[key] -= 1
            if not self._stills[key]:
                del self._stills[key]
        if self._sidecars.pop(each.key, None) is None:
            return []
        folder, _, name = each.key.rpartition("/")
        self._siblings[folder].remove(name)
        if not self._siblings[folder]:
            del self._siblings[folder]
        is_used = each.key in self._used
        self._used.discard(each.key)
        return [] if is_used else [each]


class ObjectSource:
    """One object of a bucket that somebody named."""

    is_complete = False
    is_far = True

    def __init__(self, objects: BucketObjects, *, key: str) -> None:
        self._origin = BucketObject(objects, key)
        self.address = self._origin.address

    def candidates(self, rules: Rules) -> Iterator[Candidate | Failure]:
        """Yield the object. Raises `StorageError`."""
        name = self._origin.key.rpartition("/")[2]
        if rules.admit(name, named=True):
            yield candidate(self._origin, name, None)

    def close(self) -> None:
        """Do nothing: the client keeps no connection that must be closed."""


def is_one_object(key: str) -> bool:
    """Return whether a key names a picture or film, and no prefix."""
    return extension(key) in EXTENSIONS or is_film_name(key)
