"""Pictures in buckets of S3."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ingest.errors import UnreadableImageError
from ingest.files.picture import MAX_BYTES
from ingest.files.walk import EXTENSIONS, Candidate, Failure, Stamp
from ingest.sources.source import Rules, candidate, extension, relative_name, stamp_by, too_large
from storage.errors import NoSuchKeyError, UnansweredError
from storage.s3 import ListedObject, S3Objects

TRIES = 3
"""attempts to read an object whose answer was cut; the client repeats requests that failed by itself"""


@dataclass(frozen=True)
class BucketObject:
    """An object of a bucket, as an `Origin`."""

    objects: S3Objects
    bucket: str
    key: str
    size: int | None = None

    @property
    def address(self) -> str:
        """Return `s3://bucket/key`."""
        return f"s3://{self.bucket}/{self.key}"

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

    def caption(self) -> str | None:
        """Return None: nothing in a bucket says which words belong to a picture."""
        return None


def stamp_of_object(found: ListedObject) -> Stamp:
    """Return the stamp of an object: its tag tells its content."""
    return stamp_by(found.etag, found.size)


class BucketSource:
    """The objects of a bucket below a prefix."""

    is_far = True

    def __init__(self, objects: S3Objects, *, bucket: str, prefix: str = "") -> None:
        self._objects, self._bucket = objects, bucket
        self._prefix = f"{prefix.rstrip('/')}/" if prefix.strip("/") else ""
        self.address = f"s3://{bucket}/{self._prefix}"
        self.is_complete = False

    def candidates(self, rules: Rules) -> Iterator[Candidate | Failure]:
        """Yield the pictures page by page, in the order of keys. Raises `StorageError`."""
        self.is_complete = False
        for each in self._objects.objects(self._prefix):
            below = each.key[len(self._prefix) :]
            if below.endswith("/") and not each.size:  # stands for a folder
                continue
            relative = relative_name(below)
            if relative is None:
                yield Failure(f"s3://{self._bucket}/{each.key}", "its key is no path")
            elif rules.admit(relative):
                origin = BucketObject(self._objects, self._bucket, each.key, each.size)
                yield candidate(origin, relative, stamp_of_object(each))
        self.is_complete = True

    def close(self) -> None:
        """Do nothing: the client keeps no connection that must be closed."""


class ObjectSource:
    """One object of a bucket that somebody named."""

    is_complete = False
    is_far = True

    def __init__(self, objects: S3Objects, *, bucket: str, key: str) -> None:
        self._origin = BucketObject(objects, bucket, key)
        self.address = self._origin.address

    def candidates(self, rules: Rules) -> Iterator[Candidate | Failure]:
        """Yield the object. Raises `StorageError`."""
        name = self._origin.key.rpartition("/")[2]
        if rules.admit(name, named=True):
            yield candidate(self._origin, name, None)

    def close(self) -> None:
        """Do nothing: the client keeps no connection that must be closed."""


def is_one_object(key: str) -> bool:
    """Return whether a key names a picture and no prefix."""
    return extension(key) in EXTENSIONS
