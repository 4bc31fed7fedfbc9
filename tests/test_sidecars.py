"""Sidecars: words that programs keep beside a picture reach its document, and follow their changes."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from cost import processor_s
from elasticsearch import Elasticsearch
from fuzz_reader import check_sidecar, sidecar
from hypothesis import HealthCheck, given, settings
from picture_files import draw_picture, save_picture
from PIL import Image

from es_config.edits import PictureEdit, edit_pictures
from es_config.index import ImageIndex
from ingest.errors import Fault
from ingest.files import walk
from ingest.files.picture import read_image, sidecar_file
from ingest.files.sidecars import (
    NOTHING,
    Siblings,
    owners_of,
    parse_takeout,
    parse_xmp_sidecar,
    read_sidecar,
    with_sidecars,
)
from ingest.files.walk import Candidate, PassedOver
from ingest.history.ingested_files import IngestHistory
from ingest.options import IngestOptions
from ingest.pipeline.run import ingest_paths
from ingest.report import IngestSummary, in_words
from ingest.wiring import Dependencies, create_index
from models.encoders import Lazy, load_caption_text_encoder, load_image_encoder
from models.profiles import get_profile
from storage.store import FolderStorage

LONG_AGO = 1_500_000_000
SPACES = """xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:dc="http://purl.org/dc/elements/1.1/"
xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:exif="http://ns.adobe.com/exif/1.0/"
xmlns:lr="http://ns.adobe.com/lightroom/1.0/" xmlns:ext="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" """


def xmp(*tags: str, attributes: str = "", **named: str) -> bytes:
    """Return a sidecar as photo software writes it: keywords, and properties such as `dc_title`."""
    items = "".join(f"<rdf:li>{tag}</rdf:li>" for tag in tags)
    parts = [f"<dc:subject><rdf:Bag>{items}</rdf:Bag></dc:subject>"] if tags else []
    for name, value in named.items():
        qualified = name.replace("_", ":")
        parts.append(f"<{qualified}><rdf:Alt><rdf:li>{value}</rdf:li></rdf:Alt></{qualified}>")
    body = f"<rdf:Description {attributes}>{''.join(parts)}</rdf:Description>"
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF {SPACES}>{body}</rdf:RDF></x:xmpmeta>'.encode()


def takeout(*people: str, **more: object) -> bytes:
    """Return the JSON that Google Takeout puts beside a picture, of 12 August 2003, 14:37:14 UTC."""
    named = [{"name": name} for name in people]
    plain = {"title": "x.jpg", "photoTakenTime": {"timestamp": "1060699034"}, "people": named}
    return json.dumps(plain | more).encode()


def put(path: Path, data: bytes, *, seconds: int = 0) -> Path:
    """Write a sidecar that was last changed long ago, and `seconds` later."""
    path.write_bytes(data)
    os.utime(path, (LONG_AGO + seconds, LONG_AGO + seconds))
    return path


@pytest.mark.parametrize(
    ("picture", "others", "expected"),
    [
        ("a.jpg", ["a.jpg.xmp", "a.xmp", "a.jpg.json", "b.jpg.xmp"], ["a.jpg.xmp", "a.jpg.json"]),
        ("a.NEF", ["A.XMP"], ["A.XMP"]),
        ("a.jpg", ["a.jpg.supplemental-metadata.json"], ["a.jpg.supplemental-metadata.json"]),
        ("a.jpg", ["a.jpg.suppl.json"], ["a.jpg.suppl.json"]),
        ("a.jpg", ["a.jpg.s.json"], ["a.jpg.s.json"]),
        ("a.jpg", ["a.jpg..json"], ["a.jpg..json"]),
        ("a.jpg", ["a.jpg.other.json", "ab.jpg.json", "a.png.json"], []),
        ("a(1).jpg", ["a.jpg(1).json", "a.jpg.json"], ["a.jpg(1).json"]),
        ("a(1).jpg", ["a.jpg.supplemental-metadata(1).json"], ["a.jpg.supplemental-metadata(1).json"]),
        ("a(1).jpg", ["a(1).jpg.json", "a.jpg(1).json"], ["a(1).jpg.json"]),
        ("a(1).jpg", ["a.jpg.json", "a.xmp"], []),
        ("a-edited.jpg", ["a.jpg.json", "a.xmp"], ["a.xmp", "a.jpg.json"]),
        ("a-edited.jpg", ["a-edited.jpg.json", "a.jpg.json"], ["a-edited.jpg.json"]),
        ("a-edited(1).jpg", ["a.jpg(1).json", "a.jpg.json"], ["a.jpg(1).json"]),
        ("a-bearbeitet.jpg", ["a.jpg.json"], ["a.jpg.json"]),
        ("a-modifie\u0301.jpg", ["a.jpg.json"], ["a.jpg.json"]),
        ("Zu\u0308rich.jpg", ["Zürich.jpg.xmp"], ["Zürich.jpg.xmp"]),
        (f"{'a' * 45}.jpg", [f"{'a' * 45}..json"], [f"{'a' * 45}..json"]),
        (f"{'a' * 47}.jpg", [f"{'a' * 46}.json"], [f"{'a' * 46}.json"]),
        ("a.jpg", ["a.json"], ["a.json"]),
    ],
)
def test_sidecars_are_found_by_every_name_that_programs_give_them(picture, others, expected):
    assert list(Siblings([picture, *others]).of(picture)) == expected


def test_a_walk_names_sidecars_and_does_not_count_them_as_left_out(tmp_path):
    for name in ("a.jpg", "b.jpg", "deep/a.jpg"):
        save_picture(tmp_path / name, 1)
    for name in ("a.jpg.xmp", "b.xmp", "lonely.xmp", "deep/other.json"):
        (tmp_path / name).write_bytes(xmp())
    passed_over = PassedOver()
    found = list(walk.walk([tmp_path], passed_over=passed_over))
    assert {each.relative_path: each.sidecars for each in found if isinstance(each, Candidate)} == {
        "a.jpg": ("a.jpg.xmp",),
        "b.jpg": ("b.xmp",),
        "deep/a.jpg": (),
    }
    assert passed_over.kinds == {".xmp": 1, ".json": 1}
    (alone,) = walk.walk([tmp_path / "b.jpg"])
    assert isinstance(alone, Candidate)
    assert alone.sidecars == ("b.xmp",)
    owners = owners_of([str(tmp_path / "b.xmp"), str(tmp_path / "deep" / "a.xmp"), "/nowhere/x.xmp"])
    assert owners == [str(tmp_path / "b.jpg"), str(tmp_path / "deep" / "a.jpg")]


def joined(tmp_path: Path, name: str = "x.jpg", exif: Image.Exif | None = None, **sidecars: bytes):
    """Return the facts and words of a picture with sidecars, named by their extension."""
    tags = Image.Exif() if exif is None else exif
    draw_picture(1).save(tmp_path / name, exif=tags)
    beside = [sidecar_file(put(tmp_path / f"{name}.{kind}", data)) for kind, data in sidecars.items()]
    picture = read_image(tmp_path / name)
    facts, words, faults = with_sidecars(picture.exif, picture.words, beside, name=name)
    assert not faults
    return facts, words


def camera(date: str, *, offset: str | None = None, place: tuple[float, float] | None = None) -> Image.Exif:
    """Return the EXIF of a camera."""
    tags = Image.Exif()
    tags.get_ifd(0x8769).update({36867: date} | ({36881: offset} if offset else {}))
    if place:
        tags.get_ifd(0x8825).update({1: "N", 2: (place[0], 0.0, 0.0), 3: "E", 4: (place[1], 0.0, 0.0)})
    return tags


def test_what_a_sidecar_says_counts_more_and_keywords_and_people_are_joined(tmp_path):
    tags = camera("2010:01:02 03:04:05", offset="+02:00", place=(48.0, 9.0))
    tags[270] = "From the camera's owner"
    sidecar = xmp(
        "boat",
        "Zürich",
        attributes='xmp:Rating="4" exif:DateTimeOriginal="2011-02-03T04:05:06" exif:GPSLatitude="47,30.0N"'
        ' exif:GPSLongitude="8,30.0E"',
        dc_description="Words from a sidecar",
        dc_title="On the lake",
        ext_PersonInImage="Ada Example",
    )
    facts, words = joined(tmp_path, exif=tags, xmp=sidecar, json=takeout("Ada Example", "Bo Example"))
    assert (facts.description, facts.location) == ("Words from a sidecar", (47.5, 8.5))
    assert facts.taken is not None
    assert (facts.taken.local, facts.taken.source) == (datetime(2011, 2, 3, 4, 5, 6), "XMP sidecar")
    assert (words.title, words.rating, words.tags) == ("On the lake", 4, ("boat", "Zürich"))
    assert words.people == ("Ada Example", "Bo Example")


def test_dates_of_sidecars_keep_the_local_day_that_only_the_picture_knows(tmp_path):
    def taken(name: str = "x.jpg", exif: Image.Exif | None = None, **sidecars: bytes):
        facts, _ = joined(tmp_path, name, exif, **sidecars)
        assert facts.taken is not None
        return facts.taken.local, facts.taken.offset_text, facts.taken.source

    same = xmp(attributes='exif:DateTimeOriginal="2003-08-12T16:37:14"')
    made = xmp(attributes='xmp:CreateDate="2020-01-01T00:00:00"')
    of_day = datetime(2003, 8, 12, 16, 37, 14)
    assert taken(exif=camera("2003:08:12 16:37:14", offset="+02:00"), xmp=same) == (of_day, "+02:00", "EXIF")
    assert taken(exif=camera("2003:08:12 16:37:14"), xmp=made) == (of_day, None, "EXIF")
    # Takeout knows the moment, and so the offset of the camera's clock.
    assert taken(exif=camera("2003:08:12 16:37:14"), json=takeout()) == (of_day, "+02:00", "EXIF")
    assert taken("IMG_20030812_163714.jpg", json=takeout()) == (of_day, "+02:00", "file name")
    by_utc = (datetime(2003, 8, 12, 14, 37, 14), "+00:00", "Google Takeout")
    assert taken(exif=camera("1999:01:01 00:00:00"), json=takeout()) == by_utc
    assert taken(json=takeout()) == by_utc
    assert taken("IMG-20030812-WA0004.jpg", json=takeout()) == by_utc


def test_places_of_takeout_count_where_somebody_set_them(tmp_path):
    here, there, nowhere = ({"latitude": 48.0, "longitude": each} for each in (9.0, 10.0, 999.0))
    tags = camera("2003:08:12 16:37:14", place=(48.0, 9.5))
    for own, said, in_exif, expected in (
        (None, here, nowhere, (48.0, 9.0)),
        (tags, here, here, (48.0, 9.5)),
        (tags, there, here, (48.0, 10.0)),
        (tags, nowhere, nowhere, (48.0, 9.5)),
        (None, {"latitude": 0.0, "longitude": 0.0}, nowhere, None),
        (None, {"latitude": "x"}, 7, None),
    ):
        facts, _ = joined(tmp_path, exif=own, json=takeout(geoData=said, geoDataExif=in_exif))
        assert facts.location == expected


def test_machine_text_is_nobodys_words_in_sidecars_either(tmp_path):
    for said in (
        "ImageJ=1.53t images=10",
        '{"shape": [400]}',
        "Screenshot",
        "DSC_0042",
        "OLYMPUS DIGITAL CAMERA",
    ):
        machine = "darktable|exported"
        sidecar = xmp(
            "boat",
            said if said.startswith(("{", "Im")) else "sea",
            dc_description=said,
            dc_title=said,
            lr_hierarchicalSubject=machine,
        )
        facts, words = joined(tmp_path, xmp=sidecar, json=takeout(description=said, title=said))
        assert (facts.description, words.title) == (None, None)
        assert set(words.tags) <= {"boat", "sea"}


BILLION = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>'


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (BILLION.encode() + xmp("x"), "as XMP: it declares a document type, which XMP never does"),
        (b"<a>" * 500_000, "as XMP: nested more than 100 deep"),
        (xmp("boat")[:-20], "as XMP: no sound XML"),
        (b"\xff\xfe\0<", "as XMP: no sound XML"),
    ],
)
def test_a_hostile_or_damaged_xmp_is_a_sentence_and_costs_no_time(data, reason):
    found = []
    assert processor_s(lambda: found.append(parse_xmp_sidecar(data))) < 1
    assert isinstance(found[0], Fault)
    assert found[0].reason.startswith(reason)
    assert found[0].reason.isprintable()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"[" * 500_000, Fault("as JSON: nested too deep", lasting=True)),
        (b"{", Fault("as JSON: damaged or cut short", lasting=True)),
        (b"\xff\xff", Fault("as JSON: damaged or cut short", lasting=True)),
        (b"[1]", NOTHING),
        (b'{"prompt": "a boat", "seed": 7}', NOTHING),
    ],
)
def test_hostile_json_is_a_sentence_and_that_of_other_programs_is_not_read(data, expected):
    assert parse_takeout(data) == expected


def test_odd_values_of_takeout_are_no_facts():
    for stamp in ("", None, [], "nan", "1e400", "9" * 5000, "0", -(10**30)):
        facts = parse_takeout(takeout(photoTakenTime={"timestamp": stamp}, people=[{}, 7, {"name": 3}]))
        assert not isinstance(facts, Fault)
        assert (facts.taken, facts.words.people) == (None, ())


def test_sidecars_are_read_within_bounds_and_only_regular_files(tmp_path):
    assert read_sidecar(sidecar_file(put(tmp_path / "x.xmp", b" " * (4 << 20) + b"  "))) == Fault(
        "larger than 4 MiB", lasting=True
    )
    assert read_sidecar(sidecar_file(put(tmp_path / "x.json", b" " * (1 << 20) + b"  "))) == Fault(
        "larger than 1 MiB", lasting=True
    )
    os.mkfifo(tmp_path / "pipe.xmp")
    assert read_sidecar(sidecar_file(tmp_path / "pipe.xmp")) == Fault("not a regular file")
    assert read_sidecar(sidecar_file(tmp_path / "gone.xmp")) == NOTHING


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(sidecar())
def test_whatever_a_sidecar_holds_there_are_sound_facts_or_a_reason(found):
    check_sidecar(found)


@pytest.fixture(scope="module")
def encoders(tiny_pair: Path) -> dict[str, Lazy]:
    profile = get_profile("pocket", model_dir=tiny_pair)
    images, texts = load_image_encoder(profile), load_caption_text_encoder(profile)
    return {"image_encoder": Lazy(lambda: images), "caption_encoder": Lazy(lambda: texts)}


@pytest.fixture
def index(client: Elasticsearch, index_name: str, tiny_pair: Path) -> ImageIndex:
    made = ImageIndex(client, alias=index_name)
    create_index(made, get_profile("pocket", model_dir=tiny_pair))
    return made


Run = Callable[..., IngestSummary]


@pytest.fixture
def run(index: ImageIndex, encoders: dict[str, Lazy], tmp_path: Path) -> Run:
    """Return a function that ingests the folder `pictures`, with the notes of its earlier calls."""

    def ingest(**options: object) -> IngestSummary:
        needs = Dependencies(
            index=index, storage=FolderStorage(tmp_path / "store"), captioner=None, **encoders
        )
        notes = IngestHistory(
            tmp_path / "notes.sqlite", index=index.uuid(), read_only=bool(options.get("dry_run"))
        )
        with closing(notes) as history:
            return ingest_paths(
                [tmp_path / "pictures"],
                dependencies=needs,
                history=history,
                options=IngestOptions(**options),
            )

    return ingest


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Draw four pictures, last changed long ago, the first with words of its own."""
    folder = tmp_path / "pictures"
    own = xmp("own", attributes='xmp:Rating="2"', dc_description="Own words")
    for number, name in enumerate(("a.jpg", "b.jpg", "c.jpg", "d.jpg")):
        folder.mkdir(exist_ok=True)
        draw_picture(number).save(folder / name, **({"xmp": own} if name == "a.jpg" else {}))
        os.utime(folder / name, (LONG_AGO, LONG_AGO))
    return folder


def documents(index: ImageIndex) -> dict[str, dict]:
    """Return the document of each picture by its first path, without empty values."""
    index.refresh()
    hits = index.search({"query": {"match_all": {}}, "size": 100}).hits
    return {
        hit.source["relative_path"][0]: {name: value for name, value in hit.source.items() if value}
        for hit in hits
    }


def figures(summary: IngestSummary) -> tuple[int, int, int, int]:
    return summary.indexed, summary.updated, summary.embedded, summary.failed


def test_documents_follow_their_sidecars_without_a_new_vector(run, pictures, index, encoders):
    put(pictures / "a.jpg.xmp", xmp("boat", dc_description="On the pier", dc_title="Pier"))
    put(pictures / "b.jpg.json", takeout("Ada Example", description="typed by hand"))
    assert figures(run()) == (4, 0, 4, 0)
    there = documents(index)
    assert (there["a.jpg"]["tags"], there["a.jpg"]["caption"]) == (["boat", "own"], "On the pier")
    assert (there["a.jpg"]["title"], there["a.jpg"]["rating"]) == ("Pier", 2)
    assert there["b.jpg"]["people"] == ["Ada Example"]
    assert there["b.jpg"]["exif"]["date_source"] == "Google Takeout"
    assert figures(run()) == (0, 0, 0, 0)

    before = {name: index.vector(each["image_id"]) for name, each in there.items()}
    index.captions().write_human(
        there["b.jpg"]["image_id"],
        "By a person",
        encoders["caption_encoder"].get().embed_texts(["By a person"])[0],
    )
    edit_pictures(index, [there["a.jpg"]["image_id"]], PictureEdit(add_keywords=("mine",)))
    put(pictures / "a.jpg.xmp", xmp("harbour", dc_description="In the harbour"), seconds=5)
    put(pictures / "b.jpg.json", takeout("Bo Example", description="typed anew"), seconds=5)
    put(pictures / "c.xmp", xmp("new", attributes='xmp:Rating="5"'))
    summary = run()
    assert figures(summary) == (0, 3, 0, 0)
    assert "4 known already (3 with news from sidecars)" in in_words(summary)
    there = documents(index)
    edited = ["boat", "own", "mine"]
    assert (there["a.jpg"]["tags"], there["a.jpg"]["caption"]) == (edited, "In the harbour")
    assert "title" not in there["a.jpg"]
    assert there["a.jpg"]["names"]["tags"] == edited
    assert (there["b.jpg"]["people"], there["b.jpg"]["caption"]) == (["Bo Example"], "By a person")
    assert (there["c.jpg"]["tags"], there["c.jpg"]["rating"]) == (["new"], 5)
    for name, vector in before.items():
        np.testing.assert_array_equal(index.vector(there[name]["image_id"]), vector)
    said = index.vector(there["a.jpg"]["image_id"], "caption_embedding")
    np.testing.assert_allclose(
        said, encoders["caption_encoder"].get().embed_texts(["In the harbour"])[0], atol=1e-5
    )

    for name in ("a.jpg.xmp", "b.jpg.json", "c.xmp"):
        (pictures / name).unlink()
    assert figures(run(dry_run=True)) == (0, 3, 0, 0)
    assert figures(run()) == (0, 3, 0, 0)
    there = documents(index)
    assert (there["a.jpg"]["tags"], there["a.jpg"]["caption"], there["a.jpg"]["rating"]) == (
        edited,
        "Own words",
        2,
    )
    assert "people" not in there["b.jpg"]
    assert there["b.jpg"]["caption"] == "By a person"
    assert not there["b.jpg"]["exif"].get("date")
    assert not {"tags", "rating", "caption"} & there["c.jpg"].keys()
    assert index.search({"query": {"exists": {"field": "names.tags"}}}).total == 1
    assert figures(run()) == (0, 0, 0, 0)


def test_a_bad_sidecar_is_told_once_and_costs_nothing(run, pictures, index):
    put(pictures / "a.jpg.xmp", BILLION.encode() + xmp("x"))
    put(pictures / "b.xmp", xmp("cut")[:-9])
    put(pictures / "c.jpg.json", b"[" * 200_000)
    summary = run()
    assert figures(summary) == (4, 0, 4, 3)
    told = {Path(each.path).name: each.reason for each in summary.failures}
    assert set(told) == {"a.jpg.xmp", "b.xmp", "c.jpg.json"}
    assert all(reason.endswith("; the picture beside it is indexed without it") for reason in told.values())
    assert documents(index)["a.jpg"]["tags"] == ["own"]
    assert figures(run()) == (0, 0, 0, 0)
    put(pictures / "b.xmp", xmp("whole"), seconds=5)
    assert figures(run()) == (0, 1, 0, 0)
    assert documents(index)["b.jpg"]["tags"] == ["whole"]


def test_copies_with_different_sidecars_have_the_words_of_all(run, pictures, index):
    for folder, word in (("one", "first"), ("two", "second")):
        (pictures / folder).mkdir()
        (pictures / folder / "b.jpg").write_bytes((pictures / "b.jpg").read_bytes())
        os.utime(pictures / folder / "b.jpg", (LONG_AGO, LONG_AGO))
        put(pictures / folder / "b.xmp", xmp(word, dc_title=word))
    assert figures(run())[0] == 4
    (there,) = (each for each in documents(index).values() if len(each["relative_path"]) == 3)
    assert (there["tags"], there["title"]) == (["first", "second"], "first")
    (pictures / "one" / "b.xmp").unlink()
    assert figures(run()) == (0, 1, 0, 0)
    (there,) = (each for each in documents(index).values() if len(each["relative_path"]) == 3)
    assert (there["tags"], there["title"]) == (["second"], "second")


def test_an_index_that_was_filled_before_gets_the_words_of_sidecars(run, pictures, index, tmp_path):
    put(pictures / "a.jpg.xmp", xmp("late"))
    run()
    base = sqlite3.connect(tmp_path / "notes.sqlite")
    with closing(base), base:
        base.execute("DROP TABLE sidecars")
    assert figures(run()) == (0, 1, 0, 0)
    put(pictures / "a.jpg.xmp", xmp("now"), seconds=9)
    os.utime(pictures / "a.jpg.xmp")  # so lately that it may change again
    assert figures(run()) == (0, 1, 0, 0)
    assert figures(run()) == (0, 1, 0, 0)
    assert documents(index)["a.jpg"]["tags"] == ["now", "own"]
    assert datetime.fromisoformat(documents(index)["a.jpg"]["indexed_at"]) <= datetime.now(UTC)
