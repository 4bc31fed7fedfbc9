"""Text in pictures: read by the real models, kept in the index, found by page, REST and commands."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import closing
from functools import cache
from html import unescape
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from click.testing import CliRunner, Result
from gallery import pocket
from http_fronts import proxy
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from waiting import PATIENCE_S, Hold, after, wait_until

from demo.world.draw import draw
from demo.world.scene import sample
from es_config.documents import IndexOptions, index_body, lacking_fields
from es_config.index import ImageIndex
from es_config.requests import NAMES, Filters, written_body
from glimpse import main
from ingest.files.picture import decode_large, read_content
from ingest.options import IngestOptions, WordsOptions
from ingest.pipeline.run import IngestJob
from ingest.pipeline.words import read_words
from ingest.report import IngestSummary
from ingest.uploads import UploadIndexer
from ingest.wiring import IngestSettings, create_index, open_dependencies, open_history
from models.encoders import Lazy
from models.errors import ModelError
from models.words import WordReader, fine_parts, load_word_reader
from search_app.core.query import Query
from search_app.core.searcher import Searcher, SearchService
from search_app.errors import QueryError
from search_app.settings import AppSettings
from search_app.web.app import create_app
from storage.store import FolderStorage

ROOT = Path(__file__).parent.parent


@cache
def reader() -> WordReader:
    return load_word_reader()


def font(height: int, *, accents: bool = False) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, or one of matplotlib's where a text has accents."""
    if not accents:
        return ImageFont.load_default(size=height)
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", height)


def written(text: str, size=(640, 480), at=(60, 200), height=36, *, accents=False) -> Image.Image:
    """A drawn scene with a label on it."""
    picture = draw(sample("demo", 1)[0], 256).resize(size)
    pen, letters = ImageDraw.Draw(picture), font(height, accents=accents)
    left, top, right, bottom = pen.textbbox(at, text, font=letters)
    pen.rectangle((left - 12, top - 10, right + 12, bottom + 10), fill="white")
    pen.text(at, text, font=letters, fill="black")
    return picture


def texts(lines) -> list[str]:
    return [line.text for line in lines]


def test_a_line_is_read_where_it_is_written():
    (line,) = reader().read(written("Strawberry marmalade 1904"))
    assert line.text == "Strawberry marmalade 1904"
    assert 0.8 < line.confidence <= 1
    across, down = np.mean(line.corners, axis=0)
    (left, top), (right, bottom) = np.min(line.corners, axis=0), np.max(line.corners, axis=0)
    assert left < 62 / 640 + 0.02
    assert right > 0.55
    assert (0.3 < across < 0.6, 0.4 < down < 0.5) == (True, True)
    assert bottom - top < 0.2


@pytest.mark.parametrize(
    "text", ["Frische Äpfel für München", "Größe des Schlüssels", "déjeuner à la forêt", "mañana"]
)
def test_accents_of_four_languages_are_read(text):
    assert texts(reader().read(written(text, accents=True))) == [text]


def test_lines_come_from_top_to_bottom():
    picture = written("first line", at=(60, 60))
    pen = ImageDraw.Draw(picture)
    pen.rectangle((50, 300, 400, 360), fill="white")
    pen.text((60, 310), "second line", font=font(36), fill="black")
    assert texts(reader().read(picture)) == ["first line", "second line"]


@pytest.mark.parametrize("degrees", [-12, 12])
def test_a_tilted_line_is_read(degrees):
    label = Image.new("RGB", (420, 70), "white")
    ImageDraw.Draw(label).text((15, 15), "Emergency exit", font=font(36), fill="black")
    picture = Image.new("RGB", (700, 500), (60, 110, 90))
    turned = label.convert("RGBA").rotate(degrees, expand=True, resample=Image.Resampling.BICUBIC)
    picture.paste(turned, (100, 150), turned)
    assert texts(reader().read(picture)) == ["Emergency exit"]


@pytest.mark.parametrize("size", [(1, 1), (3, 400), (1, 5000), (9000, 20), (640, 480)])
def test_a_picture_without_text_gives_no_lines(size):
    assert reader().read(Image.new("RGB", size, (120, 130, 200))) == ()


def test_an_edge_in_a_drawn_scene_is_no_letter():
    assert reader().read(draw(sample("demo", 1)[0], 256).resize((1600, 1200))) == ()


def test_of_a_picture_without_text_only_the_small_copy_is_looked_at():
    seen = []

    class Recording:
        def __init__(self, engine) -> None:
            self._engine = engine

        def __call__(self, pixels, **options):
            seen.append((pixels.shape[:2], options["use_rec"]))
            return self._engine(pixels, **options)

    spied = WordReader(Recording(reader()._engine), "spied")
    assert spied.read(Image.new("RGB", (1600, 1200), (90, 120, 60))) == ()
    assert seen == [((360, 480), False)]
    assert not spied.has_text(Image.new("RGB", (900, 700), "white"))
    assert spied.has_text(written("Bakery"))


def test_small_letters_in_a_large_picture_are_read_and_cost_little_more_than_a_look():
    picture = Image.new("RGB", (1600, 1200), (90, 120, 60)).filter(ImageFilter.GaussianBlur(3))
    pen = ImageDraw.Draw(picture)
    pen.text((1100, 900), "Strawberry marmalade 1904", font=font(15), fill="white")
    pen.text((200, 100), "emergency exit", font=font(15), fill="black")
    assert texts(reader().read(picture)) == ["emergency exit", "Strawberry marmalade 1904"]
    parts = fine_parts(picture)
    assert len(parts) == 2
    assert sum((right - left) * (bottom - top) for left, top, right, bottom in parts) < 120_000


def test_a_wide_texture_is_not_looked_at_for_its_edges():
    rows, columns = np.mgrid[:900, :1200]
    texture = Image.fromarray((((rows // 3 + columns // 3) % 2) * 255).astype(np.uint8)).convert("RGB")
    assert fine_parts(texture) == []


def test_a_huge_picture_is_read(tmp_path):
    path = tmp_path / "huge.jpg"
    written("Concert tonight", size=(6000, 4500), at=(800, 3000), height=220).save(path, quality=85)
    image = decode_large(read_content(path), path, edge=2000)
    assert image.size == (2000, 1500)
    assert texts(reader().read(image)) == ["Concert tonight"]


@pytest.mark.parametrize(("orientation", "turn"), [(3, 180), (6, 90), (8, 270)])
def test_a_picture_is_turned_upright_before_it_is_read(tmp_path, orientation, turn):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.jpg"
    written("Platform seven").rotate(turn, expand=True).save(path, exif=exif, quality=92)
    image = decode_large(read_content(path), path, edge=2000)
    assert image.size == (640, 480)
    assert texts(reader().read(image)) == ["Platform seven"]


def test_the_models_come_with_the_package_and_ask_no_server(monkeypatch):
    def refused(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    assert load_word_reader(threads=1).revision == reader().revision


def test_a_damaged_model_is_one_sentence(monkeypatch):
    monkeypatch.setattr("models.words.DETECTOR", "absent.onnx")
    with pytest.raises(ModelError, match="pip install --force-reinstall rapidocr"):
        load_word_reader()


# --- commands

LABELS = ("Strawberry marmalade", "Invoice number 4711", "Bakery closed", "Railway museum")


@pytest.fixture
def environ(node, tmp_path: Path, index_name: str) -> dict[str, str]:
    """The settings of a command, as environment variables."""
    return {
        "ELASTICSEARCH_URL": node.url,
        "GLIMPSE_HOME": str(tmp_path / "home"),
        "GLIMPSE_INDEX": index_name,
        "GLIMPSE_PROFILE": "pocket",
    }


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Four pictures with a label each, and one without text."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, label in enumerate(LABELS):
        written(label).save(folder / f"{number}.png")
    draw(sample("demo", 2)[1], 256).save(folder / "plain.png")
    return folder


def glimpse(environ: dict[str, str], *arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)), env=environ)


def found(environ: dict[str, str], *arguments: object) -> list[tuple[str, str | None]]:
    """Return the name and the reason of each hit."""
    answer = glimpse(environ, "search", *arguments, "--json")
    hits = json.loads(answer.stdout)["hits"]
    assert answer.exit_code == (0 if hits else 1), answer.output
    return [(Path(hit["path"]).name, hit["why"]) for hit in hits]


def sources(client, environ) -> dict[str, dict]:
    hits = ImageIndex(client, alias=environ["GLIMPSE_INDEX"]).search(
        {"query": {"match_all": {}}, "size": 100}
    )
    return {hit.source["image_name"]: hit.source for hit in hits.hits}


def test_words_are_read_after_ingest_and_found_by_the_command_line(environ, pictures, client):
    ingested = glimpse(environ, "ingest", pictures, "--captions", "off")
    assert (ingested.exit_code, ingested.stderr) == (0, "")
    nothing = glimpse(environ, "search", "marmalade", "--mode", "words")
    assert (nothing.exit_code, nothing.stdout) == (1, "")
    assert "`glimpse words` reads the pictures" in nothing.stderr
    done = glimpse(environ, "words")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith("5 pictures read, 4 with text, 0 failed, in ")
    why = "written in the picture: strawberry, marmalade"
    assert found(environ, "strawberry marmalade", "--mode", "words") == [("0.png", why)]
    # Another number, the beginning of a word, an error of a letter, and the whole in other letters.
    for words, name in (
        ("MUSEUM", "3.png"), ("inv", "1.png"), ("marmelade", "0.png"), ("4711", "1.png"),
    ):  # fmt: skip
        assert [hit for hit, _ in found(environ, words, "--mode", "words")] == [name], words
    assert found(environ, "4712", "--mode", "words") == []
    first, reason = found(environ, "railway museum", "--mode", "hybrid")[0]
    assert (first, reason.split("; ")[0]) == ("3.png", "written in the picture: railway, museum")
    again = glimpse(environ, "words")
    assert again.stdout == "The text of every picture has been read.\n"
    kept = sources(client, environ)
    assert kept["2.png"]["words"] == ["Bakery closed"]
    (line,) = kept["2.png"]["words_lines"]
    assert (line["text"], len(line["box"]), line["confidence"] > 0.8) == ("Bakery closed", 8, True)
    assert all(0 <= value <= 1 for value in line["box"])
    assert kept["plain.png"]["words_by"] == reader().revision
    every = json.loads(glimpse(environ, "words", "--all", "--limit", "2", "--json").stdout)
    assert (every["written"], every["failed"], every["interrupted"]) == (2, 0, False)


@pytest.mark.parametrize("when", ["now", "later"])
def test_ingest_reads_the_text_when_it_is_told(environ, pictures, when):
    (pictures / "broken.png").write_bytes((pictures / "0.png").read_bytes()[:2000])
    done = glimpse(environ, "ingest", pictures, "--captions", "off", "--words", when, "--json")
    summary = json.loads(done.stdout)
    assert (done.exit_code, summary["indexed"], summary["failed"]) == (1, 5, 1)
    assert (summary["words"]["written"], summary["words"]["with_text"]) == (5, 4)
    assert found(environ, "invoice", "--mode", "words")[0][0] == "1.png"
    assert glimpse(environ, "words").stdout == "The text of every picture has been read.\n"


def test_a_watch_takes_words_now_or_none(environ, pictures):
    refused = glimpse(environ, "ingest", pictures, "--watch", "--words", "later")
    assert refused.exit_code == 2
    assert "With --watch use --words now, or run `glimpse words` at any time." in refused.stderr


def test_a_run_without_words_names_the_command_to_people(environ, pictures):
    said = []
    job = IngestJob(
        paths=[pictures],
        dependencies=open_dependencies(IngestSettings("pocket", alias=environ["GLIMPSE_INDEX"]), environ),
        options=IngestOptions(),
        environ=environ,
    )
    summary = job.run_all()
    assert job.with_words(summary, say=said.append, hint=False) == summary
    assert said == []
    assert job.with_words(summary, say=said.append, hint=True) == summary
    assert said == ["Text inside 5 pictures has not been read: `glimpse words` makes it searchable."]
    assert job.with_words(IngestSummary(), say=said.append, hint=True) == IngestSummary()
    assert len(said) == 1


def test_a_file_that_is_away_waits_and_a_store_with_whole_pictures_stands_in(environ, pictures):
    Image.open(pictures / "3.png").resize((1600, 1200)).save(pictures / "3.png")
    glimpse(environ, "ingest", pictures / "0.png", "--captions", "off", "--originals", "webp")
    glimpse(environ, "ingest", pictures / "3.png", pictures / "plain.png", "--captions", "off")
    for name in ("0.png", "3.png", "plain.png"):
        (pictures / name).unlink()
    done = glimpse(environ, "words")
    assert done.exit_code == 1
    assert done.stdout.startswith("2 pictures read, 1 with text, 1 failed")
    assert "3.png: its file is not where it was ingested, and the store has only the thumbnail" in done.stderr
    assert "--originals webp" in done.stderr
    assert [name for name, _ in found(environ, "marmalade", "--mode", "words")] == ["0.png"]
    assert glimpse(environ, "words").stdout.startswith("0 pictures read, 0 with text, 1 failed")


def test_a_picture_that_fails_is_set_aside_and_tried_again_on_request(environ, pictures, client):
    glimpse(environ, "ingest", pictures, "--captions", "off")
    dependencies = open_dependencies(IngestSettings("pocket", alias=environ["GLIMPSE_INDEX"]), environ)

    class Failing(WordReader):
        def read(self, image):
            if image.size == (640, 480):
                raise ValueError("a strange picture")
            return super().read(image)

    failing = Failing(reader()._engine, reader().revision)
    object.__setattr__(dependencies, "word_reader", Lazy(lambda: failing))
    with closing(open_history(dependencies.index, environ, options=IngestOptions())) as history:
        first = read_words(dependencies, options=WordsOptions(), history=history)
        assert (first.written, first.failed) == (1, 4)
        assert {each.reason for each in first.failures} == {
            "the text in it cannot be read (a strange picture)"
        }
        second = read_words(dependencies, options=WordsOptions(), history=history)
        assert second.pictures == 0
    assert "a strange picture" in sources(client, environ)["0.png"]["words_fault"]
    again = glimpse(environ, "words", "--retry-failed")
    assert again.stdout.startswith("4 pictures read, 4 with text, 0 failed")
    assert sources(client, environ)["0.png"]["words_fault"] is None


def test_a_killed_pass_goes_on_where_it_was_newest_first(environ, tmp_path, client):
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(20):
        written(f"Ticket number {number}", size=(320, 240), at=(20, 100), height=24).save(
            folder / f"{number:02}.png"
        )
    glimpse(environ, "ingest", folder, "--captions", "off", "--batch-size", "1")
    alias = environ["GLIMPSE_INDEX"]
    second = Hold(after(1, "_bulk"))
    with proxy(environ["ELASTICSEARCH_URL"], second) as url:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "glimpse.py"), "words"],
            env=os.environ | environ | {"ELASTICSEARCH_URL": url},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(lambda: second.is_reached, running=process)
        process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE_S)
        second.drop()
    client.indices.refresh(index=alias)
    kept = sources(client, environ)
    read = {name for name, source in kept.items() if "words_by" in source}
    newest = sorted(kept, key=lambda name: kept[name]["indexed_at"], reverse=True)
    assert read == set(newest[:8])
    done = json.loads(glimpse(environ, "words", "--json").stdout)
    assert (done["written"], done["with_text"], done["failed"]) == (12, 12, 0)


def test_an_index_of_an_earlier_version_gets_the_fields(environ, pictures, client):
    dependencies = open_dependencies(IngestSettings("pocket", alias=environ["GLIMPSE_INDEX"]), environ)
    index = dependencies.index
    body = index_body(index.meta(), IndexOptions())
    client.indices.delete(index=index.name())
    lacking = lacking_fields({"properties": {}})
    earlier = {name for name in lacking if not name.startswith("words")}
    properties = body["mappings"]["properties"]
    body["mappings"]["properties"] = {
        name: properties[name] for name in properties if not name.startswith("words")
    }
    client.indices.create(
        index=f"{environ['GLIMPSE_INDEX']}-pocket-1",
        aliases={environ["GLIMPSE_INDEX"]: {"is_write_index": True}},
        **body,
    )
    assert set(lacking) - earlier == {"words", "words_by", "words_fault", "words_lines"}
    checked = glimpse(environ, "doctor").stdout
    assert "without words, words_by, words_fault, words_lines: `glimpse ingest` adds them" in checked
    assert glimpse(environ, "ingest", pictures, "--captions", "off").exit_code == 0
    assert found(environ, "marmalade", "--mode", "words") == []
    assert glimpse(environ, "words").stdout.startswith("5 pictures read, 4 with text")
    assert "adds them" not in glimpse(environ, "doctor").stdout
    assert [name for name, _ in found(environ, "marmalade", "--mode", "words")] == ["0.png"]
    mapping = client.indices.get_mapping(index=environ["GLIMPSE_INDEX"])
    (now,) = mapping.body.values()
    assert lacking_fields(now["mappings"]) == {}
    assert now["mappings"]["_meta"]["profile"] == "pocket"


# --- page, REST and uploads


@pytest.fixture
def served(client, index_name, tmp_path):
    """A page over an index, and the indexer of its uploads."""
    profile, words, images = pocket()
    index = ImageIndex(client, alias=index_name)
    create_index(index, profile)
    storage = FolderStorage(tmp_path / "store")
    searcher = Searcher(
        index=index, profile=profile, text_encoder=Lazy(lambda: words), image_encoder=Lazy(lambda: images)
    )

    def no_captioner():
        raise ModelError("no captioner here")

    indexer = UploadIndexer(
        index=index,
        profile=profile,
        image_encoder=Lazy(lambda: images),
        caption_encoder=Lazy(lambda: words),
        captioner=Lazy(no_captioner),
        storage=storage,
        word_reader=Lazy(reader),
    )
    app = create_app(service=SearchService(searcher), storage=storage, settings=AppSettings())
    return searcher, indexer, app.test_client()


def png(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    picture.save(data, "PNG")
    return data.getvalue()


def test_an_uploaded_picture_is_found_by_its_words_on_the_page_and_by_rest(served):
    _, indexer, web = served
    data = png(written("<b>Marmalade & honey</b>"))
    added = indexer.add("label.png", data)
    indexer.add("plain.png", png(draw(sample("demo", 2)[1], 256)))
    indexer.publish()
    assert (added.is_new, added.image_id) == (True, hashlib.sha256(data).hexdigest())
    answer = web.get("/api/v1/search?q=marmalade&mode=words").get_json()
    assert [hit["image_id"] for hit in answer["hits"]] == [added.image_id]
    assert answer["hits"][0]["why"] == "written in the picture: marmalade"
    assert (answer["hits"][0]["similarity"], answer["total"], answer["num_candidates"]) == (None, 1, None)
    source = web.get(f"/api/v1/images/{added.image_id}").get_json()
    assert source["words"] == ["<b>Marmalade & honey</b>"]
    html = web.get("/?q=marmalade&mode=words").text
    assert "written in the picture: marmalade" in html
    assert "not among the nearest by look" in html
    detail = web.get(f"/images/{added.image_id}").text
    (line,) = source["words_lines"]
    first = f"{line['box'][0] * 640:.1f},{line['box'][1] * 480:.1f}"
    assert f'<polygon points="{first} ' in detail
    assert 'viewBox="0 0 640 480"' in detail
    assert "<span>&lt;b&gt;Marmalade &amp; honey&lt;/b&gt;</span>" in detail
    assert '<input type="checkbox" id="boxes">' in detail
    assert 'data-copy="&lt;b&gt;Marmalade &amp; honey&lt;/b&gt;">Copy the text</button>' in detail
    assert "<b>Marmalade" not in detail
    nothing = unescape(web.get("/?q=invoice&mode=words").text)
    assert "These words are written in no picture that was read." in nothing
    (plain,) = [
        hit
        for hit in web.get("/api/v1/search?q=a&k=5").get_json()["hits"]
        if hit["path"].endswith("plain.png")
    ]
    assert "<polygon" not in web.get(f"/images/{plain['image_id']}").text


def test_each_search_by_words_that_cannot_be_is_one_sentence(served):
    searcher, _, web = served
    with pytest.raises(QueryError, match="give a text, or choose mode image or caption"):
        searcher.search(Query(like="0" * 64, mode="words"))
    refused = web.get("/api/v1/search?q=a&mode=words&min_relevance=weak")
    assert (refused.status_code, "have no marks" in refused.get_json()["detail"]) == (400, True)
    assert web.get("/api/v1/search?q=%F0%9F%90%88&mode=words").get_json()["hits"] == []


def test_a_picture_shown_while_mode_words_is_chosen_is_searched_by_look(served):
    _, indexer, web = served
    data = png(written("Bakery"))
    added = indexer.add("label.png", data)
    indexer.publish()
    shown = web.post("/picture?mode=words&k=5", data={"image": (io.BytesIO(data), "label.png")})
    assert (shown.status_code, shown.location) == (303, f"/?like={added.image_id}&k=5")
    assert web.get(shown.location).status_code == 200


def test_pages_and_filters_hold_in_mode_words(served):
    searcher, indexer, _ = served
    for number in range(3):
        indexer.add(
            f"{number}.png", png(written(f"Harbour {number}", size=(400 + number, 300), at=(40, 120)))
        )
    indexer.publish()
    pages = [searcher.search(Query(text="harbour", mode="words", k=2, page=page)) for page in (1, 2)]
    assert [len(page.hits) for page in pages] == [2, 1]
    assert len({hit.image_id for page in pages for hit in page.hits}) == 3
    only = searcher.search(Query(text="harbour", mode="words", filters=Filters(path="uploads/1")))
    assert [hit.path for hit in only.hits] == ["uploads/1.png"]


def test_a_picture_with_every_word_comes_first_and_the_sharp_s_is_found(served):
    searcher, indexer, _ = served
    for number, text in enumerate(("Konzert Museum 1904", "Straße Konzert Museum", "Straße Konzert Straße")):
        indexer.add(f"{number}.png", png(written(text, size=(700, 300), at=(40, 120), accents=True)))
    indexer.publish()
    for mode in ("words", "hybrid"):
        for query in ("museum konzert straße", "Museum Straße Konzert"):
            assert searcher.search(Query(text=query, mode=mode)).hits[0].path == "uploads/1.png"
    assert len(searcher.search(Query(text="Straße", mode="words")).hits) == 2


def test_the_body_asks_for_both_words_and_for_most_of_many():
    body = written_body("the Invoice 4711", size=5, from_=10)
    needed = body["query"]["bool"]["must"][0]["bool"]
    assert [clause["dis_max"]["_name"] for clause in needed["should"]] == ["invoice", "4711"]
    assert needed["minimum_should_match"] == "2<70%"
    places = [clause["dis_max"]["queries"] for clause in needed["should"]]
    labels = ["written in the picture", *(label for label, _ in NAMES.values())]
    assert [[each["dis_max"]["_name"] for each in every] for every in places] == [
        [f"{label}: {word}" for label in labels] for word in ("invoice", "4711")
    ]
    assert [len(every[0]["dis_max"]["queries"]) for every in places] == [3, 2]
    assert (body["size"], body["from"]) == (5, 10)
    assert written_body("…", size=5)["query"] == {"match_none": {}}
