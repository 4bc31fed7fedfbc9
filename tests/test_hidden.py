"""Pictures that were put away: nothing of them is lost, no search sees them, and a kill is made good."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from elasticsearch import Elasticsearch
from test_index import META, VECTORS, picture

import es_config.hidden
from es_config.aliases import Alias
from es_config.documents import VECTOR_FIELDS, IndexOptions
from es_config.edits import PictureEdit, edit_pictures
from es_config.hidden import UNDO, Away, HiddenPictures, Moves
from es_config.index import ImageIndex
from es_config.requests import Filters, knn_body, listing_body

ID = [picture(number).image_id for number in range(8)]
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def index(client: Elasticsearch, index_name: str) -> ImageIndex:
    opened = ImageIndex(client, alias=index_name)
    opened.create(META, IndexOptions())
    opened.add([picture(0, caption="ours", caption_source="human", caption_embedding=VECTORS[1][:4].copy())])
    opened.add([picture(number, tags=("sea",)) for number in range(1, 4)])
    opened.refresh()
    return opened


@pytest.fixture
def hidden(index: ImageIndex) -> HiddenPictures:
    return HiddenPictures(index)


def whole(index: ImageIndex, image_id: str) -> dict:
    """Return a document with its vectors, as the index keeps it."""
    source = index.get(image_id)
    assert source is not None
    vectors = {name: index.vector(image_id, name) for name in VECTOR_FIELDS}
    return source | {name: each.tolist() for name, each in vectors.items() if each is not None}


def found(index: ImageIndex) -> set[str]:
    """Return the ids that a kNN search finds, as anybody may send it."""
    body = knn_body(field="image_embedding", query_vector=VECTORS[0], k=10, num_candidates=50)
    return {hit.image_id for hit in index.search(body).hits}


def test_a_picture_goes_and_comes_back_as_it_was(index, hidden):
    before = whole(index, ID[0])
    assert "image_embedding" in before
    assert "caption_embedding" in before
    assert not hidden.exists()
    assert hidden.page(size=5) == ((), 0)
    moves = hidden.put_away([ID[0], ID[0], "nobody"], by="olga", now=NOW)
    assert moves == Moves(done=(ID[0],), absent=frozenset({"nobody"}))
    assert found(index) == set(ID[1:4])
    assert index.get(ID[0]) is None
    ((picture_away,), total) = hidden.page(size=5)
    assert total == hidden.count() == 1
    assert (picture_away.image_id, picture_away.state, picture_away.by) == (ID[0], Away.HIDDEN, "olga")
    assert picture_away.at == "2026-01-01T00:00:00+00:00"
    assert picture_away.until is None
    assert picture_away.source == {name: each for name, each in before.items() if name not in VECTOR_FIELDS}
    assert hidden.known([ID[0], ID[1]]) == {ID[0]: ("trip/0.png",)}
    assert hidden.put_away([ID[0]]).absent == {ID[0]}  # once is enough
    assert hidden.restore([ID[0], ID[1]]) == Moves(done=(ID[0],), absent=frozenset({ID[1]}))
    assert whole(index, ID[0]) == before
    assert found(index) == set(ID[:4])
    assert hidden.count() == 0


def test_a_search_of_all_indices_of_the_name_does_not_meet_what_was_put_away(client, index, hidden):
    hidden.put_away([ID[0]])
    answer = client.search(index=f"{index.alias}*", query={"match_all": {}})
    assert {hit["_id"] for hit in answer["hits"]["hits"]} == set(ID[1:4])


def test_paths_of_what_was_put_away_change_as_those_of_the_others(index, hidden):
    hidden.put_away([ID[1]])
    assert hidden.add_paths({ID[1]: ["b.png"], ID[2]: ["c.png"]}).absent == {ID[2]}
    assert hidden.of_path("trip/1.png") == (ID[1],)
    assert hidden.of_path("trip") == ()
    hidden.documents.refresh()
    assert hidden.of_path("b.png") == (ID[1],)
    assert hidden.listed(ID) == {ID[1]: ("b.png", "trip/1.png")}
    hidden.drop_paths({ID[1]: ["trip/1.png"]})
    hidden.restore([ID[1]])
    assert index.known([ID[1]]) == {ID[1]: ("b.png",)}


class Killed(BaseException):
    """Stands for the end of the process: nothing runs after it."""


def killed_at(number: int, monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> bool:
    """Do something that dies instead of its n-th writing request. Return False if it came to its end."""
    send, sent = es_config.hidden.send_bulk, []

    def cut(*arguments, **options):
        if len(sent) == number:
            raise Killed
        sent.append(1)
        return send(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(es_config.hidden, "send_bulk", cut)
        try:
            work()
        except Killed:
            return True
    return False


def test_putting_away_that_is_killed_loses_nothing_and_is_completed(index, hidden, monkeypatch):
    before = {each: whole(index, each) for each in ID[:2]}
    deaths = 0
    while killed_at(deaths, monkeypatch, lambda: hidden.put_away(ID[:2])):
        assert all(index.get(each) or hidden.get(each) for each in ID[:2])
        deaths += 1
        if deaths == 1:  # nothing was copied yet, so nobody knows of it
            assert hidden.finish() == 0
            continue
        edit_pictures(index, ID[:2], PictureEdit(add_keywords=("late",)))  # after the copy was made
        assert hidden.finish() == 2
        assert hidden.finish() == 0
        assert index.known(ID[:2]) == {}
        assert hidden.restore(ID[:2]).done == tuple(ID[:2])
        assert "late" in index.get(ID[0])["tags"]
    assert deaths == 2
    hidden.restore(ID[:2])
    edit_pictures(index, ID[:2], PictureEdit(remove_keywords=("LATE",)))
    for each in ID[:2]:
        after = whole(index, each)
        assert after.pop("tags_source") == "human"
        tags = {"tags": before[each].get("tags", [])}
        assert {**after, "names": None, **tags} == {**before[each], "names": None, **tags}


def test_restoring_that_is_killed_loses_nothing_and_is_completed(index, hidden, monkeypatch):
    before, deaths = whole(index, ID[0]), 0
    hidden.put_away([ID[0]])
    while killed_at(deaths, monkeypatch, lambda: hidden.restore([ID[0]])):
        assert index.get(ID[0]) or hidden.get(ID[0])
        deaths += 1
        assert hidden.finish() == (deaths > 1)
        assert (index.get(ID[0]) is not None) == (deaths > 1)
        hidden.put_away([ID[0]])
    assert deaths == 3
    assert whole(index, ID[0]) == before


def test_a_removed_picture_can_be_restored_until_its_time_is_over(index, hidden, monkeypatch):
    hidden.put_away(ID[:3], state=Away.REMOVED, now=NOW)
    hidden.put_away([ID[3]], now=NOW)
    ((last, *_), _) = hidden.page(size=9)
    assert datetime.fromisoformat(last.until or hidden.get(ID[0]).until) == NOW + UNDO
    assert hidden.claim_expired(now=NOW + UNDO - timedelta(seconds=1)) == ()
    assert hidden.restore([ID[0]]).done == (ID[0],)
    assert hidden.claim([ID[1], ID[3]]) == Moves(done=(ID[1],), absent=frozenset({ID[3]}))
    assert set(hidden.claim_expired(now=NOW + UNDO)) == {ID[1], ID[2]}
    assert hidden.restore([ID[1], ID[3]]) == Moves(done=(ID[3],), absent=frozenset({ID[1]}))
    assert killed_at(0, monkeypatch, lambda: hidden.forget([ID[1], ID[2]]))
    assert set(hidden.claim_expired(now=NOW)) == {ID[1], ID[2]}  # whoever comes next goes on
    hidden.forget(ID)
    assert hidden.known(ID) == {}
    assert index.known(ID).keys() == {ID[0], ID[3]}


def test_what_was_put_away_stays_away_from_an_index_that_takes_the_place(client, index, hidden):
    hidden.put_away([ID[0]])
    alias = Alias(client, alias=index.alias)
    following = alias.begin(META, IndexOptions())
    following.add([picture(number) for number in range(3)])  # one that was hidden after it was copied
    alias.switch()
    now = HiddenPictures(ImageIndex(client, alias=index.alias))
    assert now.finish() == 1
    assert now.index.known(ID).keys() == {ID[1], ID[2]}
    assert now.restore([ID[0]]).done == (ID[0],)


def test_vectors_of_former_models_are_made_anew(client, index, hidden):
    hidden.put_away([ID[0], ID[1]])
    alias = Alias(client, alias=index.alias)
    alias.begin(replace(META, dims=4, revisions={"image": "b2"}), IndexOptions())
    alias.switch()
    now = HiddenPictures(ImageIndex(client, alias=index.alias))
    refused = now.restore([ID[0]])
    assert refused.done == ()
    assert "before the models of the index were changed" in refused.failed[ID[0]]
    asked = []

    def embed(image_id, source, fields):
        asked.append((image_id, source["relative_path"], fields))
        return {name: np.full(4, 0.5, np.float32) for name in fields}

    assert now.restore([ID[0], ID[1]], embed=embed).done == (ID[0], ID[1])
    assert asked == [
        (ID[0], ["trip/0.png"], ["image_embedding"]),
        (ID[1], ["trip/1.png"], ["image_embedding"]),
    ]
    assert now.index.vector(ID[0]).tolist() == [0.5] * 4
    assert now.index.get(ID[0])["caption"] == "ours"


def test_keywords_and_favourites_are_edited_and_found(index):
    edited = edit_pictures(
        index, [ID[0], ID[1], "nobody"], PictureEdit(add_keywords=("Straße", "SEA"), favourite=True)
    )
    assert (edited.done, edited.absent, edited.failed) == ((ID[0], ID[1]), {"nobody"}, {})
    index.refresh()
    assert index.get(ID[0])["tags"] == ["Straße", "SEA"]
    assert index.get(ID[1])["tags"] == ["sea", "Straße"]

    def passing(**filters):
        body = listing_body(sort="name", size=9, filters=Filters(**filters))
        return {hit.image_id for hit in index.search(body).hits}

    assert passing(tag="STRASSE") == passing(favourite=True) == set(ID[:2])
    edit_pictures(index, [ID[0]], PictureEdit(keywords=(), favourite=False))
    index.refresh()
    assert passing(tag="straße") == passing(favourite=True) == {ID[1]}
    assert passing(tag="sea") == set(ID[1:4])
    assert whole(index, ID[0])["caption"] == "ours"


def test_keywords_of_a_person_stay_when_a_file_or_its_sidecar_says_others(index):
    edit_pictures(index, [ID[1]], PictureEdit(keywords=("ours",)))
    index.change_facts([picture(number, tags=("of the file",)) for number in (1, 2)])
    index.refresh()
    assert index.get(ID[1])["tags"] == ["ours"]
    assert index.get(ID[2])["tags"] == ["of the file"]
    body = listing_body(sort="name", size=9, filters=Filters(tag="ours"))
    assert {hit.image_id for hit in index.search(body).hits} == {ID[1]}
