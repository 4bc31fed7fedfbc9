"""Films: their pictures, facts and moments, from files that these tests make."""

from __future__ import annotations

import json
import os
import shutil
import struct
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from film_files import save_film
from picture_files import save_picture, xmp_keywords
from PIL import Image, ImageFilter

import glimpse
from demo.world.draw import draw
from demo.world.scene import sample
from es_config.documents import moment_id
from es_config.hidden import HiddenPictures
from es_config.index import ImageIndex
from ingest.errors import UnreadableImageError
from ingest.files.film import decode_film, decode_moment, film_metadata
from ingest.files.live_photos import film_inside, film_parts, is_film_part, part_beside
from ingest.files.picture import read_content
from ingest.files.walk import Candidate, Exclusions, PassedOver, container_of, walk
from ingest.history.ingested_files import HISTORY_FILE, IngestHistory
from ingest.options import IngestOptions, PruneOptions
from ingest.originals import IngestedOriginals
from ingest.pipeline.run import ingest_paths
from ingest.report import passed_over_in_words
from ingest.wiring import Dependencies, create_index
from models.encoders import Lazy, load_caption_text_encoder, load_image_encoder, load_text_encoder
from models.pixels import register_formats
from models.profiles import get_profile
from search_app.core.searcher import Searcher, SearchService
from search_app.settings import AppSettings
from search_app.web.app import create_app
from storage.keys import thumbnail_key
from storage.store import FolderStorage

SCENES = [draw(scene, 64) for scene in sample("demo", 4)]
BLACK = Image.new("RGB", (64, 64))
BLURRED = SCENES[3].filter(ImageFilter.GaussianBlur(6))
STORY = [(BLACK, 1), (BLURRED, 1), (SCENES[0], 3), (SCENES[1], 3), (SCENES[2], 3)]
"""black, blurred, then three scenes, which begin after 2, 5 and 8 seconds"""


def difference(one: Image.Image, other: Image.Image) -> float:
    """Return the mean difference of two pictures in levels of 255."""
    pixels = zip(one.resize((16, 16)).tobytes(), other.resize((16, 16)).tobytes(), strict=True)
    return sum(abs(a - b) for a, b in pixels) / (16 * 16 * 3)


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", "libx264"),
        ("a.mov", "libx264"),
        ("a.webm", "libvpx"),
        ("b.webm", "libvpx-vp9"),
        ("a.mkv", "mpeg4"),
    ],
)
def test_a_film_gives_its_first_good_picture_and_one_of_each_scene(tmp_path, name, codec):
    path = save_film(tmp_path / name, STORY, codec=codec)
    film = decode_film(read_content(path), path, moments=True)
    first, of_film = film.first()
    assert of_film.time_ms == pytest.approx(2000, abs=500)
    assert of_film.duration_ms == pytest.approx(11_000, abs=500)
    assert difference(first.image, SCENES[0]) < 12
    assert (first.width, first.height, first.size_bytes) == (64, 64, path.stat().st_size)
    moments = list(film.moments())
    assert [each.time_ms for _, each in moments] == pytest.approx([5000, 8000], abs=1100)
    for (picture, each), scene in zip(moments, SCENES[1:3], strict=True):
        assert difference(picture.image, scene) < 12
        assert picture.image_id == moment_id(film.content.image_id, each.time_ms)
        assert each.is_moment
        assert difference(decode_moment(film.content, path, time_ms=each.time_ms, edge=64), scene) < 12


def test_only_the_first_picture_is_taken_unless_moments_are_wanted(tmp_path):
    path = save_film(tmp_path / "a.mp4", STORY)
    assert decode_film(read_content(path), path, moments=False).times == ()


def test_scenes_without_key_pictures_of_their_own_are_seen_too(tmp_path):
    options = {"x264-params": "scenecut=0"}
    path = save_film(
        tmp_path / "a.mp4", [(scene, 6) for scene in SCENES[:3]], keys=1000, codec_options=options
    )
    times = decode_film(read_content(path), path, moments=True).times
    assert len(times) == 2
    assert 6000 <= times[0] < 12_000 <= times[1]


def test_a_film_that_is_black_throughout_has_a_picture_all_the_same(tmp_path):
    path = save_film(tmp_path / "a.mp4", [(BLACK, 2)])
    film = decode_film(read_content(path), path, moments=True)
    assert film.times == ()
    assert max(film.first()[0].image.convert("L").getextrema()) < 16


@pytest.mark.parametrize("turn", [90, 180, -90])
def test_a_film_is_turned_upright(tmp_path, turn):
    scene = draw(sample("demo", 1)[0], 96).crop((0, 0, 96, 64))
    path = save_film(tmp_path / "a.mp4", [(scene, 1)], turn=turn)
    first, _ = decode_film(read_content(path), path, moments=False).first()
    wanted = scene.rotate(turn, expand=True)
    assert (first.width, first.height) == wanted.size
    assert difference(first.image, wanted) < 12


def test_the_facts_of_a_film_are_read_as_phones_write_them():
    apple = {
        "com.apple.quicktime.creationdate": "2023-05-28T22:01:12-0500",
        "creation_time": "2023-05-29T03:01:12.000000Z",
        "com.apple.quicktime.location.iso6709": "+47.3769+008.5417+410.000/",
        "com.apple.quicktime.make": "Apple",
        "com.apple.quicktime.model": "iPhone 14",
        "com.apple.quicktime.keywords": "lake, summer",
        "title": "A day at the lake",
    }
    facts, words = film_metadata(apple, "IMG_1.MOV")
    assert facts.taken
    assert (facts.taken.local, facts.taken.offset) == (datetime(2023, 5, 28, 22, 1, 12), timedelta(hours=-5))
    assert (facts.location, facts.camera) == ((47.3769, 8.5417), "Apple iPhone 14")
    assert (words.tags, words.title) == (("lake", "summer"), "A day at the lake")
    android = {"creation_time": "2023-05-28T20:01:42.000000Z", "location": "+47.3769+008.5417/"}
    facts, _ = film_metadata(android, "VID_20230528_220112.mp4")
    assert facts.taken
    assert facts.taken.offset == timedelta(hours=2), "the name tells the clock of the place"
    assert facts.taken.local == datetime(2023, 5, 28, 22, 1, 42)
    assert film_metadata({"creation_time": "1904-01-01T00:00:00.000000Z"}, "x.mov")[0].taken is None
    assert film_metadata({"location": "+99.0+999.0/", "creation_time": "soon"}, "x.mov")[0].location is None


def test_the_facts_of_a_file_arrive(tmp_path):
    tags = {"creation_time": "2021-03-04T05:06:07.000000Z", "title": "A day at the lake"}
    path = save_film(tmp_path / "a.mp4", [(SCENES[0], 1)], tags=tags, sound=True)
    film = decode_film(read_content(path), path, moments=False)
    assert film.exif.date
    assert film.exif.date.isoformat() == "2021-03-04T05:06:07+00:00"
    assert film.words.title == "A day at the lake"
    assert (film.film.codec, film.film.has_sound) == ("h264", True)


def test_damaged_films_cost_themselves_with_a_reason(tmp_path):
    whole = save_film(tmp_path / "a.mp4", STORY).read_bytes()
    webm = save_film(tmp_path / "a.webm", STORY, codec="libvpx").read_bytes()
    hostile = {
        "cut.mp4": whole[: len(whole) // 2],  # what tells how to read it is at the end
        "head.mp4": whole[:40],
        "noise.mp4": whole[:32] + os.urandom(4000),
        "noise.webm": webm[:4] + os.urandom(4000),
        "playlist.mp4": b"\0\0\0\x18ftypmp42#EXTM3U\nfile:///etc/passwd\n",
    }
    for name, data in hostile.items():
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(UnreadableImageError, match="a film that cannot be used") as error:
            decode_film(read_content(path), path, moments=True)
        assert error.value.fault.lasting
    sound = tmp_path / "sound.mp4"
    save_film(sound, [(SCENES[0], 1)], sound=True, pictures=False)
    with pytest.raises(UnreadableImageError, match="sound without pictures"):
        decode_film(read_content(sound), sound, moments=True)


def test_what_can_be_decoded_of_a_cut_film_is_kept(tmp_path):
    path = save_film(tmp_path / "a.webm", STORY, codec="libvpx")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    film = decode_film(read_content(path), path, moments=True)
    assert difference(film.first()[0].image, SCENES[0]) < 12


def test_content_tells_films_from_pictures(tmp_path):
    register_formats()
    for name in ("a.mp4", "a.webm", "a.mov"):
        path = save_film(tmp_path / name, [(SCENES[0], 1)], codec="libvpx" if "web" in name else "libx264")
        assert container_of(path.read_bytes()[:16]) == ("matroska" if "web" in name else "mov")
        assert read_content(path).data == b""
    assert container_of(save_picture(tmp_path / "a.heic", 1).read_bytes()[:16]) is None
    assert container_of(b"\0\0\0\x20ftypM4A ") is None


def live_pair(
    folder: Path, name: str, *, film: str, seconds: float = 2, identifiers: tuple[str, str] = ("", "")
) -> None:
    """Save a picture and a film, each with Apple's identifier if one is given."""
    of_picture, of_film = identifiers
    register_formats()
    data = save_picture(folder / name, 1).read_bytes()
    (folder / name).write_bytes(data + (f"Apple iOS\0{of_picture}".encode() if of_picture else b""))
    tags = {"com.apple.quicktime.content.identifier": of_film} if of_film else {}
    save_film(
        folder / film,
        [(SCENES[0], seconds)],
        tags=tags,
        options={"movflags": "use_metadata_tags"},
        container="mov",
    )


ONE, OTHER = "0A1B2C3D-0000-4000-8000-0123456789AB", "FFFFFFFF-0000-4000-8000-0123456789AB"


@pytest.mark.parametrize(
    ("picture", "film", "more", "is_part"),
    [
        ("IMG_1.HEIC", "IMG_1.MOV", {"identifiers": (ONE, ONE)}, True),
        ("IMG_1.jpg", "img_1.mov", {}, True),
        ("IMG_1.jpg", "IMG_1.MOV", {"identifiers": ("", ONE)}, True),
        ("IMG_1.jpg", "IMG_1.MOV", {"identifiers": (OTHER, ONE)}, False),
        ("IMG_1.jpg", "IMG_1.MOV", {"seconds": 9}, False),
        ("IMG_1.jpg", "IMG_2.MOV", {}, False),
        ("edited.jpg", "IMG_2.MOV", {"identifiers": (ONE, ONE)}, True),
        ("PXL_1.MP.jpg", "PXL_1.MP", {}, True),
        ("PXL_1.MP.jpg", "PXL_1.mp4", {}, True),
    ],
)
def test_the_film_of_a_live_photo_belongs_to_its_picture(tmp_path, picture, film, more, is_part):
    live_pair(tmp_path, picture, film=film, **more)
    assert (film in film_parts(tmp_path, [picture, film])) is is_part
    assert is_film_part(tmp_path / film) is is_part
    passed = PassedOver()
    found = [each.path.name for each in walk([tmp_path], passed_over=passed) if isinstance(each, Candidate)]
    assert sorted(found) == sorted([picture] if is_part else [picture, film])
    assert passed.film_parts == is_part
    everything = list(walk([tmp_path], exclude=Exclusions(films=True)))
    assert [each.path.name for each in everything] == [picture]
    assert part_beside(tmp_path / picture) == (tmp_path / film if is_part else None)


@pytest.fixture(scope="module")
def profile():
    return get_profile("pocket")


@pytest.fixture(scope="module")
def encoders(profile):
    return Lazy(lambda: load_image_encoder(profile)), Lazy(lambda: load_caption_text_encoder(profile))


@pytest.fixture
def run(client, index_name, profile, encoders, tmp_path):
    """Return a function that ingests `tmp_path/films` with a history, and has the index and the store."""
    index = ImageIndex(client, alias=index_name)
    create_index(index, profile)
    store = FolderStorage(tmp_path / "store")
    folder = tmp_path / "films"
    folder.mkdir()

    def ingest(**options):
        history = IngestHistory(tmp_path / HISTORY_FILE, index=index.uuid())
        images, captions = encoders
        summary = ingest_paths(
            [folder],
            dependencies=Dependencies(index, images, captions, store, Lazy(lambda: None)),
            options=IngestOptions(**options),
            history=history,
        )
        history.close()
        return summary

    ingest.index, ingest.store, ingest.folder = index, store, folder
    return ingest


def documents(index) -> list[dict]:
    index.refresh()
    hits = index.search({"query": {"match_all": {}}, "size": 100, "sort": [{"film.time_ms": "asc"}]}).hits
    return [hit.source for hit in hits]


def test_a_film_is_one_document_or_one_for_each_moment_through_its_whole_life(run):
    index, store, folder = run.index, run.store, run.folder
    path = save_film(folder / "a.mp4", STORY)
    film_id = read_content(path).image_id
    os.utime(path, (1_600_000_000, 1_600_000_000))
    assert (run().indexed, run().skipped) == (1, 1)
    (whole,) = documents(index)
    assert (whole["image_id"], whole["film"]["id"], whole["film"]["is_moment"]) == (film_id, film_id, False)
    assert "moments" not in whole["film"]

    summary = run(films="moments")
    assert (summary.files, summary.indexed, summary.skipped, summary.moments) == (1, 0, 1, 2)
    assert "2 moments of films can be found, too." in passed_over_in_words(summary)
    whole, *moments = documents(index)
    assert whole["film"]["moments"] == [each["film"]["time_ms"] for each in moments]
    assert [each["image_id"] for each in moments] == [
        moment_id(film_id, each["film"]["time_ms"]) for each in moments
    ]
    assert all(each["relative_path"] == ["a.mp4"] and each["film"]["is_moment"] for each in moments)
    assert all(store.exists(thumbnail_key(each["image_id"])) for each in [whole, *moments])
    again = run(films="moments")
    assert (again.skipped, again.moments, again.embedded) == (1, 0, 0)

    hidden = HiddenPictures(index)
    assert hidden.put_away([film_id]).done == (film_id,)
    assert documents(index) == [], "a film is put away with its moments"
    assert run(films="moments").moments == 0
    assert hidden.restore([film_id]).done == (film_id,)
    assert [each["image_id"] for each in documents(index)] == [each["image_id"] for each in [whole, *moments]]

    shutil.copy2(path, folder / "copy.mp4")
    assert run(films="moments").paths_added == 1
    assert all(each["relative_path"] == ["a.mp4", "copy.mp4"] for each in documents(index))
    path.unlink()
    run(prune=PruneOptions(prune=True, anyway=True))
    assert all(each["relative_path"] == ["copy.mp4"] for each in documents(index))
    (folder / "copy.mp4").unlink()
    save_picture(folder / "stays.jpg", 1)
    assert run(prune=PruneOptions(prune=True, anyway=True)).pruned.documents == 3
    assert [each["image_name"] for each in documents(index)] == ["stays.jpg"]
    assert not any(store.exists(thumbnail_key(each["image_id"])) for each in [whole, *moments])


def test_a_sidecar_of_a_film_is_one_of_its_moments_and_its_news_reach_them(run):
    def write(*words: str, seconds: int = 0) -> None:
        path = run.folder / "a.mp4.xmp"
        path.write_bytes(xmp_keywords(*words))
        os.utime(path, (1_600_000_000 + seconds, 1_600_000_000 + seconds))

    path = save_film(run.folder / "a.mp4", STORY)
    os.utime(path, (1_600_000_000, 1_600_000_000))
    write("lake")
    assert run(films="moments").moments == 2
    assert [each["tags"] for each in documents(run.index)] == [["lake"]] * 3
    write("sunset", "lake", seconds=9)
    summary = run()
    assert (summary.updated, summary.embedded, summary.indexed) == (1, 0, 0)
    assert [each["tags"] for each in documents(run.index)] == [["sunset", "lake"]] * 3
    assert all(each["names"]["tags"] == ["sunset", "lake"] for each in documents(run.index))
    (run.folder / "a.mp4.xmp").unlink()
    assert run(films="moments").updated == 1
    assert not any(each.get("tags") for each in documents(run.index))


def test_one_bad_film_costs_itself_and_is_not_tried_again(run):
    save_film(run.folder / "good.webm", STORY, codec="libvpx")
    (run.folder / "bad.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(4000))
    os.utime(run.folder / "bad.mp4", (1_600_000_000, 1_600_000_000))
    summary = run(films="moments")
    assert (summary.files, summary.indexed, summary.failed, summary.moments) == (2, 1, 1, 2)
    assert "a film that cannot be used" in summary.failures[0].reason
    assert run().failed_before == 1


def test_films_can_be_left_out(run):
    save_film(run.folder / "a.mp4", [(SCENES[0], 1)])
    save_picture(run.folder / "b.jpg", 1)
    summary = run(films="off", exclude=Exclusions(films=True))
    assert (summary.indexed, summary.passed_over.kinds) == (1, {".mp4": 1})


@pytest.fixture
def application(run, profile, encoders, tmp_path):
    """Return a function that makes the application of the index of `run`."""

    def make():
        searcher = Searcher(
            index=run.index,
            profile=profile,
            text_encoder=Lazy(lambda: load_text_encoder(profile)),
            image_encoder=encoders[0],
        )
        return create_app(
            service=SearchService(searcher),
            storage=run.store,
            settings=AppSettings(),
            originals=IngestedOriginals(tmp_path / HISTORY_FILE, lambda: run.index),
        )

    return make


def test_a_search_finds_the_moment_and_the_page_plays_from_there(run, application, node, tmp_path):
    index, folder = run.index, run.folder
    path = save_film(folder / "lake/a.mp4", STORY)
    os.utime(path, (1_600_000_000, 1_600_000_000))
    save_picture(folder / "still.jpg", 1)
    run(films="moments")
    whole, first, second = [each for each in documents(index) if "film" in each]
    web = application().test_client()

    answer = web.get(f"/api/v1/search?like={second['image_id']}").get_json()
    best, still = answer["hits"]
    assert (best["image_id"], still["film"]) == (second["image_id"], None)
    assert best["film"]["time_ms"] == second["film"]["time_ms"]
    assert {each["image_id"] for each in best["film"]["moments"]} == {whole["image_id"], first["image_id"]}
    listed = web.get("/api/v1/search?sort=name").get_json()
    assert {each["image_id"] for each in listed["hits"]} == {whole["image_id"], still["image_id"]}

    page = web.get(f"/images/{second['image_id']}").text
    start = f"{second['film']['time_ms'] / 1000:g}"
    assert f"/api/v1/images/{second['image_id']}/original#t={start}" in page
    assert all(f"/images/{each['image_id']}" in page for each in (whole, first))
    assert "media-src 'self'" in web.get("/").headers["Content-Security-Policy"]
    original = f"/api/v1/images/{second['image_id']}/original"
    with web.get(original, headers={"Range": "bytes=4-7"}) as part:
        assert (part.status_code, part.content_type, part.data) == (206, "video/mp4", b"ftyp")
    with web.get(f"{original}?download=1") as saved:
        assert saved.headers["Content-Disposition"] == "attachment; filename=a.mp4"
        assert saved.data == path.read_bytes()
    path.write_bytes(path.read_bytes() + b"more")
    assert web.get(original).status_code == 404, "another content than the one that was ingested"

    environ = {
        "ELASTICSEARCH_URL": node.url,
        "GLIMPSE_HOME": str(tmp_path),
        "GLIMPSE_INDEX": index.alias,
        "GLIMPSE_TEXT_LANE": "local",
    }
    done = CliRunner().invoke(glimpse.main, ["search", "--like", second["image_id"]], env=environ)
    line = done.stdout.splitlines()[0].split("\t")
    assert line[2] == str(path)
    assert line[-1].startswith(f"at 0:0{second['film']['time_ms'] // 1000} of 0:11, also ")
    done = CliRunner().invoke(glimpse.main, ["search", "--like", second["image_id"], "--json"], env=environ)
    hit = json.loads(done.stdout)["hits"][0]
    assert (hit["absolute_path"], hit["film"]["time_ms"]) == (str(path), second["film"]["time_ms"])


def motion_photo(folder: Path, kind: str, film: bytes) -> bytes:
    """Return a picture with a film inside, as the phones of one maker write it."""
    register_formats()
    name = "a.heic" if kind == "heic" else "a.jpg"
    still = save_picture(folder / name, 1).read_bytes()
    return {
        "google": still + film,
        "two pictures": still + save_picture(folder / "map.jpg", 2).read_bytes() + film,
        "samsung": still + b"\0\0\x30\x0a\x10\0\0\0MotionPhoto_Data" + film + b"SEFH\x6b\0\0\0\1\0\0\0SEFT",
        "heic": still + struct.pack(">I4s", len(film) + 8, b"mpvd") + film,
        "words": still + b"....ftypisom" + still + film,
        "cut": still + film[:-40],
        "noise": still + film[:40] + bytes(4000),
        "bomb": still + struct.pack(">I4s", 8, b"ftyp") * 500_000,
        "film": film,
        "none": still,
    }[kind]


@pytest.mark.parametrize(
    ("kind", "has_film"),
    [
        ("google", True),
        ("two pictures", True),
        ("samsung", True),
        ("heic", True),
        ("words", True),
        ("cut", False),
        ("noise", False),
        ("bomb", False),
        ("film", False),
        ("none", False),
    ],
)
def test_the_film_in_a_motion_photo_is_found_to_the_byte(tmp_path, kind, has_film):
    film = save_film(tmp_path / "a.mp4", [(SCENES[0], 1)]).read_bytes()
    whole = motion_photo(tmp_path, kind, film)
    found = film_inside(whole)
    assert (found is not None) is has_film
    if found:
        assert whole[found[0] : sum(found)] == film


@pytest.mark.parametrize("kind", ["motion", "live"])
def test_the_film_of_a_picture_is_sent_in_parts_and_from_nowhere_else(run, application, tmp_path, kind):
    folder = run.folder
    film = save_film(tmp_path / "apart.mov", [(SCENES[1], 1)], container="mov").read_bytes()
    still, beside = folder / "lake/IMG_1.jpg", folder / "lake/IMG_1.MOV"
    still.parent.mkdir()
    if kind == "motion":
        still.write_bytes(motion_photo(tmp_path, "google", film))
    else:
        shutil.copy(save_picture(tmp_path / "b.jpg", 1), still)
        beside.write_bytes(film)
    shutil.copy(save_picture(tmp_path / "plain.jpg", 2), folder / "plain.jpg")
    run()
    by_name = {each["image_name"]: each["image_id"] for each in documents(run.index)}
    assert sorted(by_name) == ["IMG_1.jpg", "plain.jpg"]
    image_id, plain = by_name["IMG_1.jpg"], by_name["plain.jpg"]
    web = application().test_client()

    address = f"/api/v1/images/{image_id}/film"
    with web.get(address) as whole:
        assert (whole.status_code, whole.content_type, whole.data) == (200, "video/mp4", film)
        assert whole.headers["Accept-Ranges"] == "bytes"
        assert whole.headers["Content-Disposition"].startswith("inline")
        assert "private" in whole.headers["Cache-Control"]
    for asked, wanted in (("4-7", film[4:8]), ("-9", film[-9:]), ("100-", film[100:])):
        with web.get(address, headers={"Range": f"bytes={asked}"}) as part:
            assert (part.status_code, part.data) == (206, wanted)
    with web.get(address, headers={"Range": f"bytes={len(film)}-"}) as beyond:
        assert beyond.status_code == 416
    with web.get(address, headers={"If-None-Match": whole.headers["ETag"]}) as again:
        assert (again.status_code, again.data) == (304, b"")
    with web.get(f"/api/v1/images/{image_id}/original") as original:
        assert original.data == still.read_bytes()
    assert web.get(f"/api/v1/images/{image_id}").json["film_url"] == address
    assert f'src="{address}"' in web.get(f"/images/{image_id}").text
    assert "Play the film</summary>" not in web.get(f"/images/{plain}").text
    assert web.get(f"/api/v1/images/{plain}").json["film_url"] is None
    for nothing in (plain, "0" * 64):
        answer = web.get(f"/api/v1/images/{nothing}/film")
        assert answer.status_code == 404
        assert str(tmp_path) not in answer.text

    if kind == "live":
        beside.unlink()
        (tmp_path / "secret").write_bytes(b"no film")
        beside.symlink_to(tmp_path / "secret")
        assert web.get(address).status_code == 404, "another thing in the film's place"
        beside.unlink()
        beside.write_bytes(film)
    still.write_bytes(still.read_bytes() + b"more")
    assert web.get(address).status_code == 404, "another content than the one that was ingested"
    assert "Play the film</summary>" not in web.get(f"/images/{image_id}").text


def test_the_film_of_a_picture_that_is_put_away_is_not_sent(run, application, tmp_path):
    film = save_film(tmp_path / "apart.mp4", [(SCENES[1], 1)]).read_bytes()
    (run.folder / "a.jpg").write_bytes(motion_photo(tmp_path, "google", film))
    run()
    (document,) = documents(run.index)
    web = application().test_client()
    with web.get(f"/api/v1/images/{document['image_id']}/film") as answer:
        assert answer.status_code == 200
    HiddenPictures(run.index).put_away([document["image_id"]])
    assert web.get(f"/api/v1/images/{document['image_id']}/film").status_code == 404
