"""Composed questions on a real node: parts, weights, the request that is sent, and every door."""

from __future__ import annotations

import io
import json
import re
import subprocess
from dataclasses import replace
from html import unescape

import numpy as np
import pytest
from gallery import jpeg
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.compose import Composed, Tally, tally
from demo.world.scene import Group, Scene
from es_config.requests import Filters, as_curl, words_body, written_body
from search_app.core.compose import combined, strength
from search_app.core.parts import Part, encode_vector, split_weight, with_weight
from search_app.core.query import Query, load_query, query_arguments
from search_app.core.searcher import SearchService
from search_app.errors import NotFoundError, QueryError
from search_app.settings import AppSettings
from search_app.web.app import create_app

RED_BOATS = Scene("sea", "sunset", (Group("boat", "red", 2),), None, 99)


@pytest.fixture(scope="module")
def searcher(gallery):
    return gallery.searcher


@pytest.fixture(scope="module")
def web(gallery):
    service = SearchService(gallery.searcher)
    return create_app(service=service, storage=gallery.storage, settings=AppSettings()).test_client()


def ids(response) -> list[str]:
    return [hit.image_id for hit in response.hits]


def asked(*parts: Part, **more) -> Query:
    return Query(parts=parts, **{"k": 5, **more})


@pytest.mark.parametrize(
    ("written", "value", "weight"),
    [("boats^0.5", "boats", 0.5), ("a ^ 2 ", "a", 2), ("x^y", "x^y", 1), ("^2", "^2", 1), ("2^.5", "2", 0.5)],
)
def test_a_weight_stands_at_the_end(written, value, weight):
    assert split_weight(written) == (value, weight)


@given(
    st.text("ab^. 12", min_size=1).filter(lambda text: text == text.rstrip()), st.sampled_from([1, 0.5, 3])
)
def test_a_value_and_its_weight_survive_an_address(value, weight):
    assert split_weight(with_weight(value, weight)) == (value, weight)


def test_an_address_gives_a_composed_question_again(gallery):
    boat = gallery.ids["boat"]
    arguments = {
        "q": ["boats", "at night^2"],
        "like": [boat, "x^0.25"],
        "vector": [encode_vector(np.array([0.6, 0.8])) + "^3"],
        "minus": "red boats",
        "unlike": ["y"],
        "minus_vector": [[1.0, 0.0], {"values": [0.0, 1.0], "weight": 2}],
        "k": "7",
    }
    query = load_query(arguments, k=10)
    wanted = [(part.label, part.weight) for part in query.asked if part.wanted]
    assert wanted[:4] == [("boats", 1), ("at night", 2), (boat, 1), ("x", 0.25)]
    assert [part.weight for part in query.asked if not part.wanted] == [1, 1, 1, 2]
    again = load_query(query_arguments(query, k=10), k=10)
    assert query_arguments(again, k=10) == query_arguments(query, k=10)


def test_one_wanted_part_is_the_plain_question():
    assert Query(parts=(Part(text="a boat", weight=7),)) == Query(text="a boat")
    assert load_query({"q": ["a boat^2", " "], "like": ""}) == Query(text="a boat")
    assert Query(parts=(Part(like="x"),)) == Query(like="x")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"q": "a", "minus": ["b^0"]}, "A weight is more than 0 and at most 100, and not 0."),
        ({"q": "a", "minus": "b^101"}, "A weight is more than 0"),
        ({"q": ["a"] * 17}, "The question has 17 parts; at most 16 are allowed."),
        ({"q": "a", "minus": "x" * 1001}, "1001 characters; at most 1000"),
        ({"q": ["a", 5]}, "q: Not a valid string."),
        ({"vector": [[1], ["x"]]}, "array of 1 to 4096 numbers"),
        ({"vector": [{"values": [1], "weight": "x"}]}, "array of 1 to 4096 numbers"),
        ({"q": "a", "minus": "b", "min_relevance": "weak"}, "Only hits of queries in words are marked"),
        ({"q": "a", "like": "b", "mode": "words"}, "Mode words looks for the words of a text"),
        ({"minus": "b", "mode": "words"}, "Mode words looks for the words of a text"),
        ({"q": "a", "minus_vector": "AD4", "mode": "hybrid"}, "A raw vector belongs to one space"),
    ],
)
def test_what_no_question_can_hold_is_refused_with_a_sentence(arguments, sentence):
    with pytest.raises(QueryError, match=sentence):
        load_query(arguments)


def test_parts_count_by_the_deviation_of_their_scores():
    sample = np.array([[3, 1], [-3, 1], [3, -1], [-3, -1]] * 2, np.float32) / np.sqrt(10, dtype=np.float32)
    first, second = np.eye(2, dtype=np.float32)
    whole = combined([first, second], [1, 1], sample=sample, similarity="cosine")
    assert whole == pytest.approx(np.array([1, 3]) / np.sqrt(10), abs=1e-6)  # deviations 3 to 1
    heavier = combined([first, second], [3, -1], sample=sample, similarity="cosine")
    assert heavier == pytest.approx(np.array([1, -1]) / np.sqrt(2), abs=1e-6)
    few = combined([first, second], [1, 1], sample=sample[:1], similarity="cosine")
    assert few == pytest.approx(np.array([1, 1]) / np.sqrt(2), abs=1e-6)
    with pytest.raises(QueryError, match="cancel each other"):
        combined([first, 2 * first], [1, -1], sample=sample, similarity="cosine")


def test_words_count_more_than_pictures_and_what_is_not_wanted_less():
    counted = [
        strength(2.0, is_text=is_text, wanted=wanted) for is_text in (True, False) for wanted in (True, False)
    ]
    assert counted == [2.5, -1.25, 2.0, -1.6]


def test_wanted_and_unwanted_words_and_pictures_move_the_hits(searcher, gallery):
    boats = ids(searcher.search(Query(text="a boat", k=1)))
    assert boats == [gallery.ids["boat"]]
    without = ids(searcher.search(asked(Part(text="a boat"), Part(text="a red boat", wanted=False))))
    assert gallery.ids["boat"] not in without
    unlike = ids(searcher.search(asked(Part(text="a boat"), Part(like=boats[0], wanted=False))))
    assert gallery.ids["boat"] not in unlike
    both = searcher.search(asked(Part(image=jpeg(RED_BOATS)), Part(text="black cats", weight=2)))
    assert ids(both)[0] == gallery.ids["cats"]
    assert both.query == "a picture + black cats"
    assert (both.lane, {hit.relevance for hit in both.hits}) == ("local", {None})
    heavy = searcher.search(asked(Part(text="a red boat", weight=9), Part(text="a blue house", weight=0.1)))
    assert ids(heavy)[0] == gallery.ids["boat"]


def test_the_pictures_of_a_composed_question_are_not_its_hits(searcher, gallery):
    boat, cats = gallery.ids["boat"], gallery.ids["cats"]
    for mode in ("image", "caption", "hybrid"):
        found = ids(searcher.search(asked(Part(like=boat), Part(like=cats), mode=mode, k=100)))
        assert not {boat, cats} & set(found)
    assert ids(searcher.search(Query(like=boat, k=1))) == [boat]
    with pytest.raises(NotFoundError, match="no picture with the id 'nowhere'"):
        searcher.search(asked(Part(text="a"), Part(like="nowhere", wanted=False)))
    with pytest.raises(QueryError, match="The vector has 2 dims"):
        searcher.search(asked(Part(text="a"), Part(vector=(1.0, 2.0))))


def test_unwanted_words_leave_captions_and_names_out(searcher, gallery):
    parts = Part(text="boat"), Part(text="red", wanted=False)
    assert ids(searcher.search(Query(text="boat", mode="words"))) == [gallery.ids["boat"]]
    assert ids(searcher.search(asked(*parts, mode="words"))) == [gallery.ids["boat"]]  # named so, not red
    named = Part(text="boat"), Part(text="named", wanted=False)
    assert ids(searcher.search(asked(*named, mode="words"))) == []
    why = {hit.image_id: hit.why for hit in searcher.search(asked(*parts, mode="hybrid", k=60)).hits}
    assert "caption words" not in why[gallery.ids["boat"]]
    plain = searcher.search(Query(text="boat", mode="hybrid", k=60))
    assert "caption words: boat" in next(hit.why for hit in plain.hits if hit.image_id == gallery.ids["boat"])


def test_bodies_for_several_texts_and_without_others():
    body = words_body("a cat", "dogs", size=3, without=["red cats", "…"])["query"]["bool"]
    assert [clause["dis_max"]["_name"] for clause in body["should"]] == ["cat", "dogs"]
    (unwanted,) = body["must_not"]
    assert [clause["dis_max"]["_name"] for clause in unwanted["bool"]["must"]] == ["red", "cats"]
    written = written_body("cat", "dog", size=3, without=["red"])["query"]["bool"]
    assert (len(written["must"]), len(written["must_not"])) == (2, 1)


FORMS = {
    "weights, minus": (Part(text="a boat", weight=2), Part(text="at night", weight=0.5, wanted=False)),
    "several texts": (Part(text="a boat"), Part(text="rain"), Part(text="a cat", weight=0.25)),
    "unlike": (Part(text="a boat"), Part(like="boat", wanted=False)),
    "like": (Part(like="cats"), Part(text="at night", weight=0.5)),
    "two pictures": (Part(like="cats"), Part(like="boat", weight=2)),
    "picture files": (Part(image=jpeg(RED_BOATS)), Part(image=jpeg(RED_BOATS), weight=0.5, wanted=False)),
    "like alone": (Part(like="cats"),),
    "text alone": (Part(text="a boat"),),
    "part of a picture": (Part(vector=(1.0,)), Part(text="a boat", wanted=False)),
}


MORE = {
    "plain": {},
    "filtered": {"filters": Filters(path="named/")},
    "exact": {"filters": Filters(path="named/"), "exact": True},
}


@pytest.mark.parametrize("more", MORE)
@pytest.mark.parametrize("form", FORMS)
def test_the_shown_request_sent_by_curl_gives_the_same_hits(searcher, gallery, node, form, more):
    query = asked(*(_of_gallery(each, searcher, gallery) for each in FORMS[form]), k=4, **MORE[more])
    raw = _sent_by_curl(searcher.requests(query)["image"], gallery, node)
    assert raw == ids(searcher.search(query)) != []


def _of_gallery(part: Part, searcher, gallery) -> Part:
    """Return a part with a picture's id for its name, and the middle of the boat for any vector."""
    if part.vector:
        middle = searcher.embed_picture(gallery.files["boat"], part=(0.25, 0.25, 0.5, 0.5))
        return replace(part, vector=tuple(middle.tolist()))
    return replace(part, like=gallery.ids[part.like]) if part.like else part


def _sent_by_curl(body, gallery, node) -> list[str]:
    command = as_curl(body, url=node.url, index=gallery.alias, api_key=True)
    sent = subprocess.run(
        ["sh", "-c", command],
        env={"PATH": "/usr/bin:/bin", "ELASTICSEARCH_API_KEY": node.key},
        capture_output=True,
        text=True,
        check=True,
    )
    return [hit["_id"] for hit in json.loads(sent.stdout)["hits"]["hits"]]


@pytest.mark.parametrize("mode", ["caption", "words"])
def test_so_does_that_of_captions_and_of_words(searcher, gallery, node, mode):
    query = asked(Part(text="a boat"), Part(text="at night", weight=0.5, wanted=False), mode=mode, k=3)
    assert _sent_by_curl(searcher.requests(query)[mode], gallery, node) == ids(searcher.search(query)) != []


def test_the_page_leads_to_the_request_that_was_sent(web, searcher, gallery, node):
    html = web.get("/?q=a+boat&minus=at+night").text
    (address,) = re.findall(r'href="(/request\?[^"]+)"', html)
    shown = web.get(unescape(address))
    query = asked(Part(text="a boat"), Part(text="at night", wanted=False), k=24)
    sent = as_curl(searcher.requests(query)["image"], url="http://localhost:9200", index=gallery.alias)
    assert (shown.mimetype, shown.text) == ("text/plain", f"# image\n{sent}\n")
    assert node.url not in shown.text


def test_address_body_and_form_ask_the_same(web, searcher, gallery):
    cats = gallery.ids["cats"]
    words = web.get(f"/api/v1/search?q=a+boat&q=at+night^0.5&minus=red+boats&unlike={cats}&k=5").json
    body = {"q": ["a boat", "at night^0.5"], "minus": "red boats", "unlike": [cats], "k": 5}
    assert web.post("/api/v1/search", json=body).json["hits"] == words["hits"]
    assert web.post("/api/v1/search", data={**body, "k": "5"}).json["hits"] == words["hits"]
    assert words["query"] == f"a boat + at night − red boats − {cats}"

    def form(**more):
        files = {"image": (io.BytesIO(jpeg(RED_BOATS)), "x.jpg")}
        files["minus_image"] = (io.BytesIO(gallery.files["boat"]), "y.jpg")
        return web.post("/api/v1/search", data={"q": "cats", "k": "5", **files, **more})

    shown = Part(image=jpeg(RED_BOATS), weight=0.5), Part(image=gallery.files["boat"], weight=2, wanted=False)
    expected = ids(searcher.search(asked(Part(text="cats"), *shown)))
    answered = form(image_weight="0.5", minus_image_weight="2").json
    assert [hit["image_id"] for hit in answered["hits"]] == expected
    assert "image_weight: Not a valid number" in form(image_weight="much").json["detail"]
    assert "2 times image_weight and 1 times image" in form(image_weight=["1", "2"]).json["detail"]


def test_the_benchmark_counts_by_hand():
    wanted = np.array([True, True, False, True, True, False])
    queries = [
        Composed("text − picture", (), wanted, unwanted=~wanted),
        Composed("two pictures", (), wanted),
        Composed("picture, text: one more subject", (), wanted, both=np.eye(6, dtype=bool)[3]),
    ]
    found = tally(queries, [[0, 1, 2, 3, 4], [5, 2, 0, 1, 3], [3, 0, 1, 2, 4]])
    assert isinstance(found, Tally)
    assert (found.unwanted, found.wanted) == (pytest.approx(0.2), pytest.approx(0.8))
    assert found.by_kind["two pictures"] == (pytest.approx(0.6), 0)
    assert found.both_first == {"picture, text: one more subject": 1.0}
