"""Stores keep bytes whole, answer in sentences, and no key leads out of them."""

from __future__ import annotations

import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from picture_files import unprivileged
from waiting import wait_until

from storage.errors import NoSuchKeyError, StorageError
from storage.keys import thumbnail_key
from storage.store import FolderStorage, Storage, open_storage, reason

IMAGE_ID = "ab" + "cd" + "0" * 60
BAD_KEYS = [
    "",
    "/etc/passwd",
    "..",
    "a/../../b",
    "a//b",
    "./a",
    "a/.",
    "a\0b",
    "a\\b",
    "..\\b",
    "C:/b",
    "a/",
    "\ud800",
]
KEY_PARTS = st.one_of(
    st.sampled_from(["..", ".", "", "/", "\\", "C:", "~", "\0", "a", "link", "etc", "%2e%2e", "..."]),
    st.text(),
)


@pytest.fixture(params=["folder", "bucket"])
def store(request, tmp_path) -> Storage:
    """An empty store of each kind: the tests hold for both."""
    if request.param == "folder":
        return open_storage(f"file:{tmp_path / 'store'}")
    return open_storage(f"s3://{request.getfixturevalue('bucket')}/some/prefix")


def test_what_was_put_is_what_is_got(store):
    store.put("a/b.webp", b"one")
    store.put("a/b.webp", b"two")
    store.put("a/ä b+c%2F?#.webp", bytes(range(256)) * 5000)
    assert store.get("a/b.webp") == b"two"
    assert store.get("a/ä b+c%2F?#.webp") == bytes(range(256)) * 5000
    assert store.exists("a/b.webp")


def test_a_missing_key_is_a_sentence_that_names_it(store):
    store.put("folder/file", b"x")
    for key in ("absent", "folder", "folder/file/below"):
        assert not store.exists(key)
        with pytest.raises(NoSuchKeyError, match=f"has nothing under '{key}'"):
            store.get(key)


def test_deleting_removes_a_key_and_does_not_mind_an_absent_one(store):
    store.put("a", b"x")
    store.delete("a")
    store.delete("a")
    store.delete("a/b")
    assert not store.exists("a")


@pytest.mark.parametrize("key", BAD_KEYS)
def test_a_key_that_is_no_plain_relative_path_is_refused_by_every_method(store, key):
    for method in (store.get, store.exists, store.delete, lambda bad: store.put(bad, b"x")):
        with pytest.raises(NoSuchKeyError):
            method(key)


def test_a_reader_never_sees_half_of_what_is_written(store):
    contents = [bytes([number]) * 200_000 for number in range(3)]
    store.put("key", contents[0])
    done = threading.Event()
    seen: list[bytes] = []

    def read() -> None:
        while not done.is_set():
            seen.append(store.get("key"))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(50):  # each is followed by a read, and others happen meanwhile
            before = len(seen)
            store.put("key", contents[number % 3])
            wait_until(lambda least=before: len(seen) > least)
    finally:
        done.set()
        reader.join()
    assert set(seen) <= set(contents)


def test_many_threads_share_a_store(store):
    keys = [thumbnail_key(f"{number:064x}") for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: store.put(key, key.encode()), keys))
        assert list(pool.map(store.get, keys)) == [key.encode() for key in keys]
        assert all(pool.map(store.exists, keys))


def test_a_folder_keeps_keys_as_files_and_nothing_else(tmp_path):
    FolderStorage(tmp_path / "store").put("a/b.webp", b"one")
    FolderStorage(tmp_path / "store").put("a/b.webp", b"two")
    assert sorted(path.name for path in (tmp_path / "store").rglob("*")) == ["a", "b.webp"]


def test_a_link_inside_the_store_does_not_lead_out_of_it(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"secret")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "store" / "file").symlink_to(tmp_path / "outside" / "secret")
    store = FolderStorage(tmp_path / "store")
    for key in ("link/secret", "file"):
        for method in (store.get, store.exists, store.delete, lambda bad: store.put(bad, b"x")):
            with pytest.raises(StorageError, match="leads out of the store"):
                method(key)
    assert (tmp_path / "outside" / "secret").read_bytes() == b"secret"


def test_a_store_behind_a_link_works(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    FolderStorage(tmp_path / "link").put("a", b"x")
    assert (tmp_path / "real" / "a").read_bytes() == b"x"


@given(key=st.lists(KEY_PARTS, max_size=5).map("/".join))
def test_no_key_leaves_the_store(tmp_path_factory, key):
    base = tmp_path_factory.mktemp("keys")
    (base / "store").mkdir()
    (base / "secret").write_bytes(b"secret")
    (base / "store" / "link").symlink_to(base)
    store = FolderStorage(base / "store")
    try:
        store.put(key, b"stored")
        assert store.get(key) == b"stored"
        store.delete(key)
    except StorageError:
        pass
    assert {path.name for path in base.iterdir()} == {"store", "secret"}
    assert (base / "secret").read_bytes() == b"secret"
    shutil.rmtree(base)


def test_a_write_that_fails_leaves_the_old_bytes_and_no_litter(tmp_path):
    store = FolderStorage(tmp_path)
    (tmp_path / "key" / "in the way").mkdir(parents=True)
    with pytest.raises(StorageError, match="'key' cannot be written in the store at"):
        store.put("key", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_a_full_disk_is_named_with_the_way_out():
    with (
        pytest.raises(OSError, match="No space") as caught,
        Path("/dev/full").open("wb", buffering=0) as file,
    ):
        file.write(b"x")
    assert reason(caught.value) == "the disk is full; make room or choose another store with --store"


def test_a_folder_that_may_not_be_written_is_named_with_the_way_out():
    with unprivileged() as folder:
        folder.chmod(0o500)
        with pytest.raises(StorageError, match="permission denied; change the folder's permissions"):
            FolderStorage(folder).put("a", b"x")
        with pytest.raises(StorageError, match="permission denied; change the folder's permissions"):
            FolderStorage(folder / "new").put("a/b", b"x")


def test_a_file_in_the_place_of_the_store_is_a_sentence(tmp_path):
    (tmp_path / "store").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot be written in the store at .*/store: Not a directory"):
        FolderStorage(tmp_path / "store").put("a/b", b"x")


@pytest.mark.parametrize("prefix", ["", "file:", "file://", "file://localhost"])
def test_a_store_opens_at_a_path_or_a_file_address(tmp_path, prefix):
    open_storage(f"{prefix}{tmp_path}").put("a", b"x")
    assert (tmp_path / "a").read_bytes() == b"x"


def test_a_relative_path_is_a_store_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = open_storage("store")
    os.chdir("/")
    store.put("a", b"x")
    assert (tmp_path / "store" / "a").read_bytes() == b"x"


def test_an_unknown_scheme_names_the_known_ones():
    with pytest.raises(StorageError, match="one of these schemes: file:, s3:"):
        open_storage("ftp://example.org/x")


@pytest.mark.parametrize("uri", ["", "file:", "file:\0", "file://elsewhere/path"])
def test_an_address_that_names_no_folder_is_refused(uri):
    with pytest.raises(StorageError, match="file:/path/to/a/folder"):
        open_storage(uri)


def test_thumbnails_are_spread_over_folders_by_their_id():
    assert thumbnail_key(IMAGE_ID) == f"thumbnails/ab/cd/{IMAGE_ID}.webp"


@pytest.mark.parametrize("image_id", ["", "../x", "ab", IMAGE_ID + "\n", IMAGE_ID.upper(), IMAGE_ID + "0"])
def test_what_is_not_an_image_id_has_no_thumbnail(image_id):
    with pytest.raises(StorageError, match="is not an image id"):
        thumbnail_key(image_id)
