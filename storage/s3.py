"""A store in a bucket of S3, or of anything that speaks its protocol."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from storage.errors import NoSuchKeyError, StorageError, UnansweredError
from storage.keys import key_parts, media_type

BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
LONGEST_KEY = 1024
"""bytes of UTF-8, the prefix included: S3's own limit"""
CONNECT_S, READ_S, ATTEMPTS, CONNECTIONS = 5, 30, 4, 32
ABSENT = frozenset({"404", "NoSuchKey", "NotFound"})
RIGHTS = "s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket"
CREDENTIALS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
ENDPOINT = "AWS_ENDPOINT_URL and the network"
FORBIDDEN = f"forbidden; its credentials need {RIGHTS}"
REFUSED = f"the credentials are refused; check {CREDENTIALS}"
CHANGED = "it changed while it was read"
BUSY = "the server is overloaded; try again later"
REFUSALS = {
    "301": "the bucket is in another region; set AWS_REGION to it",
    "PermanentRedirect": "the bucket is in another region; set AWS_REGION to it",
    "AuthorizationHeaderMalformed": "the bucket is in another region; set AWS_REGION to it",
    "NoSuchBucket": "there is no such bucket; create it, or name another one",
    "403": FORBIDDEN,
    "AccessDenied": FORBIDDEN,
    "AllAccessDisabled": FORBIDDEN,
    "InvalidAccessKeyId": REFUSED,
    "SignatureDoesNotMatch": REFUSED,
    "InvalidToken": REFUSED,
    "ExpiredToken": REFUSED,
    "412": CHANGED,
    "PreconditionFailed": CHANGED,
    "RequestTimeTooSkewed": "the clock of this machine is wrong; set it",
    "503": BUSY,
    "SlowDown": BUSY,
    "ServiceUnavailable": BUSY,
}
TROUBLES = {
    "NoCredentialsError": f"there are no credentials; set {CREDENTIALS}",
    "PartialCredentialsError": f"the credentials are incomplete; set {CREDENTIALS}",
    "CredentialRetrievalError": f"the credentials cannot be had; check {CREDENTIALS}",
    "EndpointConnectionError": f"no server answers there; check {ENDPOINT}",
    "ConnectTimeoutError": f"no server answers there; check {ENDPOINT}",
    "ProxyConnectionError": "the proxy does not answer; check HTTPS_PROXY",
    "ReadTimeoutError": "it does not answer in time; try again later",
    "ConnectionClosedError": f"it closed the connection; check {ENDPOINT}",
    "SSLError": "its certificate is not accepted; set AWS_CA_BUNDLE to its authority's file",
}


UNANSWERED = frozenset(
    {"ReadTimeoutError", "ResponseStreamingError", "IncompleteReadError", "ConnectionClosedError"}
)
"""errors of one answer, after which others may come"""
OF_ONE = frozenset({"403", "AccessDenied", "InvalidObjectState", "412", "PreconditionFailed"})
"""refusals that may be those of one object: its own rights, a thaw that it needs, other content"""


class _Bucket:
    """A bucket, and sentences for whatever goes wrong with it."""

    thing = "store"

    def __init__(self, client: Any, *, bucket: str, prefix: str = "") -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""

    @contextmanager
    def _failures(self, verb: str, key: str) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except ClientError as error:
            if _code(error) in ABSENT:
                raise NoSuchKeyError(
                    f"The {self.thing} at {self._where()} has nothing under '{key}'."
                ) from error
            alone = UnansweredError if _code(error) in OF_ONE else StorageError
            raise alone(self._sentence(verb, key, _refusal(error))) from error
        except BotoCoreError as error:
            reason = TROUBLES.get(type(error).__name__) or str(error).rstrip(".")
            kind = UnansweredError if type(error).__name__ in UNANSWERED else StorageError
            raise kind(self._sentence(verb, key, reason)) from error
        except RecursionError as error:  # boto3 asks for the region without end where a server names none
            raise self._failure(verb, key, REFUSALS["PermanentRedirect"]) from error

    def _failure(self, verb: str, key: str, reason: str) -> StorageError:
        return StorageError(self._sentence(verb, key, reason))

    def _sentence(self, verb: str, key: str, reason: str) -> str:
        return f"'{key}' cannot be {verb} in the {self.thing} at {self._where()}: {reason}."

    def _where(self) -> str:
        """Return the store's address and its server's, without the name and password that it may hold."""
        parts = urlsplit(self._client.meta.endpoint_url)
        server = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/") + f" ({server})"


class S3Storage(_Bucket):
    """Keeps each key as one object `prefix/key` of a bucket. Thread-safe.

    `client` is a boto3 client of S3.
    """

    def put(self, key: str, data: bytes) -> None:
        """Keep `data` under `key`. S3 shows an object whole or not at all."""
        with self._failures("written", key):
            self._client.put_object(**self._object(key), Body=data, ContentType=media_type(key))

    def get(self, key: str) -> bytes:
        """Return the bytes under `key`. Raises `NoSuchKeyError` when there are none."""
        with self._failures("read", key):
            data: bytes = self._client.get_object(**self._object(key))["Body"].read()
            return data

    def exists(self, key: str) -> bool:
        """Say whether `key` holds bytes."""
        address = self._object(key)
        try:
            with self._failures("looked up", key):
                self._client.head_object(**address)
        except NoSuchKeyError:
            return False
        return True

    def delete(self, key: str) -> None:
        """Remove `key`, if it is there."""
        with self._failures("removed", key):
            self._client.delete_object(**self._object(key))

    def _object(self, key: str) -> dict[str, str]:
        """Return the address of a key's object, below the prefix. Raises `NoSuchKeyError` if it is no key."""
        name = self._prefix + "/".join(key_parts(key))
        try:
            size = len(name.encode())
        except UnicodeEncodeError as error:
            raise NoSuchKeyError(f"{key!r} is not a key: it is not valid Unicode.") from error
        if size > LONGEST_KEY:
            raise NoSuchKeyError(f"'{key[:60]}…' is too long for a key: S3 takes {LONGEST_KEY} bytes.")
        return {"Bucket": self._bucket, "Key": name}


@dataclass(frozen=True)
class ListedObject:
    """An object as a listing tells it."""

    key: str
    size: int
    """bytes"""
    etag: str
    """changes with the content"""


class S3Objects(_Bucket):
    """Reads the objects of a bucket, whoever put them there. Thread-safe. Raises `StorageError`."""

    thing = "bucket"

    @property
    def place(self) -> str:
        """Return the address of the bucket."""
        return f"s3://{self._bucket}"

    def objects(self, prefix: str) -> Iterator[ListedObject]:
        """Yield the objects whose keys begin with `prefix`, in the order of keys, page by page."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
        answers = iter(pages)
        while True:
            with self._failures("listed", prefix):
                page = next(answers, None)
            if page is None:
                return
            for each in page.get("Contents", ()):
                yield ListedObject(each["Key"], int(each["Size"]), str(each["ETag"]))

    def look_up(self, key: str) -> ListedObject:
        """Return one object without its content. Raises `NoSuchKeyError`, too."""
        with self._failures("looked up", key):
            found = self._client.head_object(Bucket=self._bucket, Key=key)
            return ListedObject(key, int(found["ContentLength"]), str(found["ETag"]))

    def read(self, key: str, *, most: int) -> bytes:
        """Return the content, or its first `most` bytes. Raises `NoSuchKeyError` and `UnansweredError`."""
        with self._failures("read", key):
            answer = self._client.get_object(Bucket=self._bucket, Key=key)
            data: bytes = answer["Body"].read(most)
        if len(data) < min(most, int(answer["ContentLength"])):
            raise UnansweredError(self._sentence("read", key, "its answer was cut short"))
        return data

    def stream(
        self, key: str, *, start: int = 0, etag: str | None = None, chunk: int = 1 << 20
    ) -> Iterator[bytes]:
        """Yield the content in pieces, from an offset on, if it has the tag. Raises as `read` does."""
        asked = {"Range": f"bytes={start}-"} if start else {}
        wanted = {"IfMatch": etag} if etag else {}
        with self._failures("read", key):
            body = self._client.get_object(Bucket=self._bucket, Key=key, **asked, **wanted)["Body"]
            with closing(body):
                yield from body.iter_chunks(chunk)


def open_objects(bucket: str) -> S3Objects:
    """Open a bucket for reading, with the settings of AWS's own variables. Raises `StorageError`."""
    if not BUCKET.fullmatch(bucket):
        raise StorageError(f"'{bucket}' names no bucket: write s3://bucket/prefix")
    return S3Objects(_client(), bucket=bucket)


def open_bucket(location: str) -> S3Storage:
    """Open the store at `//bucket/prefix`, with endpoint, region and credentials of AWS's own variables.

    Nothing is sent yet. Raises `StorageError` for an address that names no bucket.
    """
    bucket, _, prefix = location.removeprefix("//").partition("/")
    prefix = prefix.rstrip("/")
    if not (location.startswith("//") and BUCKET.fullmatch(bucket)):
        raise StorageError(f"'s3:{location}' names no bucket: write s3://bucket/prefix")
    if prefix:
        key_parts(prefix)
    return S3Storage(_client(), bucket=bucket, prefix=prefix)


def _client() -> Any:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    config = Config(
        connect_timeout=CONNECT_S,
        read_timeout=READ_S,
        retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
        max_pool_connections=CONNECTIONS,
        # Servers that are not Amazon's often know nothing of the checksums that boto3 adds by itself.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    try:
        return boto3.session.Session().client("s3", config=config)
    except (BotoCoreError, ValueError) as error:
        reason = TROUBLES.get(type(error).__name__) or str(error).rstrip(".")
        raise StorageError(f"The S3 store cannot be opened: {reason}.") from error


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _refusal(error: Any) -> str:
    """Return why the server refused, with the way out where there is one."""
    code, said = _code(error), error.response.get("Error", {}).get("Message", "")
    return REFUSALS.get(code) or f"the server refuses it ({code}: {said.rstrip('.')})"
