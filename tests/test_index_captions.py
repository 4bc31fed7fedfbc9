"""Captions of pictures that are in the index: listing those that lack one, and writing them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from es_config import index as module
from es_config.documents import AddResult, ImageDocument, IndexMeta, IndexOptions
from es_config.errors import EngineError
from es_config.index import Captions, CaptionUpdate, ImageIndex
from es_config.requests import knn_body

META = IndexMeta("pocket", {"image": "r1"}, 16, 4, "cosine")
START = datetime(2024, 1, 1, tzinfo=UTC)


def vector(seed: int, dims: int) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=dims).astype(np.float32)
    return values / np.linalg.norm(values)


def picture(number: int, **changes: object) -> ImageDocument:
    """A document that is `number` minutes older than the first."""
    document = ImageDocument(
        image_id=hashlib.sha256(str(number).encode()).hexdigest(),
        image_name=f"{number}.png",
        relative_path=(f"trip/{number}.png",),
        image_embedding=vector(number, 16),
        width=640,
        height=480,
        size_bytes=1000,
        indexed_at=START - timedelta(minutes=number),
    )
    return replace(document, **changes)


def captioned(number: int, source: str | None) -> ImageDocument:
    return picture(number, caption="words", caption_source=source, caption_embedding=vector(90 + number, 4))


@pytest.fixture
def index(client, index_name) -> ImageIndex:
    opened = ImageIndex(client, alias=index_name)
    opened.create(META, IndexOptions())
    return opened


@pytest.fixture
def captions(client, index) -> Captions:
    return Captions(client, index=index)


def update(number: int, caption: str = "a red boat", **changes: object) -> CaptionUpdate:
    made = CaptionUpdate(picture(number).image_id, caption, vector(50 + number, 4), "model")
    return replace(made, **changes)


def waiting(captions: Captions, *, every: bool = False) -> list[str]:
    return [each.relative_path for page in captions.missing(every=every) for each in page]


def fill(index: ImageIndex, *documents: ImageDocument) -> None:
    assert not index.add(documents).failed
    index.refresh()


def test_a_caption_joins_a_document_and_leaves_the_vector_of_the_picture_as_it_was(index, captions):
    fill(index, *(picture(number, tags=("sea",)) for number in range(8)))
    before = {number: index.vector(picture(number).image_id) for number in range(8)}
    sources = {number: index.get(picture(number).image_id) for number in range(8)}
    updates = [update(number, f"caption {number}") for number in range(8)]
    assert captions.write(updates) == AddResult(added=8, failed={})
    index.refresh()
    for number in range(8):
        image_id = picture(number).image_id
        words = {"caption": f"caption {number}", "caption_source": "model"}
        assert index.get(image_id) == sources[number] | words
        np.testing.assert_allclose(index.vector(image_id), before[number], rtol=0, atol=1e-6)
        np.testing.assert_allclose(index.vector(image_id), vector(number, 16), rtol=0, atol=1e-6)
        found = index.vector(image_id, "caption_embedding")
        np.testing.assert_allclose(found, vector(50 + number, 4), rtol=0, atol=1e-6)


def test_updated_pictures_are_found_by_their_own_vector_and_by_their_caption(index, captions):
    fill(index, *(picture(number) for number in range(8)))
    captions.write([update(number) for number in range(8)])
    index.refresh()
    for field, first, dims in (("image_embedding", 0, 16), ("caption_embedding", 50, 4)):
        for number in range(8):
            query = vector(first + number, dims)
            body = knn_body(field=field, query_vector=query, k=8, num_candidates=8)
            hit = index.search(body).hits[0]
            assert hit.image_id == picture(number).image_id
            assert hit.similarity == pytest.approx(1, abs=5e-3)


def test_missing_captions_come_newest_first_page_after_page(index, captions, monkeypatch):
    monkeypatch.setattr(module, "LISTED_TOGETHER", 3)
    same_moment = [picture(number, indexed_at=START - timedelta(minutes=4)) for number in (4, 5, 6, 7)]
    fill(index, *(picture(number) for number in (3, 0, 2, 1, 8)), *same_moment)
    names = waiting(captions)
    assert names[:4] + names[-1:] == [f"trip/{number}.png" for number in (0, 1, 2, 3, 8)]
    assert sorted(names[4:8]) == [f"trip/{number}.png" for number in (4, 5, 6, 7)]
    assert captions.count_missing(every=False) == 9


def test_writing_one_page_does_not_move_the_next(index, captions, monkeypatch):
    monkeypatch.setattr(module, "LISTED_TOGETHER", 2)
    fill(index, *(picture(number) for number in range(7)))
    seen = []
    for page in captions.missing(every=False):
        seen += [each.relative_path for each in page]
        captions.write([update(int(path.relative_path[5:-4])) for path in page])
        index.refresh()
    assert seen == [f"trip/{number}.png" for number in range(7)]
    assert waiting(captions) == []


def test_captions_of_people_and_of_files_are_never_listed_and_those_of_models_on_request(index, captions):
    sources = {0: "human", 1: "description", 2: "model", 4: None}
    fill(index, picture(3), *(captioned(number, source) for number, source in sources.items()))
    emptied = picture(5, caption_source="human")
    fill(index, emptied)
    assert waiting(captions) == ["trip/3.png"]
    assert waiting(captions, every=True) == ["trip/2.png", "trip/3.png"]
    assert [captions.count_missing(every=every) for every in (False, True)] == [1, 2]


def test_a_correction_made_meanwhile_is_kept(index, captions):
    fill(index, picture(0), picture(1))
    ((first, second),) = captions.missing(every=False)
    captions.write_human(first.image_id, "my boat", vector(70, 4))
    versions = [{"seq_no": each.seq_no, "primary_term": each.primary_term} for each in (first, second)]
    result = captions.write([update(0, **versions[0]), update(1, **versions[1])])
    assert result == AddResult(added=1, failed={first.image_id: "changed meanwhile"})
    assert index.get(first.image_id)["caption"] == "my boat"
    assert index.get(first.image_id)["caption_source"] == "human"
    assert index.get(second.image_id)["caption_source"] == "model"
    np.testing.assert_allclose(
        index.vector(first.image_id, "caption_embedding"), vector(70, 4), rtol=0, atol=1e-6
    )


def test_what_people_write_replaces_whatever_was_there(index, captions):
    fill(index, captioned(0, "model"))
    image_id = picture(0).image_id
    for words in ("my boat", "our boat"):
        captions.write_human(image_id, words, vector(71, 4))
        assert (index.get(image_id)["caption"], index.get(image_id)["caption_source"]) == (words, "human")
    np.testing.assert_allclose(index.vector(image_id), vector(0, 16), rtol=0, atol=1e-6)


def test_a_picture_that_is_not_there_is_reported_and_never_made(index, captions, client):
    fill(index, picture(0))
    absent = picture(1).image_id
    result = captions.write([update(0), update(1)])
    assert result == AddResult(added=1, failed={absent: "deleted meanwhile"})
    with pytest.raises(EngineError, match="holds no picture"):
        captions.write_human(absent, "words", vector(1, 4))
    with pytest.raises(EngineError, match="holds no picture"):
        captions.write_human("no such id", "words", vector(1, 4))
    index.refresh()
    assert client.count(index=index.alias)["count"] == 1


def test_a_vector_that_the_index_cannot_take_costs_its_own_caption(index, captions):
    fill(index, picture(0), picture(1), picture(2))
    wrong = {0: vector(1, 16), 1: np.full(4, np.nan, dtype=np.float32)}
    result = captions.write(
        [update(0, caption_embedding=wrong[0]), update(1, caption_embedding=wrong[1]), update(2)]
    )
    assert (result.added, set(result.failed)) == (1, {picture(0).image_id, picture(1).image_id})
    assert "the index takes float32 of (4,)" in result.failed[picture(0).image_id]
    with pytest.raises(EngineError, match=r"was not written: .* not finite"):
        captions.write_human(picture(2).image_id, "words", wrong[1])


def test_without_an_index_nothing_is_made(client, index_name):
    captions = Captions(client, index=ImageIndex(client, alias=index_name))
    calls = [
        lambda: captions.write([update(0)]),
        lambda: captions.write_human("a", "b", vector(1, 4)),
        lambda: list(captions.missing(every=False)),
        lambda: captions.count_missing(every=True),
    ]
    for call in calls:
        with pytest.raises(EngineError, match="glimpse index create"):
            call()
    assert not client.indices.exists(index=index_name)


def test_an_index_that_vanishes_is_not_made_again_by_a_caption(client, index, captions):
    fill(index, picture(0))
    assert index.meta() == META
    client.indices.delete(index=index.name())  # behind the back of the index, which believes what it saw
    with pytest.raises(EngineError, match="There is no index"):
        captions.write([update(0)])
    assert not client.indices.exists(index=index.alias)


def test_a_full_disk_is_explained(client, index, captions):
    fill(index, picture(0))
    client.indices.put_settings(index=index.name(), settings={"index.blocks.read_only_allow_delete": True})
    with pytest.raises(EngineError, match=r"nearly full.*free space"):
        captions.write([update(0)])
