"""Names that people gave find pictures, and days are those of the place where a picture was taken."""

from __future__ import annotations

import io
from datetime import UTC, date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import example, given, settings
from hypothesis import strategies as st
from picture_files import draw_picture
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from es_config.bulk import document_source
from es_config.documents import (
    ImageDocument,
    IndexMeta,
    IndexOptions,
    folded,
    index_body,
    lacking_fields,
    name_fields,
    name_words,
    same_letters,
)
from es_config.index import ImageIndex
from es_config.requests import Filters, knn_body, written_body
from ingest.commands.ingest import ingest
from ingest.files.metadata import Taken, as_caption, date_in_name, parse_date
from ingest.files.picture import ImageFile, read_image
from ingest.pipeline.read import new_document
from models.pixels import register_formats
from search_app.core.hybrid import fuse, named_by

META = IndexMeta("pocket", {}, 4, 4, "cosine")
NFD = "Zu\u0308rich"


def taken(text: str) -> tuple[str, timedelta | None]:
    """Return the local time and the offset of a date as a program wrote it."""
    found = parse_date(text, source="EXIF")
    assert found
    return found.local.isoformat(), found.offset


@pytest.mark.parametrize(
    ("text", "local", "hours"),
    [
        ("2020:02:10 20:24:43+13:00", "2020-02-10T20:24:43", 13),
        ("2025:01:14 18:31:30+0000", "2025-01-14T18:31:30", 0),
        ("2019-05-04T22:02:01-08:00", "2019-05-04T22:02:01", -8),
        ("2019-05-04T03:02:01.25Z", "2019-05-04T03:02:01", 0),
        ("2023:05:26 22:01:22 UTC+2", "2023-05-26T22:01:22", 2),
        ("2023:05:26 22:01:22 -05:30", "2023-05-26T22:01:22", -5.5),
        ("2015:3:7 8:05:00", "2015-03-07T08:05:00", None),
        ("2012:12:31", "2012-12-31T00:00:00", None),
        ("2012:12:31 24:00:00", "2013-01-01T00:00:00", None),
        ("2016:12:31 23:59:60", "2016-12-31T23:59:59", None),
        ("2012:12:31 10:00:00 PM", "2012-12-31T22:00:00", None),
        ("2012:12:31 12:00:00 a.m.", "2012-12-31T00:00:00", None),
        ("20200102 030405", "2020-01-02T03:04:05", None),
        ("20200102T030405+0100", "2020-01-02T03:04:05", 1),
        ("31.12.2012 10:00:00", "2012-12-31T10:00:00", None),
        ("12/31/2012", "2012-12-31T00:00:00", None),
        ("Fri, 05 Apr 2013 06:07:08 +0200", "2013-04-05T06:07:08", 2),
        ("2020:01:02 03:04:05.678", "2020-01-02T03:04:05", None),
        ("2020:01:02 03:04:05+99:00", "2020-01-02T03:04:05", None),
    ],
)
def test_dates_are_read_in_the_forms_that_programs_write(text, local, hours):
    assert taken(text) == (local, None if hours is None else timedelta(hours=hours))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0000:00:00 00:00:00",
        "2020:02:30 10:00:00",
        "03/04/2012",
        "soon",
        "2020",
        "9999:12:31 24:00:00",
        "2020:01:02 25:00",
    ],
)
def test_no_day_is_made_up(text):
    assert parse_date(text, source="EXIF") is None


@pytest.mark.parametrize(
    ("name", "local"),
    [
        ("IMG-20190422-WA0004.jpg", "2019-04-22T00:00:00"),
        ("Screenshot_2021-03-04-05-06-07.png", "2021-03-04T05:06:07"),
        ("IMG_20200102_030405.jpg", "2020-01-02T03:04:05"),
        ("2020-01-02 03.04.05.jpg", "2020-01-02T03:04:05"),
        ("WhatsApp Image 2019-04-22 at 10.11.12.jpeg", "2019-04-22T10:11:12"),
        ("PXL_20230528_101112345.jpg", "2023-05-28T10:11:12"),
    ],
)
def test_names_of_phones_and_messengers_hold_dates(name, local):
    found = date_in_name(name)
    assert found
    assert (found.local.isoformat(), found.source) == (local, "file name")
    assert (found.offset is not None) == name.startswith("PXL")


@pytest.mark.parametrize("name", ["IMG_0060.jpg", "120190422.jpg", "20191332.jpg", "2019-04.jpg", "a.jpg"])
def test_other_numbers_are_no_dates(name):
    assert date_in_name(name) is None


@settings(max_examples=300, deadline=None)
@given(st.text())
@example("9999-12-31T24:00:00+14:00")
def test_whatever_a_date_holds_there_is_one_or_none(text):
    for found in (parse_date(text, source="EXIF"), date_in_name(text)):
        if found:
            assert found.instant.tzinfo is not None
            found.in_zone(ZoneInfo("Asia/Tokyo"))


def test_a_zone_is_for_clocks_that_say_none_and_for_those_that_show_utc():
    noon, zurich = datetime(2023, 7, 1, 12), ZoneInfo("Europe/Zurich")
    assert Taken(noon, None, "EXIF").in_zone(zurich) == Taken(noon, timedelta(hours=2), "EXIF")
    own = Taken(noon, timedelta(), "EXIF")
    assert own.in_zone(zurich) == own
    by_satellite = Taken(noon, timedelta(), "GPS").in_zone(zurich)
    assert by_satellite == Taken(noon + timedelta(hours=2), timedelta(hours=2), "GPS")
    assert by_satellite.instant == datetime(2023, 7, 1, 12, tzinfo=UTC)


def saved(name: str, **options: object) -> ImageFile:
    """Return a picture with this metadata as it is read."""
    import tempfile
    from pathlib import Path

    register_formats()
    with tempfile.TemporaryDirectory() as folder:
        draw_picture(1).save(Path(folder) / name, **options)
        return read_image(Path(folder) / name)


def xmp(body: str, attributes: str = "") -> bytes:
    """Return a packet with these properties."""
    spaces = {
        "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
        "dc": "http://purl.org/dc/elements/1.1/",
        "lr": "http://ns.adobe.com/lightroom/1.0/",
        "digiKam": "http://www.digikam.org/ns/1.0/",
        "mwg-rs": "http://www.metadataworkinggroup.com/schemas/regions/",
        "ext": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
        "photoshop": "http://ns.adobe.com/photoshop/1.0/",
        "exif": "http://ns.adobe.com/exif/1.0/",
        "xmp": "http://ns.adobe.com/xap/1.0/",
    }
    named = " ".join(f'xmlns:{name}="{space}"' for name, space in spaces.items())
    return f"<rdf:RDF {named}><rdf:Description {attributes}>{body}</rdf:Description></rdf:RDF>".encode()


def bag(*values: str) -> str:
    """Return a list of RDF."""
    return "<rdf:Bag>" + "".join(f"<rdf:li>{value}</rdf:li>" for value in values) + "</rdf:Bag>"


def test_people_titles_places_and_ratings_of_photo_programs_are_read():
    body = f"""<dc:subject>{bag("boat", NFD)}</dc:subject>
    <dc:title><rdf:Alt><rdf:li xml:lang="x-default">The wedding</rdf:li></rdf:Alt></dc:title>
    <lr:hierarchicalSubject>{bag("Places|Portugal|Lisbon")}</lr:hierarchicalSubject>
    <digiKam:TagsList>{bag("People/Ada Example")}</digiKam:TagsList>
    <ext:PersonInImage>{bag("Ben Example")}</ext:PersonInImage>
    <mwg-rs:Regions rdf:parseType="Resource"><mwg-rs:RegionList><rdf:Bag>
    <rdf:li><rdf:Description mwg-rs:Name="Cleo Example" mwg-rs:Type="Face"/></rdf:li>
    <rdf:li><rdf:Description mwg-rs:Name="4006381333931" mwg-rs:Type="BarCode"/></rdf:li>
    <rdf:li rdf:parseType="Resource"><mwg-rs:Name>Dan Example</mwg-rs:Name></rdf:li>
    </rdf:Bag></mwg-rs:RegionList></mwg-rs:Regions>"""
    said = 'xmp:Rating="4" photoshop:City="Lisboa" photoshop:DateCreated="2009-08-07T06:05:04+01:00"'
    picture = saved("x.jpg", xmp=xmp(body, said + ' exif:GPSLatitude="38,43.5N" exif:GPSLongitude="9,8.4W"'))
    words = picture.words
    assert words.tags == ("boat", NFD, "Lisbon", "Portugal", "Ada Example")
    assert words.people == ("Ben Example", "Cleo Example", "Dan Example", "Ada Example")
    assert (words.title, words.rating, words.places) == ("The wedding", 4, ("Lisboa",))
    assert picture.exif.taken == Taken(datetime(2009, 8, 7, 6, 5, 4), timedelta(hours=1), "XMP")
    assert picture.exif.location == (38.725, -9.14)


def exif(tags: dict, camera: dict | None = None, gps: dict | None = None) -> Image.Exif:
    """Return EXIF with these tags."""
    found = Image.Exif()
    found.update(tags)
    found.get_ifd(0x8769).update(camera or {})
    found.get_ifd(0x8825).update(gps or {})
    return found


def test_words_of_windows_and_comments_are_read():
    said = {40091: "A title", 40092: "Über den Dächern", 40094: "holiday;Lisbon"}
    windows = {tag: text.encode("utf-16-le") + b"\0\0" for tag, text in said.items()}
    words = saved("x.jpg", exif=exif({**windows, 18246: 5})).words
    assert (words.title, words.tags, words.rating) == ("A title", ("holiday", "Lisbon"), 5)
    assert words.description == "Über den Dächern"
    for comment in (
        b"ASCII\0\0\0the old mill",
        b"UNICODE\0" + "the old mill".encode("utf-16-le"),
        b"UNICODE\0" + "the old mill".encode("utf-16-be"),
        b"\0" * 8 + b"the old mill",
    ):
        assert saved("x.jpg", exif=exif({}, {37510: comment})).exif.description == "the old mill"


def test_texts_of_a_png_are_read_and_the_settings_of_a_model_are_not():
    texts = PngInfo()
    for name, text in (
        ("Creation Time", "2013:04:05 06:07:08"),
        ("Comment", '{"workflow": 1}'),
        ("parameters", "castle on a hill\nNegative prompt: fog\nSteps: 20, Sampler: x"),
    ):
        texts.add_text(name, text)
    picture = saved("x.png", pnginfo=texts)
    assert picture.exif.description == "castle on a hill"
    assert picture.exif.taken == Taken(datetime(2013, 4, 5, 6, 7, 8), None, "PNG")


def test_a_date_of_satellites_is_the_last_of_those_in_exif():
    gps = {7: (10.0, 20.0, 30.0), 29: "2018:07:08"}
    found = saved("x.jpg", exif=exif({}, gps=gps)).exif.taken
    assert found == Taken(datetime(2018, 7, 8, 10, 20, 30), timedelta(), "GPS")
    original = saved("x.jpg", exif=exif({306: "2020:01:01 00:00:00"}, {36867: "2017:01:01 10:00:00"}, gps))
    assert original.exif.taken == Taken(datetime(2017, 1, 1, 10), None, "EXIF")


@pytest.mark.parametrize(
    "text",
    [
        '{"shape": [400, 400, 3]}',
        "ImageJ=1.53t images=10 slices=10",
        '<?xml version="1.0"?><OME></OME>',
        "Instagram",
        "Adobe Photoshop",
        "Adobe Photoshop 21.0 (Windows)",
        "Screenshot",
        "Bildschirmfoto 2021-03-04 um 05.06.07",
        "Slide 1",
        "R0010123",
        "FBMD01000a8b0100",
        "[1, 2, 3]",
    ],
)
def test_text_of_programs_is_no_description(text):
    assert as_caption(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "Made by Grandma",
        "Software engineers at lunch",
        "[Ada] at sea",
        "Mai 2019",
        "Screenshot of a mill",
        "<3",
    ],
)
def test_words_of_people_stay(text):
    if text == "<3":
        text = "all my <3 for you"
    assert as_caption(text) == text


def test_names_are_taken_apart_and_folded():
    assert name_words("IMG_0060") == "img 0060"
    assert name_words("SummerHoliday2019") == "summerholiday2019 summer holiday 2019"
    assert name_words("DSC00012") == "dsc00012 dsc 00012"
    assert name_words(NFD) == name_words("ZÜRICH") == "zurich"
    assert folded("Straße Łódź Ærø") == "strasse lodz aero"
    assert same_letters(NFD) == same_letters("zÜRICH") == "zürich"


def test_the_ends_of_a_path_begin_at_every_folder():
    fields = name_fields({"relative_path": ["2020/Sunset/x.jpg"], "tags": ["Boat"], "people": [NFD]})["names"]
    assert fields["path"] == ["2020/sunset/x.jpg", "sunset/x.jpg", "x.jpg"]
    assert (fields["folders"], fields["file"], fields["keywords"]) == (
        ["2020", "sunset"],
        ["x"],
        ["boat", "zürich"],
    )
    deep = name_fields({"relative_path": "/".join(map(str, range(100)))})["names"]["path"]
    assert len(deep) == 13
    assert deep[0].startswith("0/1/")


def picture(number: int, path: str, **more: object) -> ImageDocument:
    """Return a document whose vector is like those of its neighbours."""
    vector = np.array([1, number / 100, 0, 0], np.float32)
    vector /= np.linalg.norm(vector)
    return ImageDocument(
        f"{number:064x}",
        path.rsplit("/", 1)[-1],
        (path,),
        vector,
        8,
        8,
        8,
        datetime(2026, 1, 1, tzinfo=UTC),
        **more,
    )


PICTURES = (
    picture(0, "Holiday 2019/IMG_0060.jpg", exif_camera="Apple iPhone 12"),
    picture(1, f"2020/{NFD}/IMG_0061.jpg", tags=("Ärzte",)),
    picture(2, "a/b/star*.jpg", people=("Ada Example",)),
    picture(3, "Holiday 2018/Carl.jpg", title="The old mill"),
    picture(4, "x/y.jpg", tags=("boat",), places=("São Paulo",)),
)


@pytest.fixture
def filled(client, index_name):
    """Return an index with the pictures."""
    index = ImageIndex(client, alias=index_name)
    index.create(META, IndexOptions())
    assert index.add(PICTURES).failed == {}
    index.refresh()
    return index


def named(index: ImageIndex, text: str, *, alone: bool = False) -> dict[int, tuple[str, ...]]:
    """Return the numbers of the pictures that a text names, with the reasons."""
    body = {**written_body(text, size=10, alone=alone), "_source": False}
    return {
        int(hit.image_id, 16): tuple(named_by(text.split(), hit.matched)) for hit in index.search(body).hits
    }


@pytest.mark.parametrize(
    ("text", "number", "why"),
    [
        ("IMG_0060", 0, ("file name: IMG_0060",)),
        ("img_006", 0, ("file name: img_006",)),
        ("0060", 0, ("file name: 0060",)),
        ("holiday 2019", 0, ("folder: holiday, 2019",)),
        ("ZURICH", 1, ("folder: ZURICH",)),
        ("zürich", 1, ("folder: zürich",)),
        ("arzte", 1, ("keyword: arzte",)),
        ("Ada Example", 2, ("person: Ada, Example",)),
        ("ada exampl", 2, None),
        ("old mill", 3, ("title: old, mill",)),
        ("boats", 4, ("keyword: boats",)),
        ("photo sao paulo", 4, ("place: sao, paulo",)),
        ("iphone", 0, ("camera: iphone",)),
    ],
)
def test_names_find_their_pictures_and_the_reason_says_where(filled, text, number, why):
    found = named(filled, text)
    assert next(iter(found)) == number
    if why:
        assert found[number] == why


def test_a_word_that_only_begins_so_or_is_a_thing_too_names_nothing(filled):
    assert named(filled, "car") == named(filled, "apple") == named(filled, "photo") == {}
    assert named(filled, "red holiday") == {}
    assert named(filled, "car", alone=True) == {3: ("file name: car",)}
    assert named(filled, "apple", alone=True) == {0: ("camera: apple",)}


def test_pictures_that_are_named_equally_share_a_rank():
    fused = fuse(
        {"visual": ["b", "a"], "written": ["a", "b"]},
        weights={"visual": 1, "written": 2.5},
        scores={"written": {"a": 4.0, "b": 4.0}},
    )
    assert [(each.image_id, each.ranks["written"]) for each in fused] == [("b", 1), ("a", 1)]


def filtered(index: ImageIndex, **filters: object) -> set[int]:
    """Return the numbers of the pictures that pass."""
    vector = np.array([1, 0, 0, 0], np.float32)
    body = knn_body(query_vector=vector, k=10, num_candidates=20, filters=Filters(**filters))
    return {int(hit.image_id, 16) for hit in index.search({**body, "_source": False}).hits}


@pytest.mark.parametrize(
    ("path", "numbers"),
    [
        ("Holiday", {0, 3}),
        ("holiday 2019/", {0}),
        ("zü", {1}),
        (f"2020/{NFD.upper()}", {1}),
        ("./a/b", {2}),
        (r"star\*", {2}),
        ("IMG_*", {0, 1}),
        ("*.JPG", {0, 1, 2, 3, 4}),
        ("ay 2019", set()),
    ],
)
def test_a_path_is_found_at_any_folder_in_any_case(filled, path, numbers):
    assert filtered(filled, path=path) == numbers


@pytest.mark.parametrize(
    ("tag", "number"), [("ärzte", 1), ("A\u0308RZTE", 1), ("ADA EXAMPLE", 2), ("Boat", 4)]
)
def test_a_keyword_is_found_in_any_case_and_form(filled, tag, number):
    assert filtered(filled, tag=tag) == {number}


def test_a_picture_that_moves_is_named_by_its_new_path(filled):
    image_id = PICTURES[0].image_id
    assert filled.add_paths({image_id: ["trips/Seagull.jpg"]}).failed == {}
    assert filled.drop_paths({image_id: ["Holiday 2019/IMG_0060.jpg"]}).failed == {}
    filled.refresh()
    assert list(named(filled, "seagull")) == [0]
    assert named(filled, "IMG_0060") == {}
    assert filtered(filled, path="trips") == {0}
    assert list(named(filled, "iphone")) == [0]


def test_an_evening_in_america_is_found_on_its_own_day(client, index_name):
    index = ImageIndex(client, alias=index_name)
    index.create(META, IndexOptions())
    file = saved("x.jpg", exif=exif({}, {36867: "2023:05:26 22:01:22", 36881: "-05:00"}))
    vector = np.array([1, 0, 0, 0], np.float32)
    new = new_document(file, "x.jpg")
    assert (new.exif_offset, new.exif_date_source) == ("-05:00", "EXIF")
    assert new.exif_date == datetime(2023, 5, 26, 22, 1, 22, tzinfo=timezone(timedelta(hours=-5)))
    index.add([ImageDocument(**{**vars(new), "image_embedding": vector})])
    index.refresh()
    the_day, next_day = date(2023, 5, 26), date(2023, 5, 27)
    assert len(filtered(index, date_from=the_day, date_to=the_day)) == 1
    assert filtered(index, date_from=next_day) == set()


def test_an_index_of_an_earlier_version_is_searched_and_then_completed(client, index_name):
    body = index_body(META, IndexOptions())
    properties = body["mappings"]["properties"]
    for name in ("names", "people", "title", "places", "rating"):
        del properties[name]
    for name in ("local_date", "offset", "date_source"):
        del properties["exif"]["properties"][name]
    client.indices.create(index=f"{index_name}-1", aliases={index_name: {"is_write_index": True}}, **body)
    day = datetime(2023, 5, 26, 22, 1, tzinfo=timezone(timedelta(hours=-5)))
    old = document_source(picture(0, f"2019/{NFD}/IMG_0060.jpg", tags=("Boat",), exif_date=day))
    del old["names"]
    client.index(index=index_name, id=old["image_id"], document=old, refresh=True)
    index = ImageIndex(client, alias=index_name)
    assert named(index, "IMG_0060") == {0: ("file name: IMG_0060",)}
    assert named(index, "boat") == {0: ("keyword: boat",)}
    assert filtered(index, path="2019", tag="BOAT") == {0}
    assert filtered(index, date_to=date(2023, 5, 26)) == set()  # by UTC, as it was
    assert named(index, "zurich") == {}
    assert {"names", "people", "exif"} <= set(index.complete_mapping())
    (found,) = index.mappings().values()
    assert lacking_fields(found["mappings"]) == {}
    assert index.complete_documents() == 1
    assert index.complete_documents() == 0
    assert named(index, "zurich") == {0: ("folder: zurich",)}
    assert filtered(index, date_to=date(2023, 5, 26), path="zürich") == {0}
    exif_now = (index.get(old["image_id"]) or {})["exif"]
    assert (exif_now["local_date"], exif_now["offset"]) == ("2023-05-26T22:01:00", "-05:00")


def test_an_unknown_time_zone_is_a_sentence(tmp_path):
    for zone in ("Europe/Nowhere", "../etc", "Europe"):
        answer = CliRunner().invoke(ingest, [str(tmp_path), "--timezone", zone])
        assert answer.exit_code == 2
        assert f"There is no time zone '{zone}'" in answer.output


def test_the_words_survive_the_way_through_a_child():
    memory = io.BytesIO()
    register_formats()
    draw_picture(1).save(memory, "JPEG", xmp=xmp("", 'xmp:Rating="3" photoshop:City="Bern"'))
    from ingest.files.picture import _packed, _unpacked, read_in_child

    facts, pixels = read_in_child(memory.getvalue(), raw_extension=None, max_pixels=10**6)
    assert _unpacked(facts, pixels).words.places == ("Bern",)
    assert _packed(_unpacked(facts, pixels))[0] == facts
