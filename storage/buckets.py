"""Objects of buckets of S3, Google Cloud Storage and Azure, to read them, and errors as sentences."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from storage.errors import NoSuchKeyError, StorageError, UnansweredError
from storage.s3 import BUSY, CHANGED, ListedObject, S3Objects
from storage.s3 import open_objects as open_s3

NAME = re.compile(r"[a-z0-9$][a-z0-9._-]{1,220}")
PAGE = 1000
"""objects of one answer to a listing"""
BLOCK = 4 << 20
"""bytes of one answer to a request for content"""
CONNECT_S, READ_S = 10, 60
TIMEOUTS = {"connection_timeout": CONNECT_S, "read_timeout": READ_S}
GOOGLE_CREDENTIALS = "GOOGLE_APPLICATION_CREDENTIALS or `gcloud auth application-default login`"
AZURE_CREDENTIALS = (
    "AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT_NAME and its key, token or login"
)
ABSENT_BUCKET = "there is no such bucket; name another one"
NO_SERVER = "no server answers there; check the network"
LATE = "it does not answer in time; try again later"
CUT = "its answer was cut short"
GOOGLE_STATUSES = {
    400: "the server does not understand the request; check the name",
    401: f"the credentials are refused, or there are none; set {GOOGLE_CREDENTIALS}",
    429: BUSY,
    500: BUSY,
    503: BUSY,
}
AZURE_STATUSES = {
    401: f"the credentials are refused; check {AZURE_CREDENTIALS}",
    403: "forbidden; its credentials need the role Storage Blob Data Reader",
    412: CHANGED,
    429: BUSY,
    500: BUSY,
    503: BUSY,
}
AZURE_CODES = {
    "ContainerNotFound": ABSENT_BUCKET,
    "AuthenticationFailed": f"the credentials are refused; check {AZURE_CREDENTIALS}",
    "InvalidAuthenticationInfo": f"the credentials are refused; check {AZURE_CREDENTIALS}",
    "AccountIsDisabled": "the account is disabled",
}


class BucketObjects(Protocol):
    """Reads the objects of a bucket, whoever put them there. Thread-safe. Raises `StorageError`."""

    @property
    def place(self) -> str:
        """Return the address of the bucket, such as `s3://bucket`."""

    def objects(self, prefix: str) -> Iterator[ListedObject]:
        """Yield the objects whose keys begin with `prefix`, in the order of keys, page by page."""

    def look_up(self, key: str) -> ListedObject:
        """Return one object without its content. Raises `NoSuchKeyError`, too."""

    def read(self, key: str, *, most: int) -> bytes:
        """Return the content, or its first `most` bytes. Raises `NoSuchKeyError` and `UnansweredError`."""

    def stream(self, key: str, *, start: int = 0, etag: str | None = None) -> Iterator[bytes]:
        """Yield the content in pieces, from an offset on, if it has the tag. Raises as `read` does."""


class _Blocks:
    """Objects that are read in blocks, so that an answer is bounded and an offset means something."""

    place: str

    def look_up(self, key: str) -> ListedObject:
        """Return one object without its content. Raises `NoSuchKeyError`, too."""
        raise NotImplementedError

    def read(self, key: str, *, most: int) -> bytes:
        """Return the content, or its first `most` bytes. Raises `NoSuchKeyError` and `UnansweredError`."""
        found = self.look_up(key)
        data = b"".join(self._blocks(found, 0, min(most, found.size)))
        if len(data) < min(most, found.size):
            raise UnansweredError(self._sentence("read", key, CUT))
        return data

    def stream(self, key: str, *, start: int = 0, etag: str | None = None) -> Iterator[bytes]:
        """Yield the content in pieces, from an offset on, if it has the tag. Raises as `read` does."""
        found = self.look_up(key)
        if etag not in (None, found.etag):
            raise UnansweredError(self._sentence("read", key, CHANGED))
        yield from self._blocks(found, start, found.size)

    def _blocks(self, found: ListedObject, start: int, end: int) -> Iterator[bytes]:
        while start < end:
            data = self._block(found, start, min(BLOCK, end - start))
            if not data:
                raise UnansweredError(self._sentence("read", found.key, CUT))
            yield data
            start += len(data)

    def _block(self, found: ListedObject, start: int, size: int) -> bytes:
        raise NotImplementedError

    def _sentence(self, verb: str, key: str, reason: str) -> str:
        return f"'{key}' cannot be {verb} in the bucket at {self.place}: {reason}."


class GcsObjects(_Blocks):
    """The objects of a bucket of Google Cloud Storage. Their tag is their generation."""

    def __init__(self, system: Any, *, bucket: str) -> None:
        """Take a file system of gcsfs."""
        self._system, self._bucket = system, bucket
        self.place = f"gs://{bucket}"

    def objects(self, prefix: str) -> Iterator[ListedObject]:
        """Yield the objects whose keys begin with `prefix`, in the order of keys, page by page."""
        token: dict[str, str] = {}
        while True:
            with self._failures("listed", prefix, is_listing=True):
                page = self._asked("b/{}/o", self._bucket, prefix=prefix, maxResults=PAGE, **token)
            for each in page.get("items", ()):
                yield _google_object(each)
            if not page.get("nextPageToken"):
                return
            token = {"pageToken": page["nextPageToken"]}

    def look_up(self, key: str) -> ListedObject:
        """Return one object without its content. Raises `NoSuchKeyError`, too."""
        with self._failures("looked up", key):
            return _google_object(self._asked("b/{}/o/{}", self._bucket, key))

    def _asked(self, path: str, *names: str, **options: Any) -> Any:
        return self._system.call("GET", path, *names, json_out=True, **options)

    def _block(self, found: ListedObject, start: int, size: int) -> bytes:
        with self._failures("read", found.key):
            _, data = self._system.call(
                "GET",
                "b/{}/o/{}",
                self._bucket,
                found.key,
                alt="media",
                ifGenerationMatch=found.etag,
                headers={"Range": f"bytes={start}-{start + size - 1}"},
            )
            return bytes(data)

    @contextmanager
    def _failures(self, verb: str, key: str, *, is_listing: bool = False) -> Iterator[None]:

        import aiohttp
        from fsspec.exceptions import FSTimeoutError
        from gcsfs.retry import HttpError
        from google.auth.exceptions import GoogleAuthError, TransportError

        def failure(kind: type[StorageError], reason: str) -> StorageError:
            return kind(self._sentence(verb, key, reason))

        try:
            yield
        except FileNotFoundError as error:
            raise failure(
                *((StorageError, ABSENT_BUCKET) if is_listing else (NoSuchKeyError, "it is not there"))
            ) from error
        except FileExistsError as error:  # the status 412
            raise failure(UnansweredError, CHANGED) from error
        except HttpError as error:
            status = int(error.code or 0)
            reason = GOOGLE_STATUSES.get(status) or f"the server answers {status}"
            raise failure(StorageError, reason) from error
        except TransportError as error:
            raise failure(StorageError, NO_SERVER) from error
        except GoogleAuthError as error:
            raise failure(StorageError, GOOGLE_STATUSES[401]) from error
        except aiohttp.ClientConnectorError as error:
            raise failure(StorageError, NO_SERVER) from error
        except (TimeoutError, FSTimeoutError) as error:
            raise failure(UnansweredError, LATE) from error
        except aiohttp.ClientError as error:
            raise failure(UnansweredError, CUT) from error
        except OSError as error:  # gcsfs knows the status 403 by this class alone
            kind = StorageError if is_listing else UnansweredError
            need = "forbidden; its credentials need storage.objects.get and storage.objects.list"
            raise failure(kind, need) from error
        except ValueError as error:
            raise failure(StorageError, GOOGLE_STATUSES[400]) from error


def _google_object(each: dict[str, Any]) -> ListedObject:
    return ListedObject(each["name"], int(each.get("size", 0)), str(each["generation"]))


class AzureObjects(_Blocks):
    """The blobs of a container of Azure. Their tag is their ETag."""

    def __init__(self, system: Any, *, bucket: str) -> None:
        """Take a file system of adlfs."""
        self._system = system
        self._container = system.service_client.get_container_client(bucket)
        self.place = f"az://{bucket}"

    def objects(self, prefix: str) -> Iterator[ListedObject]:
        """Yield the objects whose keys begin with `prefix`, in the order of keys, page by page."""
        with self._failures("listed", prefix, is_listing=True):
            listed = self._container.list_blobs(
                name_starts_with=prefix or None, results_per_page=PAGE, **TIMEOUTS
            )
            pages = listed.by_page()
        while True:
            with self._failures("listed", prefix, is_listing=True):
                page = self._waited(_next_page(pages))
            if page is None:
                return
            for each in page:
                yield ListedObject(each.name, int(each.size), str(each.etag).strip('"'))

    def look_up(self, key: str) -> ListedObject:
        """Return one object without its content. Raises `NoSuchKeyError`, too."""
        with self._failures("looked up", key):
            found = self._waited(self._container.get_blob_client(key).get_blob_properties(**TIMEOUTS))
            return ListedObject(key, int(found.size), str(found.etag).strip('"'))

    def _block(self, found: ListedObject, start: int, size: int) -> bytes:
        from azure.core import MatchConditions

        async def block() -> bytes:
            answer = await self._container.download_blob(
                found.key,
                offset=start,
                length=size,
                etag=f'"{found.etag}"',
                match_condition=MatchConditions.IfNotModified,
                **TIMEOUTS,
            )
            return bytes(await answer.readall())

        with self._failures("read", found.key):
            return bytes(self._waited(block()))

    def _waited(self, answer: Any) -> Any:
        from fsspec.asyn import sync

        async def waited() -> Any:
            return await answer

        return sync(self._system.loop, waited)

    @contextmanager
    def _failures(self, verb: str, key: str, *, is_listing: bool = False) -> Iterator[None]:
        from azure.core.exceptions import (
            AzureError,
            HttpResponseError,
            ResourceNotFoundError,
            ServiceRequestError,
            ServiceResponseError,
        )

        def failure(kind: type[StorageError], reason: str) -> StorageError:
            return kind(self._sentence(verb, key, reason))

        try:
            yield
        except HttpResponseError as error:
            code, status = str(getattr(error, "error_code", "") or ""), int(error.status_code or 401)
            reason = AZURE_CODES.get(code) or AZURE_STATUSES.get(status) or f"the server answers {status}"
            if isinstance(error, ResourceNotFoundError) and code not in AZURE_CODES:
                raise failure(
                    *((StorageError, ABSENT_BUCKET) if is_listing else (NoSuchKeyError, "it is not there"))
                ) from error
            is_alone = not is_listing and (status == 412 or (status == 403 and code not in AZURE_CODES))
            raise failure(UnansweredError if is_alone else StorageError, reason) from error
        except ServiceRequestError as error:
            raise failure(StorageError, NO_SERVER) from error
        except ServiceResponseError as error:
            raise failure(UnansweredError, CUT) from error
        except AzureError as error:
            raise failure(StorageError, AZURE_STATUSES[401]) from error


async def _next_page(pages: Any) -> list[Any] | None:
    try:
        page = await anext(pages)
    except StopAsyncIteration:
        return None
    return [each async for each in page]


def _open_gcs(bucket: str) -> GcsObjects:
    try:
        import gcsfs.core
    except ImportError as error:
        raise _without("gs", "gcs") from error
    from google.auth.exceptions import GoogleAuthError

    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # its errors are said once, by us
    emulator = os.environ.get("STORAGE_EMULATOR_HOST")
    try:
        system = gcsfs.core.GCSFileSystem(
            access="read_only",
            token="anon" if emulator else None,
            endpoint_url=emulator,
            requests_timeout=READ_S,
            skip_instance_cache=True,
        )
    except (GoogleAuthError, OSError, ValueError) as error:
        raise StorageError(f"gs://{bucket} cannot be opened: {GOOGLE_STATUSES[401]}.") from error
    return GcsObjects(system, bucket=bucket)


def _open_azure(bucket: str) -> AzureObjects:
    try:
        import adlfs
    except ImportError as error:
        raise _without("az", "azure") from error
    logging.getLogger("azure").setLevel(logging.CRITICAL)  # its errors are said once, by us
    try:
        system = adlfs.AzureBlobFileSystem(skip_instance_cache=True)
    except ValueError as error:
        raise StorageError(f"az://{bucket} cannot be opened: set {AZURE_CREDENTIALS}.") from error
    return AzureObjects(system, bucket=bucket)


def _without(scheme: str, extra: str) -> StorageError:
    return StorageError(f"{scheme}:// needs an extra: `pip install 'glimpse-search[{extra}]'`.")


OPENERS: dict[str, Callable[[str], BucketObjects]] = {"s3": open_s3, "gs": _open_gcs, "az": _open_azure}
SCHEMES = tuple(OPENERS)
KINDS = (S3Objects, GcsObjects, AzureObjects)


def open_objects(place: str) -> BucketObjects:
    """Open a bucket by its address, such as `s3://bucket`, for reading. Raises `StorageError`.

    Settings and credentials come from the variables of AWS, Google Cloud or Azure.
    """
    scheme, _, bucket = place.partition("://")
    if scheme != "s3" and not NAME.fullmatch(bucket):
        raise StorageError(f"'{bucket}' names no bucket: write {scheme}://bucket/prefix")
    return OPENERS[scheme](bucket)
