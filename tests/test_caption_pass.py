"""The pass that captions pictures of the index: the pocket captioner, a real node, drawn thumbnails."""

from __future__ import annotations

import hashlib
import io
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from gallery import pocket
from PIL import Image

from demo.world.draw import draw
from demo.world.scene import sample
from es_config.documents import ImageDocument
from es_config.index import Captions, ImageIndex
from es_config.requests import knn_body
from ingest.files.picture import thumbnail
from ingest.files.walk import Failure
from ingest.options import CaptionOptions
from ingest.pipeline import passes as module
from ingest.pipeline.captions import caption_pictures
from ingest.report import UNCAPTIONED
from ingest.watch import IdleCaptions
from ingest.wiring import Dependencies, create_index
from models.captioning import load_captioner
from models.encoders import Lazy
from models.errors import ModelError
from storage.errors import StorageError
from storage.keys import thumbnail_key
from storage.store import FolderStorage

START = datetime(2024, 1, 1, tzinfo=UTC)
PICTURES = 10


@cache
def captioner():
    return load_captioner(pocket()[0].caption_model)


@cache
def drawn() -> tuple[tuple[Image.Image, bytes], ...]:
    """Pictures with their thumbnails."""
    images = [draw(scene, 256) for scene in sample("demo", PICTURES)]
    return tuple((image, thumbnail(image)) for image in images)


@cache
def sentences() -> tuple[str, ...]:
    """The captioner's caption of each thumbnail, made one at a time."""
    opened = [Image.open(io.BytesIO(small)).convert("RGB") for _, small in drawn()]
    return tuple(captioner().caption_images([image])[0].text for image in opened)


def document(number: int, **changes: object) -> ImageDocument:
    """A document that is `number` minutes older than the first."""
    values = np.random.default_rng(number).normal(size=pocket()[0].dims).astype(np.float32)
    made = ImageDocument(
        image_id=hashlib.sha256(str(number).encode()).hexdigest(),
        image_name=f"{number}.png",
        relative_path=(f"trip/{number}.png",),
        image_embedding=values / np.linalg.norm(values),
        width=256,
        height=256,
        size_bytes=1000,
        indexed_at=START - timedelta(minutes=number),
    )
    return replace(made, **changes)


def with_caption(number: int, words: str, source: str) -> ImageDocument:
    vector = pocket()[1].embed_texts([words])[0]
    return document(number, caption=words, caption_source=source, caption_embedding=vector)


class Watcher:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.total, self.done, self.failures = None, 0, []

    def start(self, total: int) -> None:
        self.total = total

    def advance(self) -> None:
        self.done += 1

    def failed(self, failure: Failure, *, what: str) -> None:
        assert what == UNCAPTIONED
        self.failures.append(failure)


def lazy(model) -> Lazy:
    return model if isinstance(model, Lazy) else Lazy(lambda: model)


class Bench:
    """An index of drawn pictures with their thumbnails, and a pass over it."""

    def __init__(self, client, alias: str, folder: Path) -> None:
        self.index = ImageIndex(client, alias=alias)
        create_index(self.index, pocket()[0])
        self.captions = Captions(client, index=self.index)
        self.storage = FolderStorage(folder)

    def fill(self, *documents: ImageDocument) -> None:
        assert not self.index.add(documents).failed
        for each in documents:
            self.storage.put(thumbnail_key(each.image_id), drawn()[int(each.image_name[:-4])][1])

    def dependencies(self, *, captioner=None, caption_encoder=None) -> Dependencies:
        return Dependencies(
            index=self.index,
            image_encoder=None,
            caption_encoder=lazy(caption_encoder or pocket()[1]),
            storage=self.storage,
            captioner=lazy(captioner or globals()["captioner"]()),
        )

    def run(self, *, progress=None, captioner=None, caption_encoder=None, **options):
        dependencies = self.dependencies(captioner=captioner, caption_encoder=caption_encoder)
        return caption_pictures(dependencies, options=CaptionOptions(**options), progress=progress)

    def captioned(self) -> dict[int, str]:
        """Return the captions that a search finds, by the pictures' numbers."""
        hits = self.index.search({"query": {"exists": {"field": "caption"}}, "size": 100}).hits
        return {int(hit.source["image_name"][:-4]): hit.source["caption"] for hit in hits}

    def sources(self) -> dict[int, str | None]:
        hits = self.index.search({"query": {"match_all": {}}, "size": 100}).hits
        return {int(hit.source["image_name"][:-4]): hit.source.get("caption_source") for hit in hits}


@pytest.fixture
def bench(client, index_name, tmp_path) -> Bench:
    return Bench(client, index_name, tmp_path / "store")


def counts(summary) -> tuple[int, int, int]:
    return summary.written, summary.changed, summary.failed


def test_every_picture_gets_its_own_sentence_and_keeps_its_vector(bench):
    bench.fill(*(document(number) for number in range(PICTURES)))
    ids = [document(number).image_id for number in range(PICTURES)]
    before = [bench.index.vector(image_id) for image_id in ids]
    watcher = Watcher()
    summary = bench.run(batch_size=4, progress=watcher)
    assert (counts(summary), summary.interrupted, summary.error) == ((PICTURES, 0, 0), False, None)
    assert (watcher.total, watcher.done) == (PICTURES, PICTURES)
    assert bench.captioned() == dict(enumerate(sentences()))
    assert set(bench.sources().values()) == {"model"}
    vectors = pocket()[1].embed_texts(list(sentences()))
    for number, image_id in enumerate(ids):
        np.testing.assert_allclose(bench.index.vector(image_id), before[number], rtol=0, atol=1e-6)
        found = bench.index.vector(image_id, "caption_embedding")
        np.testing.assert_allclose(found, vectors[number], rtol=0, atol=1e-5)
    body = knn_body(field="caption_embedding", query_vector=vectors[3], k=1, num_candidates=10)
    assert bench.index.search(body).hits[0].source["caption"] == sentences()[3]


def test_the_newest_come_first_and_the_next_pass_goes_on(bench):
    bench.fill(*(document(number) for number in (3, 0, 2, 5, 1, 4)))
    watcher = Watcher()
    assert counts(bench.run(limit=2, progress=watcher)) == (2, 0, 0)
    assert (watcher.total, sorted(bench.captioned())) == (2, [0, 1])
    assert counts(bench.run(limit=3, batch_size=2)) == (3, 0, 0)
    assert sorted(bench.captioned()) == [0, 1, 2, 3, 4]
    assert counts(bench.run(limit=0)) == (0, 0, 0)
    assert counts(bench.run()) == (1, 0, 0)


def test_a_watch_captions_the_others_when_the_newest_pictures_cannot_be(bench):
    bench.fill(*(document(number) for number in range(6)))
    for number in (0, 1, 4):
        bench.storage.delete(thumbnail_key(document(number).image_id))
    said, written = [], []
    idle = IdleCaptions(bench.dependencies(), say=said.append, written=written.append)
    while idle():
        continue
    assert sorted(bench.captioned()) == [2, 3, 5]
    assert (sum(written), len(said)) == (3, 3)
    assert not idle()


def test_ctrl_c_keeps_what_is_written_and_the_next_pass_goes_on(bench):
    bench.fill(*(document(number) for number in range(PICTURES)))
    batches = count()

    def caption_images(images, *, batch_size):
        if next(batches) == 2:
            raise KeyboardInterrupt
        return captioner().caption_images(images, batch_size=batch_size)

    hasty = SimpleNamespace(revision="r", caption_images=caption_images)
    summary = bench.run(captioner=hasty, batch_size=3)
    assert (counts(summary), summary.interrupted) == ((6, 0, 0), True)
    assert sorted(bench.captioned()) == [0, 1, 2, 3, 4, 5]
    assert counts(bench.run()) == (PICTURES - 6, 0, 0)
    assert bench.captioned() == dict(enumerate(sentences()))


def test_words_of_people_and_of_files_are_kept_even_when_all_are_written_anew(bench):
    bench.fill(
        with_caption(0, "my boat", "human"),
        with_caption(1, "what the file says", "description"),
        with_caption(2, "an old sentence", "model"),
        document(3),
    )
    assert counts(bench.run()) == (1, 0, 0)
    assert bench.captioned()[2] == "an old sentence"
    assert counts(bench.run(every=True)) == (2, 0, 0)
    expected = {0: "my boat", 1: "what the file says", 2: sentences()[2], 3: sentences()[3]}
    assert bench.captioned() == expected
    assert bench.sources() == {0: "human", 1: "description", 2: "model", 3: "model"}


def test_a_correction_made_while_the_pass_runs_is_kept(bench):
    bench.fill(*(document(number) for number in range(6)))

    def caption_images(images, *, batch_size):
        bench.captions.write_human(document(1).image_id, "my boat", pocket()[1].embed_texts(["my boat"])[0])
        return captioner().caption_images(images, batch_size=batch_size)

    disturbed = SimpleNamespace(revision="r", caption_images=caption_images)
    watcher = Watcher()
    assert counts(bench.run(captioner=disturbed, progress=watcher)) == (5, 1, 0)
    assert watcher.done == 6
    assert (bench.captioned()[1], bench.sources()[1]) == ("my boat", "human")


def test_pictures_that_fail_cost_themselves_and_are_tried_again(bench):
    bench.fill(*(document(number) for number in range(PICTURES)))
    keys = [thumbnail_key(document(number).image_id) for number in range(PICTURES)]
    bench.storage.delete(keys[1])
    bench.storage.put(keys[4], drawn()[4][1][:300])
    poison = np.asarray(Image.open(io.BytesIO(drawn()[6][1])).convert("RGB"))

    def image_processor(image, **options):
        if np.array_equal(np.asarray(image), poison):
            raise RuntimeError("out of memory")
        return captioner().image_processor(image, **options)

    moody = type(captioner())(
        model=captioner().model,
        image_processor=image_processor,
        tokenizer=captioner().tokenizer,
        revision="r",
    )
    watcher = Watcher()
    summary = bench.run(captioner=moody, batch_size=4, progress=watcher)
    assert counts(summary) == (PICTURES - 3, 0, 3)
    assert watcher.done == PICTURES
    assert watcher.failures == list(summary.failures)
    reasons = {failure.path: failure.reason for failure in summary.failures}
    assert reasons.keys() == {"trip/1.png", "trip/4.png", "trip/6.png"}
    assert "has nothing under" in reasons["trip/1.png"]
    assert "Ingest its folder again" in reasons["trip/1.png"]
    assert "its thumbnail is damaged" in reasons["trip/4.png"]
    assert reasons["trip/6.png"] == "the captioner failed on it (out of memory)"
    expected = {number: text for number, text in enumerate(sentences()) if number not in (1, 4, 6)}
    assert bench.captioned() == expected
    for number in (1, 4):
        bench.storage.put(keys[number], drawn()[number][1])
    assert counts(bench.run()) == (3, 0, 0)
    assert bench.captioned() == dict(enumerate(sentences()))


def test_a_caption_that_cannot_be_embedded_costs_itself(bench):
    bench.fill(*(document(number) for number in range(3)))

    def embed_texts(texts):
        if sentences()[1] in texts:
            raise ValueError("too odd")
        return pocket()[1].embed_texts(texts)

    summary = bench.run(caption_encoder=SimpleNamespace(revision="r", embed_texts=embed_texts))
    assert counts(summary) == (2, 0, 1)
    sentence = "its caption: the model cannot embed it (ValueError: too odd)"
    assert summary.failures == (Failure("trip/1.png", sentence),)


def test_a_caption_that_the_index_refuses_costs_itself(bench):
    bench.fill(*(document(number) for number in range(3)))

    def embed_texts(texts):
        vectors = pocket()[1].embed_texts(texts)
        vectors[1] = 0.0  # which has no cosine
        return vectors

    summary = bench.run(caption_encoder=SimpleNamespace(revision="r", embed_texts=embed_texts))
    assert counts(summary) == (2, 0, 1)
    assert summary.failures[0].reason.startswith("the index refused its caption: ")


def test_a_picture_of_one_pixel_gets_a_sentence(bench):
    bench.fill(document(0))
    pixel = thumbnail(Image.new("RGB", (1, 1), "red"))
    bench.storage.put(thumbnail_key(document(0).image_id), pixel)
    assert counts(bench.run()) == (1, 0, 0)
    assert bench.captioned()[0]


def test_where_nothing_is_missing_no_model_is_loaded(bench):
    def load():
        raise AssertionError("nothing may be loaded")

    nothing = Lazy(load)
    bench.fill(with_caption(0, "my boat", "human"), with_caption(1, "an old sentence", "model"))
    watcher = Watcher()
    assert counts(bench.run(captioner=nothing, caption_encoder=nothing, progress=watcher)) == (0, 0, 0)
    assert watcher.total == 0


def test_a_model_that_cannot_be_loaded_is_said_before_anything_is_read(bench):
    def load():
        raise ModelError("no such model")

    bench.fill(document(0))
    bench.storage.delete(thumbnail_key(document(0).image_id))
    watcher = Watcher()
    with pytest.raises(ModelError, match="no such model"):
        bench.run(captioner=Lazy(load), progress=watcher)
    assert (watcher.total, watcher.done) == (1, 0)


def test_captions_become_searchable_while_the_pass_runs(bench, monkeypatch):
    monkeypatch.setattr(module, "REFRESH_EVERY_S", 0.0)
    bench.fill(*(document(number) for number in range(6)))
    bench.index._client.indices.put_settings(index=bench.index.name(), settings={"refresh_interval": -1})
    seen = []

    def caption_images(images, *, batch_size):
        seen.append(len(bench.captioned()))
        return captioner().caption_images(images, batch_size=batch_size)

    bench.run(captioner=SimpleNamespace(revision="r", caption_images=caption_images), batch_size=1)
    assert seen[0] == 0
    assert seen[5] >= 4
    assert len(bench.captioned()) == 6


def test_an_index_that_vanishes_ends_the_pass_with_a_sentence_and_is_not_made_again(bench, client):
    bench.fill(*(document(number) for number in range(6)))
    batches = count()

    def caption_images(images, *, batch_size):
        if next(batches) == 1:
            ImageIndex(client, alias=bench.index.alias).delete()
        return captioner().caption_images(images, batch_size=batch_size)

    summary = bench.run(captioner=SimpleNamespace(revision="r", caption_images=caption_images), batch_size=2)
    assert summary.written in (0, 2)
    assert "There is no" in summary.error
    assert not client.indices.exists(index=bench.index.alias)


def test_a_store_that_is_away_ends_the_pass_and_one_that_stumbles_does_not(bench, monkeypatch):
    monkeypatch.setattr(module, "STORE_FAILURES", 4)
    bench.fill(*(document(number) for number in range(PICTURES)))
    get, calls = bench.storage.get, count()

    def stumbling(key):
        if next(calls) in (1, 3):
            raise StorageError("no answer.")
        return get(key)

    bench.storage.get = stumbling
    assert counts(bench.run()) == (PICTURES - 2, 0, 2)

    def away(_):
        raise StorageError("The store is away.")

    bench.storage.get = away
    summary = bench.run(every=True, batch_size=2)
    assert (summary.written, summary.error) == (0, "The store is away.")
    assert summary.failed < 4


def test_no_thread_outlives_a_pass(bench):
    bench.fill(*(document(number) for number in range(6)))
    bench.run(batch_size=2, limit=5)

    def broken(*_, **__):
        raise AssertionError("broken")

    with pytest.raises(AssertionError, match="broken"):
        bench.run(captioner=SimpleNamespace(revision="r", caption_images=broken))
    ours = ("thumbnails", "read-ahead", "captions")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(ours)]


def test_the_summary_as_json_has_a_place_for_every_picture(bench):
    bench.fill(document(0), document(1))
    bench.storage.delete(thumbnail_key(document(1).image_id))
    answer = bench.run().as_dict()
    assert answer.pop("seconds") > 0
    (failure,) = answer.pop("failures")
    assert failure["path"] == "trip/1.png"
    assert answer == {
        "pictures": 2, "written": 1, "changed": 0, "failed": 1, "interrupted": False, "error": None,
    }  # fmt: skip
