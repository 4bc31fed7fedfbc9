"""Speaking to the page in a real Chromium whose microphone plays a recording."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import recordings
from browsers import PATIENCE_MS, launched
from http_fronts import serving
from playwright.sync_api import Browser, Page, Playwright, expect, sync_playwright
from test_browser import first_name

from models.encoders import Lazy
from models.profiles import get_profile
from models.voice import load_transcriber
from search_app.core.searcher import SearchService
from search_app.settings import AppSettings
from search_app.web.app import create_app

FAKE = "--use-fake-device-for-media-stream --use-fake-ui-for-media-stream"
SENTENCE = "two black cats in a meadow"
CANCEL_WHEN_WRITTEN = """() => {
  const before = document.getElementById("q").value;
  const timer = setInterval(() => {
    if (document.getElementById("q").value === before) return;
    clearInterval(timer);
    window.written = document.getElementById("q").value;
    document.querySelector(".voice button").click();
  }, 10);
}"""
MISSING = "navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', 'NotFoundError'))"
TOUCH_WHEN_SHOWN = """() => {
  const button = document.querySelector(".mic");
  const field = document.getElementById("q");
  new MutationObserver(() => {
    const touch = new PointerEvent("pointerdown", { bubbles: true });
    if (button.dataset.state === "shown") field.dispatchEvent(touch);
  }).observe(button, { attributes: true });
}"""


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """The file that the browser's microphone plays, from its beginning whenever it is opened."""
    return tmp_path_factory.mktemp("microphone") / "clip.wav"


@pytest.fixture
def play(clip) -> Callable[..., None]:
    """Put something before the microphone."""

    def put(*parts: np.ndarray) -> None:
        clip.write_bytes(recordings.packed(np.concatenate([recordings.silence(0.4), *parts]), rate=48_000))

    return put


@pytest.fixture(scope="module")
def browser(playwright, clip) -> Iterator[Browser]:
    started = launched(playwright, *FAKE.split(), f"--use-file-for-fake-audio-capture={clip}%noloop")
    yield started
    started.close()


@pytest.fixture(scope="module")
def address(gallery) -> Iterator[str]:
    """The page with a microphone, under the production server."""
    transcriber = load_transcriber(get_profile("pocket").voice_model)
    transcriber.warm()
    app = create_app(
        service=SearchService(gallery.searcher),
        storage=gallery.storage,
        settings=AppSettings(),
        transcriber=lambda: Lazy(lambda: transcriber),
    )
    with serving(app) as url:
        yield url


@pytest.fixture
def page(browser, address, request) -> Iterator[Page]:
    """A fresh visitor's page. Any complaint of the browser fails the test at its end."""
    context = browser.new_context(base_url=address, **getattr(request, "param", {}))
    context.set_default_timeout(PATIENCE_MS)
    opened = context.new_page()
    complaints: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text) if message.type != "log" else None)
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    yield opened
    context.close()
    assert complaints == []


def microphone(page: Page):
    """Locate the button."""
    return page.get_by_role("button", name="Speak your search")


def expect_state(page: Page, state: str) -> None:
    """Wait until the button is in a state."""
    expect(page.locator(".mic")).to_have_attribute("data-state", state)


def more() -> list[np.ndarray]:
    """Return speech that follows a sentence, so that the recording goes on while the page is looked at."""
    return [recordings.spoken("under a cloudy sky")] * 3


def long_enough(page: Page) -> None:
    """Wait until the sentence has been spoken, by the recording's own clock."""
    expect(page.locator(".voice .clock")).to_have_text(re.compile("0:(0[3-9]|[12])"))


def said(page: Page):
    """Locate the line that is read out."""
    return page.locator("#said")


@pytest.mark.parametrize(
    ("text", "voice", "shown"),
    [
        (SENTENCE, "en-us+f3", ("English", "black cats")),
        ("ein blaues Haus in der Wüste", "de+f3", ("German", "blue house")),
    ],
)
def test_a_spoken_sentence_finds_its_picture_first(page, play, text, voice, shown):
    play(recordings.spoken(text, voice=voice))
    page.goto("/")
    microphone(page).click()
    page.wait_for_url("**/?q=*")
    expect(first_name(page)).to_contain_text(shown[1])
    assert parse_qs(urlsplit(page.url).query) == {"q": [text]}
    expect(page.locator("#q")).to_have_value(text)
    expect(page.locator("#q")).to_have_attribute("lang", voice[:2])
    expect(said(page)).to_contain_text(f"Heard in {shown[0]}: “{text}”. Not what you said?")


def test_while_it_listens_the_level_and_the_time_are_shown(page, play):
    play(*[recordings.spoken(SENTENCE, speed=120)] * 6)
    page.goto("/")
    expect(page.locator(".voice")).to_be_hidden()
    microphone(page).click()
    expect_state(page, "listening")
    expect(said(page)).to_have_text("Listening. Speak now.")
    expect(microphone(page)).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".voice .clock")).to_have_text(re.compile("0:(0[1-9]|[12])"))
    painted = (
        "canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some(Boolean)"
    )
    assert page.locator(".voice canvas").evaluate(painted)
    page.keyboard.press("Escape")
    expect_state(page, "idle")
    expect(page.locator(".voice")).to_be_hidden()
    expect(page.locator("#q")).to_have_value("")


def test_push_to_talk_searches_as_soon_as_the_button_is_let_go(page, play):
    play(recordings.spoken(SENTENCE), *more())
    page.goto("/")
    microphone(page).hover()
    page.mouse.down()
    expect_state(page, "listening")
    long_enough(page)
    page.mouse.up()
    page.wait_for_url("**/?q=two+black+cats*")
    expect(first_name(page)).to_contain_text("black cats")


def test_the_keyboard_begins_and_ends(page, play):
    play(recordings.spoken(SENTENCE), *more())
    page.goto("/?q=a+cat")
    microphone(page).focus()
    page.keyboard.press("Enter")
    expect_state(page, "listening")
    assert microphone(page).evaluate("button => getComputedStyle(button).outlineStyle") == "solid"
    long_enough(page)
    page.keyboard.press(" ")
    page.wait_for_url("**/?q=two+black+cats*")
    expect(first_name(page)).to_contain_text("black cats")


def test_holding_a_key_is_push_to_talk_too(page, play):
    play(recordings.spoken(SENTENCE), *more())
    page.goto("/")
    microphone(page).focus()
    page.keyboard.down(" ")
    expect_state(page, "listening")
    long_enough(page)
    page.keyboard.up(" ")
    page.wait_for_url("**/?q=two+black+cats*")


def test_whoever_touches_the_transcript_changes_it_before_the_search(page, play):
    play(recordings.spoken(SENTENCE))
    page.goto("/")
    page.evaluate(TOUCH_WHEN_SHOWN)
    microphone(page).click()
    expect(said(page)).to_have_text("Change the words, then press Enter to search.")
    field = page.locator("#q")
    expect(field).to_have_value(SENTENCE)
    page.wait_for_timeout(1000)
    assert urlsplit(page.url).query == ""
    field.fill("a blue house in the desert")
    page.keyboard.press("Enter")
    expect(first_name(page)).to_contain_text("blue house")


def test_typing_wins_over_speaking(page, play):
    play(*[recordings.spoken(SENTENCE)] * 6)
    page.goto("/")
    microphone(page).click()
    expect_state(page, "listening")
    page.locator("#q").press_sequentially("a yellow car")
    expect_state(page, "idle")
    page.keyboard.press("Enter")
    expect(first_name(page)).to_contain_text("yellow car")


def test_cancel_keeps_the_words_that_were_there(page, play):
    play(recordings.spoken(SENTENCE))
    page.goto("/?q=a+cat")
    page.evaluate(CANCEL_WHEN_WRITTEN)
    microphone(page).click()
    expect(microphone(page)).to_be_focused()
    page.wait_for_function("() => window.written")
    expect_state(page, "idle")
    expect(page.locator("#q")).to_have_value("a cat")
    page.wait_for_timeout(1000)
    assert urlsplit(page.url).query == "q=a+cat"


def test_where_nobody_speaks_it_stops_by_itself_and_nothing_is_searched(page, play):
    rng = np.random.default_rng(2)
    play((0.01 * rng.standard_normal(12 * 16_000)).astype(np.float32))
    page.goto("/")
    microphone(page).click()
    expect(said(page)).to_contain_text("Nothing was heard")
    expect_state(page, "idle")
    assert urlsplit(page.url).query == ""


@pytest.mark.parametrize(
    "page", [{"viewport": {"width": 390, "height": 800}, "has_touch": True}], indirect=True
)
def test_a_finger_on_a_narrow_screen_speaks_too_and_nothing_is_cut_off(page, play):
    play(recordings.spoken(SENTENCE), *more())
    page.goto("/")
    microphone(page).tap()
    expect_state(page, "listening")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    box = page.locator(".voice").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390
    page.wait_for_url("**/?q=two+black+cats*")


@pytest.mark.parametrize("page", [{"java_script_enabled": False}], indirect=True)
def test_without_javascript_there_is_no_microphone_to_press(page):
    page.goto("/")
    expect(page.locator(".mic")).to_be_hidden()


def refused(browser: Browser, address: str, sentence: str, *, script: str | None = None) -> None:
    """Press the microphone and expect a sentence, then search by typing."""
    context = browser.new_context(base_url=address)
    context.set_default_timeout(PATIENCE_MS)
    opened = context.new_page()
    if script:
        opened.add_init_script(script)
    opened.goto("/")
    microphone(opened).click()
    expect(said(opened)).to_contain_text(sentence)
    expect_state(opened, "idle")
    opened.locator("#q").fill("a yellow car in the city")
    opened.keyboard.press("Enter")
    expect(first_name(opened)).to_contain_text("yellow car")
    context.close()


def test_a_browser_without_a_recorder_is_told(browser, address):
    refused(browser, address, "This browser cannot record sound", script="delete window.MediaRecorder")


def test_an_address_without_https_is_told(playwright, address):
    port = urlsplit(address).port
    browser = launched(playwright, *FAKE.split(), "--host-resolver-rules=MAP pictures.example 127.0.0.1")
    refused(browser, f"http://pictures.example:{port}", "works over HTTPS or on this computer itself")
    browser.close()


def test_a_refused_permission_is_told(playwright, address):
    browser = launched(playwright, "--use-fake-device-for-media-stream")
    refused(browser, address, "The microphone is blocked for this page")
    browser.close()


def test_a_missing_microphone_is_told(browser, address):
    refused(browser, address, "No microphone was found", script=MISSING)


def test_a_server_that_has_gone_away_is_told_and_the_page_stays(browser, address, play):
    play(recordings.spoken(SENTENCE))
    context = browser.new_context(base_url=address)
    context.set_default_timeout(PATIENCE_MS)
    opened = context.new_page()
    opened.goto("/")
    opened.route("**/transcribe", lambda route: route.abort())
    microphone(opened).click()
    expect(said(opened)).to_contain_text("The server does not answer")
    expect_state(opened, "idle")
    opened.unroute("**/transcribe")
    microphone(opened).click()
    opened.wait_for_url("**/?q=two+black+cats*")
    context.close()
