"""The page in a real Chromium: typing, showing a picture, following links, keys, narrow screens."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest
from browsers import PATIENCE_MS, launched
from gallery import jpeg
from http_fronts import serving
from playwright.sync_api import Browser, Page, expect, sync_playwright

from demo.world.scene import Group, Scene
from search_app.core.searcher import SearchService
from search_app.settings import AppSettings
from search_app.web.app import create_app

MAX_UPLOAD = 60_000
UNSEEN = Scene("sea", "sunset", (Group("boat", "red", 2),), None, 99)
DROP_OR_PASTE = """([kind, encoded, name, type]) => {
  const bytes = Uint8Array.from(atob(encoded), (character) => character.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, { type }));
  const options = { bubbles: true, cancelable: true };
  if (kind === "paste") {
    document.dispatchEvent(new ClipboardEvent("paste", { ...options, clipboardData: transfer }));
    return;
  }
  for (const name of ["dragenter", "dragover", kind].filter(Boolean)) {
    document.body.dispatchEvent(new DragEvent(name, { ...options, dataTransfer: transfer }));
  }
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = launched(playwright)
        yield started
        started.close()


@pytest.fixture(scope="module")
def address(gallery) -> Iterator[str]:
    """The page under the production server."""
    settings = AppSettings(max_upload=MAX_UPLOAD)
    app = create_app(service=SearchService(gallery.searcher), storage=gallery.storage, settings=settings)
    with serving(app) as url:
        yield url


@pytest.fixture
def page(browser: Browser, address: str, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A fresh visitor's page. Any complaint of the browser fails the test at its end."""
    options = getattr(request, "param", {})
    context = browser.new_context(base_url=address, **options)
    context.set_default_timeout(PATIENCE_MS)
    opened = context.new_page()
    complaints: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text) if message.type != "log" else None)
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    yield opened
    context.close()
    assert complaints == []


def show(page: Page, kind: str, data: bytes, name: str = "photo.jpg", form: str = "image/jpeg") -> None:
    """Drop or paste a file on the page, or carry it over the page (`kind` is empty)."""
    page.evaluate(DROP_OR_PASTE, [kind, base64.b64encode(data).decode(), name, form])


def first_name(page: Page):
    """Locate the name of the first picture in the grid."""
    return page.locator(".grid .name").first


def test_a_typed_query_shows_its_picture_first(page):
    page.goto("/")
    page.get_by_label("Describe the picture you are looking for").fill("a red boat on the sea")
    page.keyboard.press("Enter")
    expect(first_name(page)).to_contain_text("red boat")
    assert urlsplit(page.url).query == "q=a+red+boat+on+the+sea"
    picture = page.locator(".grid img").first
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_a_dropped_or_pasted_picture_of_the_index_finds_itself(page, gallery, kind):
    page.goto("/")
    show(page, kind, gallery.files["cats"])
    expect(page.locator(".badge")).to_have_text("this picture")
    expect(first_name(page)).to_contain_text("black cats")
    assert parse_qs(urlsplit(page.url).query) == {"like": [gallery.ids["cats"]]}


def test_without_storage_a_picture_is_searched_with_all_the_same(page):
    page.add_init_script(
        "Object.defineProperty(window, 'sessionStorage', "
        "{ get() { throw new DOMException('', 'SecurityError'); } })"
    )
    page.goto("/")
    show(page, "drop", jpeg(UNSEEN))
    expect(page.get_by_role("heading", name="Pictures like yours")).to_be_visible()
    expect(page.locator("#yours")).to_be_hidden()


def test_another_picture_is_shown_beside_its_results_and_survives_back_and_reload(page):
    page.goto("/?sort=newest")
    show(page, "drop", jpeg(UNSEEN))
    expect(page.get_by_role("heading", name="Pictures like yours")).to_be_visible()
    expect(page.locator("#yours")).to_be_visible()
    found = page.url
    page.go_back()
    expect(page.locator("#yours")).to_have_count(0)
    page.go_forward()
    page.reload()
    assert page.url == found
    expect(page.locator("#yours")).to_be_visible()
    page.get_by_text("Search with a part of it").click()
    page.get_by_role("button", name="Search with this part").click()
    page.wait_for_url(lambda address: address != found)
    expect(page.locator("#yours")).to_be_visible()


def test_a_chosen_picture_over_the_limit_is_made_smaller_in_the_browser(page):
    page.goto("/")
    large = jpeg(UNSEEN, size=2000)
    assert len(large) > 3 * MAX_UPLOAD
    page.locator("#picture").set_input_files({"name": "big.jpg", "mimeType": "image/jpeg", "buffer": large})
    expect(page.get_by_role("heading", name="Pictures like yours")).to_be_visible()


def test_a_file_that_is_no_picture_gets_a_sentence_and_the_page_stays(page):
    page.goto("/")
    show(page, "", b"x")
    expect(page.locator(".drop")).to_be_visible()
    show(page, "drop", b"hello", name="notes.txt", form="text/plain")
    expect(page.locator("#notice")).to_contain_text("not a picture")
    expect(page.locator(".drop")).to_be_hidden()


@pytest.mark.parametrize("path", ["docs", "add", "narrow", "?sort=newest"])
def test_no_script_complains_on_a_page_that_lacks_its_part(page, path):
    """Each script says which part of a page it needs: the box stands on most pages alone."""
    page.goto(f"/{path}", wait_until="networkidle")
    expect(page.locator("main")).to_be_visible()


def test_more_like_this_the_detail_page_and_the_way_back(page, gallery):
    page.goto("/?q=two+black+cats+in+a+meadow")
    page.locator(".grid .view").first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("black cats")
    expect(page.locator(".facts > dl")).to_contain_text("named/cats.jpg")
    page.get_by_role("link", name="Back to the results").click()
    expect(first_name(page)).to_contain_text("black cats")
    page.get_by_role("link", name="More like this").first.click()
    expect(page.locator(".chip")).to_have_count(2)
    words = "two black cats in a meadow"
    assert parse_qs(urlsplit(page.url).query) == {"q": [words], "like": [gallery.ids["cats"]]}


@pytest.mark.parametrize("page", [{"java_script_enabled": False}], indirect=True)
def test_pages_turn_forth_and_back_without_scripts(page):
    page.goto("/?q=a+cat")
    before = page.locator(".view").first.get_attribute("href")
    page.get_by_role("link", name="Further").click()
    expect(page.locator(".pages")).to_contain_text("Page 2")
    assert page.locator(".view").first.get_attribute("href") != before
    page.get_by_role("link", name="Nearer").click()
    expect(page.locator(".pages")).to_contain_text("Page 1")
    assert page.locator(".view").first.get_attribute("href") == before


def test_filters_stay_with_the_query_and_can_be_cleared(page):
    page.goto("/?q=a+cat")
    page.get_by_text("Filters", exact=True).click()
    page.get_by_label("Part of a path or file name").fill("named/")
    page.get_by_role("button", name="Apply").click()
    expect(page.locator(".card")).to_have_count(4)
    assert urlsplit(page.url).query == "q=a+cat&path=named%2F"
    page.get_by_text("Filters: 1 set").click()
    page.get_by_role("link", name="Clear").click()
    expect(page.locator(".card").nth(23)).to_be_attached()


def test_everything_works_with_the_keyboard_alone(page, gallery):
    page.goto("/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the pictures")).to_be_focused()
    page.keyboard.press("/")
    expect(page.locator("#q")).to_be_focused()
    page.keyboard.type("a yellow car in the city")
    page.keyboard.press("Enter")
    expect(first_name(page)).to_contain_text("yellow car")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    links = page.locator(".grid .view")
    page.keyboard.press("Tab")
    reach(page, links.first)
    page.keyboard.press("ArrowRight")
    expect(links.nth(1)).to_be_focused()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowLeft")
    expect(links.first).to_be_focused()
    assert links.first.evaluate("link => getComputedStyle(link).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/images/{gallery.ids['car']}?**")
    reach(page, page.get_by_role("link", name="More like this", exact=True))
    page.keyboard.press("Enter")
    expect(page.locator(".chip")).to_have_count(2)


def reach(page: Page, wanted) -> None:
    """Press Tab until `wanted` has the focus."""
    for _ in range(40):
        if wanted.evaluate("element => element === document.activeElement"):
            return
        page.keyboard.press("Tab")
    pytest.fail(f"{wanted} cannot be reached with the keyboard")


def test_the_file_button_is_in_the_tab_order_with_a_name(page):
    page.on("filechooser", lambda _: None)  # from here on Chromium reports choosers instead of showing them
    page.goto("/")
    chooser = page.get_by_label("Search with a picture")
    reach(page, chooser)
    with page.expect_file_chooser():
        page.keyboard.press("Enter")


@pytest.mark.parametrize("page", [{"viewport": {"width": 360, "height": 740}}], indirect=True)
def test_at_360_pixels_nothing_is_cut_off(page, gallery):
    for path in (
        "/",
        "/?q=a+red+boat",
        f"/?like={gallery.ids['boat']}",
        f"/images/{gallery.ids['boat']}?q=x",
    ):
        page.goto(path)
        page.locator(".filters summary").click()
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        assert page.locator(".go").bounding_box()["x"] + page.locator(".go").bounding_box()["width"] <= 360


@pytest.mark.parametrize("page", [{"color_scheme": "dark"}], indirect=True)
def test_the_look_follows_the_system_until_it_is_changed_and_is_remembered(page):
    ground = "getComputedStyle(document.body).backgroundColor"
    page.goto("/")
    dark = page.evaluate(ground)
    page.get_by_role("button", name="Use the light look").click()
    light = page.evaluate(ground)
    assert dark != light
    page.goto("/?q=a+cat")
    assert page.evaluate(ground) == light


@pytest.mark.parametrize("page", [{"java_script_enabled": False}], indirect=True)
def test_without_javascript_words_and_a_chosen_picture_work(page, gallery):
    page.goto("/")
    page.locator("#q").fill("a blue house in the desert")
    page.locator(".go").click()
    expect(first_name(page)).to_contain_text("blue house")
    assert urlsplit(page.url).query == "q=a+blue+house+in+the+desert"
    page.goto("/")
    page.locator("#picture").set_input_files(
        {"name": "x.jpg", "mimeType": "image/jpeg", "buffer": gallery.files["car"]}
    )
    page.get_by_role("button", name="Search with this picture").click()
    expect(first_name(page)).to_contain_text("yellow car")


def test_what_is_typed_is_completed_by_keyboard_alone_and_remembered_here(page):
    page.goto("/?sort=name")
    box = page.get_by_role("combobox", name="Describe the picture")
    box.press_sequentially("red boat summ")
    option = page.get_by_role("option", name="red boat · summer day keyword")
    expect(option).to_be_visible()
    expect(box).to_have_attribute("aria-expanded", "true")
    box.press("ArrowDown")
    expect(option).to_have_attribute("aria-selected", "true")
    expect(box).to_have_attribute("aria-activedescendant", "suggest-0")
    box.press("Escape")
    expect(option).to_be_hidden()
    box.press("ArrowDown")
    expect(option).to_be_visible()
    box.press("ArrowDown")
    box.press("Enter")
    page.wait_for_url("**/?*tag=*")
    assert parse_qs(urlsplit(page.url).query) == {"q": ["red boat"], "tag": ["summer day"], "sort": ["name"]}
    box.fill("a yellow car")
    box.press("Enter")
    page.wait_for_url("**/?*yellow*")
    page.goto("/")
    box.click()
    expect(page.locator("#suggest li").first).to_contain_text("a yellow car")
    page.get_by_role("option", name="Forget these searches").click()
    box.blur()
    box.click()
    expect(page.locator("#suggest")).to_be_hidden()
    assert page.evaluate("localStorage.getItem('recent')") == "[]"


def test_counts_of_a_question_come_when_they_are_opened_and_fields_are_completed(page):
    page.goto("/?q=a+red+boat")
    page.locator(".narrow summary").click()
    expect(page.get_by_text("Counted among the 60 nearest pictures.")).to_be_visible()
    page.get_by_role("link", name="Drawn World Pencil").click()
    page.wait_for_url("**camera=*")
    expect(page.locator(".view")).to_have_count(1)
    page.locator(".filters summary").click()
    page.locator("input[name=tag]").focus()
    expect(page.locator("#choices-tag option")).to_have_count(2)
