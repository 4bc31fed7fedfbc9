"""Correcting a caption in a real Chromium: saved without leaving the page, and refused in words."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from browsers import PATIENCE_MS, launched
from http_fronts import serving
from playwright.sync_api import expect, sync_playwright

from search_app.core.query import Query
from search_app.core.searcher import SearchService
from search_app.settings import AppSettings
from search_app.web.app import create_app


@pytest.fixture
def page(own_gallery) -> Iterator:
    """A visitor's page. Any complaint of the browser fails the test at its end."""
    app = create_app(
        service=SearchService(own_gallery.searcher), storage=own_gallery.storage, settings=AppSettings()
    )
    with serving(app) as url, sync_playwright() as playwright:
        browser = launched(playwright)
        visitor = browser.new_page(base_url=url)
        visitor.set_default_timeout(PATIENCE_MS)
        complaints: list[str] = []
        visitor.on("pageerror", lambda error: complaints.append(str(error)))
        yield visitor
        browser.close()
    assert complaints == []


def test_a_caption_is_corrected_without_leaving_the_page(page, own_gallery):
    image_id = own_gallery.ids["other7"]
    page.goto(f"/images/{image_id}?q=a+tree")
    expect(page.locator("#by")).to_have_text("No caption yet; this is the file's name.")
    page.get_by_text("Write a caption").click()
    page.get_by_label("What the picture shows").fill("  Uncle's <first> $& zeppelin ")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status").filter(has_text="Saved")).to_have_text("Saved: searches find it now.")
    expect(page.get_by_role("heading", level=1)).to_have_text("Uncle's <first> $& zeppelin")
    expect(page).to_have_title("Uncle's <first> $& zeppelin – Glimpse")
    expect(page.locator("#by")).to_have_text("Caption written by a person")
    expect(page.locator(".frame img")).to_have_attribute("alt", "Uncle's <first> $& zeppelin")
    assert "?q=a+tree" in page.url
    found = own_gallery.searcher.search(Query(text="zeppelin", mode="hybrid", k=60)).hits
    assert next(hit.why for hit in found if hit.image_id == image_id).endswith("caption words: zeppelin")
    page.get_by_label("What the picture shows").fill(" \n ")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#saved")).to_contain_text("The caption is empty")
    assert own_gallery.searcher.picture(image_id)["caption"] == "Uncle's <first> $& zeppelin"
