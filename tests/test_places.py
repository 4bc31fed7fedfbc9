"""Places: names by coordinates without a network, in documents old and new, as a filter in any language."""

from __future__ import annotations

import hashlib
import socket
from datetime import UTC, datetime

import numpy as np
import pytest
from gallery import pocket

from es_config.documents import (
    ImageDocument,
    IndexMeta,
    IndexOptions,
    format_of,
    name_fields,
    place_key,
    read_point,
)
from es_config.index import ImageIndex
from ingest.files.walk import Candidate
from ingest.pipeline.embed import PlacesNow, complete_documents
from ingest.pipeline.read import BadFile, NewPicture
from models.encoders import Lazy
from search_app.core.places import Gazetteer
from search_app.core.query import load_query
from search_app.core.searcher import Searcher

META = IndexMeta("pocket", {}, 128, 128, "cosine")
LISBON, MUNICH, PACIFIC = (38.7117, -9.1305), (48.1372, 11.5756), (-40.0, -120.0)


@pytest.fixture(scope="module")
def gazetteer(tmp_path_factory) -> Gazetteer:
    return Gazetteer(tmp_path_factory.mktemp("places"))


def picture(number: int, path: str, location=None, **more) -> ImageDocument:
    return ImageDocument(
        image_id=hashlib.sha256(str(number).encode()).hexdigest(),
        image_name=path.rsplit("/", 1)[-1],
        relative_path=(path,),
        image_embedding=np.eye(1, 128, number, dtype=np.float32)[0],
        width=4,
        height=3,
        size_bytes=5,
        indexed_at=datetime.now(UTC),
        exif_location=location,
        **more,
    )


def filled(client, name: str, *documents: ImageDocument) -> ImageIndex:
    index = ImageIndex(client, alias=name)
    index.create(META, IndexOptions())
    assert index.add(documents).failed == {}
    index.refresh()
    return index


def searcher(index: ImageIndex, gazetteer: Gazetteer | None) -> Searcher:
    profile, texts, images = pocket()
    return Searcher(
        index=index,
        profile=profile,
        text_encoder=Lazy(lambda: texts),
        image_encoder=Lazy(lambda: images),
        gazetteer=gazetteer,
    )


def paths(asked: Searcher, **arguments: str) -> set[str]:
    return {hit.path for hit in asked.search(load_query(arguments)).hits}


def test_coordinates_have_the_names_of_town_city_state_and_country_without_a_network(gazetteer, monkeypatch):
    def no_network(*_: object, **__: object) -> None:
        raise AssertionError("the list of places asked the network")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    points = {
        LISBON: ("Alfama", "Lisbon", "Portugal"),
        (36.06, -112.14): ("Grand Canyon", "Arizona", "United States"),
        (47.3769, 8.5417): ("Zürich (Kreis 1) / Lindenhof", "Zürich", "Switzerland"),
        (64.1466, -21.9426): ("Reykjavík", "Iceland"),
        PACIFIC: (),
        (-16.5, 179.99): gazetteer.names([(-16.5, -179.99)])[0],  # across the date line
    }
    assert gazetteer.names(list(points)) == list(points.values())
    assert gazetteer.names([]) == []
    assert gazetteer.names([(90.0, 0.0), (-90.0, 180.0)]) == [(), ()]


def test_a_city_is_known_by_its_names_in_other_languages_and_alphabets(gazetteer):
    for name in ("München", "MUNCHEN", "Monaco di Baviera", "Мюнхен", "ミュンヘン"):
        assert "Munich" in gazetteer.other_names(name), name
    assert gazetteer.other_names("no such place") == ()


def test_a_country_is_known_by_its_names_in_other_languages(gazetteer):
    for name in ("Deutschland", "ALLEMAGNE", "Tyskland", "ドイツ"):
        assert gazetteer.other_names(name) == ("Germany",), name
    assert gazetteer.other_names("Germany") == ()


def test_words_of_a_question_stand_for_places_and_ordinary_ones_do_not(gazetteer):
    def names(*texts: str) -> dict[str, set[str]]:
        return {word: set(each) for word, each in gazetteer.read_words(texts).names.items()}

    assert names("boats in Lissabon", "リスボン") == {"lissabon": {"Lisbon"}, "リスボン": {"Lisbon"}}
    of_three = names("Strand bei Monaco di Baviera")
    assert {word for word, each in of_three.items() if "Munich" in each} == {"monaco", "di", "baviera"}
    assert names("Italien 2019")["italien"] == {"Italy"}
    for text in (
        "red boats at night with three birds and a dog near the house by the sea",
        "nice orange cat reading on a mobile phone in bed",
        "drei rote Boote am Meer bei Nacht",
        "un bateau rouge sur la mer",
        "tres barcos rojos en el mar de noche",
        "SEA", "Venice", "Victoria",  # an airport, and names that other towns have as well
        "Lissabon " * 13,  # a story
        "", "…",
    ):  # fmt: skip
        assert names(text) == {}, text
    words = gazetteer.read_words(["A nice Orange", "reading in Lisbon"])
    assert words.ordinary == {"nice", "orange", "reading"}


def test_a_question_waits_for_no_list_of_places(tmp_path):
    fresh = Gazetteer(tmp_path)
    assert fresh.read_words(["Lissabon"]).names == {}
    assert not fresh.is_ready
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_list_of_places_costs_names_and_no_picture(tmp_path, caplog):
    broken = Gazetteer(tmp_path)
    broken.path.write_bytes(b"damaged" * 100)
    document = picture(1, "a.jpg", LISBON)
    now = PlacesNow(places=broken)
    assert now.named([document]) == [document]
    assert "The list of places" in caplog.text
    assert now.places is None


def test_new_pictures_get_names_in_their_batch(gazetteer):
    candidate = Candidate(None, "a.jpg")
    batch = [
        NewPicture(candidate, picture(1, "a.jpg", LISBON), b""),
        BadFile(candidate, None),
        NewPicture(candidate, picture(2, "b.jpg"), b""),
        NewPicture(candidate, picture(3, "c.jpg", PACIFIC), b""),
    ]
    done = PlacesNow(places=gazetteer).add(batch)
    assert done[1] is batch[1]
    named = [
        (each.document.exif_places, each.document.exif_places_by) for each in done if each is not batch[1]
    ]
    assert named == [
        (("Alfama", "Lisbon", "Portugal"), gazetteer.source),
        ((), None),
        ((), gazetteer.source),
    ]


def test_places_are_filters_by_any_name_and_older_documents_get_theirs(client, index_name, gazetteer):
    named = PlacesNow(places=gazetteer).named([picture(1, "a/munich.jpg", MUNICH)])
    by_people = picture(2, "b/by hand.jpg", places=("Neu Schwänstein", "Bavaria"))
    index = filled(client, index_name, *named, by_people, picture(3, "b/old.jpg", LISBON))
    asked = searcher(index, gazetteer)
    for name in ("Munich", "münchen", "Мюнхен", " Germany ", "ALTSTADT"):
        expected = {"a/munich.jpg"} if name != "ALTSTADT" else set()
        assert paths(asked, place=name) == expected, name
    assert paths(searcher(index, None), place="München") == set()
    assert paths(searcher(index, None), place="munich") == {"a/munich.jpg"}
    assert paths(asked, place="neu schwanstein") == {"b/by hand.jpg"}
    assert paths(asked, q="germany", mode="words") == {"a/munich.jpg"}
    assert paths(asked, place="Lissabon") == set()
    assert complete_documents(index, gazetteer) == 1
    assert complete_documents(index, gazetteer) == 0
    assert paths(asked, place="Lissabon") == {"b/old.jpg"}
    assert (index.get(picture(3, "").image_id) or {})["exif"]["places"] == ["Alfama", "Lisbon", "Portugal"]
    assert paths(asked, place="38.71,-9.13,5km") == {"b/old.jpg"}


def test_words_rank_pictures_by_a_place_in_any_language_and_say_so(client, index_name, gazetteer):
    nice = (43.7034, 7.2663)
    taken = PlacesNow(places=gazetteer).named(
        [picture(1, "a.jpg", LISBON), picture(2, "b.jpg", MUNICH), picture(3, "c.jpg", nice)]
    )
    index = filled(client, index_name, *taken, picture(4, "d.jpg"))
    asked = searcher(index, gazetteer)

    def whys(text: str, **more: str) -> dict[str, str]:
        hits = asked.search(load_query({"q": text, **more})).hits
        return {hit.path: hit.why for hit in hits if "place:" in (hit.why or "")}

    first = asked.search(load_query({"q": "Lissabon", "mode": "hybrid"})).hits[0]
    assert (first.path, (first.why or "").split(";")[0]) == ("a.jpg", "place: Lissabon")
    assert whys("Monaco di Baviera", mode="words") == {"b.jpg": "place: Monaco, di, Baviera"}
    assert whys("Allemagne", mode="words") == {"b.jpg": "place: Allemagne"}
    assert whys("nice", mode="hybrid") == {}
    assert whys("a nice orange boat", mode="hybrid") == {}
    assert whys("nice", mode="words") == {"c.jpg": "place: nice"}
    assert whys("Nice Frankreich", mode="hybrid")["c.jpg"].startswith("place: Nice, Frankreich")
    without = asked.search(load_query({"q": "Deutschland", "minus": "München", "mode": "words"})).hits
    assert without == ()
    assert asked.index.has_places()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"taken": "2023"}, {"trips/2023/a.JPG", "trips/2023/rome/b.heic"}),
        ({"taken": "2023-07"}, {"trips/2023/a.JPG"}),
        ({"taken": "2023-07-31"}, {"trips/2023/a.JPG"}),
        ({"taken": "unknown"}, {"c.tif"}),
        ({"folder": "trips"}, {"trips/2023/a.JPG", "trips/2023/rome/b.heic"}),
        ({"folder": "/trips/2023/rome/"}, {"trips/2023/rome/b.heic"}),
        ({"folder": "rome"}, set()),
        ({"format": "JPG"}, {"trips/2023/a.JPG"}),
        ({"format": "heic"}, {"trips/2023/rome/b.heic"}),
        ({"person": "ada lovelace"}, {"c.tif"}),
        ({"has_text": "true"}, {"c.tif"}),
        ({"has_text": "false", "format": "jpeg"}, {"trips/2023/a.JPG"}),
        ({"film": "true"}, set()),
    ],
)
def test_each_new_filter_lists_what_passes(few, arguments, expected):
    assert paths(few, **arguments) == expected


@pytest.fixture(scope="module")
def few(client):
    name = f"test-filters-{hashlib.sha256(str(id(client)).encode()).hexdigest()[:8]}"
    new_year = datetime(2023, 12, 31, 23, 30)
    index = filled(
        client,
        name,
        picture(1, "trips/2023/a.JPG", exif_local_date=datetime(2023, 7, 31, 1)),
        # By UTC it is 2024 already: filters and orders go by the clocks of the place.
        picture(
            2,
            "trips/2023/rome/b.heic",
            exif_local_date=new_year,
            exif_date=datetime(2024, 1, 1, 4, 30, tzinfo=UTC),
        ),
        picture(3, "c.tif", people=("Ada Lovelace",), words={"words": ["Exit"], "words_by": "x"}),
    )
    yield searcher(index, None)
    index.delete()


def test_newest_and_oldest_go_by_the_clocks_of_the_place(client, index_name):
    east, west = datetime(2024, 1, 1, 1), datetime(2023, 12, 31, 22)
    index = filled(
        client,
        index_name,
        picture(1, "east.jpg", exif_local_date=east, exif_date=datetime(2023, 12, 31, 16, tzinfo=UTC)),
        picture(2, "west.jpg", exif_local_date=west, exif_date=datetime(2024, 1, 1, 3, tzinfo=UTC)),
        picture(3, "older.jpg", exif_date=datetime(2022, 1, 1, tzinfo=UTC)),
        picture(4, "never.jpg"),
    )
    asked = searcher(index, None)
    newest = [hit.path for hit in asked.search(load_query({"sort": "newest"})).hits]
    assert newest == ["east.jpg", "west.jpg", "older.jpg", "never.jpg"]
    oldest = [hit.path for hit in asked.search(load_query({"sort": "oldest"})).hits]
    assert oldest[:2] == ["west.jpg", "east.jpg"]


def test_the_names_of_a_document_follow_from_its_other_fields():
    names = name_fields(
        {
            "relative_path": ["a/b/x.JPG", "y.jpeg"],
            "places": ["Genève"],
            "exif": {"places": ["Genève", "Switzerland"]},
        }
    )["names"]
    assert names["within"] == ["a", "a/b"]
    assert names["format"] == ["jpeg"]
    assert names["place"] == ["Genève", "Switzerland"]
    assert names["place_keys"] == ["geneve", "switzerland"]
    assert place_key("  SÃO  Paulo ") == "sao paulo"
    assert [format_of(name) for name in ("a.CR2", "b", "c.jpg.", "d.longer", "e.ü", ".jpg")] == [
        "cr2", "", "", "", "", "jpeg",
    ]  # fmt: skip


def test_a_point_is_read_in_each_of_its_forms():
    for form in ({"lat": 1, "lon": 2}, [2, 1], "1,2", {"lat": "1", "lon": "2"}):
        assert read_point(form) == (1.0, 2.0)
    for none in (None, "POINT (2 1)", [1], {"lat": 1}, "91,0", {"lat": None, "lon": 2}):
        assert read_point(none) is None
