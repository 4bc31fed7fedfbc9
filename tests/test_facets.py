"""Counts by facet agree with the lists behind them: of filters and of hits, by REST, page and completion."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime
from html import unescape

import numpy as np
import pytest
from gallery import pocket

from es_config.documents import ImageDocument, IndexMeta, IndexOptions
from es_config.facets import FACETS
from es_config.index import ImageIndex
from models.encoders import Lazy
from search_app.core.browse import Browser
from search_app.core.query import load_query
from search_app.core.searcher import Searcher, SearchService
from search_app.core.suggest import Suggester, errors_between
from search_app.errors import QueryError
from search_app.settings import AppSettings
from search_app.web.app import create_app
from storage.store import open_storage

TAKEN = {
    "a": datetime(2023, 7, 31, 1, 0),
    "b": datetime(2023, 7, 1, 1, 0),
    "c": datetime(2024, 1, 1, 1, 0),
}


@pytest.fixture(scope="module")
def shelf(client):
    """A searcher and a browser of five pictures, each with other facts."""
    profile, texts, images = pocket()
    index = ImageIndex(client, alias=f"test-{uuid.uuid4()}")
    index.create(IndexMeta("pocket", {}, profile.dims, profile.caption_dims, "cosine"), IndexOptions())
    vectors = np.eye(5, profile.dims, dtype=np.float32)
    facts = {
        "a": {"path": "trips/2023/a.JPG", "exif_camera": "Lumo 5D", "tags": ("Sea", "boat")},
        "b": {"path": "trips/2023/b.jpeg", "exif_camera": "Lumo 5D Mark II", "tags": ("sea",)},
        "c": {"path": "trips/x (1)/c.heic", "exif_camera": "lumo 5d", "people": ("Ada",)},
        "d": {"path": "d.png", "people": ("ADA", "Zoë"), "words": {"words": ["Exit"], "words_by": "x"}},
        "e": {"path": "other/e.png", "places": ("Zürich",), "exif_places": ("Zurich", "Switzerland")},
    }
    documents = [
        ImageDocument(
            image_id=name * 64,
            image_name=fact["path"].rsplit("/", 1)[-1],
            relative_path=(fact.pop("path"),),
            image_embedding=vectors[number],
            width=4,
            height=3,
            size_bytes=5,
            indexed_at=datetime.now(UTC),
            exif_local_date=TAKEN.get(name),
            **fact,
        )
        for number, (name, fact) in enumerate(facts.items())
    ]
    assert index.add(documents).failed == {}
    index.refresh()
    searcher = Searcher(
        index=index, profile=profile, text_encoder=Lazy(lambda: texts), image_encoder=Lazy(lambda: images)
    )
    yield searcher
    index.delete()


@pytest.fixture(scope="module")
def web(shelf, tmp_path_factory):
    app = create_app(
        service=SearchService(shelf),
        storage=open_storage(f"file:{tmp_path_factory.mktemp('store')}"),
        settings=AppSettings(),
    )
    return app.test_client()


def counted(searcher: Searcher, **arguments: str) -> dict[str, dict[str, int]]:
    query = load_query(arguments or {"sort": "newest"})
    answer = Browser(lambda: searcher).facets(query)
    return {each.name: {value.value: value.count for value in each.values} for each in answer.facets}


def test_every_facet_counts_what_a_click_lists(shelf):
    found = counted(shelf)
    assert found == {
        "taken": {"2024-01": 1, "2023-07": 2, "unknown": 2},
        "camera": {"Lumo 5D": 2, "Lumo 5D Mark II": 1},
        "tag": {"Sea": 2, "boat": 1},
        "person": {"ADA": 2, "Zoë": 1},
        "place": {"Switzerland": 1, "Zurich": 1},
        "folder": {"trips": 3, "other": 1},
        "format": {"jpeg": 2, "png": 2, "heic": 1},
        "has_text": {"true": 1},
        "film": {},
    }
    for name, values in found.items():
        for value, count in values.items():
            assert shelf.search(load_query({name: value})).total == count, (name, value)


@pytest.mark.parametrize(
    "chosen",
    [
        {"camera": "LUMO 5D"},
        {"taken": "2023"},
        {"taken": "2023-07", "format": "jpeg"},
        {"folder": "trips", "tag": "SEA"},
        {"person": "ada", "has_text": "true"},
        {"folder": "trips/x (1)"},
        {"date_from": "2023-07-15", "camera": "Lumo 5D"},
    ],
)
def test_a_facet_that_is_set_still_offers_its_other_values(shelf, chosen):
    for name, values in counted(shelf, **chosen).items():
        for value, count in values.items():
            asked = load_query({**chosen, name: value})
            assert shelf.search(asked).total == count, (name, value)


def test_folders_open_one_level_at_a_time(shelf):
    answer = Browser(lambda: shelf).facets(load_query({"folder": "trips"}))
    assert [(each.value, each.label, each.count) for each in answer.facet("folder").values] == [
        ("trips/2023", "2023", 2),
        ("trips/x (1)", "x (1)", 1),
    ]
    assert counted(shelf, folder="trips/x (1)")["folder"] == {}


def test_chosen_values_are_marked_and_more_values_are_told(shelf):
    answer = Browser(lambda: shelf).facets(load_query({"camera": "lumo 5d", "taken": "2023"}), size=1)
    (camera,) = answer.facet("camera").values
    assert camera.selected
    assert answer.facet("camera").more
    assert not answer.facet("film").more
    marked = [each.value for each in answer.facet("taken").values if each.selected]
    assert marked == ["2023-07"]
    assert answer.total == 1
    assert answer.counted == "filters"


def test_a_question_counts_its_nearest_hits(shelf):
    browser = Browser(lambda: shelf)
    answer = browser.facets(load_query({"like": "a" * 64, "format": "jpeg"}))
    assert (answer.counted, answer.total) == ("hits", 2)
    assert {each.value for each in answer.facet("camera").values} == {"Lumo 5D", "Lumo 5D Mark II"}
    words = browser.facets(load_query({"q": "exit", "mode": "words"}))
    assert (words.counted, words.total) == ("hits", 1)
    assert browser.facets(load_query({"q": "nowhere written", "mode": "words"})).total == 0


def test_the_api_answers_with_counts_and_refuses_what_is_unknown(web):
    answer = web.get("/api/v1/facets?facet=camera,tag&size=1&format=jpeg").json
    assert answer["counted"] == "filters"
    assert answer["total"] == 2
    assert [each["name"] for each in answer["facets"]] == ["camera", "tag"]
    assert answer["facets"][1] == {
        "name": "tag",
        "values": [{"value": "Sea", "label": "Sea", "count": 2, "selected": False}],
        "more": True,
    }
    everything = web.get("/api/v1/facets").json
    assert everything["total"] == 5
    assert [each["name"] for each in everything["facets"]] == list(FACETS)
    for wrong, sentence in (
        ("facet=colour", "There is no facet 'colour'"),
        ("size=0", "size must be between 1 and 500"),
        ("size=x", "size must be a number"),
        ("nonsense=1", "There is no parameter 'nonsense'"),
        ("taken=2023-13", "taken must be a year"),
    ):
        response = web.get(f"/api/v1/facets?{wrong}")
        assert (response.status_code, sentence in response.json["detail"]) == (400, True), wrong


def test_an_unknown_facet_is_an_error(shelf):
    with pytest.raises(QueryError, match="no facet 'x'"):
        Browser(lambda: shelf).facets(load_query({"sort": "newest"}), names=["x"])


def page(web, address: str) -> str:
    response = web.get(address)
    assert response.status_code == 200, response.text[:500]
    return unescape(response.text)


def test_a_list_shows_years_and_values_as_links_that_keep_the_rest(web):
    html = page(web, "/?sort=name")
    assert 'href="/?sort=name&taken=2023"' in html
    assert 'href="/?sort=name&camera=Lumo+5D"' in html
    assert 'href="/?sort=name&has_text=true"' in html
    inside = page(web, "/?taken=2023&folder=trips")
    assert 'href="/?taken=2023-07&folder=trips"' in inside
    assert ">July <" in inside
    assert "<bdi>July 2023</bdi> ×" in page(web, "/?taken=2023-07")
    assert 'href="/?taken=2023&folder=trips%2F2023"' in inside
    assert 'href="/?taken=2023"' in inside  # without the folder
    assert inside.count('class="view"') == 2


def test_a_question_offers_its_counts_and_says_of_what_they_are(web):
    html = page(web, "/?q=a+boat&format=jpeg")
    assert 'data-url="/narrow?q=a+boat&format=jpeg"' in html
    counts = page(web, "/narrow?q=a+boat&format=jpeg")
    assert "Counted among the 2 nearest pictures." in counts
    assert 'href="/?q=a+boat&format=jpeg&camera=Lumo+5D"' in counts
    part = page(web, "/narrow?q=a+boat&format=jpeg&part=1")
    assert "<html" not in part
    assert 'href="/?q=a+boat&format=jpeg&camera=Lumo+5D"' in part
    assert "2 pictures pass the filters." in page(web, "/narrow?format=jpeg")
    assert "5 pictures pass the filters." in page(web, "/narrow")


def ways_out(html: str) -> dict[str, int]:
    return {
        href: int(count)
        for href, count in re.findall(
            r'<li><a href="([^"]+)">[^<]+<span class="count">(\d+)</span></a></li>', html
        )
    }


def test_an_empty_answer_leads_on(web):
    html = page(web, "/?camera=Lumo&tag=sea")
    assert "No picture passes these filters" in html
    assert "Without “camera Lumo”" in html
    ways = ways_out(html)
    assert ways == {
        "/?camera=Lumo+5D&tag=sea": 1,
        "/?camera=Lumo+5D+Mark+II&tag=sea": 1,
        "/?tag=sea": 2,
        "/?sort=newest": 5,
    }
    for href, count in ways.items():
        assert page(web, href).count('class="view"') == count
    assert ways_out(page(web, "/?place=Switzerlnd")) == {"/?place=Switzerland": 1, "/?sort=newest": 5}
    assert ways_out(page(web, "/?q=a+boat&film=true")) == {"/?q=a+boat": 5}
    meant = page(web, "/?q=Switzerlnd&mode=words")
    assert 'href="/?q=Switzerland&mode=words"' in meant


def suggested(web, **arguments: str) -> list[tuple[str, str, str]]:
    response = web.get("/api/v1/suggest", query_string=arguments)
    assert response.status_code == 200, response.text
    return [(each["kind"], each["text"], each["rest"]) for each in response.json["suggestions"]]


def test_what_is_typed_is_completed(web):
    assert suggested(web, q="zu") == [("place", "Zurich", "")]
    assert suggested(web, q="a boat zür") == [("place", "Zurich", "a boat")]
    assert suggested(web, q="mark") == [("camera", "Lumo 5D Mark II", "")]
    assert suggested(web, q="lumo 5d m")[0] == ("camera", "Lumo 5D Mark II", "")
    assert suggested(web, q="se") == [("tag", "Sea", "")]
    assert suggested(web, q="ad") == [("person", "ADA", "")]
    assert suggested(web, q="zo") == [("person", "Zoë", "")]
    assert suggested(web, q="Switserland") == [("place", "Switzerland", "")]
    assert suggested(web, q="red swtizerland") == [("place", "Switzerland", "red")]
    for nothing in ("", "   ", "?", "xq", "x" * 5_000, "\ud7ff"):
        assert suggested(web, q=nothing) == []


def test_fields_of_filters_are_completed_by_their_kind_alone(web):
    assert suggested(web, kind="camera") == [
        ("camera", "Lumo 5D", ""),
        ("camera", "Lumo 5D Mark II", ""),
    ]
    assert suggested(web, kind="format", q="j") == [("format", "jpeg", "")]
    assert suggested(web, kind="folder", q="2023") == [("folder", "trips/2023", "")]
    assert suggested(web, kind="person", q="sea") == []
    assert suggested(web, kind="tag", limit="1") == [("tag", "Sea", "")]


def test_files_are_found_by_the_beginning_of_their_names(gallery):
    found = Suggester(lambda: gallery.searcher).suggest("oth").suggestions
    files = [each for each in found if each.kind == "file"]
    assert files
    assert all(each.text.startswith("other") and each.image_id in gallery.ids.values() for each in files)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ("kind=colour", "There is no kind 'colour'"),
        ("limit=0", "limit must be between 1 and 20"),
        ("limit=x", "limit must be a number"),
        ("text=x", "There is no parameter 'text'"),
    ],
)
def test_a_wrong_completion_is_a_sentence(web, wrong, sentence):
    response = web.get(f"/api/v1/suggest?{wrong}")
    assert response.status_code == 400
    assert sentence in response.json["detail"]


@pytest.mark.parametrize(
    ("one", "other", "errors"),
    [("lisbon", "lisbon", 0), ("lisbn", "lisbon", 1), ("ilsbon", "lisbon", 1), ("lizzbon", "lisbon", 2),
     ("a", "abcdef", 3), ("", "ab", 2)],
)  # fmt: skip
def test_errors_of_spelling_are_counted_by_hand(one, other, errors):
    assert errors_between(one, other, most=2) == errors
    assert errors_between(other, one, most=2) == errors
