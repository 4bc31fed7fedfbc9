"""A run of ingest on a real index: every file ends in one place, and every vector on its own picture."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from elasticsearch import Elasticsearch
from model_folders import save_pair
from picture_files import draw_picture, png_header, save_picture, truncate, unprivileged
from PIL import Image
from waiting import PATIENCE_S, wait_until

from es_config.documents import NAMES_EDITION
from es_config.errors import EngineError
from es_config.index import ImageIndex
from ingest.errors import Fault, IngestError
from ingest.files.picture import read_image
from ingest.files.walk import Exclusions
from ingest.options import IngestOptions
from ingest.pipeline.embed import embed_each
from ingest.pipeline.parallel import ahead, ordered_map
from ingest.pipeline.run import ingest_paths
from ingest.report import passed_over_in_words
from ingest.wiring import Dependencies, EmptyIndex, create_index
from models.encoders import Lazy, load_caption_text_encoder, load_image_encoder
from models.profiles import get_profile
from storage.keys import original_key, thumbnail_key
from storage.store import FolderStorage, open_storage


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory):
    """A profile of small towers with random weights."""
    return get_profile("pocket", model_dir=save_pair(tmp_path_factory.mktemp("pair")))


@pytest.fixture(scope="module")
def image_encoder(profile):
    return load_image_encoder(profile)


@pytest.fixture(scope="module")
def caption_encoder(profile):
    return load_caption_text_encoder(profile)


@pytest.fixture
def index(client: Elasticsearch, index_name: str, profile) -> ImageIndex:
    made = ImageIndex(client, alias=index_name)
    create_index(made, profile)
    return made


@pytest.fixture
def store(tmp_path: Path) -> FolderStorage:
    return FolderStorage(tmp_path / "store")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    return tmp_path / "pictures"


@pytest.fixture
def run(index, store, image_encoder, caption_encoder, pictures):
    """Return a function that ingests, with options and other dependencies by keyword."""

    def ingest(*paths: Path, progress=None, **given):
        dependencies = {
            "index": index,
            "image_encoder": image_encoder,
            "caption_encoder": caption_encoder,
            "storage": store,
            "captioner": None,
        }
        dependencies |= {name: given.pop(name) for name in list(given) if name in dependencies}
        for name in ("image_encoder", "caption_encoder"):
            dependencies[name] = lazy(dependencies[name])
        options = IngestOptions(**given)
        return ingest_paths(
            paths or (pictures,),
            dependencies=Dependencies(**dependencies),
            options=options,
            progress=progress,
        )

    return ingest


def lazy(encoder) -> Lazy:
    return encoder if isinstance(encoder, Lazy) else Lazy(lambda: encoder)


class Watcher:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.total, self.done, self.failures, self.totals = 0, 0, [], []

    def start(self, total: int, *, so_far: bool = False) -> None:
        self.total = total
        self.totals.append((total, so_far))

    def advance(self) -> None:
        self.done += 1

    def failed(self, failure) -> None:
        self.failures.append(failure)


def documents(index: ImageIndex) -> dict[str, dict]:
    """Return every document by its first path."""
    hits = index.search({"query": {"match_all": {}}, "size": 1000}).hits
    return {hit.source["relative_path"][0]: hit.source for hit in hits}


def counts(summary) -> tuple[int, int, int, int, int]:
    return summary.files, summary.indexed, summary.skipped, summary.embedded, summary.failed


def never(*_: object) -> None:
    raise AssertionError("nothing may be embedded")


NO_ENCODER = SimpleNamespace(preprocess=never, embed_pixels=never, embed_texts=never)


def assert_vectors_belong_to_their_pictures(index, folder: Path, image_encoder) -> None:
    """Compare each stored vector with the one of its own file, embedded alone from its bytes."""
    for relative, source in documents(index).items():
        image = Image.open(folder / relative).convert("RGB")
        expected = image_encoder.embed_images([image])[0]
        np.testing.assert_allclose(index.vector(source["image_id"]), expected, atol=1e-5, err_msg=relative)


def test_a_picture_becomes_a_document_with_what_is_known_of_it(run, index, store, pictures, caption_encoder):
    tags = Image.Exif()
    tags[270], tags[271], tags[272] = "Zwei Boote in Köln".encode(), "Canon", "Canon EOS 5D"
    tags.get_ifd(0x8769).update({36867: "2021:06:30 23:15:08", 36881: "+02:00"})
    tags.get_ifd(0x8825).update({1: "N", 2: (50.0, 56.0, 0.0), 3: "E", 4: (6.0, 57.0, 0.0)})
    tags[274] = 6
    path = save_picture(pictures / "trip" / "boats.jpg", 1, exif=tags)
    begin = datetime.now(UTC)
    assert counts(run()) == (1, 1, 0, 1, 0)
    (source,) = documents(index).values()
    expected = read_image(path)
    assert begin <= datetime.fromisoformat(source.pop("indexed_at")) <= datetime.now(UTC)
    assert source == {
        "image_id": expected.image_id,
        "image_name": "boats.jpg",
        "relative_path": ["trip/boats.jpg"],
        "caption": "Zwei Boote in Köln",
        "caption_source": "description",
        "exif": {
            "date": "2021-06-30T23:15:08+02:00",
            "location": {"lat": 50.9333333, "lon": 6.95},
            "camera": "Canon EOS 5D",
            "local_date": "2021-06-30T23:15:08",
            "offset": "+02:00",
            "date_source": "EXIF",
        },
        "names": {
            "file": ["boats"],
            "folders": ["trip"],
            "camera": ["canon eos 5d"],
            "path": ["trip/boats.jpg", "boats.jpg"],
            "within": ["trip"],
            "format": ["jpeg"],
            "edition": NAMES_EDITION,
        },
        "width": 120,
        "height": 160,
        "size_bytes": path.stat().st_size,
        "phash": expected.phash,
    }
    caption_vector = caption_encoder.embed_texts(["Zwei Boote in Köln"])[0]
    np.testing.assert_allclose(
        index.vector(expected.image_id, "caption_embedding"), caption_vector, atol=1e-5
    )
    assert store.get(thumbnail_key(expected.image_id))[8:12] == b"WEBP"


def spoil(pictures: Path) -> dict[str, str]:
    """Put bad files between good ones and return the reason expected for each."""
    for number in range(12):
        save_picture(pictures / f"{number:02}.png", number)
    (pictures / "03-empty.png").touch()
    (pictures / "04-text.jpg").write_text("no picture")
    (pictures / "05-bomb.png").write_bytes(png_header(50_000, 50_000))
    truncate(save_picture(pictures / "06-cut.jpg", 99))
    (pictures / "07-gone.png").symlink_to(pictures / "nowhere.png")
    (pictures / "08-loop.png").symlink_to(pictures / "08-loop.png")
    os.mkfifo(pictures / "09-pipe.png")
    Image.new("RGB", (1, 1), "red").save(pictures / "10-pixel.png")
    return {
        "03-empty.png": "the file is empty",
        "04-text.jpg": "not a picture in a known format",
        "05-bomb.png": "2500 megapixels are over the limit of 200 (--max-pixels)",
        "06-cut.jpg": "damaged or cut short",
        "07-gone.png": "the file vanished before it was read",
        "08-loop.png": "a symbolic link that leads back to itself",
        "09-pipe.png": "not a regular file",
    }


@pytest.mark.parametrize("batch_size", [1, 5, 32])
def test_bad_files_in_a_batch_cost_only_themselves(run, index, pictures, image_encoder, batch_size):
    expected = spoil(pictures)
    watcher = Watcher()
    summary = run(batch_size=batch_size, progress=watcher)
    found = {Path(failure.path).name: failure.reason for failure in summary.failures}
    assert found.keys() == expected.keys()
    assert all(found[name].startswith(reason) for name, reason in expected.items())
    # The link to itself is seen by the walk, before it counts as a file.
    assert counts(summary) == (19, 13, 0, 13, 7)
    assert (watcher.total, watcher.done) == (19, 19)
    assert sorted(watcher.failures, key=str) == sorted(summary.failures, key=str)
    assert index.count() == 13
    assert_vectors_belong_to_their_pictures(index, pictures, image_encoder)


def test_a_picture_whose_end_is_missing_is_kept_and_marked(run, index, pictures):
    draw_picture(1).resize((64, 640)).save(pictures / "cut.jpg", quality=95)
    whole = (pictures / "cut.jpg").read_bytes()
    (pictures / "cut.jpg").write_bytes(whole[: -len(whole) // 50])
    save_picture(pictures / "whole.jpg", 2)
    summary = run()
    assert summary.cut_short == (str(pictures / "cut.jpg"),)
    assert "1 picture is cut short" in passed_over_in_words(summary)[0]
    assert {path: source.get("cut_short") for path, source in documents(index).items()} == {
        "cut.jpg": True,
        "whole.jpg": None,
    }


def test_a_second_run_embeds_reads_and_rewrites_nothing(run, index, pictures):
    spoil(pictures)
    run()
    before = documents(index)
    summary = run(image_encoder=NO_ENCODER, caption_encoder=NO_ENCODER)
    assert counts(summary) == (19, 0, 13, 0, 7)
    assert documents(index) == before


def test_the_same_content_is_one_document_with_every_path(run, index, pictures):
    save_picture(pictures / "a.png", 1)
    for name in ("b.png", "sub/c.jpg", "z.png"):
        (pictures / name).parent.mkdir(exist_ok=True)
        shutil.copy(pictures / "a.png", pictures / name)
    save_picture(pictures / "c.png", 2)
    assert counts(run(pictures)) == (5, 2, 3, 2, 0)
    paths = {source["image_id"]: source["relative_path"] for source in documents(index).values()}
    assert sorted(paths.values()) == [["a.png", "b.png", "z.png", "sub/c.jpg"], ["c.png"]]


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_copies_that_fall_into_other_batches_are_still_one_document(run, index, pictures, batch_size):
    for number in range(8):
        save_picture(pictures / f"{number}.png", number % 3)
    summary = run(batch_size=batch_size, threads=1)
    assert (*counts(summary), summary.paths_added) == (8, 3, 5, 3, 0, 5)
    paths = sorted(source["relative_path"] for source in documents(index).values())
    assert paths == [["0.png", "3.png", "6.png"], ["1.png", "4.png", "7.png"], ["2.png", "5.png"]]


def test_a_renamed_copy_adds_its_path_without_being_embedded(run, index, pictures):
    save_picture(pictures / "a.png", 1)
    run()
    (pictures / "a.png").rename(pictures / "b.png")
    summary = run(image_encoder=NO_ENCODER)
    assert (*counts(summary), summary.paths_added) == (1, 0, 1, 0, 0, 1)
    assert [source["relative_path"] for source in documents(index).values()] == [["a.png", "b.png"]]


def test_copies_of_a_bad_file_each_fail_with_the_same_reason(run, pictures):
    truncate(save_picture(pictures / "a.png", 1))
    for name in ("b.png", "c.png"):
        shutil.copy(pictures / "a.png", pictures / name)
    save_picture(pictures / "d.png", 2)
    summary = run()
    assert counts(summary) == (4, 1, 0, 1, 3)
    reasons = {failure.reason for failure in summary.failures}
    assert reasons == {"damaged or cut short (image file is truncated)"}


def test_a_lost_thumbnail_is_made_again_without_embedding(run, index, store, pictures):
    save_picture(pictures / "a.png", 1)
    run()
    (image_id,) = (source["image_id"] for source in documents(index).values())
    before = store.get(thumbnail_key(image_id))
    store.delete(thumbnail_key(image_id))
    assert counts(run(image_encoder=NO_ENCODER)) == (1, 0, 1, 0, 0)
    assert store.get(thumbnail_key(image_id)) == before
    store.delete(thumbnail_key(image_id))
    (pictures / "a.png").rename(pictures / "b.png")
    assert run(image_encoder=NO_ENCODER).paths_added == 1
    assert store.get(thumbnail_key(image_id)) == before
    assert [source["relative_path"] for source in documents(index).values()] == [["a.png", "b.png"]]


def test_a_model_that_fails_on_one_picture_of_a_batch_costs_that_picture(run, index, pictures, image_encoder):
    for number in range(6):
        save_picture(pictures / f"{number}.png", number)
    poison = image_encoder.preprocess(draw_picture(3))

    def embed_pixels(pixels):
        if any(np.array_equal(each, poison) for each in pixels):
            raise RuntimeError("out of memory")
        return image_encoder.embed_pixels(pixels)

    moody = SimpleNamespace(preprocess=image_encoder.preprocess, embed_pixels=embed_pixels)
    summary = run(image_encoder=moody)
    assert counts(summary) == (6, 5, 0, 5, 1)
    assert summary.failures[0].reason == "the model cannot embed it (RuntimeError: out of memory)"
    assert "3.png" not in documents(index)
    assert_vectors_belong_to_their_pictures(index, pictures, image_encoder)


def test_a_picture_that_the_model_cannot_take_in_costs_itself(run, pictures, image_encoder):
    save_picture(pictures / "a.png", 1)
    save_picture(pictures / "b.png", 2, size=(77, 50))

    def preprocess(image):
        if image.width == 77:
            raise ValueError("odd width")
        return image_encoder.preprocess(image)

    summary = run(
        image_encoder=SimpleNamespace(preprocess=preprocess, embed_pixels=image_encoder.embed_pixels)
    )
    assert counts(summary) == (2, 1, 0, 1, 1)
    assert summary.failures[0].reason == "the model cannot take it (ValueError: odd width)"


def test_a_document_that_the_index_refuses_is_a_failure_and_so_are_its_copies(run, pictures, image_encoder):
    for number in range(3):
        save_picture(pictures / f"{number}.png", number)
    shutil.copy(pictures / "1.png", pictures / "1-copy.png")

    def embed_pixels(pixels):
        vectors = image_encoder.embed_pixels(pixels)
        vectors[1] = 0.0  # which has no cosine
        return vectors

    summary = run(
        image_encoder=SimpleNamespace(preprocess=image_encoder.preprocess, embed_pixels=embed_pixels)
    )
    assert counts(summary)[:3] == (4, 2, 0)
    assert [Path(failure.path).name for failure in summary.failures] == ["1-copy.png", "1.png"]
    assert all("the index refused it" in failure.reason for failure in summary.failures)


def test_embedding_falls_back_to_one_by_one_and_gives_a_reason_for_each_that_fails():
    def reciprocal(values):
        return np.asarray([[1 / value] for value in values])

    assert embed_each(reciprocal, [1, 2]) == [[1.0], [0.5]]
    rows = embed_each(reciprocal, [1, 0, 4])
    assert rows[0] == [1.0]
    assert rows[1] == Fault("the model cannot embed it (ZeroDivisionError: division by zero)")
    assert rows[2] == [0.25]
    assert "no numbers" in embed_each(lambda _: np.asarray([[np.nan]]), ["x"])[0].reason
    assert embed_each(lambda _: np.asarray([[1.0]]), ["x", "y"]) == [[1.0], [1.0]]


def test_whole_pictures_go_into_a_bucket_and_places_stay_out_when_asked(run, index, pictures, bucket):
    tags = Image.Exif()
    tags.get_ifd(0x8825).update({1: "N", 2: (50.0, 56.0, 0.0), 3: "E", 4: (6.0, 57.0, 0.0)})
    xmp = b'<x xmlns:d="http://purl.org/dc/elements/1.1/" xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    xmp += b"<d:subject><r:li>boat</r:li><r:li>K\xc3\xb6ln</r:li></d:subject></x>"
    path = save_picture(pictures / "boats.jpg", 1, exif=tags, xmp=xmp)
    store = open_storage(f"s3://{bucket}/mine")
    assert counts(run(storage=store, originals="webp", no_gps=True)) == (1, 1, 0, 1, 0)
    (source,) = documents(index).values()
    assert source["tags"] == ["boat", "Köln"]
    assert "exif" not in source
    image_id = source["image_id"]
    assert store.exists(thumbnail_key(image_id))
    assert store.get(original_key(image_id, "webp"))[8:12] == b"WEBP"
    assert counts(run(storage=store, image_encoder=NO_ENCODER)) == (1, 0, 1, 0, 0)
    assert not store.exists(original_key(image_id, "jpg"))
    later = run(storage=store, image_encoder=NO_ENCODER, originals="original")
    assert counts(later) == (1, 0, 1, 0, 0)
    assert store.get(original_key(image_id, "jpg")) == path.read_bytes()


def test_a_bucket_that_is_not_there_stops_the_run_with_a_sentence(run, index, pictures, bucket):
    save_picture(pictures / "a.jpg", 1)
    for form in ("none", "original"):
        with pytest.raises(
            IngestError, match="Stopped after 0 pictures .* there is no such bucket; create it"
        ):
            run(storage=open_storage(f"s3://{bucket}-absent"), originals=form)
    assert documents(index) == {}


def test_a_dry_run_says_what_a_run_would_do_and_writes_nothing(run, index, store, pictures):
    spoil(pictures)
    shutil.copy(pictures / "00.png", pictures / "copy.png")
    dry = run(dry_run=True, image_encoder=NO_ENCODER)
    assert (index.count(), store.root.exists()) == (0, False)
    real = run()
    assert counts(dry) == (20, 13, 1, 0, 7)
    assert counts(real) == (20, 13, 1, 13, 7)
    assert sorted(dry.failures, key=str) == sorted(real.failures, key=str)
    assert counts(run(dry_run=True)) == (20, 0, 13 + 1, 0, 7)


def test_a_dry_run_needs_no_index(run, pictures, client):
    save_picture(pictures / "a.png", 1)
    assert counts(run(index=EmptyIndex(client, alias="test-nowhere"), dry_run=True)) == (1, 1, 0, 0, 0)


def test_the_limit_counts_files_and_exclude_leaves_out(run, index, pictures):
    for number in range(5):
        save_picture(pictures / f"{number}.png", number)
    assert counts(run(limit=2)) == (2, 2, 0, 2, 0)
    assert counts(run(limit=4, exclude=Exclusions(("0.png",)))) == (4, 3, 1, 3, 0)
    assert sorted(documents(index)) == ["0.png", "1.png", "2.png", "3.png", "4.png"]


def test_names_in_invalid_utf8_and_with_line_breaks_are_indexed(run, index, pictures):
    source = save_picture(pictures / "two\nlines.png", 1)
    (pictures / os.fsdecode(b"caf\xe9.png")).write_bytes(save_picture(pictures / "tmp.png", 2).read_bytes())
    (pictures / "tmp.png").unlink()
    (pictures / os.fsdecode(b"bad\xff.png")).write_bytes(b"no picture")
    summary = run()
    assert counts(summary) == (3, 2, 0, 2, 1)
    assert summary.failures[0].path == str(pictures / r"bad\xff.png")
    assert sorted(documents(index)) == [r"caf\xe9.png", source.name]
    assert counts(run(image_encoder=NO_ENCODER)) == (3, 0, 2, 0, 1)


def test_unreadable_files_and_folders_are_counted(run):
    with unprivileged() as folder:
        save_picture(folder / "a.png", 1)
        save_picture(folder / "closed.png", 2).chmod(0)
        save_picture(folder / "closed" / "b.png", 3)
        (folder / "closed").chmod(0)
        summary = run(folder, storage=FolderStorage(folder / "store"))
    assert counts(summary) == (2, 1, 0, 1, 2)
    assert {Path(failure.path).name: failure.reason for failure in summary.failures} == {
        "closed.png": "permission denied",
        "closed": "permission denied",
    }


def test_a_file_that_vanishes_on_the_way_costs_itself(run, pictures):
    paths = [save_picture(pictures / f"{number}.png", number) for number in range(3)]

    class Remover(Watcher):
        def start(self, total: int, *, so_far: bool = False) -> None:
            super().start(total, so_far=so_far)
            paths[1].unlink(missing_ok=True)

    watcher = Remover()
    summary = run(*paths, progress=watcher)
    assert counts(summary) == (3, 2, 0, 2, 1)
    assert watcher.total == watcher.done == 3
    assert summary.failures[0].reason == "the file vanished before it was read"


@pytest.mark.parametrize("options", [{"dry_run": True}, {}])
def test_a_run_looks_into_each_folder_once_and_its_total_grows_with_the_walk(
    run, tmp_path, options, monkeypatch
):
    folder, looked, scandir = tmp_path / "tree", [], os.scandir
    for number in range(12):
        save_picture(folder / str(number % 3) / f"{number}.png", number)

    def counted(path):
        looked.append(str(path))
        return scandir(path)

    monkeypatch.setattr("ingest.files.walk.os.scandir", counted)
    monkeypatch.setattr("ingest.pipeline.run.TOGETHER", 5)
    watcher = Watcher()
    assert run(folder, progress=watcher, **options).indexed == 12
    ours = [each for each in looked if each.startswith(str(folder))]
    assert sorted(ours) == sorted({str(folder), *(str(folder / str(number)) for number in range(3))})
    assert watcher.totals == [(0, True), (5, True), (10, True), (12, True), (12, False)]


class Cable:
    """A connection to Elasticsearch that can be cut: forwards bytes from a port of its own."""

    def __init__(self, url: str) -> None:
        host, port = url.removeprefix("http://").split(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(self._target)
            self._sockets += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._copy, args=(source, sink), daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            return

    def cut(self) -> None:
        """Refuse new connections and end those there are."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in self._sockets:
            each.close()


@pytest.fixture
def cable(node) -> Iterator[Cable]:
    made = Cable(node.url)
    yield made
    if made._listener.fileno() >= 0:
        made.cut()


def test_when_elasticsearch_goes_away_the_run_stops_and_the_next_one_goes_on(
    run, index, pictures, cable, image_encoder
):
    for number in range(40):
        save_picture(pictures / f"{number:02}.png", number)

    watcher, batches = Watcher(), count()

    def embed_pixels(pixels):
        if next(batches) == 4:
            wait_until(lambda: watcher.done >= 10)
            cable.cut()
        return image_encoder.embed_pixels(pixels)

    cutting = SimpleNamespace(preprocess=image_encoder.preprocess, embed_pixels=embed_pixels)
    with Elasticsearch(cable.url, max_retries=0) as client:
        broken = ImageIndex(client, alias=index.alias)
        with pytest.raises(IngestError, match=r"^Stopped after \d+ pictures were indexed\. No Elasticsearch"):
            run(index=broken, batch_size=5, threads=1, progress=watcher, image_encoder=cutting)
    index.refresh()
    indexed = index.count()
    assert 10 <= indexed < 40
    assert counts(run()) == (40, 40 - indexed, indexed, 40 - indexed, 0)
    assert_vectors_belong_to_their_pictures(index, pictures, image_encoder)


def test_an_index_that_vanishes_stops_the_run_with_a_sentence(run, index, pictures):
    save_picture(pictures / "a.png", 1)
    index.delete()
    with pytest.raises(IngestError, match=r"^Stopped after 0 pictures were indexed\. There is no"):
        run()


def test_a_store_that_cannot_be_written_stops_the_run_and_no_document_is_without_its_thumbnail(
    run, index, pictures, tmp_path
):
    save_picture(pictures / "a.png", 1)
    (tmp_path / "file").touch()
    with pytest.raises(IngestError, match=r"cannot be written in the store .* the same command goes on"):
        run(storage=FolderStorage(tmp_path / "file"))
    index.refresh()
    assert index.count() == 0
    assert counts(run()) == (1, 1, 0, 1, 0)


def test_ctrl_c_ends_with_a_summary_of_what_is_written(run, index, pictures, image_encoder):
    for number in range(30):
        save_picture(pictures / f"{number:02}.png", number)
    batches = count()

    def embed_pixels(pixels):
        if next(batches) == 3:
            raise KeyboardInterrupt
        return image_encoder.embed_pixels(pixels)

    hasty = SimpleNamespace(preprocess=image_encoder.preprocess, embed_pixels=embed_pixels)
    summary = run(image_encoder=hasty, batch_size=4)
    assert (summary.interrupted, summary.indexed, index.count()) == (True, 12, 12)
    assert counts(run()) == (30, 18, 12, 18, 0)
    assert_vectors_belong_to_their_pictures(index, pictures, image_encoder)


def test_no_thread_outlives_a_run(run, pictures, client, index_name):
    class Deaf(ImageIndex):
        """An index that cannot be asked for the pictures that it knows."""

        known = never

    for number in range(10):
        save_picture(pictures / f"{number}.png", number)
    run(batch_size=2)
    with pytest.raises(AssertionError):
        run(index=Deaf(client, alias=index_name))
    ours = ("decode", "read-ahead", "writer")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(ours)]


def test_an_encoder_is_loaded_once_and_only_when_it_is_used():
    loads, asking = [], threading.Semaphore(0)

    def load():
        loads.append(1)
        assert all(asking.acquire(timeout=PATIENCE_S) for _ in range(4))
        return SimpleNamespace(dims=16)

    def use() -> None:
        asking.release()
        assert encoder.get().dims == 16

    encoder = Lazy(load)
    assert loads == []
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: use(), range(4)))
    assert (encoder.get().dims, len(loads)) == (16, 1)


def test_a_model_that_cannot_be_loaded_stops_the_run(run, pictures):
    save_picture(pictures / "a.png", 1)

    def load():
        raise EngineError("no such model")

    with pytest.raises(IngestError, match="no such model"):
        run(image_encoder=Lazy(load))


def test_reading_ahead_keeps_the_order_and_the_bounds():
    made = []

    def numbers():
        for number in range(100):
            made.append(number)
            yield number

    def slow(number: int) -> int:
        time.sleep(0.001 * (number % 3))
        return number

    with ThreadPoolExecutor(4) as pool:
        results = ordered_map(pool, slow, numbers(), window=8)
        assert next(results) == 0
        assert len(made) == 8
        assert list(results) == list(range(1, 100))


def test_reading_ahead_passes_errors_on_and_stops_when_it_is_closed():
    closed = threading.Event()

    def numbers():
        try:
            yield from range(1000)
        finally:
            closed.set()

    def broken():
        yield 1
        raise ValueError("broken")

    items = ahead(numbers(), size=2)
    assert [next(items), next(items)] == [0, 1]
    items.close()
    assert closed.is_set()
    items = ahead(broken(), size=2)
    assert next(items) == 1
    with pytest.raises(ValueError, match="broken"):
        next(items)


if os.environ.get("GLIMPSE_SHARED"):

    def test_real_photographs_are_indexed_and_each_finds_itself(run, index, image_encoder):
        folder = Path(os.environ["GLIMPSE_SHARED"]) / "data" / "flickr8k" / "images"
        summary = run(folder.resolve(), limit=30)
        assert counts(summary) == (30, 30, 0, 30, 0)
        assert_vectors_belong_to_their_pictures(index, folder, image_encoder)
