"""Paths of many pictures are added and taken away with few requests, and nobody's change is lost."""

from __future__ import annotations

import threading

import pytest
from elasticsearch import Elasticsearch
from test_index import META, VECTORS, picture

from es_config.bulk import Meanwhile
from es_config.documents import IndexOptions
from es_config.errors import EngineError
from es_config.index import ImageIndex, PathsChanged, Removed


@pytest.fixture
def index(client: Elasticsearch, index_name: str) -> ImageIndex:
    opened = ImageIndex(client, alias=index_name)
    opened.create(META, IndexOptions())
    return opened


ID = [picture(number).image_id for number in range(8)]


def test_paths_are_added_and_dropped_and_a_picture_without_one_is_deleted(index):
    index.add([picture(0), picture(1, caption="ours", caption_source="human"), picture(2)])
    changed = index.add_paths({ID[0]: ["b.png", "trip/0.png"], "unknown": ["x.png"]})
    assert changed == PathsChanged(absent=frozenset({"unknown"}))
    assert index.known(ID[:1]) == {ID[0]: ("trip/0.png", "b.png")}
    dropped = index.drop_paths(
        {ID[0]: ["trip/0.png"], ID[1]: ["trip/1.png"], ID[2]: ["no such path"], ID[3]: ["x.png"]}
    )
    assert dropped == PathsChanged(removed=(Removed(ID[1], "ours", ID[1]),), absent=frozenset({ID[3]}))
    assert index.known(ID) == {ID[0]: ("b.png",), ID[2]: ("trip/2.png",)}
    assert index.vector(ID[0]).tolist() == VECTORS[0].tolist()


def test_paths_that_several_add_at_once_are_all_there(index):
    index.add([picture(0), picture(1)])
    failed = []

    def work(number: int) -> None:
        failed.append(index.add_paths({each: [f"{number}.png"] for each in ID[:2]}).failed)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == [{}] * 3
    for paths in index.known(ID[:2]).values():
        assert {"0.png", "1.png", "2.png"} < set(paths)


def test_a_document_that_is_there_stays_when_only_new_ones_are_to_be_written(index):
    index.add([picture(0)])
    result = index.add([picture(0, relative_path=("other.png",)), picture(1)], only_new=True)
    assert (result.added, result.failed) == (1, {ID[0]: Meanwhile.CHANGED})
    assert index.known(ID[:1]) == {ID[0]: ("trip/0.png",)}


def test_paths_are_listed_for_what_searches_find(index):
    index.add([picture(0), picture(1, relative_path=("b.png", "a.png"))])
    assert index.listed(ID) == {}
    index.refresh()
    assert index.listed(ID) == {ID[0]: ("trip/0.png",), ID[1]: ("a.png", "b.png")}
    assert index.listed([]) == {}


def test_a_later_index_of_the_same_name_is_another_one(index):
    before = index.uuid()
    assert before == index.uuid()
    index.delete()
    index.create(META, IndexOptions())
    assert index.uuid() != before


def test_without_an_index_paths_are_refused(client, index_name):
    with pytest.raises(EngineError):
        ImageIndex(client, alias=index_name).add_paths({ID[0]: ["a.png"]})
