"""A bucket as a store: nothing leaves its prefix, and each trouble is a sentence with the way out."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from http_fronts import closed_port
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.errors import NoSuchKeyError, StorageError
from storage.keys import original_key, thumbnail_key
from storage.s3 import S3Storage
from storage.store import open_storage

IMAGE_ID = "ab" + "cd" + "0" * 60


def keys(s3_client, bucket: str) -> list[str]:
    """Return the content of a bucket by S3 key."""
    return [each["Key"] for each in s3_client.list_objects_v2(Bucket=bucket).get("Contents", [])]


@pytest.fixture
def refusing(monkeypatch) -> Iterator[list[tuple[int, str]]]:
    """Be led to a server that gives each (status, code) of the list in turn, and the last one for ever."""
    answers: list[tuple[int, str]] = [(500, "")]

    class Refuse(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, code = answers.pop(0) if len(answers) > 1 else answers[0]
            body = f"<Error><Code>{code}</Code><Message>As it is.</Message></Error>".encode() if code else b""
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_HEAD = do_DELETE = answer

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refuse)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    yield answers
    server.shutdown()
    thread.join()
    server.server_close()


def test_objects_lie_below_the_prefix_with_their_media_types(bucket, s3_client):
    store = open_storage(f"s3://{bucket}/pictures/mine/")
    store.put(thumbnail_key(IMAGE_ID), b"RIFF")
    store.put(original_key(IMAGE_ID, "jpg"), b"\xff\xd8")
    store.put("notes", b"x")
    found = {
        key: s3_client.head_object(Bucket=bucket, Key=key)["ContentType"] for key in keys(s3_client, bucket)
    }
    assert found == {
        f"pictures/mine/thumbnails/ab/cd/{IMAGE_ID}.webp": "image/webp",
        f"pictures/mine/originals/ab/cd/{IMAGE_ID}.jpg": "image/jpeg",
        "pictures/mine/notes": "application/octet-stream",
    }


def test_a_bucket_needs_no_prefix(bucket, s3_client):
    open_storage(f"s3://{bucket}").put("a/b", b"x")
    assert open_storage(f"S3://{bucket}/").get("a/b") == b"x"
    assert keys(s3_client, bucket) == ["a/b"]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.lists(
        st.one_of(st.sampled_from(["..", ".", "", "%2e%2e", "a", "secret"]), st.text()), max_size=4
    )
)
def test_no_key_leaves_the_prefix(bucket, s3_client, parts):
    s3_client.put_object(Bucket=bucket, Key="secret", Body=b"secret")
    store, key = S3Storage(s3_client, bucket=bucket, prefix="inside"), "/".join(parts)
    try:
        store.put(key, b"stored")
        assert store.get(key) == b"stored"
        assert all(name == "secret" or name.startswith("inside/") for name in keys(s3_client, bucket))
        store.delete(key)
    except NoSuchKeyError:
        pass
    assert keys(s3_client, bucket) == ["secret"]


def test_a_neighbour_whose_name_begins_alike_is_another_prefix(bucket, s3_client):
    s3_client.put_object(Bucket=bucket, Key="pictures-of-others/a", Body=b"theirs")
    store = open_storage(f"s3://{bucket}/pictures")
    assert not store.exists("-of-others/a")
    with pytest.raises(NoSuchKeyError):
        store.get("../pictures-of-others/a")


def test_a_key_that_s3_cannot_hold_is_none(bucket):
    with pytest.raises(NoSuchKeyError, match="too long for a key: S3 takes 1024 bytes"):
        open_storage(f"s3://{bucket}/prefix").put("ä" * 600, b"x")


@pytest.mark.parametrize("address", ["s3://", "s3:///prefix", "s3:bucket", "s3://A_b/x", "s3://b"])
def test_an_address_without_a_bucket_is_refused(address):
    with pytest.raises(StorageError, match="write s3://bucket/prefix"):
        open_storage(address)


def test_a_prefix_cannot_climb(bucket):
    with pytest.raises(StorageError, match="is not a key"):
        open_storage(f"s3://{bucket}/a/../b")


def test_without_credentials_it_says_which_variables_to_set(bucket, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(StorageError, match="there are no credentials; set AWS_ACCESS_KEY_ID and"):
        open_storage(f"s3://{bucket}").put("a", b"x")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "half")
    with pytest.raises(StorageError, match="the credentials are incomplete; set AWS_ACCESS_KEY_ID and"):
        open_storage(f"s3://{bucket}").put("a", b"x")


def test_an_unknown_profile_is_a_sentence(monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(StorageError, match="cannot be opened: .*nobody"):
        open_storage("s3://bucket")


def test_a_bucket_that_does_not_exist_is_named(bucket):
    store = open_storage(f"s3://{bucket}-absent/prefix")
    for method in (lambda: store.put("a", b"x"), lambda: store.get("a")):
        with pytest.raises(
            StorageError, match=f"s3://{bucket}-absent/prefix .*: there is no such bucket; create"
        ):
            method()
    assert not store.exists("a")


def test_a_server_that_is_not_there_is_named_soon_and_without_its_password(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with closed_port() as port:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://me:secret@127.0.0.1:{port}")
        with pytest.raises(
            StorageError, match=f"http://127.0.0.1:{port}.*: no server answers there"
        ) as caught:
            open_storage("s3://bucket/prefix").put("a", b"x")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "code", "sentence"),
    [
        (403, "AccessDenied", "forbidden; its credentials need s3:GetObject"),
        (403, "SignatureDoesNotMatch", "the credentials are refused; check AWS_ACCESS_KEY_ID"),
        (403, "InvalidAccessKeyId", "the credentials are refused; check AWS_ACCESS_KEY_ID"),
        (507, "XDiskFull", r"the server refuses it \(XDiskFull: As it is\)"),
    ],
)
def test_a_refusal_is_a_sentence_with_the_way_out(refusing, status, code, sentence):
    refusing[0] = (status, code)
    with pytest.raises(
        StorageError, match=f"'a' cannot be written in the store at s3://bucket/p .*: {sentence}"
    ):
        open_storage("s3://bucket/p").put("a", b"x")


def test_being_forbidden_to_look_is_no_answer_that_nothing_is_there(refusing):
    refusing[0] = (403, "AccessDenied")  # an answer to HEAD has no body, and so no code
    with pytest.raises(StorageError, match="'a' cannot be looked up .*: forbidden"):
        open_storage("s3://bucket/p").exists("a")


def test_a_server_that_is_busy_is_asked_again(refusing):
    refusing[:] = [(503, "SlowDown"), (200, "")]
    open_storage("s3://bucket/p").put("a", b"x")
    assert refusing == [(200, "")]
