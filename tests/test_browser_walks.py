"""Long walks through the page in Chromium and in Firefox: by mouse, by keyboard alone, and on a phone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest
from browsers import BROWSERS, PATIENCE_MS
from gallery import jpeg
from http_fronts import serving
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright
from test_browser import UNSEEN, show

from search_app.core.searcher import SearchService
from search_app.settings import AppSettings
from search_app.web.app import create_app

WIDE, PHONE = {"width": 1280, "height": 800}, {"width": 360, "height": 740}


@pytest.fixture(scope="module", params=BROWSERS)
def browser(request) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = BROWSERS[request.param](playwright)
        yield started
        started.close()


@pytest.fixture(scope="module")
def address(gallery) -> Iterator[str]:
    app = create_app(
        service=SearchService(gallery.searcher), storage=gallery.storage, settings=AppSettings(page_size=12)
    )
    with serving(app) as url:
        yield url


@pytest.fixture
def page(browser: Browser, address: str, request: pytest.FixtureRequest) -> Iterator[Page]:
    context = browser.new_context(base_url=address, viewport=getattr(request, "param", WIDE))
    context.set_default_timeout(PATIENCE_MS)
    opened = context.new_page()
    complaints: list[str] = []
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    yield opened
    context.close()
    assert complaints == []


def asked(page: Page) -> dict[str, list[str]]:
    """Return the parameters of the address."""
    return parse_qs(urlsplit(page.url).query)


def is_whole(page: Page) -> bool:
    """Say whether nothing scrolls sideways."""
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def box_of(page: Page) -> Locator:
    return page.get_by_role("combobox", name="Describe the picture")


def test_a_walk_by_mouse_from_words_to_a_few_pictures(page):
    page.goto("/")
    box_of(page).fill("two black cats in a meadow")
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.locator(".grid .name").first).to_contain_text("black cats")
    expect(page.locator(".summary")).to_contain_text("The 12 nearest of 60 pictures")
    page.get_by_role("link", name="More like this").first.click()
    page.wait_for_url("**like=*")
    expect(page.get_by_text("marked for words alone")).to_be_visible()
    page.get_by_title("Change how much it counts").first.click()
    page.wait_for_url("**%5E2*")
    page.get_by_role("link", name="Less like this").nth(3).click()
    page.wait_for_url("**unlike=*")
    assert asked(page)["q"] == ["two black cats in a meadow^2"]
    page.get_by_title("Search without it").last.click()
    page.get_by_title("Search without it").last.click()
    expect(page.locator(".chip")).to_have_count(0)
    page.locator(".filters summary").click()
    page.get_by_label("Camera").fill("Drawn World Brush")
    page.get_by_role("button", name="Apply").click()
    page.wait_for_url("**camera=*")
    expect(page.locator(".card")).to_have_count(1)
    page.get_by_title("Search without it").click()


def test_a_walk_by_mouse_from_a_count_to_a_picture_and_its_part(page):
    page.goto("/?q=two+black+cats+in+a+meadow")
    page.locator(".narrow summary").click()
    page.locator(".facets a", has_text="Drawn World Brush").click()
    page.wait_for_url("**camera=*")
    page.locator(".grid .view").first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("black cats")
    page.locator(".fact", has_text="summer day").click()
    page.wait_for_url("**tag=summer*")
    page.go_back()
    page.get_by_text("Search with a part of it").click()
    cut = page.locator(".cut img").bounding_box()
    page.mouse.move(cut["x"] + 5, cut["y"] + 5)
    page.mouse.down()
    page.mouse.move(cut["x"] + cut["width"] / 2, cut["y"] + cut["height"] / 2, steps=4)
    page.mouse.up()
    page.get_by_role("button", name="Search with this part").click()
    page.wait_for_url("**vector=*")
    assert asked(page)["camera"] == ["Drawn World Brush"]
    page.goto("/?sort=newest")
    page.locator(".narrow summary").click()
    page.locator(".facets a", has_text="summer day").click()
    page.wait_for_url("**tag=*")
    expect(page.locator(".card")).to_have_count(2)
    page.goto("/")
    show(page, "drop", jpeg(UNSEEN))
    expect(page.get_by_role("heading", name="Pictures like yours")).to_be_visible()
    expect(page.locator("#yours")).to_be_visible()
    page.get_by_role("button", name="Use the dark look").click()
    assert page.locator("html").get_attribute("data-look") == "dark"
    # Scrolling down to it brings more pictures, which move it away from where a click would fall.
    page.get_by_role("button", name="Deutsch").press("Enter")
    expect(page.get_by_role("heading", name="Bilder wie Ihres")).to_be_visible()
    assert is_whole(page)


def reach(page: Page, wanted: Locator) -> None:
    """Press Tab until `wanted` has the focus."""
    for _ in range(60):
        if wanted.evaluate("element => element === document.activeElement"):
            return
        page.keyboard.press("Tab")
    pytest.fail(f"{wanted} cannot be reached with the keyboard")


def test_a_walk_by_keyboard_alone_through_a_question(page):
    page.goto("/")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    page.keyboard.type("a yellow car in the city")
    page.keyboard.press("Enter")
    expect(page.locator(".grid .name").first).to_contain_text("yellow car")
    reach(page, page.locator(".filters summary"))
    page.keyboard.press("Enter")
    reach(page, page.get_by_label("But not"))
    page.keyboard.type("a blue house")
    page.keyboard.press("Enter")
    page.wait_for_url("**minus=*")
    links = page.locator(".grid .view")
    reach(page, page.get_by_title("Search without it").last)
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: "minus" not in url)
    reach(page, links.first)
    page.keyboard.press("ArrowRight")
    expect(links.nth(1)).to_be_focused()
    page.keyboard.press("x")
    expect(page.locator("#chosen")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#chosen")).to_be_hidden()


def test_a_walk_by_keyboard_alone_through_pictures(page, gallery):
    page.goto("/?q=a+yellow+car+in+the+city")
    links = page.locator(".grid .view")
    reach(page, links.first)
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/images/{gallery.ids['car']}?**")
    page.keyboard.press("f")
    expect(page.locator(".viewer")).to_be_visible()
    page.keyboard.press("+")
    expect(page.locator(".viewer")).to_have_class(re.compile("zoomed"))
    page.keyboard.press("n")
    page.wait_for_url(lambda url: gallery.ids["car"] not in url)
    with page.expect_event("load"):  # the page of the other picture, whose keys are wanted next
        page.keyboard.press("Escape")
    expect(page.locator(".viewer")).to_be_hidden()
    page.keyboard.press("ArrowLeft")
    page.wait_for_url(f"**/images/{gallery.ids['car']}?**")
    reach(page, page.get_by_role("link", name="Less like this", exact=True))
    page.keyboard.press("Enter")
    page.wait_for_url("**unlike=*")
    page.go_back()
    page.keyboard.press("b")
    expect(links.first).to_be_focused()
    box = box_of(page)
    page.keyboard.press("/")
    page.keyboard.press("Backspace")
    page.keyboard.type("summer da")
    expect(page.get_by_role("option", name="summer day keyword")).to_be_visible()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url("**tag=summer*")
    expect(box).to_be_visible()


TARGETS = """() => [
    ...document.querySelectorAll("a, button, select, summary, textarea, .pick, .pick-box, .tick"),
    ...document.querySelectorAll("input:not([type=hidden])"),
  ]
  .filter((each) => each.checkVisibility({ visibilityProperty: true }))
  .filter((each) => !each.closest("[hidden], p:not(.acts, .pages)"))
  .filter((each) => !(each.matches("input") && each.closest(".pick-box, .tick")))
  .map((each) => [each, each.getBoundingClientRect()])
  .filter(([, { width, height }]) => width > 2 && height > 2 && (width < 43.5 || height < 43.5))
  .map(([each, { width, height }]) => `${each.outerHTML.slice(0, 90)} ${width} × ${height}`)"""
"""what can be touched, except links in sentences, and is smaller than a finger"""


@pytest.mark.parametrize("page", [PHONE], indirect=True)
def test_a_walk_on_a_phone(page, gallery):
    car = gallery.ids["car"]
    for path in (
        "/",
        f"/?q=a+car&like={car}&camera=x",
        "/?q=a+car",
        f"/images/{car}?q=a+car",
        "/?sort=name",
        "/docs",
    ):
        page.goto(path)
        for fold in page.locator("main details").all():
            fold.evaluate("each => { each.open = true; }")
        expect(page.locator(".narrow > p:has(a)")).to_have_count(0)  # the counts are there
        assert is_whole(page)
        assert page.evaluate(TARGETS) == []
    page.goto("/")
    box_of(page).fill("a yellow car in the city")
    page.locator(".go").click()
    expect(page.locator(".grid .name").first).to_contain_text("yellow car")
    first, second = (page.locator(".card").nth(number).bounding_box() for number in (0, 1))
    assert first["y"] == second["y"]  # side by side
    page.locator(".card").nth(11).scroll_into_view_if_needed()
    expect(page.locator(".card").nth(12)).to_be_attached()
    page.locator(".pick-box").nth(1).click()
    expect(page.locator("#chosen")).to_be_visible()
    assert is_whole(page)
    page.get_by_role("button", name="Choose none").click()
    page.locator(".grid .view").first.click()
    page.locator(".sheet").click()
    expect(page.locator(".viewer")).to_be_visible()
    page.get_by_role("button", name="Close", exact=True).click()
    page.get_by_role("link", name="Back to the results").click()
    expect(page.locator(".grid .view").first).to_be_focused()
    page.locator("#picture").set_input_files(
        {"name": "x.jpg", "mimeType": "image/jpeg", "buffer": gallery.files["cats"]}
    )
    expect(page.locator(".chip")).to_have_count(2)  # the words, and the picture beside them
