"""Rows of results and the viewer in a real Chromium: by mouse, by keyboard alone, and on a phone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing

import pytest
from browsers import PATIENCE_MS, launched
from film_files import save_film
from http_fronts import serving
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from ingest.files.walk import Candidate, stamp_of
from ingest.history.ingested_files import HISTORY_FILE, IngestHistory
from ingest.originals import IngestedOriginals
from search_app.core.searcher import SearchService
from search_app.settings import AppSettings
from search_app.web.app import create_app

PAGE_SIZE = 12
WATCH = """
  window.shifted = 0;
  new PerformanceObserver((list) => {
    for (const each of list.getEntries()) if (!each.hadRecentInput) window.shifted += each.value;
  }).observe({ type: "layout-shift", buffered: true });
"""
ZOOM = "document.querySelector('.stage img').getBoundingClientRect().width"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = launched(playwright)
        yield started
        started.close()


@pytest.fixture(scope="module")
def address(gallery) -> Iterator[str]:
    settings = AppSettings(page_size=PAGE_SIZE)
    app = create_app(service=SearchService(gallery.searcher), storage=gallery.storage, settings=settings)
    with serving(app) as url:
        yield url


@pytest.fixture
def page(browser: Browser, address: str, request: pytest.FixtureRequest) -> Iterator[Page]:
    context = browser.new_context(base_url=address, **getattr(request, "param", {}))
    context.set_default_timeout(PATIENCE_MS)
    context.add_init_script(WATCH)
    opened = context.new_page()
    complaints: list[str] = []
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    yield opened
    context.close()
    assert complaints == []


def order_of(page: Page) -> list[str]:
    return page.locator("#found > .grid > .card").evaluate_all(
        "cards => cards.map((card) => card.dataset.id)"
    )


def picture_of(page: Page) -> str:
    return re.search(r"/images/([0-9a-f]{64})", page.url)[1]


def test_a_page_takes_few_requests_and_bytes_before_its_pictures(page):
    taken: dict[str, int] = {}
    client = page.context.new_cdp_session(page)
    client.send("Network.enable")
    client.send("Emulation.setCPUThrottlingRate", {"rate": 4})  # a slow machine paints before all is here
    urls: dict[str, str] = {}
    client.on(
        "Network.responseReceived", lambda event: urls.update({event["requestId"]: event["response"]["url"]})
    )
    client.on(
        "Network.loadingFinished",
        lambda event: taken.update({urls[event["requestId"]]: event["encodedDataLength"]}),
    )
    page.goto("/", wait_until="networkidle")
    before = {url: size for url, size in taken.items() if "/thumbnail" not in url}
    assert len(before) <= 12
    assert sum(before.values()) <= 120_000
    taken.clear()
    page.goto("/?q=a+cat", wait_until="networkidle")
    (results,) = (size for url, size in taken.items() if url.endswith("/?q=a+cat"))
    assert results <= 12_000
    assert page.evaluate("shifted") < 0.02


def test_the_viewer_goes_on_through_the_results_and_the_way_back_leads_to_the_same_place(page):
    page.goto("/?q=a+cat")
    cards = page.locator("#found > .grid > .card")
    cards.nth(PAGE_SIZE - 1).scroll_into_view_if_needed()
    expect(cards.nth(PAGE_SIZE)).to_be_attached()  # came by itself
    order = order_of(page)
    assert len(set(order)) == len(order)
    opened = page.locator(f'.card[data-id="{order[PAGE_SIZE - 1]}"] .view')
    opened.click()
    page.wait_for_url("**/images/**")
    assert picture_of(page) == order[PAGE_SIZE - 1]
    page.locator(".sheet").click()
    expect(page.locator(".viewer")).to_be_visible()
    small = page.evaluate(ZOOM)
    page.mouse.move(600, 300)
    page.mouse.wheel(0, -600)
    assert page.evaluate(ZOOM) > 1.5 * small
    page.locator(".stage").dblclick()
    assert page.evaluate(ZOOM) == pytest.approx(small, abs=1)
    page.get_by_role("button", name="Next picture").click()  # the first of the next page
    page.wait_for_url(f"**/images/{order[PAGE_SIZE]}?**")
    page.keyboard.press("ArrowLeft")
    page.wait_for_url(f"**/images/{order[PAGE_SIZE - 1]}?**")
    page.keyboard.press("n")
    page.wait_for_url(f"**/images/{order[PAGE_SIZE]}?**")
    page.keyboard.press("+")
    expect(page.locator(".viewer")).to_have_class(re.compile("zoomed"))
    page.keyboard.press("s")
    expect(page.get_by_role("button", name="Slideshow")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("Escape")
    expect(page.locator(".viewer")).to_be_hidden()
    expect(page.locator(f'.detail[data-small*="{order[PAGE_SIZE]}"]')).to_be_visible()
    page.get_by_role("link", name="Back to the results").click()
    looked_at = page.locator(f'.card[data-id="{order[PAGE_SIZE]}"] .view')
    expect(looked_at).to_be_focused()
    expect(looked_at).to_be_in_viewport()
    assert order_of(page)[: len(order)] == order


def test_the_keys_and_a_phone_turn_the_pages_of_pictures(page):
    page.goto("/?q=a+cat")
    order = order_of(page)
    page.get_by_role("button", name="Small pictures").click()
    assert page.locator("html").get_attribute("data-density") == "small"
    page.locator(".grid .view").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/images/**")
    page.keyboard.press("ArrowRight")
    page.wait_for_url(f"**/images/{order[1]}?**")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("dialog.keys")).to_be_hidden()
    page.locator("dialog.keys button").dispatch_event("keydown", {"key": "f"})  # it may have the focus still
    expect(page.locator(".viewer")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator(".sheet")).to_be_focused()
    page.keyboard.press("f")
    expect(page.locator(".viewer")).to_be_visible()
    page.keyboard.press("f")
    page.wait_for_function("document.fullscreenElement !== null")
    page.keyboard.press("f")
    page.wait_for_function("document.fullscreenElement === null")
    page.keyboard.press("Escape")
    expect(page.locator(".sheet")).to_be_focused()
    page.keyboard.press("b")
    expect(page.locator(".grid .view").nth(1)).to_be_focused()
    assert page.locator("html").get_attribute("data-density") == "small"  # remembered
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(f"/images/{order[0]}?q=a+cat")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    swipe = """([from, to]) => {
      const stage = document.querySelector(".stage");
      const finger = { pointerId: 1, pointerType: "touch", button: 0, clientY: 300, bubbles: true };
      const send = (type, clientX) => stage.dispatchEvent(new PointerEvent(type, { ...finger, clientX }));
      stage.setPointerCapture = () => {};
      send("pointerdown", from); send("pointermove", to); send("pointerup", to);
    }"""
    page.locator(".sheet").click()
    page.evaluate(swipe, [300, 60])
    page.wait_for_url(f"**/images/{order[1]}?**")


def test_the_film_of_a_live_photo_plays_on_its_page_and_in_the_viewer(browser, gallery, tmp_path):
    index, still = gallery.searcher.index, tmp_path / "pictures/named/boat.jpg"
    still.parent.mkdir(parents=True)
    still.write_bytes(gallery.files["boat"])
    save_film(still.with_suffix(".mp4"), [(Image.new("RGB", (64, 64), "red"), 2)], codec="libvpx-vp9")
    with closing(IngestHistory(tmp_path / HISTORY_FILE, index=index.uuid())) as history:
        history.record_ok(Candidate(still, "named/boat.jpg", stamp_of(still)), gallery.ids["boat"])
    app = create_app(
        service=SearchService(gallery.searcher),
        storage=gallery.storage,
        settings=AppSettings(),
        originals=IngestedOriginals(tmp_path / HISTORY_FILE, lambda: index),
    )
    moves = "video => video.videoWidth === 64 && video.currentTime > 0 && !video.paused"
    with serving(app) as url:
        page = browser.new_page(base_url=url)
        page.set_default_timeout(PATIENCE_MS)
        page.goto(f"/images/{gallery.ids['boat']}?q=a+boat")
        page.locator(".live summary").click()
        player = page.locator(".live video")
        page.wait_for_function(moves, arg=player.element_handle())
        page.keyboard.press("v")
        expect(player).to_be_hidden()
        page.wait_for_function("video => video.paused", arg=player.element_handle())
        page.locator(".sheet").click()
        button = page.locator(".viewer").get_by_role("button", name="Play the film")
        button.click()
        shown = page.locator(".stage video")
        page.wait_for_function(moves, arg=shown.element_handle())
        assert page.evaluate("document.elementFromPoint(innerWidth / 2, innerHeight / 2).tagName") == "VIDEO"
        expect(button).to_have_attribute("aria-pressed", "true")
        button.click()  # it is not covered
        expect(shown).to_have_count(0)
        expect(button).to_have_attribute("aria-pressed", "false")
        page.goto(f"/images/{gallery.ids['car']}")
        page.locator(".sheet").click()
        expect(page.locator(".viewer")).to_be_visible()
        expect(button).to_be_hidden()
        page.close()
