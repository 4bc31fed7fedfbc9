"""Adding pictures in a real Chromium: several at once, by mouse, drop and keys, and failures."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Iterator

import pytest
from browsers import PATIENCE_MS, launched
from gallery import jpeg, pocket
from http_fronts import serving
from playwright.sync_api import Browser, Page, expect, sync_playwright

from demo.world.scene import Group, Scene
from es_config.index import ImageIndex
from ingest.uploads import UploadIndexer
from models.captioning import load_captioner
from models.encoders import Lazy
from search_app.core.searcher import Searcher, SearchService
from search_app.settings import AppSettings
from search_app.web.app import create_app
from storage.store import open_storage

MAX_UPLOAD = 100_000
DROP = """files => {
  const transfer = new DataTransfer();
  for (const [encoded, name, type] of files) {
    const bytes = Uint8Array.from(atob(encoded), (character) => character.charCodeAt(0));
    transfer.items.add(new File([bytes], name, { type }));
  }
  const options = { bubbles: true, cancelable: true, dataTransfer: transfer };
  const target = document.querySelector("dialog[open]") ?? document.body;
  for (const name of ["dragenter", "dragover", "drop"]) target.dispatchEvent(new DragEvent(name, options));
}"""


def scene(kind: str, colour: str, place: str, seed: int) -> bytes:
    return jpeg(Scene(place, "sunny", (Group(kind, colour, 1),), None, seed))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = launched(playwright)
        yield started
        started.close()


@pytest.fixture(scope="module")
def server(client, tmp_path_factory) -> Iterator[str]:
    """The page of an index that does not exist before the first picture."""
    profile, texts, images = pocket()
    index = ImageIndex(client, alias=f"test-{uuid.uuid4()}")
    storage = open_storage(str(tmp_path_factory.mktemp("store")))
    indexer = UploadIndexer(
        index=index,
        profile=profile,
        image_encoder=Lazy(lambda: images),
        caption_encoder=Lazy(lambda: texts),
        captioner=Lazy(lambda: load_captioner(profile.caption_model)),
        storage=storage,
    )
    indexer.add("first.jpg", scene("boat", "red", "sea", 1))
    indexer.publish()
    searcher = Searcher(
        index=index, profile=profile, text_encoder=Lazy(lambda: texts), image_encoder=Lazy(lambda: images)
    )
    settings = AppSettings(max_upload=MAX_UPLOAD)
    app = create_app(
        service=SearchService(searcher), storage=storage, settings=settings, indexer=lambda: indexer
    )
    with serving(app, threads=8) as url:
        yield url
    index.delete()


@pytest.fixture
def page(browser: Browser, server: str, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A fresh visitor's page. Any complaint of the browser, except expected answers, fails the test."""
    context = browser.new_context(base_url=server, **getattr(request, "param", {}))
    context.set_default_timeout(PATIENCE_MS)
    opened = context.new_page()
    complaints: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text) if message.type != "log" else None)
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    yield opened
    context.close()
    assert [text for text in complaints if "Failed to load resource" not in text] == []


def files(*named: tuple[str, bytes]) -> list[dict]:
    return [{"name": name, "mimeType": "image/jpeg", "buffer": data} for name, data in named]


def drop(page: Page, *named: tuple[str, bytes]) -> None:
    page.evaluate(DROP, [[base64.b64encode(data).decode(), name, "image/jpeg"] for name, data in named])


def test_chosen_pictures_are_added_with_caption_and_found_at_once(page):
    page.goto("/")
    page.get_by_role("link", name="Add pictures").click()
    chosen = files(
        ("house.jpg", scene("house", "blue", "desert", 21)),
        ("cat.jpg", scene("cat", "black", "meadow", 22)),
        ("car.jpg", scene("car", "yellow", "city", 23)),
    )
    page.locator("#add-files").set_input_files(chosen)
    expect(page.locator(".add-status")).to_have_text("3 pictures added, and searches find them now.")
    house = page.locator(".add-item").filter(has_text="house.jpg")
    expect(house.locator(".add-said")).to_contain_text("blue house")
    thumbnail = house.locator("img")
    assert "/thumbnail" in thumbnail.get_attribute("src")
    assert thumbnail.evaluate("image => image.decode().then(() => image.naturalWidth)") == 128
    house.get_by_role("link", name="Search for it").click()
    expect(page.locator(".grid .name").first).to_contain_text("blue house")


def test_the_same_picture_again_is_said_to_be_there_already(page):
    page.goto("/add")
    page.locator("#add-files").set_input_files(files(("again.jpg", scene("boat", "red", "sea", 1))))
    expect(page.locator(".add-status")).to_have_text("1 picture there already.")
    page.get_by_role("link", name="Open", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("red boat")


def test_at_most_two_pictures_are_sent_at_a_time(page):
    page.goto("/add")
    held, released = [], []
    page.route("**/api/v1/images", lambda route: route.continue_() if released else held.append(route))
    named = [(f"{n}.jpg", scene("fish", "orange", "sea", 30 + n)) for n in range(5)]
    page.locator("#add-files").set_input_files(files(*named))
    expect(page.locator(".add-said", has_text="Waiting…")).to_have_count(3)
    expect(page.locator(".add-status")).to_have_text("5 on the way.")
    assert len(held) == 2
    released.append(True)
    for route in held:
        route.continue_()
    expect(page.locator(".add-status")).to_contain_text("5 pictures added")


def test_several_dropped_pictures_are_added_and_a_single_one_is_searched_with(page):
    page.goto("/?q=a+boat")
    drop(
        page,
        ("one.jpg", scene("tree", "green", "meadow", 41)),
        ("two.jpg", scene("bird", "white", "sea", 42)),
    )
    expect(page.get_by_role("dialog", name="Add pictures")).to_be_visible()
    expect(page.locator(".add-status")).to_contain_text("2 pictures added")
    drop(page, ("three.jpg", scene("balloon", "red", "meadow", 43)))
    expect(page.locator(".add-status")).to_contain_text("3 pictures added")
    page.get_by_role("button", name="Close").click()
    expect(page.get_by_role("link", name="Add pictures")).to_be_focused()
    drop(page, ("four.jpg", scene("house", "white", "city", 44)))
    expect(page.locator(".chip img.yours")).to_be_visible()  # it has joined the words


def test_each_bad_file_gets_its_sentence_and_the_good_one_is_added(page):
    page.goto("/add")
    sent = []
    page.on("request", lambda asked: sent.append(asked.url) if asked.method == "POST" else None)
    page.locator("#add-files").set_input_files(
        files(
            ("notes.jpg", b"hello"),
            ("big.jpg", b"\xff\xd8\xff" + b"x" * MAX_UPLOAD),
            ("empty.jpg", b""),
            ("good.jpg", scene("fish", "blue", "sea", 51)),
        )
    )
    said = "1 picture added, and searches find it now. 3 refused."
    expect(page.locator(".add-status")).to_have_text(said)
    sentences = page.locator(".add-failed .add-said").all_text_contents()
    assert sorted(sentences) == [
        "'big.jpg' has 0.1 MB; at most 0.1 MB each can be added.",
        "'empty.jpg' is empty, or a folder.",
        "'notes.jpg' was not added: not a picture in a known format.",
    ]
    assert len(sent) == 2
    expect(page.get_by_role("button", name="Try again")).to_have_count(0)


def test_a_broken_connection_can_be_tried_again(page):
    page.goto("/add")
    page.route("**/api/v1/images", lambda route: route.abort())
    page.locator("#add-files").set_input_files(files(("later.jpg", scene("car", "green", "desert", 61))))
    expect(page.locator(".add-failed .add-said")).to_have_text(
        "'later.jpg' did not arrive: the connection broke."
    )
    page.unroute("**/api/v1/images")
    page.get_by_role("button", name="Try again: later.jpg").click()
    expect(page.locator(".add-status")).to_have_text("1 picture added, and searches find it now.")
    expect(page.locator(".add-failed")).to_have_count(0)


def test_the_keyboard_opens_chooses_and_closes(page):
    page.on("filechooser", lambda _: None)
    page.goto("/")
    opener = page.get_by_role("link", name="Add pictures")
    opener.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#add-files")).to_be_focused()
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    assert chooser.value.is_multiple()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(opener).to_be_focused()


@pytest.mark.parametrize(
    "page", [{"viewport": {"width": 360, "height": 740}, "color_scheme": "dark"}], indirect=True
)
def test_at_360_pixels_the_panel_fits(page):
    page.goto("/")
    page.get_by_role("link", name="Add pictures").click()
    page.locator("#add-files").set_input_files(
        files((f"{'a long name ' * 10}.jpg", scene("cat", "white", "city", 71)), ("b.jpg", b"x"))
    )
    expect(page.locator(".add-status")).to_contain_text("1 refused")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    expect(page.locator("dialog[open]")).to_have_count(1)
    expect(page.locator(".add-item")).to_have_count(2)
    for part in page.locator("dialog[open], .add-item, .add-close").all():
        box = part.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 360


@pytest.mark.parametrize("page", [{"java_script_enabled": False}], indirect=True)
def test_without_javascript_the_form_adds(page):
    page.goto("/")
    page.get_by_role("link", name="Add pictures").click()
    page.locator("#add-files").set_input_files(files(("plain.jpg", scene("house", "red", "meadow", 81))))
    page.get_by_role("button", name="Add these pictures").click()
    expect(page.locator(".add-said").first).to_contain_text("red house")
