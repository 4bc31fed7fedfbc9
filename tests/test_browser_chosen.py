"""Choosing several pictures in real browsers: by mouse and by keys, hiding with an undo, downloads."""

from __future__ import annotations

import zipfile

import pytest
from browsers import BROWSERS, PATIENCE_MS
from http_fronts import serving
from playwright.sync_api import expect, sync_playwright
from test_hiding import NAMES, library

__all__ = ["library"]


def mark_and_find_a_favourite(page, cards) -> None:
    """Mark the first picture by its star, follow the link to it, and take the mark back by a key."""
    star = cards.first.locator(".star")
    with page.expect_response(lambda answer: answer.url.endswith("/favourite")) as marked:
        star.click()
    assert marked.value.ok
    expect(star).to_have_attribute("aria-pressed", "true")
    page.goto("/")
    page.get_by_role("link", name="Favourites 1").click()
    expect(cards).to_have_count(1)
    expect(star).to_have_attribute("aria-pressed", "true")
    star.focus()
    with page.expect_response(lambda answer: answer.url.endswith("/favourite")):
        page.keyboard.press("Enter")
    expect(star).to_have_attribute("aria-pressed", "false")
    page.goto("/?sort=name")
    expect(star).to_have_attribute("aria-pressed", "false")


@pytest.mark.parametrize(("kind", "width"), [("chromium", 1280), ("firefox", 360)])
def test_pictures_are_chosen_hidden_and_taken_back_without_leaving_the_page(library, kind, width, tmp_path):
    with serving(library.app()) as url, sync_playwright() as playwright:
        browser = BROWSERS[kind](playwright)
        page = browser.new_page(base_url=url, viewport={"width": width, "height": 800})
        page.set_default_timeout(PATIENCE_MS)
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto("/?sort=name")
        boxes, chosen = page.locator("input[form=chosen]"), page.locator("input[form=chosen]:checked")
        bar, cards = page.locator("#chosen"), page.locator(".card:visible")
        expect(bar).to_be_hidden()
        boxes.nth(0).click()
        boxes.nth(2).click(modifiers=["Shift"])
        expect(chosen).to_have_count(3)
        expect(bar.locator(".how-many")).to_have_text("3 pictures chosen")
        bar.get_by_label("Keyword", exact=True).fill("from the bar")
        bar.get_by_role("button", name="Add keyword").click()
        expect(bar.locator(".outcome")).to_have_text("“from the bar” added to 3 pictures.")
        with page.expect_download() as download:
            bar.get_by_role("button", name="Download").click()
        download.value.save_as(tmp_path / "pictures.zip")
        assert len(zipfile.ZipFile(tmp_path / "pictures.zip").namelist()) == 3
        bar.get_by_role("button", name="Hide").click()
        expect(bar.locator(".outcome")).to_have_text("3 pictures hidden.")
        expect(cards).to_have_count(1)
        assert len(library.ids()) == 1
        undo = bar.get_by_role("button", name="Undo")
        expect(undo).to_be_focused()
        page.keyboard.press("Enter")
        expect(bar.locator(".outcome")).to_have_text("3 pictures are back.")
        expect(cards).to_have_count(4)
        assert set(library.ids()) == set(NAMES)
        cards.first.locator(".view").focus()
        page.keyboard.press("x")
        expect(chosen).to_have_count(1)
        page.keyboard.press("Control+a")
        expect(chosen).to_have_count(4)
        page.keyboard.press("Escape")
        expect(chosen).to_have_count(0)
        expect(bar).to_be_hidden()
        mark_and_find_a_favourite(page, cards)
        cards.first.locator(".view").click()
        page.get_by_role("button", name="Hide", exact=True).click()
        expect(page.locator("#put-away .outcome")).to_have_text("Hidden: no search finds it.")
        assert len(library.ids()) == 3
        page.locator("#put-away").get_by_role("button", name="Undo").click()
        expect(page.locator("#put-away .outcome")).to_have_text("It is back.")
        assert len(library.ids()) == 4
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        browser.close()
    assert complaints == []
